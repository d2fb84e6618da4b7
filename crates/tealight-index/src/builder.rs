//! From documents and their vectors to the file of an index.

use super::file::{Header, Metric, Part, Precision, write};
use super::{Document, Index, binary, bm25};
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use std::collections::HashSet;
use std::path::Path;
use tealight_core::{Error, ErrorKind, Result};
use tealight_kernels::scoring::int4::{BlockParams as Terms4, DIM_ALIGN as STEP4, QMAX as MOST4};
use tealight_kernels::scoring::int8::{BlockParams as Terms, DIM_ALIGN as STEP};
use tealight_kernels::scoring::{BLOCK_ROWS as ROWS, F16_ALIGN as HALVES};

/// Values of a vector at most.
pub const MOST_VALUES: usize = 65_536;
/// The length of a vector at most where it is not scaled to 1: float32 holds all products and squares of such vectors.
pub const MOST_LENGTH: f64 = 1e17;
/// The largest code.
const LARGEST: f32 = 127.0;

/// An index while it is built.
#[derive(Debug)]
pub struct Builder {
    model: Option<String>,
    pub(super) dimension: usize,
    pub(super) metric: Metric,
    precision: Precision,
    /// Codes of each row, row by row.
    codes: Vec<i8>,
    /// What a code stands for, what the code 0 stands for, and half the square of the row's length.
    scales: Vec<[f32; 3]>,
    pub(super) halves: Vec<u16>,
    pub(super) largest: Vec<f32>,
    documents: Vec<u8>,
    starts: Vec<u64>,
    words: bm25::Builder,
    ids: HashSet<String>,
    pub(super) graph: Option<Vec<u8>>,
}

/// A row over the largest of its magnitudes, as half floats that fill whole vectors; and that magnitude.
pub(super) fn halved(row: &[f32]) -> (Vec<u16>, f32) {
    let largest = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    // A quotient, since one over a subnormal number is infinite.
    let over = if largest > 0.0 { largest } else { 1.0 };
    let mut halves: Vec<u16> = row.iter().map(|v| f16::from_f32(v / over).to_bits()).collect();
    halves.resize(row.len().next_multiple_of(HALVES), 0);
    (halves, largest)
}

/// The row whose half floats they are.
pub(super) fn floats(halves: &[u16], largest: f32) -> Vec<f32> {
    let mut row = vec![0.0; halves.len()];
    halves.reinterpret_cast::<f16>().convert_to_f32_slice(&mut row);
    row.iter_mut().for_each(|v| *v *= largest);
    row
}

/// A row or a query as the metric needs it, for cosines of length 1, if the index can hold it.
///
/// # Errors
/// It has another number of values, one that is not finite, no direction where cosines are asked for, or a length beyond
/// [`MOST_LENGTH`] where they are not.
pub(super) fn fitted(vector: &[f32], dimension: usize, metric: Metric) -> Result<Vec<f32>> {
    if vector.len() != dimension {
        let message = format!("the vector has {} values, the index {dimension}", vector.len());
        return Err(Error::invalid_value("vector", message));
    }
    if let Some(i) = vector.iter().position(|v| !v.is_finite()) {
        return Err(Error::invalid_value("vector", format!("the vector has the value {} at {i}", vector[i])));
    }
    let length = vector.iter().map(|v| *v as f64 * *v as f64).sum::<f64>().sqrt();
    match metric {
        Metric::Cosine if length == 0.0 => {
            Err(Error::invalid_value("vector", "the vector is all zeros, which has no direction for the metric cosine"))
        }
        Metric::Cosine => Ok(vector.iter().map(|v| (*v as f64 / length) as f32).collect()),
        Metric::Dot | Metric::L2 if length > MOST_LENGTH => {
            let message = format!(
                "the vector has the length {length:e}, it must be at most {MOST_LENGTH:e} for products and distances"
            );
            Err(Error::invalid_value("vector", message))
        }
        Metric::Dot | Metric::L2 => Ok(vector.to_vec()),
    }
}

impl Builder {
    /// An empty index of vectors that `model` makes, if one of ours does.
    ///
    /// # Errors
    /// The dimension is 0 or beyond [`MOST_VALUES`].
    pub fn new(model: Option<String>, dimension: usize, metric: Metric, precision: Precision) -> Result<Self> {
        if dimension == 0 || dimension > MOST_VALUES {
            return Err(Error::invalid_value(
                "dimension",
                format!("dimension is {dimension}, it must be 1 to {MOST_VALUES}"),
            ));
        }
        Ok(Self {
            model,
            dimension,
            metric,
            precision,
            codes: vec![],
            scales: vec![],
            halves: vec![],
            largest: vec![],
            documents: vec![],
            starts: vec![0],
            words: bm25::Builder::default(),
            ids: HashSet::new(),
            graph: None,
        })
    }

    /// Adds a document with its vector.
    ///
    /// # Errors
    /// The vector has another number of values, one that is not finite, no direction where cosines are asked for, or a length beyond
    /// [`MOST_LENGTH`] where they are not; or the id was there before. The error names the id.
    pub fn add(&mut self, document: &Document, vector: &[f32]) -> Result<()> {
        self.add_row(document, vector).map_err(|e| e.with_context(format_args!("document {:?}", document.id)))
    }

    /// Whether a document of this id is there.
    pub fn has(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    fn add_row(&mut self, document: &Document, vector: &[f32]) -> Result<()> {
        let row = fitted(vector, self.dimension, self.metric)?;
        let (halves, largest) = halved(&row);
        self.push(document, &row, &halves, largest)
    }

    /// Adds a row of another index, whose scores stay the same to the bit.
    ///
    /// # Errors
    /// The index is damaged there, or the id was there before.
    pub fn copy(&mut self, index: &Index, row: usize) -> Result<()> {
        let (halves, largest) = index.row(row)?;
        self.push(&index.document(row)?, &index.vector(row)?, halves, largest)
    }

    fn push(&mut self, document: &Document, row: &[f32], halves: &[u16], largest: f32) -> Result<()> {
        if !self.ids.insert(document.id.clone()) {
            return Err(Error::invalid_value("id", "the id is there twice"));
        }
        match self.precision {
            // They depend on the mean of all rows.
            Precision::Binary => {}
            Precision::Int8 => {
                let scale = if largest > 0.0 { largest / LARGEST } else { 1.0 };
                self.codes.extend(row.iter().map(|v| (v / scale).round_ties_even() as i8));
                self.scales.push([scale, 0.0, self.less(row)]);
            }
            Precision::Int4 => {
                let (low, high) = row.iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
                let scale = if high > low { (high - low) / f32::from(MOST4) } else { 1.0 };
                self.codes.extend(row.iter().map(|v| ((v - low) / scale).round_ties_even() as i8));
                self.scales.push([scale, low, self.less(row)]);
            }
        }
        self.halves.extend(halves);
        self.largest.push(largest);
        let json = serde_json::to_vec(document).map_err(|e| Error::internal(format!("a document is not JSON: {e}")))?;
        self.documents.extend(json);
        self.starts.push(self.documents.len() as u64);
        self.words.add(&document.text);
        Ok(())
    }

    /// What is taken from a row's score, so that scores order rows by their distance.
    fn less(&self, row: &[f32]) -> f32 {
        if self.metric == Metric::L2 { row.iter().map(|v| v * v).sum::<f32>() / 2.0 } else { 0.0 }
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.largest.len()
    }

    /// Writes the file.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]; or there are more rows than are numbered.
    pub fn write(self, path: &Path) -> Result<()> {
        let rows = self.rows();
        if u32::try_from(rows).is_err() {
            return Err(Error::new(ErrorKind::InvalidValue, format!("an index of {rows} rows is beyond its numbers")));
        }
        let header = Header::new(self.model, self.dimension, self.metric, self.precision, rows);
        let mut sections = match self.precision {
            Precision::Binary => binary::sections(&self.halves, &self.largest, self.dimension, self.metric),
            Precision::Int8 => {
                let codes = blocks(&self.codes, self.dimension, STEP);
                let terms = terms(&self.codes, &self.scales, self.dimension);
                vec![(Part::Codes, codes), (Part::Terms, bytemuck::cast_slice(&terms).to_vec())]
            }
            Precision::Int4 => {
                let (codes, terms) = (blocks(&self.codes, self.dimension, STEP4), terms4(&self.scales));
                vec![(Part::Codes4, codes), (Part::Terms4, bytemuck::cast_slice(&terms).to_vec())]
            }
        };
        sections.push((Part::Halves, bytemuck::cast_slice(&self.halves).to_vec()));
        sections.push((Part::Largest, bytemuck::cast_slice(&self.largest).to_vec()));
        sections.push((Part::Documents, self.documents));
        sections.push((Part::Starts, bytemuck::cast_slice(&self.starts).to_vec()));
        sections.extend(self.words.sections());
        sections.extend(self.graph.map(|graph| (Part::Graph, graph)));
        let sections: Vec<_> = sections.iter().map(|(part, bytes)| (*part, bytes.as_slice())).collect();
        write(path, header, &sections)
    }
}

/// Codes of rows in blocks, as the kernels read them, where `step` values of a row follow each other: [`STEP`] of 8 bits, or
/// [`STEP4`] of 4, of which a byte has one of the first and one of the second four.
fn blocks(codes: &[i8], dimension: usize, step: usize) -> Vec<u8> {
    let groups = dimension.div_ceil(step);
    let count = (codes.len() / dimension).div_ceil(ROWS);
    let mut out = vec![0u8; count * groups * ROWS * STEP];
    for (row, codes) in codes.chunks_exact(dimension).enumerate() {
        let (block, lane) = (row / ROWS, row % ROWS);
        for (k, code) in codes.iter().enumerate() {
            let byte = &mut out[((block * groups + k / step) * ROWS + lane) * STEP + k % STEP];
            *byte |= (*code as u8) << if k % step < STEP { 0 } else { 4 };
        }
    }
    out
}

/// What blocks have besides codes of 8 bits; rows that are missing in the last one are below all others.
fn terms(codes: &[i8], scales: &[[f32; 3]], dimension: usize) -> Vec<Terms> {
    let none = Terms { scale: [0.0; ROWS], sum: [0; ROWS], score_offset: [f32::INFINITY; ROWS] };
    let mut terms = vec![none; scales.len().div_ceil(ROWS)];
    for (row, (codes, [scale, _, less])) in codes.chunks_exact(dimension).zip(scales).enumerate() {
        let (terms, lane) = (&mut terms[row / ROWS], row % ROWS);
        (terms.scale[lane], terms.score_offset[lane]) = (*scale, *less);
        terms.sum[lane] = codes.iter().map(|code| i32::from(*code)).sum();
    }
    terms
}

/// The same for codes of 4 bits.
fn terms4(scales: &[[f32; 3]]) -> Vec<Terms4> {
    let none = Terms4 { scale: [0.0; ROWS], low: [0.0; ROWS], score_offset: [f32::INFINITY; ROWS] };
    let mut terms = vec![none; scales.len().div_ceil(ROWS)];
    for (row, [scale, low, less]) in scales.iter().enumerate() {
        let (terms, lane) = (&mut terms[row / ROWS], row % ROWS);
        (terms.scale[lane], terms.low[lane], terms.score_offset[lane]) = (*scale, *low, *less);
    }
    terms
}
