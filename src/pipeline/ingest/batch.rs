//! Batches: documents that are embedded together.

use super::time_budget::TimeBudget;
use crate::pipeline::input::{DocumentIter, NumberedDocument};
use std::iter::Peekable;
use tealight_core::Result;

/// Bytes of text per batch: a few forward passes, so that embedding and writing overlap.
const BATCH_BYTES: usize = 32 << 10;
/// Documents per batch.
const BATCH_DOCUMENTS: usize = 256;

/// Documents that are embedded together.
pub(super) struct DocumentBatch {
    pub documents: Vec<NumberedDocument>,
    /// Total length of the texts.
    pub bytes: usize,
    /// Set if this is the last batch: whether the source was read to its end, or failed.
    pub end: Option<Result<()>>,
}

impl DocumentBatch {
    /// Reads the next documents, as far as the time budget allows; `None` if there is no time for any.
    pub fn read(documents: &mut Peekable<DocumentIter>, budget: &TimeBudget, is_first: bool) -> Option<Self> {
        let limit = budget.remaining_bytes().min(BATCH_BYTES);
        let mut batch = Self { documents: vec![], bytes: 0, end: None };
        while batch.bytes < BATCH_BYTES && batch.documents.len() < BATCH_DOCUMENTS {
            let bytes = match documents.peek() {
                Some(Ok(next)) => next.document.as_ref().map_or(0, |document| document.text.len()),
                _ => 0,
            };
            let is_empty = batch.documents.is_empty();
            if batch.bytes + bytes > limit && !(is_empty && Self::is_worth_trying(bytes, budget, is_first)) {
                return (!is_empty).then_some(batch);
            }
            batch.bytes += bytes;
            match documents.next() {
                Some(Ok(document)) => batch.documents.push(document),
                Some(Err(error)) => batch.end = Some(Err(error)),
                None => batch.end = Some(Ok(())),
            }
            if batch.end.is_some() {
                break;
            }
        }
        Some(batch)
    }

    /// Whether to embed a document alone that exceeds a batch or the time budget. The first document of a run is tried even then, because
    /// a retry would not have more time.
    fn is_worth_trying(bytes: usize, budget: &TimeBudget, is_first: bool) -> bool {
        bytes <= budget.remaining_bytes() || (is_first && budget.has_time_for_first_pass(bytes))
    }
}
