//! An open index and its contents.

use crate::document::IndexDocument;
use crate::file::{IndexFile, invalid_index};
use crate::format::{Metric, ScanEncoding, Section};
#[cfg(feature = "graph")]
use crate::hnsw::LazyGraph;
use crate::scan;
use crate::vectors::{MAX_DIMENSION, decode_f16};
use std::path::Path;
use tealight_core::Result;
use tealight_kernels::scoring::F16_ALIGN;

/// A vector index in a memory-mapped file. Searching needs no lock.
#[derive(Debug)]
pub struct Index {
    pub(crate) file: IndexFile,
    #[cfg(feature = "graph")]
    pub(crate) graph: LazyGraph,
}

impl Index {
    /// Opens a file. The contents are verified when they are first read.
    ///
    /// # Errors
    /// [`IndexLoad`](tealight_core::ErrorKind::IndexLoad): the file is not an index, or is corrupt;
    /// [`Io`](tealight_core::ErrorKind::Io).
    pub fn open(path: &Path) -> Result<Self> {
        let file = IndexFile::open(path)?;
        check_section_lengths(&file).map_err(|e| e.with_context(path.display()))?;
        Ok(Self {
            file,
            #[cfg(feature = "graph")]
            graph: LazyGraph::default(),
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.file.header.rows
    }

    /// Dimension of the vectors.
    pub fn dimension(&self) -> usize {
        self.file.header.dimension
    }

    /// The model that computed the embeddings; `None` if they came with the documents and no model was named for them.
    pub fn model(&self) -> Option<&str> {
        self.file.header.model.as_deref()
    }

    /// How rows are scored.
    pub fn metric(&self) -> Metric {
        self.file.header.metric
    }

    /// How rows are encoded for the first pass of a search.
    pub fn encoding(&self) -> ScanEncoding {
        self.file.header.encoding
    }

    /// Whether the file has an HNSW graph.
    pub fn has_graph(&self) -> bool {
        self.file.has(Section::Graph)
    }

    /// Reads the whole file and verifies its checksums.
    ///
    /// # Errors
    /// [`IndexLoad`](tealight_core::ErrorKind::IndexLoad).
    pub fn verify(&self) -> Result<()> {
        self.file.verify()
    }

    /// The document of a row.
    ///
    /// # Errors
    /// [`IndexLoad`](tealight_core::ErrorKind::IndexLoad): this part of the file is corrupt.
    pub fn document(&self, row: usize) -> Result<IndexDocument> {
        let offsets: &[u64] = self.file.values(Section::DocumentOffsets, row..row + 2)?;
        let bytes = self.file.bytes(Section::Documents, offsets[0] as usize..offsets[1] as usize)?;
        serde_json::from_slice(bytes)
            .map_err(|e| invalid_index(format_args!("is corrupt: cannot parse the document of row {row}: {e}")))
    }

    /// The vector of a row, in the precision of float16.
    ///
    /// # Errors
    /// As [`Index::document`].
    pub fn vector(&self, row: usize) -> Result<Vec<f32>> {
        let (halves, scale) = self.f16_row(row)?;
        Ok(decode_f16(&halves[..self.dimension()], scale))
    }

    /// A row in float16, padded to [`F16_ALIGN`], and its scale.
    pub(crate) fn f16_row(&self, row: usize) -> Result<(&[u16], f32)> {
        let row_len = self.f16_row_len();
        let halves = self.file.values(Section::F16Rows, row * row_len..(row + 1) * row_len)?;
        let scale: &[f32] = self.file.values(Section::F16Scales, row..row + 1)?;
        Ok((halves, scale[0]))
    }

    pub(crate) fn f16_row_len(&self) -> usize {
        self.dimension().next_multiple_of(F16_ALIGN)
    }
}

/// Checks that each section whose length follows from the header has that length. The lengths of the others depend on the
/// documents.
fn check_section_lengths(file: &IndexFile) -> Result<()> {
    let header = &file.header;
    let (rows, dimension) = (header.rows, header.dimension);
    if dimension == 0 || dimension > MAX_DIMENSION {
        return Err(invalid_index(format_args!("has dimension {dimension}; expected 1 to {MAX_DIMENSION}")));
    }
    let mut lengths = scan::section_lengths(header);
    lengths.push((Section::F16Rows, rows.saturating_mul(2 * dimension.next_multiple_of(F16_ALIGN))));
    lengths.extend([Section::F16Scales, Section::DocumentLengths].map(|section| (section, rows.saturating_mul(4))));
    lengths.push((Section::DocumentOffsets, rows.saturating_add(1).saturating_mul(8)));
    for (section, expected) in lengths {
        let actual = file.count::<u8>(section)?;
        if actual != expected {
            return Err(invalid_index(format_args!(
                "is corrupt: {section:?} is {actual} bytes; expected {expected} for {rows} rows"
            )));
        }
    }
    Ok(())
}
