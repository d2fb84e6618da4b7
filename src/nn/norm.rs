//! Layer normalisation.

use super::{Cpu, rows, with_values};
use crate::error::Result;
use crate::kernels::{Isa, rowwise};
use candle_core::Tensor;

/// LayerNorm with weight and bias.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// `[D]`.
    pub weight: Vec<f32>,
    /// `[D]`.
    pub bias: Vec<f32>,
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    /// Normalises rows `[D]`, in place.
    pub fn apply(&self, isa: Isa, rows: &mut [f32]) {
        rowwise::layer_norm(isa, rows, &self.weight, &self.bias, self.eps);
    }

    /// The norm of `x + residual`, both `[T, D]`.
    pub fn forward_residual(&self, cpu: &Cpu, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let d = self.weight.len();
        let mut out = with_values(x, |x| Ok(x.to_vec()))?;
        with_values(residual, |residual| {
            cpu.for_rows(&mut out, d, |first, out| {
                rowwise::add(out, &residual[first * d..][..out.len()]);
                self.apply(cpu.isa, out);
                Ok(())
            })
        })?;
        rows(out, d)
    }
}
