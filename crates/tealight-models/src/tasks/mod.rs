//! Tasks: what models are run for.

pub mod embed;
pub mod generate;
pub mod transcribe;
