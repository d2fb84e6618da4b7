//! The items of events with documents.

use crate::pipeline::document::Document;
use crate::pipeline::ingest::ObjectNotification;
use serde::Deserialize;
use tealight_core::{Error, ErrorKind, Result};

/// One thing to ingest.
#[derive(Debug)]
pub enum IngestItem {
    /// A document, or the reason why it is invalid.
    Document(Result<Document>),
    /// An object that was created, which contains documents.
    Object(ObjectNotification),
}

impl IngestItem {
    /// Parses a document.
    pub fn parse_document(json: &str) -> Self {
        Self::Document(Document::parse(json.as_bytes()))
    }
}

/// Parses a part of an event.
///
/// # Errors
/// [`ErrorKind::UnsupportedEvent`], with the path of the value at fault.
pub fn parse_part<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|e| unsupported(e).truncate_message())
}

/// The error of an event that the function does not handle.
pub fn unsupported(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::UnsupportedEvent, format!("unsupported event: {what}"))
}
