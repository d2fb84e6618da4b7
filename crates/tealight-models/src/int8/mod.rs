//! The int8 executor: encoders of every family with int8 weights and activations.
//!
//! [`EncoderSpec`](crate::spec::EncoderSpec) says which network a file has, [`Int8Encoder`] is that network. Whisper's encoder has
//! the same layers. Hidden states are `[T, D]`: the tokens of all texts of a batch, one text after another, D padded to whole
//! vectors. A row is computed from rows of its own text only, in a fixed order, so the result for a text depends neither on its batch
//! nor on the number of threads.

mod attention;
mod embeddings;
mod encoder;
mod feed_forward;
mod linear_kind;
mod load;
mod network;
mod norm;
mod padding;
mod position_bias;
mod rope_table;

pub use attention::{Attention, QkNorms};
pub use encoder::{EncoderLayer, Observer, ScratchPool, encode};
pub use feed_forward::{FeedForward, FeedForwardBlock, MixtureOfExperts};
pub use linear_kind::LinearKind;
pub use network::Int8Encoder;
pub use norm::{BlockNorms, RowNorm};
pub use position_bias::{AttentionPattern, Disentangled, DistanceBias, PositionBiasWeights};
pub use rope_table::RopeTable;

pub(crate) use load::LayerLoader;
