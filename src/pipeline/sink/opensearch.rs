//! Points into an index of OpenSearch or Elasticsearch, by `_bulk`: each document has an outcome of its own.
//! <https://docs.opensearch.org/latest/api-reference/document-apis/bulk/>

use super::batching::{StoreClient, WriteResult};
use super::client::{Client, HttpRequest, HttpResponse, strip_preview, upstream_error};
use super::retry::{self, AttemptError};
use http::Method;
use serde::Deserialize;
use std::collections::HashMap;
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result};

/// An index.
#[derive(Debug)]
pub(super) struct OpenSearch {
    pub client: Client,
    /// Of the index's `_bulk`.
    pub url: String,
}

impl StoreClient for OpenSearch {
    fn send(&mut self, body: &[u8], _: usize, deadline: Deadline) -> Result<WriteResult> {
        let documents = documents(body);
        let (mut pending, mut rejected): (Vec<usize>, Vec<_>) = ((0..documents.len()).collect(), vec![]);
        let outcome = retry::run(deadline, |time| {
            let part: Vec<u8>;
            let body = match pending.len() == documents.len() {
                true => body,
                false => {
                    part = pending.iter().flat_map(|i| documents[*i]).copied().collect();
                    &part
                }
            };
            let request =
                HttpRequest { method: Method::POST, url: &self.url, content_type: "application/x-ndjson", body };
            let reply = self.client.send_once(&request, time)?;
            if matches!(reply.status.as_u16(), 400 | 413) {
                return Ok(WriteResult::KernelError(reply.error("")));
            }
            let results = item_results(&reply, pending.len())?;
            let sent = std::mem::take(&mut pending);
            let mut throttled = None;
            for (i, outcome) in sent.into_iter().zip(results) {
                match outcome {
                    ItemResult::Accepted => {}
                    ItemResult::KernelError(error) => rejected.push((i, error)),
                    ItemResult::Throttled(error) => {
                        pending.push(i);
                        throttled.get_or_insert(error);
                    }
                }
            }
            throttled.map_or(Ok(WriteResult::Accepted(vec![])), |error| Err(AttemptError::retryable(error)))
        });
        match outcome.map_err(|e| self.client.with_name(e))? {
            WriteResult::Accepted(_) => Ok(WriteResult::Accepted(rejected)),
            whole => Ok(whole),
        }
    }
}

/// The documents of a body, each with the line before it that says what becomes of it.
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
    /// For good.
    KernelError(Error),
    /// For now.
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
                let own = strip_preview(message.as_deref().or(kind.as_deref()).unwrap_or_default()).to_string();
                match caused_by {
                    Some(cause) => format!("{own}: {}", cause.message()),
                    None => own,
                }
            }
        }
    }
}

fn item_results(reply: &HttpResponse, count: usize) -> Result<Vec<ItemResult>, AttemptError> {
    match reply.status.as_u16() {
        200..=299 => {}
        401 | 403 => return Err(reply.error("who asks is not known, or may not write into the index").into()),
        404 => return Err(reply.error("there is no such index, or no OpenSearch at this address").into()),
        _ => return Err(reply.error("").into()),
    }
    let bulk: BulkResponse = serde_json::from_str(&reply.text)
        .map_err(|e| upstream_error(format!("what it answers is none to _bulk: {} {e}", reply.status)))?;
    match bulk.items.len() == count {
        true => Ok(bulk.items.into_iter().map(item_result).collect()),
        false => Err(upstream_error(format!("it answers of {} documents, and got {count}", bulk.items.len())).into()),
    }
}

fn item_result(item: HashMap<String, BulkItem>) -> ItemResult {
    let Some(BulkItem { status, error }) = item.into_values().next() else {
        return ItemResult::KernelError(upstream_error("it does not say what became of the document"));
    };
    let message = error.map(|cause| cause.message()).unwrap_or_default();
    match status {
        200..=299 => ItemResult::Accepted,
        408 | 429 | 500.. => ItemResult::Throttled(upstream_error(format!("{status}: {message}"))),
        // Vector collections of OpenSearch Serverless make ids of their own, so that nothing could be written twice.
        _ if message.contains("Document ID is not supported") => ItemResult::KernelError(invalid_document(format!(
            "{status}: {message} (a collection of OpenSearch Serverless must be of the type SEARCH to keep ids)"
        ))),
        _ => ItemResult::KernelError(invalid_document(format!("{status}: {message}"))),
    }
}

/// A document does not fit the index.
fn invalid_document(what: String) -> Error {
    Error::new(ErrorKind::InvalidValue, what).truncate_message()
}
