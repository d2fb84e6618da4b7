//! Matrix products.

use super::{Cpu, Matrix, rows, with_values};
use crate::error::{Error, Result};
use crate::kernels::rowwise;
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
    fn apply(self, cpu: &Cpu, values: &mut [f32]) {
        match self {
            Activation::Identity => {}
            Activation::Gelu => rowwise::gelu_erf(cpu.isa, values),
            Activation::GeluTanh => rowwise::gelu_tanh(values),
            Activation::Tanh => values.iter_mut().for_each(|v| *v = libm::tanhf(*v)),
            Activation::Relu => values.iter_mut().for_each(|v| *v = v.max(0.0)),
        }
    }
}

/// `y = activation(x W^T + b)`.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Matrix,
    bias: Vec<f32>,
}

impl Linear {
    /// A layer of `weight [N, K]` and `bias [N]`.
    ///
    /// # Errors
    /// The two have not the same N.
    pub fn new(weight: Matrix, bias: Vec<f32>) -> Result<Self> {
        if weight.rows() != bias.len() {
            return Err(Error::model(format!("a matrix of {} rows has {} biases", weight.rows(), bias.len())));
        }
        Ok(Self { weight, bias })
    }

    /// `x [T, K]` to `[T, N]`.
    pub fn forward(&self, cpu: &Cpu, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let (n, k) = (self.weight.rows(), self.weight.columns());
        with_values(x, |x| {
            let mut out = vec![0.0; x.len() / k * n];
            cpu.for_rows(&mut out, n, |first, out| {
                self.weight.multiply(cpu, &x[first * k..][..out.len() / n * k], out)?;
                rowwise::add_bias(out, &self.bias);
                activation.apply(cpu, out);
                Ok(())
            })?;
            rows(out, n)
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
        self.activation.apply(cpu, &mut out);
        out
    }
}
