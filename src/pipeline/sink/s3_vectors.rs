//! Writes points to an index of Amazon S3 Vectors:
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_S3VectorBuckets_PutVectors.html>.

use super::batching::{StoreClient, WriteResult};
use super::client::{Client, HttpRequest, HttpResponse, Identity};
use super::retry::AttemptError;
use super::url::SinkUrl;
use crate::aws::{endpoint, region};
use http::Method;
use tealight_core::{Deadline, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct S3VectorsConfig {
    bucket: String,
    index: String,
}

impl S3VectorsConfig {
    pub fn from_url(url: &SinkUrl) -> Result<Self> {
        url.reject_unknown(&["encoding"], false)?;
        Ok(Self { bucket: url.bucket()?, index: url.single_segment("an index")? })
    }

    pub fn client(&self) -> Result<S3Vectors> {
        let Self { bucket, index } = self;
        let (service, region) = ("s3vectors", region()?);
        let url = format!("{}/PutVectors", endpoint(service, &region));
        let client = Client::new(format!("s3vectors://{bucket}/{index}"), Identity::Aws { service, region });
        let (bucket, index) = (serde_json::json!(bucket), serde_json::json!(index));
        let prefix = format!("{{\"vectorBucketName\":{bucket},\"indexName\":{index},");
        Ok(S3Vectors { client, url, prefix })
    }
}

#[derive(Debug)]
pub(super) struct S3Vectors {
    client: Client,
    url: String,
    /// The start of every body: the opening brace and the names of bucket and index.
    prefix: String,
}

impl StoreClient for S3Vectors {
    fn send(&mut self, body: &[u8], _: usize, deadline: Deadline) -> Result<WriteResult> {
        let body = [self.prefix.as_bytes(), body.strip_prefix(b"{").unwrap_or(body)].concat();
        let request =
            HttpRequest { method: Method::POST, url: &self.url, content_type: "application/json", body: &body };
        self.client.send(&request, deadline, classify)
    }
}

fn classify(response: HttpResponse) -> Result<WriteResult, AttemptError> {
    let advice = match (response.status.as_u16(), response.code().as_str()) {
        (200..=299, _) => return Ok(WriteResult::Accepted(vec![])),
        (400, "ValidationException" | "") | (413, _) => return Ok(WriteResult::Rejected(response.error(""))),
        (401 | 403, _) => "allow s3vectors:PutVectors on the index in the function's role",
        (404, _) => "create the vector bucket and the index first",
        _ => "",
    };
    Err(response.error(advice).into())
}
