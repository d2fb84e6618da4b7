//! Errors of the `tokenizers` crate.

use tealight_core::{Error, ErrorKind};

/// A text that cannot be tokenized, or ids that cannot be decoded.
pub(super) fn encode_error(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidValue, format!("the tokenizer failed: {error}"))
}

/// A tokenizer that cannot be built from what a file says.
pub(super) fn build_error(error: impl std::fmt::Display) -> Error {
    Error::invalid_model(format!("invalid tokenizer: {error}"))
}
