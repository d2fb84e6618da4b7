//! Points into an index of OpenSearch or Elasticsearch, by `_bulk`: each document has an outcome of its own.
//! <https://docs.opensearch.org/latest/api-reference/document-apis/bulk/>

use super::batching::{Answer, Index};
use super::client::{Ask, Client, Reply, reason, refused};
use super::retry::{self, Miss};
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

impl Index for OpenSearch {
    fn send(&mut self, body: &[u8], _: usize, deadline: Deadline) -> Result<Answer> {
        let rows = rows(body);
        let (mut waiting, mut refused): (Vec<usize>, Vec<_>) = ((0..rows.len()).collect(), vec![]);
        let outcome = retry::run(deadline, |time| {
            let part: Vec<u8>;
            let body = match waiting.len() == rows.len() {
                true => body,
                false => {
                    part = waiting.iter().flat_map(|i| rows[*i]).copied().collect();
                    &part
                }
            };
            let ask = Ask { method: Method::POST, url: &self.url, content_type: "application/x-ndjson", body };
            let reply = self.client.once(&ask, time)?;
            if matches!(reply.status.as_u16(), 400 | 413) {
                return Ok(Answer::KernelError(reply.error("")));
            }
            let outcomes = outcomes(&reply, waiting.len())?;
            let asked = std::mem::take(&mut waiting);
            let mut busy = None;
            for (i, outcome) in asked.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Kept => {}
                    Outcome::KernelError(error) => refused.push((i, error)),
                    Outcome::Busy(error) => {
                        waiting.push(i);
                        busy.get_or_insert(error);
                    }
                }
            }
            busy.map_or(Ok(Answer::Kept(vec![])), |error| Err(Miss::passing(error)))
        });
        match outcome.map_err(|e| self.client.named(e))? {
            Answer::Kept(_) => Ok(Answer::Kept(refused)),
            whole => Ok(whole),
        }
    }
}

/// The documents of a body, each with the line before it that says what becomes of it.
fn rows(body: &[u8]) -> Vec<&[u8]> {
    let (mut rows, mut start, mut lines) = (vec![], 0, 0);
    for (i, byte) in body.iter().enumerate() {
        if *byte == b'\n' {
            lines += 1;
            if lines % 2 == 0 {
                rows.push(&body[start..=i]);
                start = i + 1;
            }
        }
    }
    rows
}

enum Outcome {
    Kept,
    /// For good.
    KernelError(Error),
    /// For now.
    Busy(Error),
}

#[derive(Deserialize)]
struct Bulk {
    items: Vec<HashMap<String, Item>>,
}

#[derive(Deserialize)]
struct Item {
    status: u16,
    error: Option<Cause>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Cause {
    Named {
        #[serde(rename = "type")]
        kind: Option<String>,
        reason: Option<String>,
        caused_by: Option<Box<Cause>>,
    },
    Text(String),
}

impl Cause {
    fn said(&self) -> String {
        match self {
            Cause::Text(text) => text.clone(),
            Cause::Named { kind, reason: said, caused_by } => {
                let own = reason(said.as_deref().or(kind.as_deref()).unwrap_or_default()).to_string();
                match caused_by {
                    Some(cause) => format!("{own}: {}", cause.said()),
                    None => own,
                }
            }
        }
    }
}

fn outcomes(reply: &Reply, count: usize) -> Result<Vec<Outcome>, Miss> {
    match reply.status.as_u16() {
        200..=299 => {}
        401 | 403 => return Err(reply.error("who asks is not known, or may not write into the index").into()),
        404 => return Err(reply.error("there is no such index, or no OpenSearch at this address").into()),
        _ => return Err(reply.error("").into()),
    }
    let bulk: Bulk = serde_json::from_str(&reply.text)
        .map_err(|e| refused(format!("what it answers is none to _bulk: {} {e}", reply.status)))?;
    match bulk.items.len() == count {
        true => Ok(bulk.items.into_iter().map(outcome).collect()),
        false => Err(refused(format!("it answers of {} documents, and got {count}", bulk.items.len())).into()),
    }
}

fn outcome(item: HashMap<String, Item>) -> Outcome {
    let Some(Item { status, error }) = item.into_values().next() else {
        return Outcome::KernelError(refused("it does not say what became of the document"));
    };
    let said = error.map(|cause| cause.said()).unwrap_or_default();
    match status {
        200..=299 => Outcome::Kept,
        408 | 429 | 500.. => Outcome::Busy(refused(format!("{status}: {said}"))),
        // Vector collections of OpenSearch Serverless make ids of their own, so that nothing could be written twice.
        _ if said.contains("Document ID is not supported") => Outcome::KernelError(unfit(format!(
            "{status}: {said} (a collection of OpenSearch Serverless must be of the type SEARCH to keep ids)"
        ))),
        _ => Outcome::KernelError(unfit(format!("{status}: {said}"))),
    }
}

/// A document does not fit the index.
fn unfit(what: String) -> Error {
    Error::new(ErrorKind::InvalidValue, what).truncate_message()
}
