//! The files of a model, opened but not yet a network.

use super::config::{ARCHITECTURE, Config};
use super::names::gguf_name;
use crate::formats::gguf::{self, Gguf};
use crate::formats::json::require_json;
use crate::formats::weights::{Precision, Weights};
use crate::model_info::ModelInfo;
use crate::sentence_transformers::{EmbeddingPipeline, Pooling};
use crate::tokenizer::{EmbeddingTokenizer, EmbeddingTokenizerSpec};
use std::path::{Path, PathBuf};
use tealight_core::{Error, Result};
use tracing::trace_span;

/// The parts of a model.
pub(crate) struct ModelFiles {
    pub config: Config,
    pub weights: Weights,
    /// The path of the weights.
    pub weights_path: PathBuf,
    pub tokenizer: EmbeddingTokenizer,
    pub tokenizer_spec: EmbeddingTokenizerSpec,
    pub pipeline: EmbeddingPipeline,
    pub info: ModelInfo,
}

impl ModelFiles {
    /// Opens a GGUF file or a folder of sentence-transformers.
    ///
    /// # Errors
    /// A file is missing or invalid, or the model has another architecture.
    pub(crate) fn open(path: &Path, precision: Precision) -> Result<Self> {
        if path.is_dir() { Self::from_folder(path, precision) } else { Self::from_gguf(path, precision) }
    }

    fn from_gguf(path: &Path, precision: Precision) -> Result<Self> {
        let span = trace_span!("file and header").entered();
        let mut file = Gguf::parse(tealight_core::mmap::map_file(path)?)?;
        span.exit();
        let weights = Weights::new(std::mem::take(&mut file.tensors), precision);
        let missing = || gguf::missing_key(gguf::ARCHITECTURE_KEY);
        let architecture = file.string(gguf::ARCHITECTURE_KEY)?.ok_or_else(missing)?;
        require_bert(architecture)?;
        let info = ModelInfo::from_gguf(&file, ARCHITECTURE)?;
        let (tokenizer_spec, tokenizer) = trace_span!("tokenizer").in_scope(|| {
            let spec = EmbeddingTokenizerSpec::from_gguf(&file)?;
            let tokenizer = spec.build()?;
            Ok::<_, Error>((spec, tokenizer))
        })?;
        let pipeline = EmbeddingPipeline::from_gguf(&file, ARCHITECTURE, &weights, Pooling::Mean)?;
        let config = Config::from_gguf(&file, &weights)?;
        Ok(Self { config, weights, weights_path: path.into(), tokenizer, tokenizer_spec, pipeline, info })
    }

    fn from_folder(folder: &Path, precision: Precision) -> Result<Self> {
        let config = require_json(&folder.join("config.json"))?;
        require_bert(config["model_type"].as_str().unwrap_or_default())?;
        let (weights, weights_path) = Weights::from_folder(folder, precision, gguf_name)?;
        let tokenizer_spec = EmbeddingTokenizerSpec::from_folder(folder)?;
        let tokenizer = tokenizer_spec.build()?;
        let pipeline = EmbeddingPipeline::from_folder(folder, Pooling::Mean)?;
        let info = ModelInfo { architecture: ARCHITECTURE.into(), format: "safetensors", ..ModelInfo::default() };
        let config = Config::from_json(&config)?;
        Ok(Self { config, weights, weights_path, tokenizer, tokenizer_spec, pipeline, info })
    }
}

fn require_bert(architecture: &str) -> Result<()> {
    if architecture == ARCHITECTURE {
        return Ok(());
    }
    Err(Error::invalid_model(format!(
        "architecture {architecture:?} is not supported for embeddings; expected {ARCHITECTURE:?}"
    )))
}
