//! Layer normalization (Ba et al. 2016, arXiv 1607.06450).

use tealight_kernels::{Isa, rowwise};

/// LayerNorm with weight and bias.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// Factors, `[D]`.
    pub weight: Vec<f32>,
    /// Offsets, `[D]`.
    pub bias: Vec<f32>,
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    /// Normalizes rows of D values in place.
    pub fn apply(&self, isa: Isa, rows: &mut [f32]) {
        rowwise::layer_norm(isa, rows, self.weight.len(), &self.weight, &self.bias, self.eps);
    }
}
