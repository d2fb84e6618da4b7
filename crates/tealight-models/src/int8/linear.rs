//! Matrix products.

use super::{output, values};
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;
use tealight_kernels::{Isa, rowwise};

/// What follows a matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// GELU with the exact error function.
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// The hyperbolic tangent.
    Tanh,
    /// The larger of the value and 0.
    Relu,
}

impl Activation {
    /// Applies it to each value.
    pub fn apply(self, isa: Isa, values: &mut [f32]) {
        match self {
            Activation::Identity => {}
            Activation::Gelu => rowwise::gelu_erf(isa, values),
            Activation::GeluTanh => rowwise::gelu_tanh(values),
            Activation::Tanh => values.iter_mut().for_each(|v| *v = libm::tanhf(*v)),
            Activation::Relu => values.iter_mut().for_each(|v| *v = if *v < 0.0 { 0.0 } else { *v }),
        }
    }
}

/// `y = activation(x W^T + b)` in f32, as an operation on tensors.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[N, K]`, row by row.
    weight: Vec<f32>,
    /// `[N]`.
    bias: Vec<f32>,
}

impl Linear {
    /// A layer of `weight [N, K]` and `bias [N]`.
    ///
    /// # Errors
    /// The weights are not whole rows for the biases.
    pub fn new(weight: Vec<f32>, bias: Vec<f32>) -> Result<Self> {
        if bias.is_empty() || weight.is_empty() || !weight.len().is_multiple_of(bias.len()) {
            return Err(Error::invalid_model(format!(
                "a matrix of {} weights has {} biases",
                weight.len(),
                bias.len()
            )));
        }
        Ok(Self { weight, bias })
    }

    /// N and K.
    pub fn shape(&self) -> (usize, usize) {
        (self.bias.len(), self.weight.len() / self.bias.len())
    }

    /// `x [T, K]` to `[T, N]`; each value is computed in one order, whatever T is.
    ///
    /// # Errors
    /// `x` has rows of another width.
    pub fn forward(&self, cpu: &CpuContext, x: &Tensor, activation: Activation) -> Result<Tensor> {
        Ok(x.apply_op1_no_bwd(&Product { layer: self, cpu, activation })?)
    }
}

struct Product<'a> {
    layer: &'a Linear,
    cpu: &'a CpuContext,
    activation: Activation,
}

impl CustomOp1 for Product<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let ((n, k), x, isa) = (self.layer.shape(), values(storage, layout)?, self.cpu.isa);
        if layout.dims().last() != Some(&k) {
            candle_core::bail!("a layer of {k} inputs got a tensor {:?}", layout.dims());
        }
        let mut out = vec![0.0; x.len() / k * n];
        self.cpu.par_rows(&mut out, n, |first, out| {
            rowwise::matmul(isa, &x[first * k..][..out.len() / n * k], &self.layer.weight, k, out);
            rowwise::add_bias(out, &self.layer.bias);
            self.activation.apply(isa, out);
        });
        output(out, n)
    }
}

/// A small layer in f32, applied to one pooled vector: sentence-transformers' `Dense`.
#[derive(Debug, Clone)]
pub struct Dense {
    /// `[N, K]`, row by row.
    pub weight: Vec<f32>,
    /// `[N]`.
    pub bias: Vec<f32>,
    /// What follows.
    pub activation: Activation,
}

impl Dense {
    /// How many values it takes.
    pub fn inputs(&self) -> usize {
        self.weight.len() / self.bias.len().max(1)
    }

    /// `x [K]` to `[N]`.
    ///
    /// # Panics
    /// If `x` has another length.
    pub fn forward(&self, cpu: &CpuContext, x: &[f32]) -> Vec<f32> {
        assert_eq!(x.len(), self.inputs());
        let mut out: Vec<f32> = self
            .weight
            .chunks_exact(x.len())
            .zip(&self.bias)
            .map(|(row, b)| rowwise::dot(cpu.isa, row, x) + b)
            .collect();
        self.activation.apply(cpu.isa, &mut out);
        out
    }
}
