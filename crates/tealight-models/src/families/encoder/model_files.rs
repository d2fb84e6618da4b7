//! The files of a model, opened but not yet a network.

use super::config::Config;
use super::family::EncoderFamily;
use crate::formats::gguf::{self, Gguf};
use crate::formats::json::require_json;
use crate::formats::weights::Weights;
use crate::model_info::ModelInfo;
use crate::sentence_transformers::EmbeddingPipeline;
use crate::spec::EncoderSpec;
use crate::tokenizer::{EmbeddingTokenizer, EmbeddingTokenizerSpec};
use std::path::{Path, PathBuf};
use tealight_core::{Error, Result};
use tracing::trace_span;

/// The key of a packed file's [`EncoderSpec`], as JSON.
pub(super) const SPEC_KEY: &str = "tealight.encoder";

/// The parts of a model.
pub(crate) struct ModelFiles {
    pub family: &'static EncoderFamily,
    pub spec: EncoderSpec,
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
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if path.is_dir() { Self::from_folder(path) } else { Self::from_gguf(path) }
    }

    fn from_gguf(path: &Path) -> Result<Self> {
        let span = trace_span!("file and header").entered();
        let mut file = Gguf::parse(tealight_core::mmap::map_file(path)?)?;
        span.exit();
        let weights = Weights::new(std::mem::take(&mut file.tensors));
        let missing = || gguf::missing_key(gguf::ARCHITECTURE_KEY);
        let architecture = file.string(gguf::ARCHITECTURE_KEY)?.ok_or_else(missing)?;
        let family = EncoderFamily::of_gguf(architecture)?;
        let info = ModelInfo::from_gguf(&file, architecture)?;
        let (tokenizer_spec, tokenizer) = trace_span!("tokenizer").in_scope(|| {
            let spec = EmbeddingTokenizerSpec::from_gguf(&file)?;
            let tokenizer = spec.build()?;
            Ok::<_, Error>((spec, tokenizer))
        })?;
        let pipeline = EmbeddingPipeline::from_gguf(&file, architecture, &weights, family.pooling)?;
        let spec = match file.string(SPEC_KEY)? {
            Some(json) => serde_json::from_str(json)
                .map_err(|e| Error::invalid_model(format!("GGUF key {SPEC_KEY:?} is invalid: {e}")))?,
            None => (family.spec)(&Config::Gguf(&file, architecture, &weights))?,
        };
        let spec = spec.validate()?;
        Ok(Self { family, spec, weights, weights_path: path.into(), tokenizer, tokenizer_spec, pipeline, info })
    }

    fn from_folder(folder: &Path) -> Result<Self> {
        let config = require_json(&folder.join("config.json"))?;
        let family = EncoderFamily::of_config(&config)?;
        let (weights, weights_path) = Weights::from_folder(folder, |name| family.gguf_name(name))?;
        let tokenizer_spec = EmbeddingTokenizerSpec::from_folder(folder)?;
        let tokenizer = tokenizer_spec.build()?;
        let pipeline = EmbeddingPipeline::from_folder(folder, family.pooling)?;
        let info = ModelInfo { architecture: family.name.into(), format: "safetensors", ..ModelInfo::default() };
        let spec = (family.spec)(&Config::Json(&config, &weights))?.validate()?;
        Ok(Self { family, spec, weights, weights_path, tokenizer, tokenizer_spec, pipeline, info })
    }
}
