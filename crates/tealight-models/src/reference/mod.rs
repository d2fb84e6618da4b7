//! Encoders in float32, computed by the networks of candle-transformers: the reference for the int8 executor.

mod config;
mod network;
mod tensors;

pub use network::ReferenceEncoder;
