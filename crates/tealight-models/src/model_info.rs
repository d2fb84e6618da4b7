//! Name, license and origin of an encoder or a Llama model.

use crate::formats::gguf::Gguf;
use tealight_core::{Error, Result};

/// What the file of an encoder or a Llama model says about itself. It is not read from Whisper models.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelInfo {
    /// The model's own name, which may differ from the one it is served by.
    pub name: Option<String>,
    /// SPDX identifier.
    pub license: Option<String>,
    /// URL of the model's origin.
    pub source: Option<String>,
    /// The value of `general.architecture` in GGUF, such as `bert` or `llama`.
    pub architecture: String,
    /// `gguf`, `safetensors` or `llama2.c`.
    pub format: &'static str,
}

impl ModelInfo {
    pub(crate) fn from_gguf(file: &Gguf, architecture: &str) -> Result<Self> {
        let text = |key: &str| Ok::<_, Error>(file.string(key)?.map(str::to_string));
        Ok(Self {
            name: text("general.name")?,
            license: text("general.license")?,
            source: text("general.source.url")?,
            architecture: architecture.into(),
            format: "gguf",
        })
    }
}
