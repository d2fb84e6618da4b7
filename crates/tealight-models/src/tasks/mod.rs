//! The tasks of models: embedding, text generation, transcription.

pub mod embed;
#[cfg(feature = "text")]
pub mod generate;
#[cfg(feature = "speech")]
pub mod transcribe;
