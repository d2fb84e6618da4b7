//! Points into a collection of Qdrant.
//! <https://api.qdrant.tech/api-reference/points/upsert-points>

use super::batching::{StoreClient, WriteResult};
use super::client::{Client, HttpRequest, HttpResponse};
use super::retry::AttemptError;
use http::Method;
use tealight_core::Deadline;
use tealight_core::Result;

/// A collection.
#[derive(Debug)]
pub(super) struct Qdrant {
    pub client: Client,
    /// Of the collection's points.
    pub url: String,
}

impl StoreClient for Qdrant {
    fn send(&mut self, body: &[u8], _: usize, deadline: Deadline) -> Result<WriteResult> {
        let request = HttpRequest { method: Method::PUT, url: &self.url, content_type: "application/json", body };
        self.client.send(&request, deadline, classify)
    }
}

fn classify(reply: HttpResponse) -> Result<WriteResult, AttemptError> {
    match reply.status.as_u16() {
        200..=299 => Ok(WriteResult::Accepted(vec![])),
        400 | 413 | 422 => Ok(WriteResult::KernelError(reply.error(""))),
        401 | 403 => Err(reply.error("TEALIGHT_SINK_KEY or TEALIGHT_SINK_SECRET must be a key that may write").into()),
        404 => Err(reply.error("the collection must be there before points come").into()),
        _ => Err(reply.error("").into()),
    }
}
