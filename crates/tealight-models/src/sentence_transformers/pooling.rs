//! Pooling of the token embeddings of a text to one vector.

use serde::{Deserialize, Serialize};

/// How the token embeddings of a text become one vector; serialized with the names of sentence-transformers' `pooling_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The first token.
    Cls,
    /// The mean of all tokens.
    Mean,
    /// The maximum over all tokens, for each dimension.
    Max,
    /// The last token.
    #[serde(rename = "lasttoken")]
    LastToken,
    /// The sum of all tokens, divided by the square root of their number.
    MeanSqrtLenTokens,
}

impl Pooling {
    /// Every mode.
    pub const ALL: [Pooling; 5] =
        [Pooling::Cls, Pooling::Mean, Pooling::Max, Pooling::LastToken, Pooling::MeanSqrtLenTokens];

    /// The name in sentence-transformers.
    pub fn as_str(self) -> &'static str {
        match self {
            Pooling::Cls => "cls",
            Pooling::Mean => "mean",
            Pooling::Max => "max",
            Pooling::LastToken => "lasttoken",
            Pooling::MeanSqrtLenTokens => "mean_sqrt_len_tokens",
        }
    }

    /// The mode of a name in sentence-transformers.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.as_str() == name)
    }
}

/// Pools `hidden_states [T, d]`, with T at least 1, to `[d]`. Sums add tokens in order.
pub fn pool(hidden_states: &[f32], d: usize, pooling: Pooling) -> Vec<f32> {
    let tokens = (hidden_states.len() / d) as f32;
    match pooling {
        Pooling::Cls => hidden_states[..d].to_vec(),
        Pooling::LastToken => hidden_states[hidden_states.len() - d..].to_vec(),
        Pooling::Max => fold(hidden_states, d, |a, b| a.max(b)),
        Pooling::Mean => scale(fold(hidden_states, d, |a, b| a + b), 1.0 / tokens),
        Pooling::MeanSqrtLenTokens => scale(fold(hidden_states, d, |a, b| a + b), 1.0 / tokens.sqrt()),
    }
}

fn fold(hidden_states: &[f32], d: usize, f: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let mut out = hidden_states[..d].to_vec();
    for token in hidden_states[d..].chunks_exact(d) {
        for (o, v) in out.iter_mut().zip(token) {
            *o = f(*o, *v);
        }
    }
    out
}

fn scale(mut vector: Vec<f32>, factor: f32) -> Vec<f32> {
    vector.iter_mut().for_each(|v| *v *= factor);
    vector
}
