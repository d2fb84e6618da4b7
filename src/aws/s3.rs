//! Objects of Amazon S3.

use super::{AwsRequest, endpoint, region, upstream_error};
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::time::{Duration, Instant};
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// The largest object that is read, in bytes: it is held in memory.
pub const MAX_OBJECT_BYTES: u64 = 1 << 29;
/// Times that a request is sent, where S3 is busy or fails.
pub(super) const ATTEMPTS: u32 = 4;
/// Before the second time; doubled before each other.
pub(super) const BASE_DELAY: Duration = Duration::from_millis(100);
/// What S3 leaves as it is in a path.
pub(crate) const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A bucket and a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Location {
    bucket: String,
    key: String,
}

impl S3Location {
    /// Of `s3://BUCKET/KEY`, if it begins with one of `allowed`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] of the field `field`.
    pub fn parse(uri: &str, allowed: &[String], field: &str) -> Result<Self> {
        let wrong =
            |what: &str| Error::invalid_value(field, format!("{field} is {:?}, {what}", truncate_for_display(uri)));
        let parts = uri.strip_prefix("s3://").and_then(|rest| rest.split_once('/'));
        let (bucket, key) = parts
            .filter(|(bucket, key)| is_bucket(bucket) && !key.is_empty())
            .ok_or_else(|| wrong("it must be s3://BUCKET/KEY"))?;
        if key.split('/').any(|part| part == "." || part == "..") {
            return Err(wrong("a key with \".\" or \"..\" in its path is not read"));
        }
        if !allowed.iter().any(|prefix| uri.starts_with(prefix)) {
            return Err(wrong("it must begin with a prefix that TEALIGHT_S3_PREFIXES lists"));
        }
        Ok(Self { bucket: bucket.into(), key: key.into() })
    }

    /// Of an event, which names no others than the function's role may read.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`]: the bucket or the key cannot be one.
    pub fn new(bucket: &str, key: &str) -> Result<Self> {
        match is_bucket(bucket) && !key.is_empty() {
            true => Ok(Self { bucket: bucket.into(), key: key.into() }),
            false => Err(Error::invalid_value(
                "bucket",
                format!("{:?} with {:?} is no object", truncate_for_display(bucket), truncate_for_display(key)),
            )),
        }
    }

    /// The bucket that it is in.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Its name there.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// `s3://BUCKET/KEY`.
    pub fn uri(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }

    /// The reply to a request for it, of any status.
    pub(super) fn request(
        &self,
        method: Method,
        region: &str,
        headers: &[(&'static str, &str)],
        time: Duration,
    ) -> Result<Response<ureq::Body>> {
        let key = utf8_percent_encode(&self.key, PATH);
        let url = format!("{}/{}/{key}", endpoint("s3", region), self.bucket);
        AwsRequest { service: "s3", region, method, url: &url, headers, body: b"" }.send(time)
    }

    /// Its bytes, within `time`.
    ///
    /// # Errors
    /// [`ErrorKind::Upstream`], with what S3 says; [`ErrorKind::InvalidValue`] of the field `field`, where the object is not there or may not
    /// be read; [`ErrorKind::BodyTooLarge`]; [`ErrorKind::Timeout`].
    pub fn get(&self, time: Duration, field: &str) -> Result<Bytes> {
        let (end, mut pause, mut region) = (Instant::now() + time, BASE_DELAY, region()?);
        for attempt in 1.. {
            match self.ask(&region, end, field) {
                Ok(Answer::Bytes(bytes)) => return Ok(bytes),
                Ok(Answer::In(other)) if attempt < ATTEMPTS && other != region => region = other,
                Ok(Answer::In(other)) => {
                    return Err(self.with_location(upstream_error(format_args!("it is in the region {other}"))));
                }
                Err(error) if attempt < ATTEMPTS && error.kind == ErrorKind::Upstream => {
                    std::thread::sleep(pause.min(end.saturating_duration_since(Instant::now())));
                    pause *= 2;
                }
                Err(error) => return Err(self.with_location(error)),
            }
        }
        Err(Error::internal("attempts ended"))
    }

    pub(super) fn with_location(&self, error: Error) -> Error {
        error.with_context(format_args!(
            "s3://{}/{}",
            truncate_for_display(&self.bucket),
            truncate_for_display(&self.key)
        ))
    }

    fn ask(&self, region: &str, end: Instant, field: &str) -> Result<Answer> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::new(ErrorKind::Timeout, "there is no time left to read it"));
        }
        let mut reply = self.request(Method::GET, region, &[], left)?;
        let header = |name: &str| reply.headers().get(name).and_then(|v| v.to_str().ok()).map(String::from);
        let (status, length, elsewhere) = (reply.status(), header("content-length"), header("x-amz-bucket-region"));
        let body = reply.body_mut();
        if status.is_success() {
            if let Some(length) = length.and_then(|l| l.parse::<u64>().ok()).filter(|l| *l > MAX_OBJECT_BYTES) {
                return Err(Error::new(
                    ErrorKind::BodyTooLarge,
                    format!("has {length} bytes, the limit is {MAX_OBJECT_BYTES}"),
                ));
            }
            return body
                .with_config()
                .limit(MAX_OBJECT_BYTES)
                .read_to_vec()
                .map(|b| Answer::Bytes(b.into()))
                .map_err(upstream_error);
        }
        if let Some(elsewhere) = elsewhere.filter(|other| status.is_redirection() || other != region) {
            return Ok(Answer::In(elsewhere));
        }
        let message = error_message(&mut reply);
        Err(match status {
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => Error::invalid_value(field, message),
            _ => upstream_error(message),
        })
    }
}

/// What S3 says in a reply that is an error.
pub(super) fn error_message(reply: &mut Response<ureq::Body>) -> String {
    let status = reply.status();
    let text = reply.body_mut().read_to_string().unwrap_or_default();
    format!("S3 answers {status} {}", xml_element(&text, "Code").unwrap_or_default())
}

/// What an element of a reply holds.
pub(crate) fn xml_element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

enum Answer {
    Bytes(Bytes),
    /// The bucket is in another region.
    In(String),
}

/// Whether a name can be a bucket's, and so cannot lead elsewhere in an address.
pub(crate) fn is_bucket(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    (3..=63).contains(&name.len()) && name.chars().all(allowed) && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Prefixes as a variable lists them, each with a slash behind the bucket, so that no other bucket begins with it.
///
/// # Errors
/// What is wrong with which.
pub fn prefixes(list: &[String]) -> Result<Vec<String>, String> {
    let prefix = |text: &String| match text.strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, "")))
    {
        Some((bucket, key)) if is_bucket(bucket) => Ok(format!("s3://{bucket}/{key}")),
        _ => Err(format!("{text:?} is not s3://BUCKET/PREFIX")),
    };
    list.iter().map(prefix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_allowed_is_an_object() {
        let list = ["s3://talks".to_string(), "s3://data/audio/".into()];
        let allowed = prefixes(&list).unwrap();
        let object = S3Location::parse("s3://data/audio/a b+ü.mp3", &allowed, "uri").unwrap();
        assert_eq!(object, S3Location { bucket: "data".into(), key: "audio/a b+ü.mp3".into() });
        assert_eq!(utf8_percent_encode(&object.key, PATH).to_string(), "audio/a%20b%2B%C3%BC.mp3");
        assert!(S3Location::parse("s3://talks/x", &allowed, "uri").is_ok());
        let refused = [
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
        for uri in refused {
            let error = S3Location::parse(uri, &allowed, "uri").unwrap_err();
            assert!(error.kind == ErrorKind::InvalidValue && error.param.as_deref() == Some("uri"), "{uri}: {error:?}");
        }
        assert!(S3Location::parse("s3://talks/x", &[], "uri").is_err());
        for wrong in ["talks", "s3://", "s3://UPPER/x", "s3://a/x"] {
            assert!(prefixes(&[wrong.to_string()]).is_err(), "{wrong}");
        }
    }
}
