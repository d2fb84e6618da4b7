//! The tasks of models: embedding, text generation, transcription.

pub mod embed;
pub mod generate;
pub mod transcribe;
