//! Activation functions.

use serde::{Deserialize, Serialize};
use tealight_kernels::{Isa, rowwise};

/// A function that is applied to each output of a matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// No activation.
    Identity,
    /// GELU with the error function, approximated to [`GELU_ERROR`](tealight_kernels::rowwise::GELU_ERROR).
    Gelu,
    /// GELU with the tanh approximation.
    GeluTanh,
    /// x times its sigmoid, also called swish.
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// max(x, 0); NaN stays NaN.
    Relu,
}

impl Activation {
    /// Applies the function to each value, in place.
    pub fn apply(self, isa: Isa, values: &mut [f32]) {
        match self {
            Activation::Identity => {}
            Activation::Gelu => rowwise::gelu_erf(isa, values),
            Activation::GeluTanh => rowwise::gelu_tanh(isa, values),
            Activation::Silu => rowwise::silu(isa, values),
            Activation::Tanh => values.iter_mut().for_each(|v| *v = libm::tanhf(*v)),
            Activation::Relu => values.iter_mut().for_each(|v| *v = if *v < 0.0 { 0.0 } else { *v }),
        }
    }
}
