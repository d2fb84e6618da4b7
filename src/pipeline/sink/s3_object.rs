//! Writes points as an object of Amazon S3, which becomes visible when it is complete. Points of the same input overwrite the same object.

use super::batching::PointFormat;
use super::client::{Client, HttpRequest, HttpResponse, Identity};
use super::retry::AttemptError;
use super::traits::{MAX_PENDING, OutputName, Rejections, Sink};
use super::url::{SinkUrl, invalid_url};
use crate::aws::s3::PATH_CHARACTERS;
use crate::aws::upload::{MAX_PARTS, PART_BYTES, S3Operation, complete_upload_xml, error_code, upload_id};
use crate::aws::{endpoint, region};
use crate::pipeline::format::{BodyBuilder, Format};
use crate::pipeline::point::Point;
use percent_encoding::{percent_decode_str, utf8_percent_encode};
use std::time::Duration;
use tealight_core::{Deadline, Error, ErrorKind, Result};

/// Time for aborting an upload when the sink is dropped.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// A bucket and the prefix of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct S3ObjectConfig {
    bucket: String,
    prefix: String,
}

impl S3ObjectConfig {
    pub fn from_url(url: &SinkUrl) -> Result<Self> {
        url.reject_unknown(&["encoding"], false)?;
        let prefix = percent_decode_str(&url.path).decode_utf8();
        let prefix = prefix.map_err(|_| invalid_url("percent-encoded bytes are not UTF-8"))?.into_owned();
        Ok(Self { bucket: url.bucket()?, prefix })
    }

    /// Starts an object whose key is derived from `output`.
    pub fn open(&self, point_format: PointFormat, output: &OutputName) -> Result<S3ObjectSink> {
        let key = object_key(&self.prefix, output, extension(point_format.format));
        let identity = Identity::Aws { service: "s3", region: region()? };
        let is_json_lines = point_format.format == Format::Jsonl;
        Ok(S3ObjectSink {
            client: Client::new(format!("s3://{}/{key}", self.bucket), identity),
            bucket: self.bucket.clone(),
            key,
            content_type: if is_json_lines { "application/x-ndjson" } else { "text/plain" },
            builder: point_format.body_builder()?,
            received: 0,
            buffer: vec![],
            upload_id: None,
            etags: vec![],
            uploaded_bytes: 0,
        })
    }
}

/// An object that is being written: with one request if it is small, else as a multipart upload.
pub(super) struct S3ObjectSink {
    client: Client,
    bucket: String,
    key: String,
    content_type: &'static str,
    builder: BodyBuilder,
    /// Number of points ever passed to the sink.
    received: usize,
    /// Bytes that are not uploaded yet.
    buffer: Vec<u8>,
    /// Set once a multipart upload has started.
    upload_id: Option<String>,
    /// ETags of the uploaded parts.
    etags: Vec<String>,
    uploaded_bytes: usize,
}

impl S3ObjectSink {
    fn push(&mut self, point: &Point) -> Result<(), (usize, Error)> {
        let position = self.received;
        self.received += 1;
        let encoded = self.builder.encode(point).map_err(|error| (position, error))?;
        if let Some(body) = self.builder.push(encoded) {
            self.append(&body);
        }
        if self.builder.points() >= MAX_PENDING || self.builder.bytes() >= PART_BYTES {
            self.flush_builder();
        }
        Ok(())
    }

    /// Appends the points in the builder to the buffer.
    fn flush_builder(&mut self) {
        if let Some(body) = self.builder.finish() {
            self.append(&body);
        }
    }

    fn append(&mut self, body: &[u8]) {
        self.buffer.extend_from_slice(body);
        if !body.ends_with(b"\n") {
            self.buffer.push(b'\n');
        }
    }

    /// Uploads the buffer as a part, and starts the multipart upload before the first part.
    fn upload_part(&mut self, deadline: Deadline) -> Result<()> {
        let id = match &self.upload_id {
            Some(id) => id.clone(),
            None => {
                let id = upload_id(&self.send_checked(&S3Operation::CreateMultipartUpload, b"", deadline)?.text)?;
                self.upload_id.insert(id).clone()
            }
        };
        if self.etags.len() == MAX_PARTS {
            return Err(self.client.with_name(Error::new(
                ErrorKind::BodyTooLarge,
                "the object has too many parts; the limit is 10,000. Split the input",
            )));
        }
        let part = std::mem::take(&mut self.buffer);
        let response = self.send_checked(&S3Operation::UploadPart(&id, self.etags.len() + 1), &part, deadline)?;
        let etag = response.headers.get("etag").and_then(|v| v.to_str().ok()).unwrap_or_default();
        self.etags.push(etag.into());
        self.uploaded_bytes += part.len();
        Ok(())
    }

    fn complete(&mut self, id: &str, deadline: Deadline) -> Result<()> {
        let list = complete_upload_xml(&self.etags);
        let response = self.send_following_region(&S3Operation::CompleteMultipartUpload(id), &list, deadline)?;
        // S3 returns 404 to a retry if the first request succeeded and only its response was lost.
        if response.status == 404 && self.is_complete(deadline)? {
            return Ok(());
        }
        self.check_status(response).map(drop)
    }

    fn is_complete(&mut self, deadline: Deadline) -> Result<bool> {
        let response = self.send_following_region(&S3Operation::HeadObject, b"", deadline)?;
        let header = |name: &str| response.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let has_parts = header("etag").trim_matches('"').ends_with(&format!("-{}", self.etags.len()));
        Ok(response.status.is_success() && has_parts && header("content-length") == self.uploaded_bytes.to_string())
    }

    fn send_checked(&mut self, operation: &S3Operation, body: &[u8], deadline: Deadline) -> Result<HttpResponse> {
        let response = self.send_following_region(operation, body, deadline)?;
        self.check_status(response)
    }

    fn check_status(&self, response: HttpResponse) -> Result<HttpResponse> {
        let advice = match response.status.as_u16() {
            200..=299 => return Ok(response),
            403 => "allow s3:PutObject on the prefix in the function's role",
            404 => "create the bucket first",
            _ => "",
        };
        Err(self.client.with_name(response.error(advice)))
    }

    /// Sends a request, and repeats it in the region of the bucket if that is another one.
    fn send_following_region(
        &mut self,
        operation: &S3Operation,
        body: &[u8],
        deadline: Deadline,
    ) -> Result<HttpResponse> {
        let response = self.send(operation, body, deadline)?;
        let bucket_region = response.headers.get("x-amz-bucket-region").and_then(|v| v.to_str().ok()).map(String::from);
        match (bucket_region, &mut self.client.identity) {
            (Some(other), Identity::Aws { region, .. }) if !response.status.is_success() && other != *region => {
                *region = other;
                self.send(operation, body, deadline)
            }
            _ => Ok(response),
        }
    }

    fn send(&self, operation: &S3Operation, body: &[u8], deadline: Deadline) -> Result<HttpResponse> {
        let url = self.url(operation);
        let content_type = if body.is_empty() { "" } else { self.content_type };
        let request = HttpRequest { method: operation.method(), url: &url, content_type, body };
        self.client.send(&request, deadline, |response| match error_code(&response.text) {
            Some(_) if response.status.is_success() => Err(AttemptError::retryable(response.error(""))),
            _ => Ok(response),
        })
    }

    fn url(&self, operation: &S3Operation) -> String {
        let region = match &self.client.identity {
            Identity::Aws { region, .. } => region,
            _ => "",
        };
        let key = utf8_percent_encode(&self.key, PATH_CHARACTERS);
        format!("{}/{}/{key}{}", endpoint("s3", region), self.bucket, operation.query())
    }
}

impl Sink for S3ObjectSink {
    fn write(&mut self, points: &[Point], deadline: Deadline) -> Result<Rejections> {
        let mut rejected = vec![];
        for point in points {
            rejected.extend(self.push(point).err());
            if self.buffer.len() >= PART_BYTES {
                self.upload_part(deadline)?;
            }
        }
        Ok(rejected)
    }

    fn finish(&mut self, deadline: Deadline) -> Result<Rejections> {
        self.flush_builder();
        if self.upload_id.is_none() && !self.buffer.is_empty() && self.buffer.len() < PART_BYTES {
            let body = std::mem::take(&mut self.buffer);
            self.send_checked(&S3Operation::PutObject, &body, deadline)?;
        }
        if !self.buffer.is_empty() {
            self.upload_part(deadline)?;
        }
        if let Some(id) = self.upload_id.clone() {
            self.complete(&id, deadline)?;
            self.upload_id = None;
        }
        Ok(vec![])
    }
}

/// Aborts an unfinished upload, because S3 bills its parts. If the process is killed first, or the response to the start of the
/// upload was lost, only a lifecycle rule of the bucket removes them (`AbortIncompleteMultipartUpload`).
impl Drop for S3ObjectSink {
    fn drop(&mut self) {
        if let Some(id) = self.upload_id.take() {
            let operation = S3Operation::AbortMultipartUpload(&id);
            let request =
                HttpRequest { method: operation.method(), url: &self.url(&operation), content_type: "", body: b"" };
            if let Err(failure) = self.client.send_once(&request, ABORT_TIMEOUT) {
                let error = self.client.with_name(failure.error);
                tracing::warn!("cannot abort a failed upload: {error}");
            }
        }
    }
}

/// The file extension of the key.
fn extension(format: Format) -> String {
    match format {
        Format::Jsonl => "jsonl".into(),
        other => format!("{}.txt", other.as_str()),
    }
}

fn object_key(prefix: &str, output: &OutputName, extension: String) -> String {
    let name = match output {
        OutputName::Object { key, etag, .. } => {
            let etag: String = etag.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
            format!("{key}.{etag}")
        }
        OutputName::File(name) => name.rsplit(['/', '\\']).next().unwrap_or_default().to_string(),
        OutputName::Documents(name) => name.replace('/', "_"),
    };
    if prefix.is_empty() { format!("{name}.{extension}") } else { format!("{prefix}/{name}.{extension}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_key_is_derived_from_output_name() {
        let object = OutputName::Object { bucket: "in".into(), key: "a/b c.csv".into(), etag: "\"0123abcd-2\"".into() };
        assert_eq!(object_key("out", &object, "jsonl".into()), "out/a/b c.csv.0123abcd-2.jsonl");
        assert_eq!(object_key("", &object, "jsonl".into()), "a/b c.csv.0123abcd-2.jsonl");
        assert_eq!(
            object_key("out/x", &OutputName::File("/tmp/docs.jsonl".into()), "jsonl".into()),
            "out/x/docs.jsonl.jsonl"
        );
        assert_eq!(
            object_key("out", &OutputName::Documents("sha256:1/2".into()), "jsonl".into()),
            "out/sha256:1_2.jsonl"
        );
    }
}
