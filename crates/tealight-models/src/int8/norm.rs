//! Normalization of rows that may be padded.

use crate::layers::LayerNorm;
use tealight_kernels::{Isa, rowwise};

/// The weights of a norm.
#[derive(Debug, Clone)]
pub enum RowNorm {
    /// LayerNorm; a bias that a network does not have is 0.
    LayerNorm(LayerNorm),
    /// RMSNorm.
    RmsNorm {
        /// Factors, `[D]`.
        weight: Vec<f32>,
        /// Added to the mean square.
        eps: f32,
    },
}

impl RowNorm {
    /// Normalizes the first D values of rows in place; row `i` begins at `i * stride`.
    pub fn apply(&self, isa: Isa, rows: &mut [f32], stride: usize) {
        match self {
            RowNorm::LayerNorm(LayerNorm { weight, bias, eps }) => {
                rowwise::layer_norm(isa, rows, stride, weight, bias, *eps);
            }
            RowNorm::RmsNorm { weight, eps } => rowwise::rms_norm(isa, rows, stride, weight, *eps),
        }
    }
}

/// The norms of one block of a layer, `x = residual(x + after(f(before(x))))`.
#[derive(Debug, Clone, Default)]
pub struct BlockNorms {
    /// Of the input of the block.
    pub before: Option<RowNorm>,
    /// Of the output of the block.
    pub after: Option<RowNorm>,
    /// Whether `after` normalizes the sum of input and output, `x = residual(x + after(x + f(x)))`.
    pub inner_residual: bool,
    /// Of the sum of input and output.
    pub residual: Option<RowNorm>,
}
