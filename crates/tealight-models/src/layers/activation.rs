//! Activation functions.

use tealight_kernels::{Isa, rowwise};

/// A function that is applied to each output of a matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// No activation.
    Identity,
    /// GELU with the error function, approximated to [`GELU_ERROR`](tealight_kernels::rowwise::GELU_ERROR).
    Gelu,
    /// GELU with the tanh approximation.
    GeluTanh,
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
            Activation::GeluTanh => rowwise::gelu_tanh(values),
            Activation::Tanh => values.iter_mut().for_each(|v| *v = libm::tanhf(*v)),
            Activation::Relu => values.iter_mut().for_each(|v| *v = if *v < 0.0 { 0.0 } else { *v }),
        }
    }
}
