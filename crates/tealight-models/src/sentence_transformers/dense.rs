//! The `Dense` module: a small layer in f32 on the pooled vector.

use crate::layers::Activation;
use tealight_core::{Error, Result};
use tealight_kernels::{CpuContext, rowwise};

/// `y = activation(W x + b)`.
#[derive(Debug, Clone)]
pub struct Dense {
    /// `[N, K]`, row-major.
    pub weight: Vec<f32>,
    /// `[N]`.
    pub bias: Vec<f32>,
    /// Applied to each output.
    pub activation: Activation,
}

impl Dense {
    /// K, the number of inputs.
    pub fn inputs(&self) -> usize {
        self.weight.len() / self.bias.len().max(1)
    }

    /// `x [K]` to `y [N]`.
    ///
    /// # Panics
    /// If `x` has another length.
    pub fn forward(&self, cpu: &CpuContext, x: &[f32]) -> Vec<f32> {
        assert_eq!(x.len(), self.inputs());
        let rows = self.weight.chunks_exact(x.len()).zip(&self.bias);
        let mut out: Vec<f32> = rows.map(|(row, b)| rowwise::dot(cpu.isa, row, x) + b).collect();
        self.activation.apply(cpu.isa, &mut out);
        out
    }
}

/// The activation with the name of a PyTorch class, with or without the class's module.
pub(super) fn activation_from_name(name: &str) -> Result<Activation> {
    match name.rsplit('.').next().unwrap_or_default() {
        "Identity" => Ok(Activation::Identity),
        "Tanh" => Ok(Activation::Tanh),
        "GELU" => Ok(Activation::Gelu),
        "ReLU" => Ok(Activation::Relu),
        "SiLU" => Ok(Activation::Silu),
        _ => Err(Error::invalid_model(format!("the activation function {name:?} is not supported"))),
    }
}

pub(super) fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Identity => "Identity",
        Activation::Tanh => "Tanh",
        Activation::Gelu | Activation::GeluTanh => "GELU",
        Activation::Relu => "ReLU",
        Activation::Silu => "SiLU",
    }
}
