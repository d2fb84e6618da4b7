//! Request bodies of each vector database: their frame, their limits, and the representation of a point.

use super::encoding::{Encoded, VectorEncoding, encode};
use super::field_names;
use super::formats::Format;
use super::metadata::{MetadataRules, ValueTypes, json_string, metadata_json, payload_fields, reserved_fields};
use super::postgres_text;
use crate::pipeline::point::Point;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;
use tealight_core::{Error, ErrorKind, Result};

const MIB: usize = 1 << 20;
/// Maximum metadata per point in Pinecone and S3 Vectors, in bytes.
const MAX_METADATA_BYTES: usize = 40 * 1024;
/// Qdrant's uint8 vectors share one scale: the code of a value `v` is `127 v / c + 128`, clamped to 1 to 255, where
/// `c = QDRANT_CLIP / sqrt(D)`. For unit vectors, this value preserves the order of distances best: recall@10 is 0.99, measured on
/// 5,000 texts with all-MiniLM-L6-v2.
const QDRANT_CLIP: f32 = 4.9;

/// A request body without its points.
pub(super) struct BodyTemplate {
    /// The parts before, between and after the lists of points; a body with `n` lists has `n + 1` parts.
    pub frame: Vec<String>,
    /// Separates two points of a list.
    pub separator: &'static str,
    pub max_points: usize,
    /// Maximum size of a body in bytes, including the frame.
    pub max_bytes: usize,
    /// Whether an id may occur only once per body.
    pub unique_ids: bool,
}

impl Format {
    /// Collection, class or table name if the user sets none.
    pub(super) fn default_collection(self) -> &'static str {
        if self == Format::Weaviate { "Documents" } else { "documents" }
    }

    /// The template of request bodies for a collection, class or table.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] for `collection`.
    pub(super) fn template(self, collection: &str) -> Result<BodyTemplate> {
        field_names::check_collection(self, collection)?;
        let list = |head: &str, tail: &str| vec![head.to_string(), format!("{tail}\n")];
        let template = |frame, points, bytes| BodyTemplate {
            frame,
            separator: ",",
            max_points: points,
            max_bytes: bytes,
            unique_ids: true,
        };
        let unlimited = usize::MAX;
        Ok(match self {
            Format::Qdrant => template(list("{\"points\":[", "]}"), unlimited, 32 * MIB),
            Format::Pinecone => template(list("{\"vectors\":[", "]}"), 1000, 2_000_000),
            Format::S3Vectors => template(list("{\"vectors\":[", "]}"), 500, 20 * MIB),
            Format::Weaviate => template(list("{\"objects\":[", "]}"), 1000, 32 * MIB),
            Format::Milvus => template(
                list(&format!("{{\"collectionName\":{},\"data\":[", json_string(collection)), "]}"),
                unlimited,
                32 * MIB,
            ),
            Format::Turbopuffer => {
                template(list("{\"upsert_rows\":[", "],\"distance_metric\":\"cosine_distance\"}"), unlimited, 128 * MIB)
            }
            Format::Chroma => {
                let frame = ["{\"ids\":[", "],\"embeddings\":[", "],\"documents\":[", "],\"metadatas\":[", "]}\n"];
                template(frame.map(String::from).to_vec(), 300, 32 * MIB)
            }
            Format::PgvectorSql => {
                template(list(&postgres_text::insert(collection), &postgres_text::on_conflict()), 1000, 4 * MIB)
            }
            Format::Json => {
                BodyTemplate { separator: ",\n", unique_ids: false, ..template(list("[", "]"), unlimited, unlimited) }
            }
            Format::OpenSearch | Format::Elasticsearch => lines(10 * MIB),
            Format::Pgvector | Format::Jsonl => lines(unlimited),
            Format::Npy | Format::Arrow | Format::Parquet => {
                return Err(Error::internal(format!("{} has no request bodies", self.as_str())));
            }
        })
    }

    fn rules(self) -> MetadataRules {
        let flat = MetadataRules { value_types: ValueTypes::Flat, keep_nulls: false, ..MetadataRules::ANY };
        match self {
            Format::Pinecone => MetadataRules {
                value_types: ValueTypes::FlatTexts,
                check_name: field_names::pinecone,
                max_bytes: MAX_METADATA_BYTES,
                ..flat
            },
            Format::S3Vectors => MetadataRules {
                check_name: field_names::not_empty,
                max_fields: 50,
                max_bytes: MAX_METADATA_BYTES,
                ..flat
            },
            Format::Chroma => MetadataRules { check_name: field_names::chroma, keep_nulls: true, ..flat },
            Format::Turbopuffer => MetadataRules { check_name: field_names::turbopuffer, ..flat },
            Format::Weaviate => {
                MetadataRules { value_types: ValueTypes::Objects, check_name: field_names::weaviate, ..flat }
            }
            Format::Milvus => MetadataRules {
                check_name: field_names::milvus,
                max_bytes: 65_536,
                needs_decimal_point: true,
                ..MetadataRules::ANY
            },
            Format::OpenSearch | Format::Elasticsearch => {
                MetadataRules { check_name: field_names::lucene, ..MetadataRules::ANY }
            }
            _ => MetadataRules::ANY,
        }
    }

    /// Whether the store rejects zero vectors, because cosine similarity is undefined for them.
    fn rejects_zero(self, encoding: VectorEncoding) -> bool {
        let uses_cosine =
            matches!(self, Format::Pinecone | Format::S3Vectors | Format::OpenSearch | Format::Elasticsearch);
        uses_cosine && matches!(encoding, VectorEncoding::Float | VectorEncoding::Int8)
    }

    /// A point as JSON or text, one part for each list of the body.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`]: the store does not accept the vector or the metadata.
    pub(super) fn encode_point(self, point: &Point, encoding: VectorEncoding, collection: &str) -> Result<Vec<String>> {
        self.check_vector(&point.vector, encoding)?;
        let vector = self.encode_vector(&point.vector, encoding);
        let (id, rules) = (point.id, self.rules());
        let payload = || payload_fields(point, &rules, true);
        let object = |name: &str, fields: String| Ok(vec![format!("{{\"id\":\"{id}\",\"{name}\":{vector}{fields}}}")]);
        match self {
            Format::Qdrant => object("vector", format!(",\"payload\":{{{}}}", payload()?)),
            Format::Pinecone => object("values", format!(",\"metadata\":{{{}}}", payload()?)),
            Format::Milvus | Format::Turbopuffer => object("vector", format!(",{}", payload()?)),
            Format::S3Vectors => {
                let metadata = payload()?;
                Ok(vec![format!("{{\"key\":\"{id}\",\"data\":{{\"float32\":{vector}}},\"metadata\":{{{metadata}}}}}")])
            }
            Format::Weaviate => {
                let (class, properties) = (json_string(collection), payload()?);
                object("vector", format!(",\"class\":{class},\"properties\":{{{properties}}}"))
            }
            Format::OpenSearch | Format::Elasticsearch => {
                let fields = payload()?;
                Ok(vec![format!("{{\"index\":{{\"_id\":\"{id}\"}}}}\n{{\"vector\":{vector},{fields}}}\n")])
            }
            Format::Chroma => {
                let metadata = format!("{{{}}}", payload_fields(point, &rules, false)?);
                Ok(vec![format!("\"{id}\""), vector, json_string(&point.text), metadata])
            }
            Format::Pgvector => postgres_text::columns(point, vector).map(|row| vec![postgres_text::copy_row(&row)]),
            Format::PgvectorSql => {
                postgres_text::columns(point, vector).map(|row| vec![postgres_text::sql_values(&row)])
            }
            Format::Json => Ok(vec![record(point, vector, encoding)]),
            Format::Jsonl => Ok(vec![record(point, vector, encoding) + "\n"]),
            Format::Npy | Format::Arrow | Format::Parquet => {
                Err(Error::internal(format!("{} has no request bodies", self.as_str())))
            }
        }
    }

    /// Fails if the store does not accept the vector.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`].
    pub(super) fn check_vector(self, vector: &[f32], encoding: VectorEncoding) -> Result<()> {
        if let Some(i) = vector.iter().position(|v| !v.is_finite()) {
            let message = format!("value {i} of the vector is {}; expected a finite number", vector[i]);
            return Err(Error::new(ErrorKind::InvalidValue, message));
        }
        if self.rejects_zero(encoding) && vector.iter().all(|v| *v == 0.0) {
            let message = format!("the vector is zero; {} cannot compare it by cosine similarity", self.as_str());
            return Err(Error::new(ErrorKind::InvalidValue, message));
        }
        Ok(())
    }

    fn encode_vector(self, vector: &[f32], encoding: VectorEncoding) -> String {
        match (self, encoding) {
            (Format::Pgvector | Format::PgvectorSql, VectorEncoding::Binary) => {
                vector.iter().map(|v| if *v > 0.0 { '1' } else { '0' }).collect()
            }
            (Format::Milvus, VectorEncoding::Binary) => json_string(&STANDARD.encode(pack_bits(vector))),
            (Format::Qdrant, VectorEncoding::Uint8) => {
                let clip = QDRANT_CLIP / (vector.len() as f32).sqrt();
                let code = |v: &f32| (127.0 * v / clip).round().clamp(-127.0, 127.0) as i16 + 128;
                json(&Encoded::Integers(vector.iter().map(code).collect()))
            }
            _ => json(&encode(vector.to_vec(), encoding).0),
        }
    }
}

/// Sign bits of a vector, eight per byte; the first value is the most significant bit.
pub(super) fn pack_bits(vector: &[f32]) -> Vec<u8> {
    match encode(vector.to_vec(), VectorEncoding::Ubinary).0 {
        Encoded::Integers(bytes) => bytes.into_iter().map(|byte| byte as u8).collect(),
        _ => vec![],
    }
}

fn json(encoded: &Encoded) -> String {
    // Cannot fail, because all values are finite.
    serde_json::to_string(encoded).unwrap_or_default()
}

/// A point as one JSON object with nested metadata, which `tealight index build` reads.
fn record(point: &Point, vector: String, encoding: VectorEncoding) -> String {
    let mut line = format!("{{\"id\":\"{}\",{}", point.id, reserved_fields(point, true));
    if !point.document.metadata.is_empty() {
        let _ = write!(line, ",\"metadata\":{}", metadata_json(point));
    }
    let _ = write!(line, ",\"embedding\":{vector}");
    if let (_, Some(scale)) = encode(point.vector.clone(), encoding) {
        let _ = write!(line, ",\"scale\":{scale:?}");
    }
    line + "}"
}

/// The template of bodies that consist of lines.
fn lines(bytes: usize) -> BodyTemplate {
    BodyTemplate {
        frame: vec![String::new(); 2],
        separator: "",
        max_points: usize::MAX,
        max_bytes: bytes,
        unique_ids: false,
    }
}
