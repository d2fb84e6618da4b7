//! Points into an index of Amazon S3 Vectors.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_S3VectorBuckets_PutVectors.html>

use super::batching::{StoreClient, WriteResult};
use super::client::{Client, HttpRequest, HttpResponse};
use super::retry::AttemptError;
use http::Method;
use tealight_core::Deadline;
use tealight_core::Result;

/// An index.
#[derive(Debug)]
pub(super) struct S3Vectors {
    pub client: Client,
    /// Of the service.
    pub url: String,
    /// What every body begins with: an object's opening brace and the names of bucket and index.
    pub names: String,
}

impl S3Vectors {
    /// The names of a bucket and an index, as bodies begin with them.
    pub fn names(bucket: &str, index: &str) -> String {
        format!("{{\"vectorBucketName\":{},\"indexName\":{},", serde_json::json!(bucket), serde_json::json!(index))
    }
}

impl StoreClient for S3Vectors {
    fn send(&mut self, body: &[u8], _: usize, deadline: Deadline) -> Result<WriteResult> {
        let body = [self.names.as_bytes(), body.strip_prefix(b"{").unwrap_or(body)].concat();
        let request =
            HttpRequest { method: Method::POST, url: &self.url, content_type: "application/json", body: &body };
        self.client.send(&request, deadline, classify)
    }
}

fn classify(reply: HttpResponse) -> Result<WriteResult, AttemptError> {
    match (reply.status.as_u16(), reply.code().as_str()) {
        (200..=299, _) => Ok(WriteResult::Accepted(vec![])),
        (400, "ValidationException" | "") | (413, _) => Ok(WriteResult::KernelError(reply.error(""))),
        (401 | 403, _) => Err(reply.error("the function's role must allow s3vectors:PutVectors of the index").into()),
        (404, _) => Err(reply.error("bucket and index must be there before points come").into()),
        _ => Err(reply.error("").into()),
    }
}
