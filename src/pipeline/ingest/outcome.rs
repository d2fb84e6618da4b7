//! How a run ended: completely, or early and why.

use super::report::Report;
use tealight_core::{Error, ErrorKind};

/// What to do with the points that are already written if a run ends before all documents are embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// Do not finish the sink, so that a sink that publishes its output at the end, such as an S3 object, publishes nothing.
    AllOrNothing,
    /// Finish the sink. The caller retries the remaining documents.
    Partial,
}

/// Why a run ended before all documents were embedded.
#[derive(Debug, Clone)]
pub enum Stop {
    /// The source is invalid, so a retry would also fail.
    Permanent(Error),
    /// A retry can succeed.
    Retryable(Error),
}

impl Stop {
    /// The cause, whether it is permanent or not.
    pub fn error(&self) -> &Error {
        match self {
            Stop::Permanent(error) | Stop::Retryable(error) => error,
        }
    }

    /// Classifies an error of a source: invalid content is permanent, a failed read is retryable.
    pub(super) fn from_source_error(error: Error) -> Self {
        use ErrorKind::{BodyTooLarge, Empty, InvalidJson, InvalidType, InvalidValue, TooLong, UnsupportedMediaType};
        match error.kind {
            BodyTooLarge | Empty | InvalidJson | InvalidType | InvalidValue | UnsupportedMediaType | TooLong => {
                Stop::Permanent(error)
            }
            _ => Stop::Retryable(error),
        }
    }
}

/// The result of one run.
#[derive(Debug)]
pub struct IngestResult {
    /// Counts and failures of the documents that were read.
    pub report: Report,
    /// Number of leading documents that are written or permanently failed. The caller must retry the others.
    pub committed: usize,
    /// Why the run ended early, if it did.
    pub stop: Option<Stop>,
}
