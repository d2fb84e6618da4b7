//! The task of a model.

use std::path::Path;
use tealight_models::Architecture;

/// The task that a model is for. Text-generation models can also compute embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelTask {
    /// Embeddings.
    Embedding,
    /// Speech-to-text.
    Speech,
    /// Text generation.
    Text,
}

impl ModelTask {
    /// `embedding`, `speech` or `text`: the field `kind` of `/status` and `/metrics`. `tealight models --json` has the field `task`,
    /// with other values for the last two.
    pub fn as_str(self) -> &'static str {
        match self {
            ModelTask::Embedding => "embedding",
            ModelTask::Speech => "speech",
            ModelTask::Text => "text",
        }
    }

    /// Whether this build has the feature that the task needs.
    pub fn is_enabled(self) -> bool {
        match self {
            ModelTask::Embedding => true,
            ModelTask::Speech => cfg!(feature = "speech"),
            ModelTask::Text => cfg!(feature = "text"),
        }
    }

    /// The task of a model file or folder, by its architecture. Files of an unknown architecture count as embedding models, whose
    /// loader reports what is wrong with them.
    pub(super) fn detect(path: &Path) -> Self {
        match Architecture::detect(path) {
            Ok(Architecture::Whisper) => ModelTask::Speech,
            Ok(Architecture::Llama) => ModelTask::Text,
            Ok(Architecture::Encoder) | Err(_) => ModelTask::Embedding,
        }
    }
}
