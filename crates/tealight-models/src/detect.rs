//! Finds out which architecture a model file or folder has, without loading it.

use crate::families::encoder::{EncoderFamily, known_families};
use crate::families::{LLAMA_MODEL_TYPES, WHISPER};
use crate::formats::gguf::{self, Gguf};
use crate::formats::json::require_json;
use crate::formats::{CANDLE_WHISPER_TENSOR, CTRANSLATE2_FILE, GGML_MAGIC, llama2c};
use bytes::Bytes;
use std::path::Path;
use tealight_core::mmap::map_file;
use tealight_core::{Error, ErrorKind, Result};

/// The architecture of a model, one for each family. Files name it in `general.architecture` or `model_type`; `mistral` is Llama's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// An encoder for embeddings: [`Embedder::load`](crate::Embedder::load).
    Encoder,
    /// A decoder for text generation: [`Generator::load`](crate::tasks::generate::Generator::load).
    Llama,
    /// Speech-to-text: [`Whisper::load`](crate::families::whisper::Whisper::load).
    Whisper,
}

impl Architecture {
    /// Detects the architecture of a folder by `config.json`, or as Whisper if it has CTranslate2's `model.bin`; that of a file by its
    /// first bytes and its metadata.
    ///
    /// # Errors
    /// The path cannot be read, is not a model, or has an unsupported architecture, which the error names.
    pub fn detect(path: &Path) -> Result<Self> {
        let kind = if path.is_dir() { Self::of_folder(path) } else { map_file(path).and_then(Self::of_file) };
        kind.map_err(|e| e.with_context(format_args!("model {}", path.display())))
    }

    /// Fails if the cargo feature that the architecture needs is disabled in this build.
    ///
    /// # Errors
    /// [`ErrorKind::ModelLoad`](tealight_core::ErrorKind), with the feature.
    pub fn check_enabled(self) -> Result<()> {
        match self {
            Architecture::Llama if !cfg!(feature = "text") => Err(disabled("Llama", "text")),
            Architecture::Whisper if !cfg!(feature = "speech") => Err(disabled("Whisper", "speech")),
            _ => Ok(()),
        }
    }

    fn of_folder(folder: &Path) -> Result<Self> {
        if folder.join(CTRANSLATE2_FILE).exists() {
            return Ok(Architecture::Whisper);
        }
        let config = require_json(&folder.join("config.json"))?;
        let is_encoder = EncoderFamily::of_config(&config).is_ok();
        Self::from_architecture(config["model_type"].as_str().unwrap_or_default(), is_encoder)
    }

    fn of_file(file: Bytes) -> Result<Self> {
        if file.starts_with(GGML_MAGIC) {
            return Ok(Architecture::Whisper);
        }
        if file.starts_with(gguf::MAGIC) {
            return Self::of_gguf(file);
        }
        if llama2c::is_llama2c(&file) {
            return Ok(Architecture::Llama);
        }
        Err(Error::invalid_model("unknown file format; expected GGUF, whisper.cpp's ggml or llama2.c"))
    }

    fn of_gguf(file: Bytes) -> Result<Self> {
        if let Some(architecture) = gguf::read_architecture(&file)? {
            return Self::from_architecture(&architecture, EncoderFamily::of_gguf(&architecture).is_ok());
        }
        if Gguf::parse(file)?.tensors.contains_key(CANDLE_WHISPER_TENSOR) {
            return Ok(Architecture::Whisper);
        }
        Err(gguf::missing_key(gguf::ARCHITECTURE_KEY))
    }

    fn from_architecture(name: &str, is_encoder: bool) -> Result<Self> {
        match name {
            _ if is_encoder => Ok(Architecture::Encoder),
            WHISPER => Ok(Architecture::Whisper),
            _ if LLAMA_MODEL_TYPES.contains(&name) => Ok(Architecture::Llama),
            _ => Err(Error::invalid_model(format!(
                "architecture {name:?} is not supported; expected {}, {} or {WHISPER}",
                known_families(),
                LLAMA_MODEL_TYPES.join(", ")
            ))),
        }
    }
}

fn disabled(architecture: &str, feature: &'static str) -> Error {
    Error::feature_disabled(ErrorKind::ModelLoad, format_args!("{architecture} models"), feature)
}
