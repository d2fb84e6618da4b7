//! Whisper (Radford et al. 2022, arXiv 2212.04356): an encoder of log-mel spectrograms and a decoder of text tokens. The
//! transcription of recordings with it is in [`tasks::transcribe`](crate::tasks::transcribe).
//!
//! Names are those of Hugging Face's `WhisperModel` (config, tensors) and openai/whisper (tokens). Names in other files are
//! translated.

mod bpe;
mod config;
pub(crate) mod decoder;
mod encoder;
mod languages;
mod model;
mod model_files;
mod pack;
mod tensor_loader;
mod tokenizer;

pub use config::{N_FRAMES, WhisperConfig};
pub use languages::{language_code, language_name};
pub use model::Whisper;
pub use pack::pack;
pub use tokenizer::{SpecialTokens, WhisperTokenizer};
