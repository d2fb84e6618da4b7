//! The task of a model.

use std::path::Path;
use tealight_models::Architecture;

/// The task that a model is for. Text-generation models can also compute embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelTask {
    /// Embeddings.
    Embedding,
    /// Speech-to-text.
    Transcription,
    /// Text generation.
    Generation,
}

impl ModelTask {
    /// `embedding`, `speech` or `text`, as in `/status` and `/metrics`.
    pub fn as_str(self) -> &'static str {
        match self {
            ModelTask::Embedding => "embedding",
            ModelTask::Transcription => "speech",
            ModelTask::Generation => "text",
        }
    }

    /// Whether this build has the feature that the task needs.
    pub fn is_enabled(self) -> bool {
        match self {
            ModelTask::Embedding => true,
            ModelTask::Transcription => cfg!(feature = "speech"),
            ModelTask::Generation => cfg!(feature = "text"),
        }
    }

    /// The task of a model file or folder, by its architecture. Files of an unknown architecture count as embedding models, whose
    /// loader reports what is wrong with them.
    pub(super) fn detect(path: &Path) -> Self {
        match Architecture::detect(path) {
            Ok(Architecture::Whisper) => ModelTask::Transcription,
            Ok(Architecture::Llama) => ModelTask::Generation,
            Ok(Architecture::Bert) | Err(_) => ModelTask::Embedding,
        }
    }
}
