//! Amazon S3: locations of objects, and downloads of objects that fit in memory.

use super::{AwsRequest, endpoint, region, upstream_error};
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::time::{Duration, Instant};
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Maximum size of an object that is read into memory, in bytes.
pub const MAX_OBJECT_BYTES: u64 = 1 << 29;
/// Maximum attempts per request, if S3 is busy or fails.
pub(super) const MAX_ATTEMPTS: u32 = 4;
/// Delay before the second attempt; doubled before each further one.
pub(super) const BASE_DELAY: Duration = Duration::from_millis(100);
/// Characters that S3 encodes in a path.
pub(crate) const PATH_CHARACTERS: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A bucket and a key. Both were validated, so that they cannot change the meaning of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Location {
    bucket: String,
    key: String,
}

impl S3Location {
    /// Parses `s3://BUCKET/KEY`. The URI must begin with one of the prefixes `allowed`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] of the field `field`.
    pub fn parse(uri: &str, allowed: &[String], field: &str) -> Result<Self> {
        let invalid =
            |rule: &str| Error::invalid_value(field, format!("{field} is {:?}; {rule}", truncate_for_display(uri)));
        let parts = uri.strip_prefix("s3://").and_then(|path| path.split_once('/'));
        let (bucket, key) = parts.filter(|(bucket, key)| is_bucket(bucket) && !key.is_empty()).ok_or_else(|| {
            invalid("expected s3://BUCKET/KEY, with a bucket of 3 to 63 lowercase letters, digits, dots and hyphens")
        })?;
        if key.split('/').any(|part| part == "." || part == "..") {
            return Err(invalid("a path with \".\" or \"..\" is not supported"));
        }
        if !allowed.iter().any(|prefix| uri.starts_with(prefix)) {
            return Err(invalid("expected one of the prefixes in TEALIGHT_S3_PREFIXES"));
        }
        Ok(Self { bucket: bucket.into(), key: key.into() })
    }

    /// A location that an event names. The permissions of the function's role limit what can be read.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] of `bucket`: the bucket's name is invalid, or the key is empty.
    pub fn new(bucket: &str, key: &str) -> Result<Self> {
        if !is_bucket(bucket) || key.is_empty() {
            let (bucket, key) = (truncate_for_display(bucket), truncate_for_display(key));
            let message = format!("bucket {bucket:?} with key {key:?} is not an S3 location");
            return Err(Error::invalid_value("bucket", message));
        }
        Ok(Self { bucket: bucket.into(), key: key.into() })
    }

    /// Name of the bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Key of the object in the bucket.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// `s3://BUCKET/KEY`.
    pub fn uri(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }

    /// Sends a request for the object. The response may have any status.
    pub(super) fn request(
        &self,
        method: Method,
        region: &str,
        headers: &[(&'static str, &str)],
        timeout: Duration,
    ) -> Result<Response<ureq::Body>> {
        let key = utf8_percent_encode(&self.key, PATH_CHARACTERS);
        let url = format!("{}/{}/{key}", endpoint("s3", region), self.bucket);
        AwsRequest { service: "s3", region, method, url: &url, headers, body: b"" }.send(timeout)
    }

    /// Downloads the object. Follows the bucket to its region, and retries if S3 is busy.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] of the field `field`: the object does not exist or access is denied; [`ErrorKind::Upstream`];
    /// [`ErrorKind::BodyTooLarge`]; [`ErrorKind::Timeout`].
    pub fn get(&self, timeout: Duration, field: &str) -> Result<Bytes> {
        let (end, mut delay, mut region) = (Instant::now() + timeout, BASE_DELAY, region()?);
        for attempt in 1.. {
            match self.try_get(&region, end, field) {
                Ok(Download::Bytes(bytes)) => return Ok(bytes),
                Ok(Download::OtherRegion(other)) if attempt < MAX_ATTEMPTS && other != region => region = other,
                Ok(Download::OtherRegion(other)) => {
                    return Err(self.with_location(upstream_error(format_args!("bucket is in region {other}"))));
                }
                Err(error) if attempt < MAX_ATTEMPTS && error.kind == ErrorKind::Upstream => {
                    std::thread::sleep(delay.min(end.saturating_duration_since(Instant::now())));
                    delay *= 2;
                }
                Err(error) => return Err(self.with_location(error)),
            }
        }
        Err(Error::internal("no attempt was made"))
    }

    /// Adds the location to an error message.
    pub(super) fn with_location(&self, error: Error) -> Error {
        error.with_context(format_args!(
            "s3://{}/{}",
            truncate_for_display(&self.bucket),
            truncate_for_display(&self.key)
        ))
    }

    fn try_get(&self, region: &str, end: Instant, field: &str) -> Result<Download> {
        let remaining = end.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return Err(Error::new(ErrorKind::Timeout, "deadline exceeded while reading the object"));
        }
        let mut response = self.request(Method::GET, region, &[], remaining)?;
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(String::from);
        let (status, length, elsewhere) = (response.status(), header("content-length"), header("x-amz-bucket-region"));
        let body = response.body_mut();
        if status.is_success() {
            if let Some(length) = length.and_then(|l| l.parse::<u64>().ok()).filter(|l| *l > MAX_OBJECT_BYTES) {
                return Err(Error::new(
                    ErrorKind::BodyTooLarge,
                    format!("object has {length} bytes; the limit is {MAX_OBJECT_BYTES}"),
                ));
            }
            return body
                .with_config()
                .limit(MAX_OBJECT_BYTES)
                .read_to_vec()
                .map(|b| Download::Bytes(b.into()))
                .map_err(upstream_error);
        }
        if let Some(elsewhere) = elsewhere.filter(|other| status.is_redirection() || other != region) {
            return Ok(Download::OtherRegion(elsewhere));
        }
        let message = error_message(&mut response);
        Err(match status {
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => Error::invalid_value(field, message),
            _ => upstream_error(message),
        })
    }
}

/// Status and error code of an error response.
pub(super) fn error_message(response: &mut Response<ureq::Body>) -> String {
    let status = response.status();
    let text = response.body_mut().read_to_string().unwrap_or_default();
    format!("S3 returned {status} {}", xml_element(&text, "Code").unwrap_or_default())
}

/// Text of the first element of this name; S3's responses need no full XML parser.
pub(crate) fn xml_element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, tail) = xml.split_once(&format!("<{name}>"))?;
    Some(tail.split_once(&format!("</{name}>"))?.0)
}

enum Download {
    Bytes(Bytes),
    /// The region that the bucket is in.
    OtherRegion(String),
}

/// Whether this is a valid bucket name, which cannot change the host or path of a URL.
pub(crate) fn is_bucket(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    (3..=63).contains(&name.len()) && name.chars().all(allowed) && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Validates prefixes `s3://BUCKET/PREFIX`. Adds a slash after a bucket without prefix, so that the names of other buckets do not
/// begin with it.
///
/// # Errors
/// Names the first invalid prefix.
pub fn parse_prefixes(list: &[String]) -> Result<Vec<String>, String> {
    let prefix = |text: &String| match text.strip_prefix("s3://").map(|path| path.split_once('/').unwrap_or((path, "")))
    {
        Some((bucket, key)) if is_bucket(bucket) => Ok(format!("s3://{bucket}/{key}")),
        _ => Err(format!("{text:?} is invalid; expected s3://BUCKET/PREFIX")),
    };
    list.iter().map(prefix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uri_outside_allowed_prefixes_is_rejected() {
        let list = ["s3://talks".to_string(), "s3://data/audio/".into()];
        let allowed = parse_prefixes(&list).unwrap();
        let object = S3Location::parse("s3://data/audio/a b+ü.mp3", &allowed, "uri").unwrap();
        assert_eq!(object, S3Location { bucket: "data".into(), key: "audio/a b+ü.mp3".into() });
        assert_eq!(utf8_percent_encode(&object.key, PATH_CHARACTERS).to_string(), "audio/a%20b%2B%C3%BC.mp3");
        assert!(S3Location::parse("s3://talks/x", &allowed, "uri").is_ok());
        let rejected = [
            "s3://data/other.mp3",
            "s3://talks-evil/x",
            "s3://data/audio/../x",
            "s3://talks/",
            "s3://talks",
            "talks/x",
            "https://talks/x",
            "s3://data@evil/audio/x",
            "S3://talks/x",
            "",
        ];
        for uri in rejected {
            let error = S3Location::parse(uri, &allowed, "uri").unwrap_err();
            assert!(error.kind == ErrorKind::InvalidValue && error.param.as_deref() == Some("uri"), "{uri}: {error:?}");
        }
        assert!(S3Location::parse("s3://talks/x", &[], "uri").is_err());
        for invalid in ["talks", "s3://", "s3://UPPER/x", "s3://a/x"] {
            assert!(parse_prefixes(&[invalid.to_string()]).is_err(), "{invalid}");
        }
    }
}
