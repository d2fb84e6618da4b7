//! Ingestion: reads documents, embeds them, and writes their points to a sink, all at the same time.
//!
//! ```text
//! DocumentIter ─► DocumentBatch ─► engine ─► points ─► (queue of one batch) ─► sink, in its own thread
//! ```
//!
//! A document that fails is reported and does not stop the run. A failing source, engine or sink does, and so does the deadline.
//! A retry neither loses nor duplicates points, because the id of a point depends only on document, chunk and model.

mod batch;
mod object;
mod outcome;
mod report;
mod run;
mod time_budget;

pub use object::ObjectNotification;
pub use outcome::{Commit, IngestResult, Stop};
pub use report::{Failure, MAX_FAILURES, Report};
pub use run::Ingest;
