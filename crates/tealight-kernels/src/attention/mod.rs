//! Scaled dot-product attention (SDPA): `softmax(q k^T / sqrt(head_dim)) v` (Vaswani et al. 2017, arXiv 1706.03762), for encoders
//! with another divisor and a bias of the scores ([`ScoreMod`]).
//!
//! | module | queries | keys and values | used for |
//! |---|---|---|---|
//! | [`int8`] | int8 | int8 | encoders, cross-attention |
//! | [`single_query`] | float32, of one token | float32 cache | self-attention of Whisper's decoder |
//! | [`gqa`] | float32 | float16 cache | language models: causal, several query heads per KV head |
//!
//! There is no padding mask: the tokens of each text are contiguous, and texts of a batch are computed separately.

pub mod gqa;
pub mod int8;
pub mod single_query;
mod softmax;
mod views;

pub use views::{HeadSlice, Qkv, ScoreBias, ScoreMod};
