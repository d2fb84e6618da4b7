//! An index to build, and a search in it.

use crate::damage::Damage;
use arbitrary::{Arbitrary, Result, Unstructured};
use serde_json::json;
use std::path::Path;
use tealight_index::{Filter, IndexBuilder, IndexDocument, MAX_NORM, Metric, ScanEncoding};

/// Dimensions with specialized loops in the kernels, around multiples of their blocks, and odd ones.
const DIMENSIONS: [usize; 14] = [1, 2, 3, 7, 8, 15, 16, 17, 33, 63, 64, 65, 128, 384];
const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::L2];
const ENCODINGS: [ScanEncoding; 3] = [ScanEncoding::Int8, ScanEncoding::Int4, ScanEncoding::Binary];

#[derive(Debug, Arbitrary)]
pub struct IndexInput {
    #[arbitrary(with = |u: &mut Unstructured| u.choose(&METRICS).copied())]
    pub metric: Metric,
    #[arbitrary(with = |u: &mut Unstructured| u.choose(&ENCODINGS).copied())]
    pub encoding: ScanEncoding,
    #[arbitrary(with = |u: &mut Unstructured| u.choose(&DIMENSIONS).copied())]
    pub dimension: usize,
    #[arbitrary(with = |u: &mut Unstructured| u.int_in_range(0..=150))]
    count: usize,
    /// Offset in `values` between the starts of two rows.
    stride: u8,
    #[arbitrary(with = |u: &mut Unstructured| u.int_in_range(1..=100))]
    pub top_k: usize,
    /// A filter for documents with smaller numbers.
    pub number_below: Option<u8>,
    #[arbitrary(with = values)]
    values: Vec<f32>,
    #[arbitrary(with = values)]
    query: Vec<f32>,
    pub words: String,
    texts: Vec<String>,
    pub damage: Vec<Damage>,
}

/// Small integers, or any finite numbers.
fn values(u: &mut Unstructured) -> Result<Vec<f32>> {
    let is_small = u.arbitrary()?;
    let value = |u: &mut Unstructured| {
        if is_small {
            u.arbitrary::<i8>().map(f32::from)
        } else {
            u.arbitrary::<f32>().map(|v| if v.is_finite() { v } else { 0.0 })
        }
    };
    (0..u.int_in_range(1..=64)?).map(|_| value(u)).collect()
}

pub fn filter(number_below: u8) -> Filter {
    Filter::parse(&json!({"number": {"$lt": number_below}})).unwrap()
}

/// Whether a row or query is all zeros where it needs a direction, or its norm is too large.
pub fn is_invalid(metric: Metric, vector: &[f32]) -> bool {
    let square: f64 = vector.iter().map(|v| f64::from(*v).powi(2)).sum();
    if metric == Metric::Cosine { square == 0.0 } else { square.sqrt() > MAX_NORM }
}

impl IndexInput {
    fn vector(&self, row: usize) -> Vec<f32> {
        let start = row * usize::from(self.stride);
        (start..start + self.dimension).map(|i| self.values[i % self.values.len()]).collect()
    }

    fn document(&self, row: usize) -> IndexDocument {
        let metadata = json!({"number": row, "tags": ["all", row % 3]});
        let text = self.texts.get(row % self.texts.len().max(1)).cloned().unwrap_or_default();
        IndexDocument { id: row.to_string(), text, metadata: metadata.as_object().unwrap().clone() }
    }

    pub fn query(&self) -> Vec<f32> {
        self.query.iter().cycle().take(self.dimension).copied().collect()
    }

    /// Writes the index and returns its rows.
    pub fn write(&self, path: &Path) -> Vec<(IndexDocument, Vec<f32>)> {
        let mut builder = IndexBuilder::new(Some("m".into()), self.dimension, self.metric, self.encoding).unwrap();
        let mut rows: Vec<_> = (0..self.count).map(|row| (self.document(row), self.vector(row))).collect();
        rows.retain(|(document, vector)| {
            let is_added = builder.add(document, vector).is_ok();
            assert_eq!(is_added, !is_invalid(self.metric, vector), "{vector:?}");
            is_added
        });
        builder.write(path).unwrap();
        rows
    }
}
