//! The documents of an index.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A document: an id, its text and its metadata.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexDocument {
    /// Unique in the index.
    pub id: String,
    /// The text for lexical search, returned with each hit.
    #[serde(default)]
    pub text: String,
    /// Fields for filters.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}
