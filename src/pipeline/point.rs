//! Points: what an index holds of a document, a vector with what it is of.

use super::input::Document;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};
use uuid::Uuid;

/// The namespace that ids of points are made in: UUIDv5 of this name among URLs
/// (<https://www.rfc-editor.org/rfc/rfc9562#section-5.5>).
const NAMESPACE: &[u8] = b"urn:tealight:point";
/// Names that a point has of its own, so that metadata cannot.
const RESERVED: [&str; 8] = ["id", "vector", "document_id", "chunk", "text", "start", "end", "model"];

/// What the points of a document have in common.
#[derive(Debug)]
pub struct PointSource {
    /// The document's name.
    pub document_id: String,
    /// The model of the vectors.
    pub model: String,
    /// The document's metadata in its own order: names, and values as JSON on one line.
    pub metadata: Vec<(String, Box<RawValue>)>,
}

/// A part of a document, with its vector.
#[derive(Debug, Clone)]
pub struct Point {
    /// The same for the same document, number and model, so that writing it again overwrites.
    pub id: Uuid,
    /// What it is a part of.
    pub source: Arc<PointSource>,
    /// Its number in the document, from 0.
    pub chunk_index: usize,
    /// Its text.
    pub text: String,
    /// Where it begins in the document's text, in characters.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// `[D]`.
    pub vector: Vec<f32>,
}

impl PointSource {
    /// Of a document.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] of `id`; [`ErrorKind::InvalidType`] of `metadata`: it is no object, has a name twice, or one that a point
    /// has of its own.
    pub fn new(document: &Document, model: &str) -> Result<Self> {
        let metadata = document.metadata.as_deref().map(metadata).transpose()?.unwrap_or_default();
        Ok(Self { document_id: document.id_or_hash()?, model: model.into(), metadata })
    }

    /// The id of one of its points.
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
    let refused = |name: &str, what: &str| {
        let name = truncate_for_display(name);
        Err(Error::new(ErrorKind::InvalidType, format!("metadata has {name:?} {what}")).with_param("metadata"))
    };
    let mut names = std::collections::HashSet::with_capacity(fields.len());
    for (name, _) in &fields {
        if RESERVED.contains(&name.as_str()) {
            return refused(name, &format!("which is a point's own name, as are {}", RESERVED.join(", ")));
        }
        if !names.insert(name.as_str()) {
            return refused(name, "twice");
        }
    }
    Ok(fields)
}

/// The fields of an object in their order.
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

/// JSON without line breaks, which it can only have between its tokens.
fn on_one_line(json: &str) -> Cow<'_, str> {
    match json.contains(['\n', '\r']) {
        true => Cow::Owned(json.replace(['\n', '\r'], " ")),
        false => Cow::Borrowed(json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(document: &str) -> Result<PointSource> {
        PointSource::new(&Document::parse(document.as_bytes())?, "all-MiniLM-L6-v2")
    }

    #[test]
    fn ids_are_those_of_pythons_uuid5() {
        let source = source(r#"{"id": "a", "text": "x"}"#).unwrap();
        // uuid5(uuid5(NAMESPACE_URL, "urn:tealight:point"), "a\n0\nall-MiniLM-L6-v2") of Python's uuid.
        assert_eq!(source.point_id(0).to_string(), "366c4645-9e46-5a06-900c-3305122738d0");
        assert_eq!(source.point_id(12).to_string(), "3f60ba69-f843-5163-8a82-e194a3e5442a");
    }

    #[test]
    fn metadata_keeps_its_order_and_its_digits() {
        let found = source("{\"text\": \"x\", \"metadata\": {\"z\": 1.50, \"a\": [1,\n 2], \"n\": null}}").unwrap();
        let fields: Vec<_> = found.metadata.iter().map(|(name, value)| (name.as_str(), value.get())).collect();
        assert_eq!(fields, [("z", "1.50"), ("a", "[1,  2]"), ("n", "null")]);
    }

    #[test]
    fn metadata_that_cannot_stand_beside_a_points_fields_is_refused() {
        for (metadata, what) in [(r#"{"text": 1}"#, "text"), (r#"{"a": 1, "a": 2}"#, "twice"), ("[1]", "object")] {
            let error = source(&format!("{{\"text\": \"x\", \"metadata\": {metadata}}}")).unwrap_err();
            assert!(error.message.contains(what) && error.param.as_deref() == Some("metadata"), "{error:?}");
        }
    }
}
