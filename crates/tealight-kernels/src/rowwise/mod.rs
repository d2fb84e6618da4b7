//! Operations on one row at a time: normalization, activation functions, softmax, sums and float32 products.

mod activation;
mod exp2;
mod lanes;
mod norm;
mod product;

pub(crate) use activation::gelu;
pub use activation::{GELU_ERROR, gelu_erf, gelu_tanh, silu, softmax};
pub use exp2::EXP_ERROR;
pub(crate) use exp2::{exp2, exp2_coarse};
pub use norm::{layer_norm, normalize, rms_norm};
pub use product::{add, add_bias, dot, matmul};
