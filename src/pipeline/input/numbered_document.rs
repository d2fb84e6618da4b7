//! The type that every reader returns, and the errors that readers share.

use crate::pipeline::document::{Document, MAX_DOCUMENT_BYTES};
use tealight_core::{Error, ErrorKind, Result};

/// A document, or the reason why it is invalid, with its position in the source.
#[derive(Debug)]
pub struct NumberedDocument {
    /// Line or row in the source, from 1.
    pub number: usize,
    /// The error is about this document only; the documents after it can be read.
    pub document: Result<Document>,
}

/// Documents of a source, read one by one. An `Err` item means that the source itself failed; it is the last item.
pub type DocumentIter<'a> = Box<dyn Iterator<Item = Result<NumberedDocument>> + 'a>;

/// Numbers documents that are in memory.
pub fn from_iter<'a>(documents: impl Iterator<Item = Result<Document>> + 'a) -> DocumentIter<'a> {
    Box::new(documents.enumerate().map(|(i, document)| Ok(NumberedDocument { number: i + 1, document })))
}

/// The [`Error`] inside an I/O error if one of this crate's readers produced it, otherwise [`ErrorKind::Io`].
pub fn read_error(error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) => Error::new(ErrorKind::Io, error.to_string()),
    }
}

pub(super) fn too_large() -> Error {
    Error::new(
        ErrorKind::BodyTooLarge,
        format!("the document is too large; the limit is {MAX_DOCUMENT_BYTES} bytes. Split it"),
    )
}

pub(super) fn not_utf8(error: std::str::Utf8Error) -> Error {
    Error::new(ErrorKind::InvalidType, format!("the text is not valid UTF-8 at byte {}", error.valid_up_to()))
}
