//! What every tealight crate shares: the error type, deadlines, memory-mapped files and atomic writes.

pub mod deadline;
pub mod error;
pub mod files;
pub mod mmap;
mod random;
mod secret;
mod usage;

pub use deadline::Deadline;
pub use error::{Error, ErrorKind, Result, truncate_for_display};
pub use random::random;
pub use secret::Secret;
pub use usage::Usage;
