//! From the rows of a text to one vector.

use serde::{Deserialize, Serialize};

/// How the rows of a text become its vector; names as in sentence-transformers' `pooling_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The first row.
    Cls,
    /// The mean of the rows.
    Mean,
    /// The largest of each column.
    Max,
    /// The last row.
    #[serde(rename = "lasttoken")]
    LastToken,
    /// The sum of the rows over the square root of their number.
    MeanSqrtLenTokens,
}

impl Pooling {
    /// All of them.
    pub const ALL: [Pooling; 5] =
        [Pooling::Cls, Pooling::Mean, Pooling::Max, Pooling::LastToken, Pooling::MeanSqrtLenTokens];

    /// sentence-transformers' name.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Cls => "cls",
            Pooling::Mean => "mean",
            Pooling::Max => "max",
            Pooling::LastToken => "lasttoken",
            Pooling::MeanSqrtLenTokens => "mean_sqrt_len_tokens",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }
}

/// Pools `rows [T, d]`, T at least 1, to `[d]`, adding in the order of the rows.
pub fn pool(rows: &[f32], d: usize, pooling: Pooling) -> Vec<f32> {
    let count = (rows.len() / d) as f32;
    match pooling {
        Pooling::Cls => rows[..d].to_vec(),
        Pooling::LastToken => rows[rows.len() - d..].to_vec(),
        Pooling::Max => fold(rows, d, |a, b| a.max(b)),
        Pooling::Mean => scaled(fold(rows, d, |a, b| a + b), 1.0 / count),
        Pooling::MeanSqrtLenTokens => scaled(fold(rows, d, |a, b| a + b), 1.0 / count.sqrt()),
    }
}

fn fold(rows: &[f32], d: usize, f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let mut out = rows[..d].to_vec();
    for row in rows[d..].chunks_exact(d) {
        for (o, v) in out.iter_mut().zip(row) {
            *o = f(*o, *v);
        }
    }
    out
}

fn scaled(mut vector: Vec<f32>, by: f32) -> Vec<f32> {
    vector.iter_mut().for_each(|v| *v *= by);
    vector
}
