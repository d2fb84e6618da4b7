//! Errors about an audio file.

use std::fmt::Display;
use tealight_core::Error;

/// The request field of the audio file, which errors name.
pub(crate) const FIELD: &str = "file";

/// An error whose message is `file` followed by `problem`.
pub(crate) fn invalid_file(problem: impl Display) -> Error {
    Error::invalid_value(FIELD, format!("file {problem}"))
}
