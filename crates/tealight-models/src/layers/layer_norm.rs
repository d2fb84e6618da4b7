//! Layer normalization (Ba et al. 2016, arXiv 1607.06450).

use super::tensor::{output, values};
use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};
use tealight_core::Result;
use tealight_kernels::{CpuContext, Isa, rowwise};

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
        rowwise::layer_norm(isa, rows, &self.weight, &self.bias, self.eps);
    }

    /// Normalizes `x + residual`, both `[T, D]`.
    ///
    /// # Errors
    /// The shapes differ, or rows do not have D values.
    pub fn forward_residual(&self, cpu: &CpuContext, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        Ok(x.apply_op2_no_bwd(residual, &AddNormOp { norm: self, cpu })?)
    }
}

struct AddNormOp<'a> {
    norm: &'a LayerNorm,
    cpu: &'a CpuContext,
}

impl CustomOp2 for AddNormOp<'_> {
    fn name(&self) -> &'static str {
        "add-layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let d = self.norm.weight.len();
        let (mut out, residual) = (values(x, x_layout)?.to_vec(), values(residual, residual_layout)?);
        if x_layout.dims().last() != Some(&d) || out.len() != residual.len() {
            candle_core::bail!(
                "a layer norm of {d} values got tensors {:?} and {:?}",
                x_layout.dims(),
                residual_layout.dims()
            );
        }
        self.cpu.par_rows(&mut out, d, |first, out| {
            rowwise::add(out, &residual[first * d..][..out.len()]);
            self.norm.apply(self.cpu.isa, out);
        });
        output(out, d)
    }
}
