//! BERT (Devlin et al. 2018, arXiv 1810.04805): all-MiniLM, BGE, E5 and GTE have this architecture.
//!
//! Tensors have llama.cpp's names; Hugging Face's names are translated when a folder is opened.

mod config;
mod f32_layer;
mod layer_weights;
mod model_files;
mod names;
mod network;
mod pack;
mod smooth_quant;

pub use config::Config;
pub use network::Bert;

pub(crate) use config::ARCHITECTURE;
pub(crate) use model_files::ModelFiles;
pub(crate) use pack::pack;
