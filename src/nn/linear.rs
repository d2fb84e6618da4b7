//! Matrix products.

use super::{Cpu, rows, with_values};
use crate::error::{Error, Result};
use crate::kernels::q8_0::{self, Activations, BLOCK, BlockBytes};
use crate::kernels::rowwise;
use bytes::Bytes;
use candle_core::Tensor;

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
    fn apply(self, values: &mut [f32]) {
        match self {
            Activation::Identity => {}
            Activation::Gelu => rowwise::gelu_erf(values),
            Activation::GeluTanh => rowwise::gelu_tanh(values),
            Activation::Tanh => values.iter_mut().for_each(|v| *v = libm::tanhf(*v)),
            Activation::Relu => values.iter_mut().for_each(|v| *v = v.max(0.0)),
        }
    }
}

/// `y = activation(x W^T + b)` with `W [N, K]` in Q8_0 and activations quantised by 32 on the way.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Bytes,
    bias: Vec<f32>,
    k: usize,
    n: usize,
}

impl Linear {
    /// A layer of `weight [N, K]` in Q8_0 bytes and `bias [N]`.
    ///
    /// # Errors
    /// K is not a multiple of 32, or the bytes are not N rows of K weights.
    pub fn new(weight: Bytes, k: usize, bias: Vec<f32>) -> Result<Self> {
        let n = bias.len();
        let blocks = q8_0::blocks(&weight)?.len();
        if k == 0 || !k.is_multiple_of(BLOCK) || blocks != n * (k / BLOCK) {
            return Err(Error::model(format!("a Q8_0 matrix of {blocks} blocks is not [{n}, {k}]")));
        }
        Ok(Self { weight, bias, k, n })
    }

    /// `x [T, K]` to `[T, N]`.
    pub fn forward(&self, cpu: &Cpu, x: &Tensor, activation: Activation) -> Result<Tensor> {
        with_values(x, |x| {
            let weight: &[BlockBytes] = q8_0::blocks(&self.weight)?;
            let mut out = vec![0.0; x.len() / self.k * self.n];
            cpu.for_rows(&mut out, self.n, |first, out| {
                let own = &x[first * self.k..][..out.len() / self.n * self.k];
                let own = Activations::quantise(cpu.isa, own, self.k);
                q8_0::matmul(cpu.isa, &own, weight, out);
                rowwise::add_bias(cpu.isa, out, &self.bias);
                activation.apply(out);
            });
            rows(out, self.n)
        })
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
    pub fn forward(&self, cpu: &Cpu, x: &[f32]) -> Vec<f32> {
        let mut out: Vec<f32> = self
            .weight
            .chunks_exact(x.len())
            .zip(&self.bias)
            .map(|(row, b)| rowwise::dot(cpu.isa, row, x) + b)
            .collect();
        self.activation.apply(&mut out);
        out
    }
}
