//! Stand-in.
use super::Encoding;
use crate::documents::Point;
use crate::error::{Error, Kind, Result};
use serde_json::{Value, json};

/// How points are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Format {
    Jsonl,
    Qdrant,
    OpenSearch,
    S3Vectors,
    PgvectorCopy,
}

impl Format {
    /// The format of a name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "jsonl" => Self::Jsonl,
            "qdrant" => Self::Qdrant,
            "opensearch" => Self::OpenSearch,
            "s3-vectors" => Self::S3Vectors,
            "pgvector" => Self::PgvectorCopy,
            _ => return None,
        })
    }
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Qdrant => "qdrant",
            Self::OpenSearch => "opensearch",
            Self::S3Vectors => "s3-vectors",
            Self::PgvectorCopy => "pgvector",
        }
    }
}

/// A point that is written.
#[derive(Debug)]
pub struct Item {
    id: uuid::Uuid,
    text: String,
}

/// Bodies of points.
#[derive(Debug)]
pub struct Packer {
    format: Format,
    held: Vec<Item>,
}

impl Packer {
    /// Of a format.
    pub fn new(format: Format, encoding: Encoding, _collection: &str) -> Result<Self> {
        if encoding != Encoding::Float {
            return Err(Error::value("encoding", format!("{} takes float", format.name())));
        }
        Ok(Self { format, held: vec![] })
    }
    /// One point.
    pub fn item(&self, point: &Point) -> Result<Item> {
        if point.vector.iter().all(|v| *v == 0.0) {
            return Err(Error::new(Kind::InvalidValue, "zero vector"));
        }
        let o = &point.origin;
        let mut payload = json!({"document_id": o.document_id, "chunk": point.chunk, "text": point.text, "start": point.start, "end": point.end, "model": o.model});
        let metadata: serde_json::Map<String, Value> =
            o.metadata.iter().map(|(k, v)| (k.clone(), serde_json::from_str(v.get()).unwrap_or_default())).collect();
        for (k, v) in &metadata {
            payload[k] = v.clone();
        }
        let id = point.id;
        let text = match self.format {
            Format::Jsonl => json!({"id": o.document_id, "text": point.text, "embedding": point.vector}).to_string(),
            Format::Qdrant => json!({"id": id, "vector": point.vector, "payload": payload}).to_string(),
            Format::S3Vectors => json!({"key": id, "data": {"float32": point.vector}, "metadata": payload}).to_string(),
            Format::OpenSearch => {
                payload["vector"] = json!(point.vector);
                format!("{}\n{payload}\n", json!({"index": {"_id": id}}))
            }
            Format::PgvectorCopy => {
                let e =
                    |s: &str| s.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r");
                format!(
                    "{id}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\n",
                    e(&o.document_id),
                    point.chunk,
                    e(&point.text),
                    point.start,
                    point.end,
                    e(&o.model),
                    e(&json!(metadata).to_string()),
                    json!(point.vector)
                )
            }
        };
        Ok(Item { id, text })
    }
    /// The body before.
    pub fn push(&mut self, item: Item) -> Option<Vec<u8>> {
        let body = if self.held.iter().any(|i| i.id == item.id) { self.finish() } else { None };
        self.held.push(item);
        body
    }
    /// The last body.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        let items: Vec<_> = std::mem::take(&mut self.held).into_iter().map(|i| i.text).collect();
        if items.is_empty() {
            return None;
        }
        Some(
            match self.format {
                Format::Jsonl => items.iter().map(|i| format!("{i}\n")).collect::<String>(),
                Format::Qdrant => format!("{{\"points\":[{}]}}", items.join(",")),
                Format::S3Vectors => format!("{{\"vectors\":[{}]}}", items.join(",")),
                _ => items.concat(),
            }
            .into_bytes(),
        )
    }
}
