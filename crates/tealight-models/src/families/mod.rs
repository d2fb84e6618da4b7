//! The network of each model family.

pub mod bert;
pub mod llama;
pub mod whisper;
