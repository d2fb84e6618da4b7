//! Text files, each of which is one document.

use super::numbered_document::{DocumentIter, NumberedDocument, not_utf8, read_error, too_large};
use crate::pipeline::document::{Document, MAX_DOCUMENT_BYTES};
use std::io::Read;

/// A byte order mark, which some editors put at the start of a file.
pub(super) const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads a text to its end as one document with this id.
pub fn read_all<'a>(reader: impl Read + 'a, id: Option<String>) -> DocumentIter<'a> {
    let read = move || {
        let mut bytes = vec![];
        reader.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(read_error)?;
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Ok(NumberedDocument { number: 1, document: Err(too_large()) });
        }
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
        let id = id.and_then(|id| serde_json::value::to_raw_value(&id).ok());
        let document = |text| Document { id, ..Document::from_text(text) }.validate();
        let document = std::str::from_utf8(bytes).map_err(not_utf8).and_then(document);
        Ok(NumberedDocument { number: 1, document })
    };
    Box::new(std::iter::once_with(read))
}
