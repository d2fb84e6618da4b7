//! The header of an index file and the names of its sections.

use serde::{Deserialize, Serialize};
use tealight_kernels::scoring::BLOCK_ROWS;

/// How the similarity of a query and a row is measured. Larger scores are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Cosine similarity, from -1 to 1.
    Cosine,
    /// Inner product.
    Dot,
    /// Negative squared Euclidean distance.
    L2,
}

/// How rows are compressed for the first pass of a search. The best rows of this pass are scored again in float16.
///
/// The command line and the header of the file call it `precision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScanEncoding {
    /// 8 bits per value.
    Int8,
    /// 4 bits per value: half of the memory traffic of `Int8`; docs/performance.md#search has the times.
    Int4,
    /// 1 bit per value: an eighth of the size of `Int8`, for models whose signs preserve similarity.
    Binary,
}

/// A section of the file. The serialized names are part of the file format and older than the names here: `codes` and `signs` are
/// quantized rows, `terms` their parameters, `halves` and `largest` float16 rows and their scales, `starts` offsets, `lengths` the
/// lengths of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Section {
    /// int8 values of rows, in blocks of 16.
    #[serde(rename = "codes")]
    Int8Codes,
    /// Scale, sum and score offset of each of these rows.
    #[serde(rename = "terms")]
    Int8Params,
    /// 4-bit values of rows, in blocks of 16.
    #[serde(rename = "codes4")]
    Int4Codes,
    /// Scale, smallest value and score offset of each of these rows.
    #[serde(rename = "terms4")]
    Int4Params,
    /// Signs of rows after subtracting the mean of all rows, in blocks of 16.
    #[serde(rename = "signs")]
    BinaryCodes,
    /// Scale and score offset of each of these rows.
    #[serde(rename = "signterms")]
    BinaryParams,
    /// The mean of all rows, f32.
    Mean,
    /// Rows in float16, each divided by its largest magnitude.
    #[serde(rename = "halves")]
    F16Rows,
    /// The largest magnitude of each row, f32.
    #[serde(rename = "largest")]
    F16Scales,
    /// Documents as JSON, concatenated.
    Documents,
    /// Offset of each document, u64, and the end of the last.
    #[serde(rename = "starts")]
    DocumentOffsets,
    /// The distinct words of all documents, sorted and concatenated.
    Words,
    /// Offset of each word in `Words` and in `Postings`, two u64, and the ends of the last.
    #[serde(rename = "wordstarts")]
    WordOffsets,
    /// Rows that contain a word and how often, two u32, sorted by row.
    Postings,
    /// Number of words of each document, u32.
    #[serde(rename = "lengths")]
    DocumentLengths,
    /// HNSW graph: scale of the graph's int8 values, f32; zeros up to 64; usearch's bytes.
    Graph,
}

/// The metadata of an index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct IndexHeader {
    /// The model that computed the embeddings; `None` if they came with the documents and no model was named for them.
    pub model: Option<String>,
    pub dimension: usize,
    pub metric: Metric,
    /// `precision` in the file, as on the command line.
    #[serde(rename = "precision")]
    pub encoding: ScanEncoding,
    pub rows: usize,
    /// Offset in the body and length in bytes of each section.
    pub sections: Vec<(Section, u64, u64)>,
}

impl IndexHeader {
    /// Number of blocks of [`BLOCK_ROWS`] rows.
    pub(crate) fn blocks(&self) -> usize {
        self.rows.div_ceil(BLOCK_ROWS)
    }
}
