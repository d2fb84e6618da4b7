//! Model files: folders of faster-whisper and Hugging Face, files of whisper.cpp and candle, and packed files.

use super::bpe::BpeEncoder;
use super::config::WhisperConfig;
use super::tokenizer::{SpecialTokens, WhisperTokenizer};
use crate::families::WHISPER as ARCHITECTURE;
use crate::formats::gguf::Gguf;
use crate::formats::json::{read_json, require_json};
use crate::formats::tensor::TensorData;
use crate::formats::tensor_loader::TensorLoader;
use crate::formats::weights::{Weights, packed_name};
use crate::formats::{CANDLE_WHISPER_TENSOR, CTRANSLATE2_FILE, GGML_MAGIC, ctranslate2, ggml};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tealight_core::mmap::map_file;
use tealight_core::{Error, Result};

/// Metadata key of [`PackedHeader`].
pub(super) const HEADER_KEY: &str = "tealight.whisper";
/// Tensors of the tokenizer in packed files.
pub(super) const TOKEN_BYTES: &str = "tokenizer.tokens";
pub(super) const TOKEN_OFFSETS: &str = "tokenizer.starts";
const CONFIG: &str = "config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer.json";
/// Weights in folders that have no [`CTRANSLATE2_FILE`].
const SAFETENSORS: &str = "model.safetensors";

/// Metadata of a packed file, as JSON.
#[derive(Serialize, Deserialize)]
pub(super) struct PackedHeader {
    pub config: WhisperConfig,
    pub special: SpecialTokens,
    pub languages: Vec<String>,
}

/// The parts of a model; its tensors are not loaded yet.
#[derive(Debug)]
pub(super) struct ModelFiles {
    pub config: WhisperConfig,
    pub tokenizer: WhisperTokenizer,
    pub loader: TensorLoader,
    /// The file with the weights.
    pub weights_path: PathBuf,
}

impl ModelFiles {
    /// Opens a folder or file. `record_tensors` keeps converted tensors for packing.
    pub(super) fn open(path: &Path, record_tensors: bool) -> Result<Self> {
        if path.is_dir() {
            return Self::from_folder(path, record_tensors);
        }
        let bytes = map_file(path)?;
        if bytes.starts_with(GGML_MAGIC) {
            return Self::from_ggml(path, &bytes, record_tensors);
        }
        let mut gguf = Gguf::parse(bytes)?;
        if gguf.tensors.contains_key(CANDLE_WHISPER_TENSOR) {
            return Self::from_candle(path, std::mem::take(&mut gguf.tensors), record_tensors);
        }
        Self::from_packed(path, gguf)
    }

    fn from_folder(folder: &Path, record_tensors: bool) -> Result<Self> {
        let mut config = require_json(&folder.join(CONFIG))?;
        let (ct2, safetensors) = (folder.join(CTRANSLATE2_FILE), folder.join(SAFETENSORS));
        let tokenizer = folder.join(TOKENIZER);
        if ct2.exists() {
            let (tensors, heads) = ctranslate2::read(&map_file(&ct2)?)?;
            let weights = Weights::new(tensors);
            return Self::from_parts(weights, heads, &config, &tokenizer, ct2, record_tensors);
        }
        if !safetensors.exists() {
            return Err(Error::invalid_model(format!("has neither {CTRANSLATE2_FILE} nor {SAFETENSORS}")));
        }
        if let Some(Value::Object(generation_config)) = read_json(&folder.join(GENERATION_CONFIG))? {
            // Older models have these fields in config.json.
            for key in ["alignment_heads", "suppress_tokens"] {
                if let Some(value) = generation_config.get(key) {
                    config[key] = value.clone();
                }
            }
        }
        let rename = |name: &str| Some(strip_model(name).to_string());
        let weights = Weights::from_safetensors(&map_file(&safetensors)?, rename)?;
        Self::from_parts(weights, attention_heads(&config), &config, &tokenizer, safetensors, record_tensors)
    }

    /// candle's GGUF files have no metadata: it is in `config.json` and `tokenizer.json` next to them. For
    /// `model-NAME-QUANTIZATION.gguf`, these are `config-NAME.json` and `tokenizer-NAME.json` if they exist.
    fn from_candle(path: &Path, tensors: HashMap<String, TensorData>, record_tensors: bool) -> Result<Self> {
        let stem = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.strip_prefix("model-"));
        let model_name = stem.map(|s| s.rsplit_once('-').map_or(s, |(name, _)| name));
        let sibling = |file: &str| {
            let model_specific_file =
                model_name.map(|name| path.with_file_name(file.replace(".json", &format!("-{name}.json"))));
            model_specific_file.filter(|path| path.exists()).unwrap_or_else(|| path.with_file_name(file))
        };
        let config = require_json(&sibling(CONFIG))?;
        let tensors = tensors.into_iter().map(|(name, tensor)| (strip_model(&name).to_string(), tensor)).collect();
        let weights = Weights::new(tensors);
        let tokenizer = sibling(TOKENIZER);
        Self::from_parts(weights, attention_heads(&config), &config, &tokenizer, path.into(), record_tensors)
    }

    fn from_parts(
        weights: Weights,
        num_attention_heads: Option<usize>,
        config: &Value,
        tokenizer: &Path,
        weights_path: PathBuf,
        record_tensors: bool,
    ) -> Result<Self> {
        let config = WhisperConfig::from_weights(&weights, num_attention_heads, config)?;
        let tokenizer = std::fs::read(tokenizer).map_err(|e| Error::io("read", tokenizer, e))?;
        let tokenizer = WhisperTokenizer::from_json(&tokenizer, config.vocab_size)?;
        let loader = TensorLoader::new(weights, record_tensors);
        Self { config, tokenizer, loader, weights_path }.with_default_suppress_tokens()
    }

    fn from_ggml(path: &Path, bytes: &Bytes, record_tensors: bool) -> Result<Self> {
        let ggml::GgmlFile { tensors, num_attention_heads, vocab_size, tokens } = ggml::read(bytes)?;
        let weights = Weights::new(tensors);
        let config = WhisperConfig::from_weights(&weights, Some(num_attention_heads), &Value::Null)?;
        if config.vocab_size != vocab_size {
            let rows = config.vocab_size;
            return Err(Error::invalid_model(format!(
                "vocabulary has {vocab_size} ids; token embeddings have {rows} rows"
            )));
        }
        let tokenizer = WhisperTokenizer::from_text_tokens(&tokens, vocab_size)?;
        let loader = TensorLoader::new(weights, record_tensors);
        Self { config, tokenizer, loader, weights_path: path.into() }.with_default_suppress_tokens()
    }

    /// openai/whisper's default for files that do not list tokens to suppress.
    fn with_default_suppress_tokens(mut self) -> Result<Self> {
        if self.config.suppress_tokens.is_empty() {
            self.config.suppress_tokens = BpeEncoder::new(&self.tokenizer)?.non_speech_tokens()?;
        }
        Ok(self)
    }

    fn from_packed(path: &Path, mut gguf: Gguf) -> Result<Self> {
        let architecture = gguf.string("general.architecture")?.unwrap_or_default();
        let header = gguf.string(HEADER_KEY)?.filter(|_| architecture == ARCHITECTURE).ok_or_else(|| {
            Error::invalid_model(format!("architecture is {architecture:?}; expected a packed {ARCHITECTURE:?} model"))
        })?;
        let PackedHeader { config, special, languages } = serde_json::from_str(header)
            .map_err(|e| Error::invalid_model(format!("metadata {HEADER_KEY} is invalid: {e}")))?;
        let config = config.validate()?;
        let weights = Weights::new(std::mem::take(&mut gguf.tensors));
        let bytes = |name: &str| {
            let tensor = weights.packed(name).cloned();
            tensor.ok_or_else(|| Error::invalid_model(format!("tensor {:?} is missing", packed_name(name))))
        };
        let (tokens, offsets) = (bytes(TOKEN_BYTES)?, bytes(TOKEN_OFFSETS)?);
        let tokenizer = WhisperTokenizer::new(tokens, &offsets, special, languages, config.vocab_size)?;
        Ok(Self { config, tokenizer, loader: TensorLoader::new(weights, false), weights_path: path.into() })
    }
}

fn attention_heads(config: &Value) -> Option<usize> {
    config["encoder_attention_heads"].as_u64().map(|n| n as usize)
}

/// Removes the prefix that tensors of `WhisperForConditionalGeneration` have.
fn strip_model(name: &str) -> &str {
    name.strip_prefix("model.").unwrap_or(name)
}
