//! What each index takes of a point, and how much at a time.

use super::metadata::{MetadataRules, ValueTypes, json_string, metadata_json, payload_fields, reserved_fields};
use super::{Encoded, Encoding, Format, encode};
use crate::pipeline::point::Point;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

const MB: usize = 1 << 20;
/// Bytes of one point's metadata in Pinecone and S3 Vectors.
const MAX_METADATA_BYTES: usize = 40 * 1024;
/// Characters of a table, class or collection at most.
const MAX_NAME_LEN: usize = 63;
/// With one scale for all vectors a code is `127 v / c`, `c = QDRANT_CLIP / sqrt(D)`: of unit vectors the value that keeps the order of
/// distances best, measured on 5,000 texts of MiniLM (0.99 of the ten nearest).
const QDRANT_CLIP: f32 = 4.9;

/// A body of a request, without the points.
pub(super) struct BodyTemplate {
    /// Before, between and behind the lists of a body, which has one less of them than of these.
    pub frame: Vec<String>,
    /// Between two points of a list.
    pub separator: &'static str,
    /// Points at most.
    pub max_points: usize,
    /// Bytes at most.
    pub max_bytes: usize,
    /// Whether an id may stand in a body only once.
    pub unique_ids: bool,
}

impl Format {
    /// Whether it takes vectors in an encoding.
    pub(super) fn supports(self, encoding: Encoding) -> bool {
        use Encoding::{Base64, Binary, Float, Int8, Uint8};
        match self {
            Format::Json | Format::Jsonl => true,
            Format::Npy => encoding != Base64,
            Format::Qdrant => matches!(encoding, Float | Uint8),
            Format::OpenSearch | Format::Elasticsearch | Format::Milvus => matches!(encoding, Float | Int8 | Binary),
            Format::Pgvector | Format::PgvectorSql | Format::Arrow | Format::Parquet => {
                matches!(encoding, Float | Binary)
            }
            Format::Pinecone | Format::S3Vectors | Format::Chroma | Format::Weaviate | Format::Turbopuffer => {
                encoding == Float
            }
        }
    }

    /// The collection where none is named.
    pub(super) fn default_collection(self) -> &'static str {
        if self == Format::Weaviate { "Documents" } else { "documents" }
    }

    /// The shape of its bodies; `collection` is the name of a table, class or collection.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] of `collection`.
    pub(super) fn template(self, collection: &str) -> Result<BodyTemplate> {
        check_name(self, collection)?;
        let list = |head: &str, tail: &str| vec![head.to_string(), format!("{tail}\n")];
        let template = |frame, points, bytes| BodyTemplate {
            frame,
            separator: ",",
            max_points: points,
            max_bytes: bytes,
            unique_ids: true,
        };
        let many = usize::MAX;
        Ok(match self {
            Format::Qdrant => template(list("{\"points\":[", "]}"), many, 32 * MB),
            Format::Pinecone => template(list("{\"vectors\":[", "]}"), 1000, 2_000_000),
            Format::S3Vectors => template(list("{\"vectors\":[", "]}"), 500, 20 * MB),
            Format::Weaviate => template(list("{\"objects\":[", "]}"), 1000, 32 * MB),
            Format::Milvus => template(
                list(&format!("{{\"collectionName\":{},\"data\":[", json_string(collection)), "]}"),
                many,
                32 * MB,
            ),
            Format::Turbopuffer => {
                template(list("{\"upsert_rows\":[", "],\"distance_metric\":\"cosine_distance\"}"), many, 128 * MB)
            }
            Format::Chroma => {
                let frame = ["{\"ids\":[", "],\"embeddings\":[", "],\"documents\":[", "],\"metadatas\":[", "]}\n"];
                template(frame.map(String::from).to_vec(), 300, 32 * MB)
            }
            Format::PgvectorSql => template(list(&insert(collection), &on_conflict()), 1000, 4 * MB),
            Format::Json => {
                BodyTemplate { separator: ",\n", unique_ids: false, ..template(list("[", "]"), many, many) }
            }
            Format::OpenSearch | Format::Elasticsearch => lines(10 * MB),
            Format::Pgvector | Format::Jsonl => lines(many),
            Format::Npy | Format::Arrow | Format::Parquet => {
                return Err(Error::internal("a matrix or table is no body of a request"));
            }
        })
    }

    fn rules(self) -> MetadataRules {
        let flat = MetadataRules { value_types: ValueTypes::Flat, keep_nulls: false, ..MetadataRules::ANY };
        match self {
            Format::Pinecone => MetadataRules {
                value_types: ValueTypes::FlatTexts,
                check_name: pinecone_name,
                max_bytes: MAX_METADATA_BYTES,
                ..flat
            },
            Format::S3Vectors => {
                MetadataRules { check_name: not_empty, max_fields: 50, max_bytes: MAX_METADATA_BYTES, ..flat }
            }
            Format::Chroma => MetadataRules { check_name: chroma_name, keep_nulls: true, ..flat },
            Format::Turbopuffer => MetadataRules { check_name: turbopuffer_name, ..flat },
            Format::Weaviate => MetadataRules { value_types: ValueTypes::Objects, check_name: weaviate_name, ..flat },
            Format::Milvus => MetadataRules {
                check_name: milvus_name,
                max_bytes: 65_536,
                needs_decimal_point: true,
                ..MetadataRules::ANY
            },
            Format::OpenSearch | Format::Elasticsearch => {
                MetadataRules { check_name: lucene_name, ..MetadataRules::ANY }
            }
            _ => MetadataRules::ANY,
        }
    }

    /// Whether it scores by cosine alone, and so has no place for a vector without a direction.
    fn rejects_zero(self, encoding: Encoding) -> bool {
        let by_cosine =
            matches!(self, Format::Pinecone | Format::S3Vectors | Format::OpenSearch | Format::Elasticsearch);
        by_cosine && matches!(encoding, Encoding::Float | Encoding::Int8)
    }

    /// A point as the lists of a body take it, a text for each list.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`]: the index has no place for its vector or its metadata.
    pub(super) fn encode_point(self, point: &Point, encoding: Encoding, collection: &str) -> Result<Vec<String>> {
        self.check_vector(&point.vector, encoding)?;
        let vector = self.encode_vector(&point.vector, encoding);
        let (id, rules) = (point.id, self.rules());
        let payload = || payload_fields(point, &rules, true);
        let row = |name: &str, fields: String| Ok(vec![format!("{{\"id\":\"{id}\",\"{name}\":{vector}{fields}}}")]);
        match self {
            Format::Qdrant => row("vector", format!(",\"payload\":{{{}}}", payload()?)),
            Format::Pinecone => row("values", format!(",\"metadata\":{{{}}}", payload()?)),
            Format::Milvus | Format::Turbopuffer => row("vector", format!(",{}", payload()?)),
            Format::S3Vectors => {
                let metadata = payload()?;
                Ok(vec![format!("{{\"key\":\"{id}\",\"data\":{{\"float32\":{vector}}},\"metadata\":{{{metadata}}}}}")])
            }
            Format::Weaviate => {
                let (class, properties) = (json_string(collection), payload()?);
                row("vector", format!(",\"class\":{class},\"properties\":{{{properties}}}"))
            }
            Format::OpenSearch | Format::Elasticsearch => {
                let fields = payload()?;
                Ok(vec![format!("{{\"index\":{{\"_id\":\"{id}\"}}}}\n{{\"vector\":{vector},{fields}}}\n")])
            }
            Format::Chroma => {
                let metadata = format!("{{{}}}", payload_fields(point, &rules, false)?);
                Ok(vec![format!("\"{id}\""), vector, json_string(&point.text), metadata])
            }
            Format::Pgvector => postgres_columns(point, vector).map(|row| vec![copy_row(&row)]),
            Format::PgvectorSql => postgres_columns(point, vector).map(|row| vec![sql_values(&row)]),
            Format::Json => Ok(vec![record(point, vector, encoding)]),
            Format::Jsonl => Ok(vec![record(point, vector, encoding) + "\n"]),
            Format::Npy | Format::Arrow | Format::Parquet => Err(Error::internal("a matrix or table has no texts")),
        }
    }

    /// Refuses a vector that the index cannot take.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`].
    pub(super) fn check_vector(self, vector: &[f32], encoding: Encoding) -> Result<()> {
        if let Some(at) = vector.iter().position(|v| !v.is_finite()) {
            return Err(Error::new(ErrorKind::InvalidValue, format!("value {at} of the vector is {}", vector[at])));
        }
        if self.rejects_zero(encoding) && vector.iter().all(|v| *v == 0.0) {
            let message = format!("the vector is zero, which {} does not take for cosines", self.as_str());
            return Err(Error::new(ErrorKind::InvalidValue, message));
        }
        Ok(())
    }

    fn encode_vector(self, vector: &[f32], encoding: Encoding) -> String {
        match (self, encoding) {
            (Format::Pgvector | Format::PgvectorSql, Encoding::Binary) => {
                vector.iter().map(|v| if *v > 0.0 { '1' } else { '0' }).collect()
            }
            (Format::Milvus, Encoding::Binary) => json_string(&STANDARD.encode(pack_bits(vector))),
            (Format::Qdrant, Encoding::Uint8) => {
                let clip = QDRANT_CLIP / (vector.len() as f32).sqrt();
                let code = |v: &f32| (127.0 * v / clip).round().clamp(-127.0, 127.0) as i16 + 128;
                json(&Encoded::Integers(vector.iter().map(code).collect()))
            }
            _ => json(&encode(vector.to_vec(), encoding).0),
        }
    }
}

/// Bits of a vector, the first value highest.
pub(super) fn pack_bits(vector: &[f32]) -> Vec<u8> {
    match encode(vector.to_vec(), Encoding::Ubinary).0 {
        Encoded::Integers(bytes) => bytes.into_iter().map(|byte| byte as u8).collect(),
        _ => vec![],
    }
}

fn json(encoded: &Encoded) -> String {
    // Numbers that are finite always are JSON.
    serde_json::to_string(encoded).unwrap_or_default()
}

/// A point as `index build` and people read it: its metadata stays together.
fn record(point: &Point, vector: String, encoding: Encoding) -> String {
    let mut line = format!("{{\"id\":\"{}\",{}", point.id, reserved_fields(point, true));
    if !point.source.metadata.is_empty() {
        let _ = write!(line, ",\"metadata\":{}", metadata_json(point));
    }
    let _ = write!(line, ",\"embedding\":{vector}");
    if let (_, Some(scale)) = encode(point.vector.clone(), encoding) {
        let _ = write!(line, ",\"scale\":{scale:?}");
    }
    line + "}"
}

fn lines(bytes: usize) -> BodyTemplate {
    BodyTemplate {
        frame: vec![String::new(); 2],
        separator: "",
        max_points: usize::MAX,
        max_bytes: bytes,
        unique_ids: false,
    }
}

// Tables of PostgreSQL. https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2

const COLUMNS: [&str; 9] = ["id", "document_id", "chunk", "text", "start", "end", "model", "metadata", "vector"];

fn postgres_columns(point: &Point, vector: String) -> Result<[String; 9]> {
    let (source, metadata) = (&point.source, metadata_json(point));
    let is_nul = |text: &str| text.contains('\0');
    let field = source.metadata.iter().find(|(name, value)| is_nul(name) || has_nul(value.get()));
    let wrong = match field {
        Some((name, _)) => Some(("metadata", format!("metadata has {:?} with", truncate_for_display(name)))),
        None if is_nul(&source.document_id) => Some(("id", "id has".to_string())),
        None if is_nul(&point.text) => Some(("text", "text has".to_string())),
        None => None,
    };
    if let Some((field, what)) = wrong {
        let message = format!("{what} the character U+0000, which PostgreSQL does not take");
        return Err(Error::invalid_value(field, message));
    }
    let [chunk, start, end] = [point.chunk_index, point.start, point.end].map(|n| n.to_string());
    let (id, document_id, text, model) =
        (point.id.to_string(), source.document_id.clone(), point.text.clone(), source.model.clone());
    Ok([id, document_id, chunk, text, start, end, model, metadata, vector])
}

/// Whether JSON has the escape `\u0000`, whose backslash is not itself escaped.
fn has_nul(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(at, _)| {
        let before = json[..at].bytes().rev().take_while(|byte| *byte == b'\\').count();
        before % 2 == 0
    })
}

/// What rows of COPY and literals escape alike.
fn escape(c: char, out: &mut String) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        c => out.push(c),
    }
}

fn copy_row(row: &[String; 9]) -> String {
    let mut line = String::new();
    for (i, value) in row.iter().enumerate() {
        if i > 0 {
            line.push('\t');
        }
        for c in value.chars() {
            match c {
                '\t' => line.push_str("\\t"),
                c => escape(c, &mut line),
            }
        }
    }
    line.push('\n');
    line
}

fn sql_values(row: &[String; 9]) -> String {
    let literal = |value: &String| {
        let mut out = String::from(if value.contains(['\\', '\n', '\r']) { "E'" } else { "'" });
        for c in value.chars() {
            match c {
                '\'' => out.push_str("''"),
                c => escape(c, &mut out),
            }
        }
        out.push('\'');
        out
    };
    format!("({})", row.iter().map(literal).collect::<Vec<_>>().join(","))
}

fn insert(table: &str) -> String {
    let columns = COLUMNS.map(|name| format!("\"{name}\"")).join(", ");
    format!("INSERT INTO {table} ({columns}) VALUES ")
}

fn on_conflict() -> String {
    let mut tail = String::from(" ON CONFLICT (\"id\") DO UPDATE SET ");
    for (i, name) in COLUMNS.iter().skip(1).enumerate() {
        let _ = write!(tail, "{}\"{name}\" = EXCLUDED.\"{name}\"", if i > 0 { ", " } else { "" });
    }
    tail + ";"
}

// Names.

fn check_name(format: Format, name: &str) -> Result<()> {
    let fits = match format {
        Format::Weaviate => is_word(name) && name.starts_with(|c: char| c.is_ascii_uppercase()),
        Format::Milvus => is_word(name),
        Format::Pgvector | Format::PgvectorSql => name.split('.').count() <= 2 && name.split('.').all(is_word),
        _ => return Ok(()),
    };
    if fits && name.len() <= MAX_NAME_LEN {
        return Ok(());
    }
    let what = match format {
        Format::Weaviate => "a capital letter, then letters, digits and _",
        Format::Milvus => "letters, digits and _",
        _ => "TABLE or SCHEMA.TABLE of letters, digits and _",
    };
    Err(Error::invalid_value(
        "collection",
        format!("collection is {:?}, it must be {what}", truncate_for_display(name)),
    ))
}

fn is_word(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn not_empty(name: &str) -> Option<&'static str> {
    name.is_empty().then_some("a name without characters, which the index does not take")
}

/// <https://docs.pinecone.io/guides/index-data/indexing-overview#metadata-format>
fn pinecone_name(name: &str) -> Option<&'static str> {
    not_empty(name).or_else(|| name.starts_with('$').then_some("a name with $, which the index does not take"))
}

/// Attributes of <https://turbopuffer.com/docs/write>.
fn turbopuffer_name(name: &str) -> Option<&'static str> {
    pinecone_name(name)
        .or_else(|| (name.len() > 128).then_some("a name of more than 128 bytes, which the index does not take"))
}

/// <https://docs.trychroma.com/docs/collections/add-data>
fn chroma_name(name: &str) -> Option<&'static str> {
    pinecone_name(name).or_else(|| name.starts_with('#').then_some("a name with #, which the index does not take"))
}

/// <https://docs.weaviate.io/weaviate/config-refs/collections>
fn weaviate_name(name: &str) -> Option<&'static str> {
    let is_taken = ["_id", "_additional"].contains(&name);
    (!is_word(name) || is_taken)
        .then_some("which is no name of a property: letters, digits and _, and not _id or _additional")
}

fn milvus_name(name: &str) -> Option<&'static str> {
    (name == "$meta").then_some("which is Milvus's reserved_fields name")
}

/// Fields of OpenSearch's and Elasticsearch's reserved_fields, and paths that they cannot follow.
fn lucene_name(name: &str) -> Option<&'static str> {
    const OWN: [&str; 12] = [
        "_id",
        "_index",
        "_routing",
        "_source",
        "_ignored",
        "_field_names",
        "_seq_no",
        "_version",
        "_type",
        "_nested_path",
        "_tier",
        "_doc_count",
    ];
    let is_own = OWN.contains(&name).then_some("which is the index's reserved_fields name");
    let is_path = name.split('.').any(|part| part.trim().is_empty());
    is_own.or_else(|| is_path.then_some("in which a part between dots is empty, which the index does not take"))
}
