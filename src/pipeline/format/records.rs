//! Documents with their vectors as records, and the formats of all that has vectors.

use super::{Encoded, Encoding, npy};
use serde::Serialize;
use serde_json::value::RawValue;
use std::io::Write;
use tealight_core::{Error, ErrorKind, Result};

/// A document that has a vector.
#[derive(Debug, Serialize)]
pub struct Record {
    /// Any JSON, as the source has it: numbers keep their digits.
    pub id: Box<RawValue>,
    /// What the vector is of.
    pub text: String,
    /// What else is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
    /// The vector.
    pub embedding: Encoded,
    /// For int8 and uint8: value = scale × code, or scale × (code − 128).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
}

/// How points are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A list.
    Json,
    /// One a line.
    Jsonl,
    /// The vectors alone, as a NumPy matrix.
    Npy,
    /// Bodies of Qdrant's upsert: <https://api.qdrant.tech/api-reference/points/upsert-points>.
    Qdrant,
    /// Bodies of Pinecone's upsert: <https://docs.pinecone.io/reference/api/2025-04/data-plane/upsert>.
    Pinecone,
    /// Bodies of PutVectors, without the names of bucket and index:
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_S3VectorBuckets_PutVectors.html>.
    S3Vectors,
    /// Bodies of `_bulk`: <https://docs.opensearch.org/latest/api-reference/document-apis/bulk/>.
    OpenSearch,
    /// The same, for Elasticsearch.
    Elasticsearch,
    /// Rows of `COPY`, in PostgreSQL's text format, for a table with pgvector's types.
    Pgvector,
    /// Statements of SQL for the same table, which write over what is there.
    PgvectorSql,
    /// Bodies of Chroma's upsert: <https://docs.trychroma.com/reference>.
    Chroma,
    /// Bodies of Weaviate's batch: <https://docs.weaviate.io/weaviate/api/rest#tag/batch>.
    Weaviate,
    /// Bodies of Milvus's upsert: <https://milvus.io/api-reference/restful/v2.6.x/v2/Vector%20(v2)/Upsert.md>.
    Milvus,
    /// Bodies of Turbopuffer's write: <https://turbopuffer.com/docs/write>.
    Turbopuffer,
    /// A stream of Arrow, as LanceDB reads it: <https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format>.
    Arrow,
    /// A file of Parquet, in the same columns.
    Parquet,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 16] = [
        Format::Json,
        Format::Jsonl,
        Format::Npy,
        Format::Qdrant,
        Format::Pinecone,
        Format::S3Vectors,
        Format::OpenSearch,
        Format::Elasticsearch,
        Format::Pgvector,
        Format::PgvectorSql,
        Format::Chroma,
        Format::Weaviate,
        Format::Milvus,
        Format::Turbopuffer,
        Format::Arrow,
        Format::Parquet,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Jsonl => "jsonl",
            Format::Npy => "npy",
            Format::Qdrant => "qdrant",
            Format::Pinecone => "pinecone",
            Format::S3Vectors => "s3-vectors",
            Format::OpenSearch => "opensearch",
            Format::Elasticsearch => "elasticsearch",
            Format::Pgvector => "pgvector",
            Format::PgvectorSql => "pgvector-sql",
            Format::Chroma => "chroma",
            Format::Weaviate => "weaviate",
            Format::Milvus => "milvus",
            Format::Turbopuffer => "turbopuffer",
            Format::Arrow => "arrow",
            Format::Parquet => "parquet",
        }
    }

    /// Whether documents stand in it as they are, each with one vector; else they are cut into points.
    pub fn is_record(self) -> bool {
        matches!(self, Format::Json | Format::Jsonl | Format::Npy)
    }

    /// Whether it is a matrix or table as a whole, and not bodies of requests.
    pub fn is_file(self) -> bool {
        matches!(self, Format::Npy | Format::Arrow | Format::Parquet)
    }

    /// The format of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }

    /// Refuses an encoding that has no place in it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`].
    pub fn check_encoding(self, encoding: Encoding) -> Result<()> {
        if self.supports(encoding) {
            return Ok(());
        }
        let taken: Vec<_> = Encoding::ALL.into_iter().filter(|e| self.supports(*e)).map(Encoding::as_str).collect();
        let message = format!("encoding is {}, {} takes {}", encoding.as_str(), self.as_str(), taken.join(", "));
        Err(Error::invalid_value("encoding", message))
    }
}

/// Writes records as they come, where the format can.
pub struct RecordWriter<'a> {
    out: &'a mut dyn Write,
    format: Format,
    pending: Vec<Record>,
}

impl std::fmt::Debug for RecordWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecordWriter of {}", self.format.as_str())
    }
}

impl<'a> RecordWriter<'a> {
    /// Writes to `out`.
    pub fn new(out: &'a mut dyn Write, format: Format) -> Self {
        Self { out, format, pending: vec![] }
    }

    /// Writes records; false where nobody reads on.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn push(&mut self, records: Vec<Record>) -> Result<bool> {
        if self.format != Format::Jsonl {
            self.pending.extend(records);
            return Ok(true);
        }
        for record in &records {
            if !write_line(self.out, &to_json(record)?)? {
                return Ok(false);
            }
        }
        flush(self.out)
    }

    /// Ends; `dimension` is that of the vectors, of which there may be none.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn finish(self, dimension: usize, encoding: Encoding) -> Result<()> {
        let Self { out, format, pending } = self;
        match format {
            Format::Jsonl => Ok(()),
            Format::Json => {
                let records = pending.iter().map(to_json).collect::<Result<Vec<_>>>()?;
                write_line(out, &format!("[{}]", records.join(",\n"))).map(drop)
            }
            Format::Npy => {
                let columns = match encoding {
                    Encoding::Binary | Encoding::Ubinary => dimension.div_ceil(8),
                    _ => dimension,
                };
                let rows: Vec<_> = pending.into_iter().map(|record| record.embedding).collect();
                npy::write(out, &rows, columns, encoding).map_err(write_error)
            }
            other => Err(Error::internal(format!("records are not written as {}", other.as_str()))),
        }
    }
}

/// Writes a line; false where nobody reads on.
///
/// # Errors
/// [`ErrorKind::Io`].
pub fn write_line(out: &mut dyn Write, text: &str) -> Result<bool> {
    ignore_broken_pipe(writeln!(out, "{text}"))
}

/// Writes bytes and passes them on; false where nobody reads on.
///
/// # Errors
/// [`ErrorKind::Io`].
pub fn write_bytes(out: &mut dyn Write, bytes: &[u8]) -> Result<bool> {
    Ok(ignore_broken_pipe(out.write_all(bytes))? && flush(out)?)
}

/// Passes on what was written, for whoever waits for it; false where nobody reads on.
///
/// # Errors
/// [`ErrorKind::Io`].
pub fn flush(out: &mut dyn Write) -> Result<bool> {
    ignore_broken_pipe(out.flush())
}

fn ignore_broken_pipe(outcome: std::io::Result<()>) -> Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(write_error(e)),
    }
}

/// What was made could not be written.
pub(crate) fn write_error(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, format!("cannot write: {error}"))
}

fn to_json(record: &Record) -> Result<String> {
    serde_json::to_string(record).map_err(|e| Error::internal(format!("a result is not JSON: {e}")))
}
