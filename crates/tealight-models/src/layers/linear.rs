//! A linear layer in f32, as an operation on candle tensors.

use super::activation::Activation;
use super::tensor::{output, values};
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use tealight_core::{Error, Result};
use tealight_kernels::{CpuContext, rowwise};

/// `y = activation(x W^T + b)`.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[N, K]`, row-major.
    weight: Vec<f32>,
    /// `[N]`.
    bias: Vec<f32>,
}

impl Linear {
    /// A layer with `weight [N, K]` and `bias [N]`.
    ///
    /// # Errors
    /// The number of weights is not a positive multiple of the number of biases.
    pub fn new(weight: Vec<f32>, bias: Vec<f32>) -> Result<Self> {
        if bias.is_empty() || weight.is_empty() || !weight.len().is_multiple_of(bias.len()) {
            return Err(Error::invalid_model(format!(
                "a matrix has {} weights and {} biases; expected whole rows",
                weight.len(),
                bias.len()
            )));
        }
        Ok(Self { weight, bias })
    }

    /// (outputs, inputs): the weight matrix is `[n, k]`.
    pub fn shape(&self) -> (usize, usize) {
        (self.bias.len(), self.weight.len() / self.bias.len())
    }

    /// `x [T, K]` to `[T, N]`; the order of summation does not depend on T.
    ///
    /// # Errors
    /// The rows of `x` do not have K values.
    pub fn forward(&self, cpu: &CpuContext, x: &Tensor, activation: Activation) -> Result<Tensor> {
        Ok(x.apply_op1_no_bwd(&LinearOp { layer: self, cpu, activation })?)
    }
}

struct LinearOp<'a> {
    layer: &'a Linear,
    cpu: &'a CpuContext,
    activation: Activation,
}

impl CustomOp1 for LinearOp<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let ((n, k), x, isa) = (self.layer.shape(), values(storage, layout)?, self.cpu.isa);
        if layout.dims().last() != Some(&k) {
            candle_core::bail!("a linear layer with {k} inputs got a tensor {:?}", layout.dims());
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
