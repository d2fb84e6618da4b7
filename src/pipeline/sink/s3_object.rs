//! Points as an object of Amazon S3, which is there when it is whole. What writes the same again overwrites it.

use super::batching::PointFormat;
use super::client::{Client, HttpRequest, HttpResponse, Identity};
use super::retry::AttemptError;
use super::{MAX_PENDING, Sink, Source};
use crate::aws::s3::PATH_CHARACTERS;
use crate::aws::upload::{MAX_PARTS, PART_BYTES, S3Operation, complete_upload_xml, error_code, upload_id};
use crate::aws::{endpoint, region};
use crate::pipeline::format::{BodyBuilder, Format};
use crate::pipeline::point::Point;
use percent_encoding::utf8_percent_encode;
use std::time::Duration;
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result};

/// How long forgetting what was begun may take.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// An object that grows.
pub(super) struct S3ObjectSink {
    client: Client,
    bucket: String,
    key: String,
    content_type: &'static str,
    builder: BodyBuilder,
    /// Points ever received.
    received: usize,
    /// What is in no part yet.
    buffer: Vec<u8>,
    /// An upload in parts, once one has begun.
    id: Option<String>,
    etags: Vec<String>,
    /// Bytes in parts.
    sent: usize,
}

impl S3ObjectSink {
    /// To a bucket, under a key that follows from where the points come from.
    pub fn new(bucket: &str, prefix: &str, point_format: &PointFormat, source: &Source) -> Result<Self> {
        let key = object_key(prefix, source, extension(point_format.format));
        let client = Client::new(format!("s3://{bucket}/{key}"), Identity::Aws { service: "s3", region: region()? });
        let content_type = if point_format.format == Format::Jsonl { "application/x-ndjson" } else { "text/plain" };
        let (bucket, builder, buffer) = (bucket.to_string(), point_format.body_builder()?, Vec::new());
        let (received, id, etags, sent) = (0, None, vec![], 0);
        Ok(Self { client, bucket, key, content_type, builder, received, buffer, id, etags, sent })
    }

    fn push(&mut self, point: &Point) -> Result<(), (usize, Error)> {
        let position = self.received;
        self.received += 1;
        let encoded = self.builder.encode(point).map_err(|error| (position, error))?;
        if let Some(body) = self.builder.push(encoded) {
            self.append(&body);
        }
        if self.builder.points() >= MAX_PENDING || self.builder.bytes() >= PART_BYTES {
            self.take_body();
        }
        Ok(())
    }

    fn take_body(&mut self) {
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

    /// Sends the buffer as a part.
    fn upload_part(&mut self, deadline: Deadline) -> Result<()> {
        let id = match &self.id {
            Some(id) => id.clone(),
            None => {
                let id = upload_id(&self.send_checked(&S3Operation::CreateMultipartUpload, b"", deadline)?.text)?;
                self.id.insert(id).clone()
            }
        };
        if self.etags.len() == MAX_PARTS {
            return Err(self
                .client
                .with_name(Error::new(ErrorKind::BodyTooLarge, "an object has no more than 10,000 parts")));
        }
        let part = std::mem::take(&mut self.buffer);
        let reply = self.send_checked(&S3Operation::UploadPart(&id, self.etags.len() + 1), &part, deadline)?;
        let etag = reply.headers.get("etag").and_then(|v| v.to_str().ok()).unwrap_or_default();
        self.etags.push(etag.into());
        self.sent += part.len();
        Ok(())
    }

    fn complete(&mut self, id: &str, deadline: Deadline) -> Result<()> {
        let list = complete_upload_xml(&self.etags);
        let reply = self.send_following_region(&S3Operation::CompleteMultipartUpload(id), &list, deadline)?;
        // An answer that was lost is not received twice.
        if reply.status == 404 && self.is_complete(deadline)? {
            return Ok(());
        }
        self.check_status(reply).map(drop)
    }

    fn is_complete(&mut self, deadline: Deadline) -> Result<bool> {
        let reply = self.send_following_region(&S3Operation::HeadObject, b"", deadline)?;
        let header = |name: &str| reply.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let has_parts = header("etag").trim_matches('"').ends_with(&format!("-{}", self.etags.len()));
        Ok(reply.status.is_success() && has_parts && header("content-length") == self.sent.to_string())
    }

    fn send_checked(&mut self, operation: &S3Operation, body: &[u8], deadline: Deadline) -> Result<HttpResponse> {
        let reply = self.send_following_region(operation, body, deadline)?;
        self.check_status(reply)
    }

    fn check_status(&self, reply: HttpResponse) -> Result<HttpResponse> {
        let advice = match reply.status.as_u16() {
            200..=299 => return Ok(reply),
            403 => "the function's role must allow s3:PutObject there",
            404 => "the bucket must be there",
            _ => "",
        };
        Err(self.client.with_name(reply.error(advice)))
    }

    /// Asks, and asks again where the bucket is, if it is elsewhere.
    fn send_following_region(
        &mut self,
        operation: &S3Operation,
        body: &[u8],
        deadline: Deadline,
    ) -> Result<HttpResponse> {
        let reply = self.send(operation, body, deadline)?;
        let elsewhere = reply.headers.get("x-amz-bucket-region").and_then(|v| v.to_str().ok()).map(String::from);
        match (elsewhere, &mut self.client.identity) {
            (Some(other), Identity::Aws { region, .. }) if !reply.status.is_success() && other != *region => {
                *region = other;
                self.send(operation, body, deadline)
            }
            _ => Ok(reply),
        }
    }

    fn send(&self, operation: &S3Operation, body: &[u8], deadline: Deadline) -> Result<HttpResponse> {
        let url = self.url(operation);
        let content_type = if body.is_empty() { "" } else { self.content_type };
        let request = HttpRequest { method: operation.method(), url: &url, content_type, body };
        self.client.send(&request, deadline, |reply| match error_code(&reply.text) {
            Some(_) if reply.status.is_success() => Err(AttemptError::retryable(reply.error(""))),
            _ => Ok(reply),
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
    fn write(&mut self, points: &[Point], deadline: Deadline) -> Result<Vec<(usize, Error)>> {
        let mut rejected = vec![];
        for point in points {
            rejected.extend(self.push(point).err());
            if self.buffer.len() >= PART_BYTES {
                self.upload_part(deadline)?;
            }
        }
        Ok(rejected)
    }

    fn finish(&mut self, deadline: Deadline) -> Result<Vec<(usize, Error)>> {
        self.take_body();
        if self.id.is_none() && !self.buffer.is_empty() && self.buffer.len() < PART_BYTES {
            let body = std::mem::take(&mut self.buffer);
            self.send_checked(&S3Operation::PutObject, &body, deadline)?;
        }
        if !self.buffer.is_empty() {
            self.upload_part(deadline)?;
        }
        if let Some(id) = self.id.clone() {
            self.complete(&id, deadline)?;
            self.id = None;
        }
        Ok(vec![])
    }
}

/// Parts that become no object are paid for until they are forgotten. Where the process is killed before, or the answer to a begun
/// upload was lost, only a rule of the bucket's does that (`AbortIncompleteMultipartUpload`).
impl Drop for S3ObjectSink {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            let operation = S3Operation::AbortMultipartUpload(&id);
            let request =
                HttpRequest { method: operation.method(), url: &self.url(&operation), content_type: "", body: b"" };
            if let Err(failure) = self.client.send_once(&request, ABORT_TIMEOUT) {
                let error = self.client.with_name(failure.error);
                tracing::warn!("an upload that failed is not aborted: {error}");
            }
        }
    }
}

/// What a key ends with.
fn extension(format: Format) -> String {
    match format {
        Format::Jsonl => "jsonl".into(),
        other => format!("{}.txt", other.as_str()),
    }
}

fn object_key(prefix: &str, source: &Source, extension: String) -> String {
    let name = match source {
        Source::Object { key, etag, part, .. } => {
            let etag: String = etag.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
            let part = part.as_deref().map_or_else(String::new, |part| format!(".{part}"));
            format!("{key}.{etag}{part}")
        }
        Source::File(name) => name.rsplit(['/', '\\']).next().unwrap_or_default().to_string(),
        Source::Documents(name) => name.replace('/', "_"),
    };
    match prefix.is_empty() {
        true => format!("{name}.{extension}"),
        false => format!("{prefix}/{name}.{extension}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_from_the_source() {
        let object = |part: Option<&str>| Source::Object {
            bucket: "in".into(),
            key: "a/b c.csv".into(),
            etag: "\"0123abcd-2\"".into(),
            part: part.map(String::from),
        };
        assert_eq!(object_key("out", &object(None), "jsonl".into()), "out/a/b c.csv.0123abcd-2.jsonl");
        assert_eq!(object_key("", &object(Some("0-99")), "jsonl".into()), "a/b c.csv.0123abcd-2.0-99.jsonl");
        assert_eq!(
            object_key("out/x", &Source::File("/tmp/docs.jsonl".into()), "jsonl".into()),
            "out/x/docs.jsonl.jsonl"
        );
        assert_eq!(object_key("out", &Source::Documents("sha256:1/2".into()), "jsonl".into()), "out/sha256:1_2.jsonl");
    }
}
