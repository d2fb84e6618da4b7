//! An index that is asked for, and a search in it.

use crate::damage::Damage;
use arbitrary::{Arbitrary, Result, Unstructured};
use serde_json::json;
use std::path::Path;
use tealight_index::{Builder, Document, Filter, MOST_LENGTH, Metric, Precision};

/// With loops of their own in the kernels, about multiples of their blocks, and of no multiple of anything.
const DIMENSIONS: [usize; 14] = [1, 2, 3, 7, 8, 15, 16, 17, 33, 63, 64, 65, 128, 384];

/// What is built, and asked.
#[derive(Debug, Arbitrary)]
pub struct Given {
    #[arbitrary(with = |u: &mut Unstructured| u.choose(&[Metric::Cosine, Metric::Dot, Metric::L2]).copied())]
    pub metric: Metric,
    #[arbitrary(with = |u: &mut Unstructured| u.choose(&[Precision::Int8, Precision::Int4, Precision::Binary]).copied())]
    pub precision: Precision,
    #[arbitrary(with = |u: &mut Unstructured| u.choose(&DIMENSIONS).copied())]
    pub dimension: usize,
    #[arbitrary(with = |u: &mut Unstructured| u.int_in_range(0..=150))]
    count: usize,
    /// How far behind that of the row before a row begins among the values.
    stride: u8,
    /// How many rows at most are asked for.
    #[arbitrary(with = |u: &mut Unstructured| u.int_in_range(1..=100))]
    pub k: usize,
    /// Documents below this number are looked at.
    pub below: Option<u8>,
    #[arbitrary(with = values)]
    values: Vec<f32>,
    #[arbitrary(with = values)]
    query: Vec<f32>,
    pub words: String,
    texts: Vec<String>,
    pub damage: Vec<Damage>,
}

/// Small whole numbers, or any that are finite.
fn values(u: &mut Unstructured) -> Result<Vec<f32>> {
    let small = u.arbitrary()?;
    let value = |u: &mut Unstructured| match small {
        true => u.arbitrary::<i8>().map(f32::from),
        false => u.arbitrary::<f32>().map(|v| if v.is_finite() { v } else { 0.0 }),
    };
    (0..u.int_in_range(1..=64)?).map(|_| value(u)).collect()
}

pub fn filter(below: u8) -> Filter {
    Filter::of(&json!({"number": {"$lt": below}})).unwrap()
}

/// Whether a row or a query has no direction where it needs one, or is too long.
pub fn refused(metric: Metric, vector: &[f32]) -> bool {
    let square: f64 = vector.iter().map(|v| f64::from(*v).powi(2)).sum();
    if metric == Metric::Cosine { square == 0.0 } else { square.sqrt() > MOST_LENGTH }
}

impl Given {
    fn vector(&self, row: usize) -> Vec<f32> {
        let start = row * usize::from(self.stride);
        (start..start + self.dimension).map(|at| self.values[at % self.values.len()]).collect()
    }

    fn document(&self, row: usize) -> Document {
        let metadata = json!({"number": row, "tags": ["all", row % 3]});
        let text = self.texts.get(row % self.texts.len().max(1)).cloned().unwrap_or_default();
        Document { id: row.to_string(), text, metadata: metadata.as_object().unwrap().clone() }
    }

    pub fn query(&self) -> Vec<f32> {
        self.query.iter().cycle().take(self.dimension).copied().collect()
    }

    /// Writes the index; what is in it, in order.
    pub fn write(&self, path: &Path) -> Vec<(Document, Vec<f32>)> {
        let mut builder = Builder::new(Some("m".into()), self.dimension, self.metric, self.precision).unwrap();
        let mut rows: Vec<_> = (0..self.count).map(|row| (self.document(row), self.vector(row))).collect();
        rows.retain(|(document, vector)| match builder.add(document, vector) {
            Ok(()) => {
                assert!(!refused(self.metric, vector), "{vector:?}");
                true
            }
            Err(_) => {
                assert!(refused(self.metric, vector), "{vector:?}");
                false
            }
        });
        builder.write(path).unwrap();
        rows
    }
}
