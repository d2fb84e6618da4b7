//! The layers of a network, computed by the kernels.
//!
//! [`EncoderLayer`] is a whole transformer layer with int8 weights and activations in one function. [`Linear`], [`attention()`]
//! and [`LayerNorm::forward_residual`] are candle custom operations in f32, the reference; [`LayerNorm`] itself is in f32 in both.
//!
//! Hidden states are `[T, D]`: the tokens of all texts of a batch, one text after another, without padding. A row is computed from
//! rows of its own text only, in a fixed order, so the result for a text depends neither on its batch nor on the number of threads.

mod activation;
mod attention;
mod encoder_layer;
mod layer_norm;
mod linear;
mod tensor;

pub use activation::Activation;
pub use attention::attention;
pub use encoder_layer::{EncoderLayer, NormPlacement, ScratchPool, encode};
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub(crate) use tensor::{from_rows, with_values};
