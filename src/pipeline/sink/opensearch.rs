//! Writes points to an index of OpenSearch or Elasticsearch with `_bulk`, whose response has a result for each document:
//! <https://docs.opensearch.org/latest/api-reference/document-apis/bulk/>.

use super::batching::{StoreClient, WriteResult};
use super::client::{Client, HttpRequest, HttpResponse, Identity, strip_preview, upstream_error};
use super::retry::{self, AttemptError};
use super::url::{SinkUrl, invalid_url};
use crate::aws::region;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use std::collections::HashMap;
use tealight_core::{Deadline, Error, ErrorKind, Result, Secret};

/// Characters to percent-encode in the name of an index.
const INDEX_NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// An index and how to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenSearchConfig {
    /// URL of the index's `_bulk` endpoint.
    pub url: String,
    /// Describes the index in error messages.
    name: String,
    pub identity: Identity,
}

impl OpenSearchConfig {
    /// The key is the password of the user in the URL, or an API key if there is no user.
    pub fn from_url(url: &SinkUrl, key: Option<Secret>) -> Result<Self> {
        url.reject_unknown(&["aws", "region", "encoding"], true)?;
        let index = url.single_segment("an index")?;
        let encoded = utf8_percent_encode(&index, INDEX_NAME);
        Ok(Self {
            url: format!("{}/{encoded}/_bulk", url.server()),
            name: format!("index {index} of OpenSearch at {}", url.host_port()),
            identity: identity(url, key)?,
        })
    }

    pub fn client(&self) -> OpenSearch {
        OpenSearch { client: Client::new(self.name.clone(), self.identity.clone()), url: self.url.clone() }
    }
}

fn identity(url: &SinkUrl, key: Option<Secret>) -> Result<Identity> {
    let service = match url.parameter("aws") {
        None => return basic_or_api_key(url, key),
        Some("es") => "es",
        Some("aoss") => "aoss",
        Some(_) => return Err(invalid_url("aws must be es or aoss")),
    };
    if url.user.is_some() {
        return Err(invalid_url("set either a user or aws for signed requests, not both"));
    }
    let explicit = url.parameter("region").map(String::from).or_else(|| region_of_host(&url.host, service));
    Ok(Identity::Aws { service, region: explicit.map_or_else(region, Ok)? })
}

fn basic_or_api_key(url: &SinkUrl, key: Option<Secret>) -> Result<Identity> {
    let header = |value| Ok(Identity::Header("authorization", Secret(value)));
    match (&url.user, url.password.clone().or(key)) {
        (Some(user), Some(Secret(password))) => {
            header(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
        }
        (Some(_), None) => Err(invalid_url("the user has no password; set it in the URL or in TEALIGHT_SINK_KEY")),
        (None, Some(Secret(key))) => header(format!("ApiKey {key}")),
        (None, None) => Ok(Identity::Anonymous),
    }
}

/// The region in the host of an AWS domain or collection, `NAME.REGION.es.amazonaws.com`.
fn region_of_host(host: &str, service: &str) -> Option<String> {
    let (rest, _) = host.split_once(&format!(".{service}.amazonaws.com"))?;
    rest.rsplit_once('.').map(|(_, region)| region.to_string())
}

#[derive(Debug)]
pub(super) struct OpenSearch {
    client: Client,
    url: String,
}

impl StoreClient for OpenSearch {
    /// Retries only the documents that were throttled.
    fn send(&mut self, body: &[u8], _: usize, deadline: Deadline) -> Result<WriteResult> {
        let documents = documents(body);
        let (mut pending, mut rejected): (Vec<usize>, Vec<_>) = ((0..documents.len()).collect(), vec![]);
        let result = retry::run(deadline, |time| {
            let retry_body: Vec<u8>;
            let body = if pending.len() == documents.len() {
                body
            } else {
                retry_body = pending.iter().flat_map(|i| documents[*i]).copied().collect();
                &retry_body
            };
            let request =
                HttpRequest { method: Method::POST, url: &self.url, content_type: "application/x-ndjson", body };
            let response = self.client.send_once(&request, time)?;
            if matches!(response.status.as_u16(), 400 | 413) {
                return Ok(WriteResult::Rejected(response.error("")));
            }
            let results = item_results(&response, pending.len())?;
            let sent = std::mem::take(&mut pending);
            let mut throttled = None;
            for (i, result) in sent.into_iter().zip(results) {
                match result {
                    ItemResult::Accepted => {}
                    ItemResult::Rejected(error) => rejected.push((i, error)),
                    ItemResult::Throttled(error) => {
                        pending.push(i);
                        throttled.get_or_insert(error);
                    }
                }
            }
            throttled.map_or(Ok(WriteResult::Accepted(vec![])), |error| Err(AttemptError::retryable(error)))
        });
        match result.map_err(|e| self.client.with_name(e))? {
            WriteResult::Accepted(_) => Ok(WriteResult::Accepted(rejected)),
            rejected => Ok(rejected),
        }
    }
}

/// The documents of a body, each with the action line before it.
fn documents(body: &[u8]) -> Vec<&[u8]> {
    let (mut documents, mut start, mut lines) = (vec![], 0, 0);
    for (i, byte) in body.iter().enumerate() {
        if *byte == b'\n' {
            lines += 1;
            if lines % 2 == 0 {
                documents.push(&body[start..=i]);
                start = i + 1;
            }
        }
    }
    documents
}

enum ItemResult {
    Accepted,
    /// Permanently.
    Rejected(Error),
    /// Can be retried.
    Throttled(Error),
}

#[derive(Deserialize)]
struct BulkResponse {
    items: Vec<HashMap<String, BulkItem>>,
}

#[derive(Deserialize)]
struct BulkItem {
    status: u16,
    error: Option<ErrorCause>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorCause {
    Named {
        #[serde(rename = "type")]
        kind: Option<String>,
        reason: Option<String>,
        caused_by: Option<Box<ErrorCause>>,
    },
    Text(String),
}

impl ErrorCause {
    fn message(&self) -> String {
        match self {
            ErrorCause::Text(text) => text.clone(),
            ErrorCause::Named { kind, reason: message, caused_by } => {
                let reason = strip_preview(message.as_deref().or(kind.as_deref()).unwrap_or_default()).to_string();
                match caused_by {
                    Some(cause) => format!("{reason}: {}", cause.message()),
                    None => reason,
                }
            }
        }
    }
}

fn item_results(response: &HttpResponse, count: usize) -> Result<Vec<ItemResult>, AttemptError> {
    match response.status.as_u16() {
        200..=299 => {}
        401 | 403 => return Err(response.error("authentication failed, or no write permission on the index").into()),
        404 => return Err(response.error("create the index first, and check the URL").into()),
        _ => return Err(response.error("").into()),
    }
    let bulk: BulkResponse = serde_json::from_str(&response.text)
        .map_err(|e| upstream_error(format!("unexpected response to _bulk: {} {e}", response.status)))?;
    if bulk.items.len() != count {
        let message = format!("response to _bulk has {} results; expected {count}", bulk.items.len());
        return Err(upstream_error(message).into());
    }
    Ok(bulk.items.into_iter().map(item_result).collect())
}

fn item_result(item: HashMap<String, BulkItem>) -> ItemResult {
    let Some(BulkItem { status, error }) = item.into_values().next() else {
        return ItemResult::Rejected(upstream_error("response to _bulk has an empty result"));
    };
    let message = error.map(|cause| cause.message()).unwrap_or_default();
    match status {
        200..=299 => ItemResult::Accepted,
        408 | 429 | 500.. => ItemResult::Throttled(upstream_error(format!("{status}: {message}"))),
        // Vector collections of OpenSearch Serverless do not accept ids, so a retry would duplicate points.
        _ if message.contains("Document ID is not supported") => ItemResult::Rejected(invalid_document(format!(
            "{status}: {message} (use a collection of type SEARCH, which accepts ids)"
        ))),
        _ => ItemResult::Rejected(invalid_document(format!("{status}: {message}"))),
    }
}

fn invalid_document(what: String) -> Error {
    Error::new(ErrorKind::InvalidValue, what).truncate_message()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_is_part_of_aws_host() {
        assert_eq!(region_of_host("search-x-abc.eu-west-1.es.amazonaws.com", "es").as_deref(), Some("eu-west-1"));
        assert_eq!(region_of_host("abc.us-east-1.aoss.amazonaws.com", "aoss").as_deref(), Some("us-east-1"));
        assert_eq!(region_of_host("localhost", "es"), None);
    }
}
