//! Types shared by the tealight crates, so that none has to depend on another for errors or limits.
//!
//! A *job* is the unit of work of `tealight::engine`: a validated request, a batch of documents, or the input of a command.
//!
//! | module or type | contents |
//! |---|---|
//! | [`error`] | [`Error`] and [`ErrorKind`]; each kind's HTTP status, error code and whether a retry can succeed |
//! | [`Deadline`] | the time by which a job must finish |
//! | [`Usage`] | tokens, characters, audio and times of a job |
//! | [`mmap`] | memory-mapped files |
//! | [`files`] | atomic writes |
//! | [`Secret`] | a key or password that is never printed |
//! | [`random`] | reproducible pseudo-random numbers |
//!
//! The features `candle` and `kernels` convert the errors of candle and of `tealight-kernels` into [`Error`].
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use tealight_core::{Deadline, Error, ErrorKind};
//!
//! let error = Error::invalid_value("dimensions", "dimensions is 0; expected 1 to 384");
//! assert_eq!((error.kind, error.kind.status()), (ErrorKind::InvalidValue, 400));
//! assert_eq!(Deadline::NONE.remaining(Duration::from_secs(5)), Duration::from_secs(5));
//! ```

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
