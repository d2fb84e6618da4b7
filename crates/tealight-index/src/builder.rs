//! Building an index file from documents and their vectors.

use crate::bm25::PostingsBuilder;
use crate::document::IndexDocument;
use crate::format::{IndexHeader, Metric, ScanEncoding, Section};
use crate::index::Index;
use crate::scan::RowEncoder;
use crate::vectors::{MAX_DIMENSION, encode_f16, prepare_vector};
use crate::write::write_index;
use std::collections::HashSet;
use std::path::Path;
use tealight_core::{Error, ErrorKind, Result};
use tealight_kernels::CpuContext;

/// Collects documents in memory and writes an index file.
#[derive(Debug)]
pub struct IndexBuilder {
    model: Option<String>,
    dimension: usize,
    metric: Metric,
    encoding: ScanEncoding,
    encoder: RowEncoder,
    f16_rows: Vec<u16>,
    f16_scales: Vec<f32>,
    /// The documents as JSON, concatenated.
    documents: Vec<u8>,
    document_offsets: Vec<u64>,
    postings: PostingsBuilder,
    ids: HashSet<String>,
    graph: Option<Vec<u8>>,
}

impl IndexBuilder {
    /// An empty index. `model` is the name of the model that computes the embeddings, if it is known: queries are embedded with it.
    ///
    /// # Errors
    /// The dimension is 0 or exceeds [`MAX_DIMENSION`].
    pub fn new(model: Option<String>, dimension: usize, metric: Metric, encoding: ScanEncoding) -> Result<Self> {
        if dimension == 0 || dimension > MAX_DIMENSION {
            let message = format!("dimension is {dimension}; expected 1 to {MAX_DIMENSION}");
            return Err(Error::invalid_value("dimension", message));
        }
        Ok(Self {
            model,
            dimension,
            metric,
            encoding,
            encoder: RowEncoder::new(encoding),
            f16_rows: vec![],
            f16_scales: vec![],
            documents: vec![],
            document_offsets: vec![0],
            postings: PostingsBuilder::default(),
            ids: HashSet::new(),
            graph: None,
        })
    }

    /// Adds a document with its vector.
    ///
    /// # Errors
    /// The id was added before, the dimension differs, a value is not finite, the vector is all zeros for the metric cosine, or its
    /// norm exceeds [`MAX_NORM`](crate::MAX_NORM) for another metric. The error names the id.
    pub fn add(&mut self, document: &IndexDocument, vector: &[f32]) -> Result<()> {
        self.add_row(document, vector).map_err(|e| e.with_context(format_args!("document {:?}", document.id)))
    }

    fn add_row(&mut self, document: &IndexDocument, vector: &[f32]) -> Result<()> {
        let row = prepare_vector(vector, self.dimension, self.metric)?;
        let (halves, scale) = encode_f16(&row);
        self.push(document, &row, &halves, scale)
    }

    /// Adds a row of another index. Its scores stay bit-identical.
    ///
    /// # Errors
    /// The other index is corrupt, or the id was added before.
    pub fn copy_row(&mut self, index: &Index, row: usize) -> Result<()> {
        let (halves, scale) = index.f16_row(row)?;
        self.push(&index.document(row)?, &index.vector(row)?, halves, scale)
    }

    fn push(&mut self, document: &IndexDocument, row: &[f32], halves: &[u16], scale: f32) -> Result<()> {
        if !self.ids.insert(document.id.clone()) {
            return Err(Error::invalid_value("id", "duplicate document id"));
        }
        self.encoder.push(row, scale, self.metric);
        self.f16_rows.extend(halves);
        self.f16_scales.push(scale);
        let json =
            serde_json::to_vec(document).map_err(|e| Error::internal(format!("cannot serialize a document: {e}")))?;
        self.documents.extend(json);
        self.document_offsets.push(self.documents.len() as u64);
        self.postings.add(&document.text);
        Ok(())
    }

    /// Whether a document with this id was added.
    pub fn contains_id(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Number of rows added so far.
    pub fn rows(&self) -> usize {
        self.f16_scales.len()
    }

    /// Adds an HNSW graph over the rows added so far, which must be all rows of the index. A million rows take minutes.
    ///
    /// # Errors
    /// Memory ran out.
    #[cfg(feature = "graph")]
    pub fn build_hnsw(&mut self, cpu: &CpuContext) -> Result<()> {
        if self.rows() > 0 {
            let graph = crate::hnsw::build(cpu, &self.f16_rows, &self.f16_scales, self.dimension, self.metric)?;
            self.graph = Some(graph);
        }
        Ok(())
    }

    /// Adds an HNSW graph; not supported by this build.
    ///
    /// # Errors
    /// Always: this build lacks the feature `graph`.
    #[cfg(not(feature = "graph"))]
    pub fn build_hnsw(&mut self, _: &CpuContext) -> Result<()> {
        Err(Error::feature_disabled(ErrorKind::InvalidValue, "HNSW graphs", "graph"))
    }

    /// Writes the file atomically.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), or there are more than 2^32 - 1 rows.
    pub fn write(self, path: &Path) -> Result<()> {
        let Self { model, dimension, metric, encoding, .. } = self;
        let rows = self.f16_scales.len();
        if u32::try_from(rows).is_err() {
            let message = format!("index has {rows} rows; expected at most {}", u32::MAX);
            return Err(Error::new(ErrorKind::InvalidValue, message));
        }
        let header = IndexHeader { model, dimension, metric, encoding, rows, sections: vec![] };
        let mut sections = self.encoder.into_sections(&self.f16_rows, &self.f16_scales, dimension, metric);
        sections.push((Section::F16Rows, bytemuck::cast_slice(&self.f16_rows).to_vec()));
        sections.push((Section::F16Scales, bytemuck::cast_slice(&self.f16_scales).to_vec()));
        sections.push((Section::Documents, self.documents));
        sections.push((Section::DocumentOffsets, bytemuck::cast_slice(&self.document_offsets).to_vec()));
        sections.extend(self.postings.into_sections());
        sections.extend(self.graph.map(|graph| (Section::Graph, graph)));
        let sections: Vec<_> = sections.iter().map(|(section, bytes)| (*section, bytes.as_slice())).collect();
        write_index(path, header, &sections)
    }
}
