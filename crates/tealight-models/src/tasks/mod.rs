//! Tasks: what models are run for.

pub mod transcribe;
