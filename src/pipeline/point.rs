//! Points: a chunk of a document with its vector, which is what a vector database stores.

use super::document::Document;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};
use uuid::Uuid;

/// The namespace of point ids is the UUIDv5 of this URN (<https://www.rfc-editor.org/rfc/rfc9562#section-5.5>).
const NAMESPACE: &[u8] = b"urn:tealight:point";
/// Field names of a point, which metadata cannot use.
const RESERVED: [&str; 8] = ["id", "vector", "document_id", "chunk", "text", "start", "end", "model"];

/// Fields that all points of a document share.
#[derive(Debug)]
pub struct DocumentFields {
    /// The id of the document, or the hash of its text; see [`Document::id_or_hash`].
    pub document_id: String,
    /// Name of the embedding model.
    pub model: String,
    /// Metadata of the document in its original order: names, and values as JSON without line breaks.
    pub metadata: Vec<(String, Box<RawValue>)>,
}

/// A chunk of a document with its vector.
#[derive(Debug, Clone)]
pub struct Point {
    /// UUIDv5 of document id, chunk index and model, so that writing the point again overwrites it.
    pub id: Uuid,
    /// Id and metadata of the document, and the model.
    pub document: Arc<DocumentFields>,
    /// Position in the document, from 0.
    pub chunk_index: usize,
    /// Text of the chunk.
    pub text: String,
    /// Start in the document's text, in characters.
    pub start: usize,
    /// End in the document's text, in characters; exclusive.
    pub end: usize,
    /// Embedding, `[D]`.
    pub vector: Vec<f32>,
}

impl DocumentFields {
    /// The shared part of the points that `model` makes of a document.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] for `id`; [`ErrorKind::InvalidType`] for `metadata` that is not an object, or has a duplicate or
    /// reserved name.
    pub fn new(document: &Document, model: &str) -> Result<Self> {
        let metadata = document.metadata.as_deref().map(metadata).transpose()?.unwrap_or_default();
        Ok(Self { document_id: document.id_or_hash()?, model: model.into(), metadata })
    }

    /// The id of the point for a chunk.
    pub fn point_id(&self, chunk_index: usize) -> Uuid {
        let name = format!("{}\n{chunk_index}\n{}", self.document_id, self.model);
        Uuid::new_v5(&Uuid::new_v5(&Uuid::NAMESPACE_URL, NAMESPACE), name.as_bytes())
    }
}

fn metadata(json: &RawValue) -> Result<Vec<(String, Box<RawValue>)>> {
    if json.get() == "null" {
        return Ok(vec![]);
    }
    let fields = serde_json::Deserializer::from_str(json.get())
        .deserialize_map(Fields)
        .map_err(|e| {
            Error::new(ErrorKind::InvalidType, format!("metadata is not a JSON object: {e}")).truncate_message()
        })
        .map_err(|e| e.with_param("metadata"))?;
    let invalid_field = |name: &str, reason: &str| {
        let message = format!("metadata field {:?} {reason}", truncate_for_display(name));
        Err(Error::new(ErrorKind::InvalidType, message).with_param("metadata"))
    };
    let mut names = std::collections::HashSet::with_capacity(fields.len());
    for (name, _) in &fields {
        if RESERVED.contains(&name.as_str()) {
            return invalid_field(name, &format!("is reserved; reserved: {}", RESERVED.join(", ")));
        }
        if !names.insert(name.as_str()) {
            return invalid_field(name, "occurs twice");
        }
    }
    Ok(fields)
}

/// Deserializes an object into its fields, in their original order.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<(String, Box<RawValue>)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = vec![];
        while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
            let value = match on_one_line(value.get()) {
                Cow::Borrowed(_) => value,
                Cow::Owned(line) => RawValue::from_string(line).map_err(serde::de::Error::custom)?,
            };
            fields.push((name, value));
        }
        Ok(fields)
    }
}

/// Replaces line breaks in JSON by spaces. They can only occur between tokens, because strings escape them.
fn on_one_line(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) { Cow::Owned(json.replace(['\n', '\r'], " ")) } else { Cow::Borrowed(json) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(document: &str) -> Result<DocumentFields> {
        DocumentFields::new(&Document::parse(document.as_bytes())?, "all-MiniLM-L6-v2")
    }

    #[test]
    fn point_id_equals_uuid5_of_python() {
        let fields = fields(r#"{"id": "a", "text": "x"}"#).unwrap();
        // uuid5(uuid5(NAMESPACE_URL, "urn:tealight:point"), "a\n0\nall-MiniLM-L6-v2") of Python's uuid.
        assert_eq!(fields.point_id(0).to_string(), "366c4645-9e46-5a06-900c-3305122738d0");
        assert_eq!(fields.point_id(12).to_string(), "3f60ba69-f843-5163-8a82-e194a3e5442a");
    }

    #[test]
    fn metadata_keeps_order_and_digits() {
        let found = fields("{\"text\": \"x\", \"metadata\": {\"z\": 1.50, \"a\": [1,\n 2], \"n\": null}}").unwrap();
        let fields: Vec<_> = found.metadata.iter().map(|(name, value)| (name.as_str(), value.get())).collect();
        assert_eq!(fields, [("z", "1.50"), ("a", "[1,  2]"), ("n", "null")]);
    }

    #[test]
    fn reserved_or_duplicate_metadata_field_is_rejected() {
        for (metadata, what) in [(r#"{"text": 1}"#, "text"), (r#"{"a": 1, "a": 2}"#, "twice"), ("[1]", "object")] {
            let error = fields(&format!("{{\"text\": \"x\", \"metadata\": {metadata}}}")).unwrap_err();
            assert!(error.message.contains(what) && error.param.as_deref() == Some("metadata"), "{error:?}");
        }
    }
}
