//! Model file formats.

pub(crate) mod ctranslate2;
pub(crate) mod ggml;
pub mod gguf;
