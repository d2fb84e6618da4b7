//! Model families, each with one architecture: its hyperparameters, its files and its network.

pub mod bert;
#[cfg(feature = "text")]
pub mod llama;
#[cfg(feature = "speech")]
pub mod whisper;

/// `general.architecture` and `model_type` of Llama.
pub(crate) const LLAMA: &str = "llama";
/// `model_type` in `config.json` of the models that have Llama's architecture.
pub(crate) const LLAMA_MODEL_TYPES: [&str; 2] = [LLAMA, "mistral"];
/// `general.architecture` and `model_type` of Whisper.
pub(crate) const WHISPER: &str = "whisper";
