//! Layer normalisation.

use super::{output, values};
use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};
use tealight_core::Result;
use tealight_kernels::CpuContext;
use tealight_kernels::{Isa, rowwise};

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
    pub fn forward_residual(&self, cpu: &CpuContext, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        Ok(x.apply_op2_no_bwd(residual, &NormOfSum { norm: self, cpu })?)
    }
}

struct NormOfSum<'a> {
    norm: &'a LayerNorm,
    cpu: &'a CpuContext,
}

impl CustomOp2 for NormOfSum<'_> {
    fn name(&self) -> &'static str {
        "layer-norm-of-sum"
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
            candle_core::bail!("a norm of {d} got tensors {:?} and {:?}", x_layout.dims(), residual_layout.dims());
        }
        self.cpu.par_rows(&mut out, d, |first, out| {
            rowwise::add(out, &residual[first * d..][..out.len()]);
            self.norm.apply(self.cpu.isa, out);
        });
        output(out, d)
    }
}
