//! Parts that the networks share.

mod activation;
mod layer_norm;
mod rope;

pub use activation::Activation;
pub use layer_norm::LayerNorm;
pub use rope::{Pairing, Rope};
