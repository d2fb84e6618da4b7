//! Writes points to a Qdrant collection: <https://api.qdrant.tech/api-reference/points/upsert-points>.

use super::batching::{StoreClient, WriteResult};
use super::client::{Client, HttpRequest, HttpResponse, Identity};
use super::retry::AttemptError;
use super::url::SinkUrl;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tealight_core::{Deadline, Result, Secret};

/// A collection and how to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QdrantConfig {
    /// URL of the upsert request.
    url: String,
    /// Describes the collection in error messages.
    name: String,
    pub identity: Identity,
}

impl QdrantConfig {
    /// The key is the API key.
    pub fn from_url(url: &SinkUrl, key: Option<Secret>) -> Result<Self> {
        url.reject_unknown(&["encoding"], false)?;
        let collection = url.single_segment("a collection")?;
        let encoded = utf8_percent_encode(&collection, NON_ALPHANUMERIC);
        Ok(Self {
            url: format!("{}/collections/{encoded}/points?wait=true", url.server()),
            name: format!("collection {collection} of Qdrant at {}", url.host_port()),
            identity: key.map_or(Identity::Anonymous, |key| Identity::Header("api-key", key)),
        })
    }

    pub fn client(&self) -> Qdrant {
        Qdrant { client: Client::new(self.name.clone(), self.identity.clone()), url: self.url.clone() }
    }
}

#[derive(Debug)]
pub(super) struct Qdrant {
    client: Client,
    url: String,
}

impl StoreClient for Qdrant {
    fn send(&mut self, body: &[u8], _: usize, deadline: Deadline) -> Result<WriteResult> {
        let request = HttpRequest { method: Method::PUT, url: &self.url, content_type: "application/json", body };
        self.client.send(&request, deadline, classify)
    }
}

fn classify(response: HttpResponse) -> Result<WriteResult, AttemptError> {
    let advice = match response.status.as_u16() {
        200..=299 => return Ok(WriteResult::Accepted(vec![])),
        400 | 413 | 422 => return Ok(WriteResult::Rejected(response.error(""))),
        401 | 403 => "set TEALIGHT_SINK_KEY or TEALIGHT_SINK_SECRET to a key with write permission",
        404 => "create the collection first",
        _ => "",
    };
    Err(response.error(advice).into())
}
