//! The output formats and which encodings they support.

use super::encoding::VectorEncoding;
use tealight_core::{Error, Result};

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON array.
    Json,
    /// JSON Lines: one object per line.
    Jsonl,
    /// Only the vectors, as a NumPy matrix `[points, D]`.
    Npy,
    /// Request bodies of Qdrant's upsert: <https://api.qdrant.tech/api-reference/points/upsert-points>.
    Qdrant,
    /// Request bodies of Pinecone's upsert: <https://docs.pinecone.io/reference/api/2025-04/data-plane/upsert>.
    Pinecone,
    /// Request bodies of PutVectors of Amazon S3 Vectors, without the names of bucket and index:
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_S3VectorBuckets_PutVectors.html>.
    S3Vectors,
    /// Request bodies of `_bulk` of OpenSearch: <https://docs.opensearch.org/latest/api-reference/document-apis/bulk/>.
    OpenSearch,
    /// Request bodies of `_bulk` of Elasticsearch.
    Elasticsearch,
    /// Rows for PostgreSQL's `COPY` in text format, for a table with pgvector's types.
    Pgvector,
    /// SQL statements that insert or overwrite rows of the same table.
    PgvectorSql,
    /// Request bodies of Chroma's upsert: <https://docs.trychroma.com/reference>.
    Chroma,
    /// Request bodies of Weaviate's batch endpoint: <https://docs.weaviate.io/weaviate/api/rest#tag/batch>.
    Weaviate,
    /// Request bodies of Milvus's upsert: <https://milvus.io/api-reference/restful/v2.6.x/v2/Vector%20(v2)/Upsert.md>.
    Milvus,
    /// Request bodies of Turbopuffer's write: <https://turbopuffer.com/docs/write>.
    Turbopuffer,
    /// An Arrow IPC stream, which LanceDB reads: <https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format>.
    Arrow,
    /// A Parquet file with the same columns as [`Format::Arrow`].
    Parquet,
}

impl Format {
    /// All formats, in the order of help texts and error messages.
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

    /// The name in requests and on the command line.
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

    /// Whether the command line writes documents with one vector each; other formats contain chunks.
    pub fn is_record(self) -> bool {
        matches!(self, Format::Json | Format::Jsonl | Format::Npy)
    }

    /// Whether the output is one binary file, as opposed to a sequence of request bodies.
    pub fn is_file(self) -> bool {
        matches!(self, Format::Npy | Format::Arrow | Format::Parquet)
    }

    /// Inverse of [`Format::as_str`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == name)
    }

    /// Fails if the format cannot represent vectors in this encoding.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::InvalidValue`] for `encoding`.
    pub fn check_encoding(self, encoding: VectorEncoding) -> Result<()> {
        if self.supports(encoding) {
            return Ok(());
        }
        let supported: Vec<_> =
            VectorEncoding::ALL.into_iter().filter(|e| self.supports(*e)).map(VectorEncoding::as_str).collect();
        let message = format!("encoding is {}; {} supports {}", encoding.as_str(), self.as_str(), supported.join(", "));
        Err(Error::invalid_value("encoding", message))
    }

    fn supports(self, encoding: VectorEncoding) -> bool {
        use VectorEncoding::{Base64, Binary, Float, Int8, Uint8};
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
}
