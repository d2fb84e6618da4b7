//! Model file formats: each reader gives tensors in the encoding of the file, and [`weights::Weights`] is the common view of them.

mod byte_reader;
pub(crate) mod ctranslate2;
pub mod embedding_table;
pub(crate) mod ggml;
pub mod gguf;
pub(crate) mod json;
pub mod llama2c;
pub(crate) mod packed_file;
mod safetensors;
pub mod tensor;
pub mod weights;
