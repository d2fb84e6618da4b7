//! Model families: the encoders, each one file that describes its networks, and Llama and Whisper with networks of their own.

mod bert;
mod deberta;
mod distilbert;
pub(crate) mod encoder;
mod gemma3;
mod gte;
mod jina_bert;
#[cfg(feature = "text")]
pub mod llama;
mod modernbert;
mod mpnet;
mod nomic_bert;
mod qwen3;
mod roberta;
#[cfg(feature = "speech")]
pub mod whisper;

/// `general.architecture` and `model_type` of Llama.
pub(crate) const LLAMA: &str = "llama";
/// `model_type` in `config.json` of the models that have Llama's architecture.
pub(crate) const LLAMA_MODEL_TYPES: [&str; 2] = [LLAMA, "mistral"];
/// `general.architecture` and `model_type` of Whisper.
pub(crate) const WHISPER: &str = "whisper";
