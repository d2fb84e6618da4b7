//! Documents into a sink: read, embedded and written side by side.
//!
//! ```text
//! stream ─► groups ─► engine ─► points ─► (one group waits) ─► sink, on a thread of its own
//! ```
//!
//! What is wrong with a document is its own failure and ends nothing. What is wrong with the source, the engine or the sink ends
//! the run, and so does time that runs out; ids of points are the same the next time, so that to begin again loses nothing and
//! writes nothing twice.

mod object;
mod report;
mod run;
mod time_budget;

pub use object::ObjectNotification;
pub use report::{Failure, MAX_FAILURES, Report};
pub use run::{Commit, Ingest, Run, Stop};
