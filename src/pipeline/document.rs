//! Documents: an id, text and metadata.

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Maximum size of a document in its source, in bytes, because a document is held in memory.
pub const MAX_DOCUMENT_BYTES: usize = 16 << 20;

/// A document to embed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// A JSON string or number; raw, so that numbers keep all their digits.
    #[serde(default)]
    pub id: Option<Box<RawValue>>,
    /// The text to embed.
    pub text: String,
    /// A JSON object; raw, so that numbers keep all their digits.
    #[serde(default)]
    pub metadata: Option<Box<RawValue>>,
}

impl Document {
    /// A document without id and metadata.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self { id: None, text: text.into(), metadata: None }
    }

    /// Parses and validates a JSON object with the fields of a document and no others.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidType`], which names the field, and the errors of [`Document::validate`].
    pub fn parse(json: &[u8]) -> Result<Self> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let document: Self = serde_path_to_error::deserialize(&mut deserializer)
            .map_err(|e| invalid_document(&e))
            .and_then(|document| deserializer.end().map_err(|e| invalid_document(&e)).map(|()| document))?;
        document.validate()
    }

    /// Rejects documents that cannot be embedded or stored.
    ///
    /// # Errors
    /// [`ErrorKind::Empty`] if the text is empty, [`ErrorKind::InvalidValue`] for the id, [`ErrorKind::InvalidType`] if the
    /// metadata is not an object.
    pub fn validate(self) -> Result<Self> {
        if self.text.trim().is_empty() {
            return Err(Error::new(ErrorKind::Empty, "the text of the document is empty").with_param("text"));
        }
        self.id_or_hash()?;
        match &self.metadata {
            Some(metadata) if !metadata.get().starts_with('{') && metadata.get() != "null" => {
                let found = truncate_for_display(metadata.get());
                Err(Error::new(ErrorKind::InvalidType, format!("metadata is {found}; expected an object"))
                    .with_param("metadata"))
            }
            _ => Ok(self),
        }
    }

    /// The id, or a hash of the text if there is no id, so that the same document always has the same id.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`]: the id is neither a non-empty string nor a number.
    pub fn id_or_hash(&self) -> Result<String> {
        let Some(id) = self.id.as_deref().map(RawValue::get).filter(|id| *id != "null") else {
            return Ok(format!("sha256:{}", short_hash(&self.text)));
        };
        let invalid_id =
            |expected| Error::invalid_value("id", format!("id is {}; expected {expected}", truncate_for_display(id)));
        match id.as_bytes().first() {
            Some(b'"') => match serde_json::from_str::<String>(id) {
                Ok(id) if !id.is_empty() => Ok(id),
                _ => Err(invalid_id("a string that is not empty")),
            },
            Some(b'-' | b'0'..=b'9') => Ok(id.to_string()),
            _ => Err(invalid_id("a string or a number")),
        }
    }
}

fn invalid_document(error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidType, format!("not a document with a text: {error}")).truncate_message()
}

/// The first 16 bytes of the SHA-256 hash of a text, in hexadecimal. With 128 bits, collisions are negligible.
pub(crate) fn short_hash(text: &str) -> String {
    let mut hash = format!("{:x}", Sha256::digest(text));
    hash.truncate(32);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_field_is_named_in_error() {
        assert!(Document::parse(b"{\"text\": \"c\", \"txt\": 1}").unwrap_err().message.contains("txt"));
    }

    #[test]
    fn id_of_document_without_id_is_hash_of_text() {
        let id = Document::from_text("hello world").id_or_hash().unwrap();
        // The output of `printf 'hello world' | sha256sum`.
        assert_eq!(id, "sha256:b94d27b9934d3e08a52e52d7da7dabfa");
        assert_ne!(id, Document::from_text("hello world!").id_or_hash().unwrap());
    }
}
