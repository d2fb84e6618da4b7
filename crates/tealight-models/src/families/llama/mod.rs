//! Llama (Touvron et al. 2023, arXiv 2302.13971) and the models with its architecture: a decoder that generates text. llama.cpp is
//! the reference for the results.

mod config;
mod decoder_layer;
mod encoder;
mod kv_cache;
mod memory;
mod model;
mod model_files;
mod network;
mod pack;
mod quantized_matrix;
mod sequence;
mod tensor_loader;

pub use crate::layers::{Pairing, Rope};
pub use config::Config;
pub use model::Llama;
pub use pack::pack;
pub use sequence::Sequence;

pub(crate) use encoder::LlamaEncoder;
