//! Model file formats: each reader gives tensors in the encoding of the file, or in f32 if neither candle nor the kernels can read
//! it. [`weights::Weights`] is the common view of them.

#[cfg(feature = "speech")]
mod byte_reader;
#[cfg(feature = "speech")]
pub(crate) mod ctranslate2;
pub mod embedding_table;
#[cfg(feature = "speech")]
pub(crate) mod ggml;
pub mod gguf;
pub(crate) mod json;
pub mod llama2c;
pub(crate) mod packed_file;
mod safetensors;
pub mod tensor;
#[cfg(any(feature = "speech", feature = "text"))]
pub(crate) mod tensor_loader;
pub mod weights;

/// First bytes of whisper.cpp's files.
pub(crate) const GGML_MAGIC: &[u8] = b"lmgg";
/// The weights of a CTranslate2 folder; faster-whisper's models are the only supported ones.
pub(crate) const CTRANSLATE2_FILE: &str = "model.bin";
/// A tensor of the GGUF files that candle's Whisper example uses. They have no metadata, and packed files do not have this tensor.
pub(crate) const CANDLE_WHISPER_TENSOR: &str = "model.encoder.conv1.weight";
