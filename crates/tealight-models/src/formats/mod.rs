//! Model file formats.

pub(crate) mod ctranslate2;
pub(crate) mod embedding_table;
pub(crate) mod ggml;
pub mod gguf;
pub(crate) mod llama2c;
pub mod weights;
