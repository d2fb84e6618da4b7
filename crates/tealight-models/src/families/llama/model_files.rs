//! The files of a model, opened but not yet a network: GGUF, packed GGUF, Hugging Face folders and llama2.c.

use super::config::Config;
use crate::families::LLAMA as ARCHITECTURE;
use crate::formats::gguf::{self, Gguf, MetadataValue, ParsedValue};
use crate::formats::json::{read_json, require_json};
use crate::formats::llama2c::{self, TokenizerBin};
use crate::formats::tensor_loader::TensorLoader;
use crate::formats::weights::Weights;
use crate::model_info::ModelInfo;
use crate::sentence_transformers::{EmbeddingPipeline, Pooling};
use crate::tokenizer::{BpeSpec, LlamaTokenizer, TOKENIZER_JSON_KEY};
use bytes::Bytes;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tealight_core::mmap::map_file;
use tealight_core::{Error, Result};

/// The key of a packed file's [`Config`], as JSON.
pub(super) const CONFIG_KEY: &str = "tealight.llama";
/// The key of the other tokenizer files of a folder, as JSON: `config`, `generation` and `template`.
const TOKENIZER_CONFIG_KEY: &str = "tealight.tokenizer.config";
/// The pooling of files that do not set it.
const DEFAULT_POOLING: Pooling = Pooling::LastToken;

/// The parts of a model.
#[derive(Debug)]
pub(super) struct ModelFiles {
    pub config: Config,
    pub loader: TensorLoader,
    pub tokenizer: LlamaTokenizer,
    pub pipeline: EmbeddingPipeline,
    pub info: ModelInfo,
    /// GGUF metadata that describes the tokenizer.
    pub tokenizer_metadata: Vec<(String, MetadataValue)>,
    /// The path of the weights.
    pub weights_path: PathBuf,
}

impl ModelFiles {
    /// Opens a file or folder; `record_tensors` as for [`TensorLoader::new`].
    ///
    /// # Errors
    /// A file is missing or invalid, or the model has another architecture.
    pub(super) fn open(path: &Path, record_tensors: bool) -> Result<Self> {
        if path.is_dir() {
            return Self::from_folder(path, record_tensors);
        }
        let bytes = map_file(path)?;
        if bytes.starts_with(gguf::MAGIC) {
            Self::from_gguf(path, Gguf::parse(bytes)?, record_tensors)
        } else {
            Self::from_llama2c(path, &bytes, record_tensors)
        }
    }

    fn from_gguf(path: &Path, mut file: Gguf, record_tensors: bool) -> Result<Self> {
        let weights = Weights::new(std::mem::take(&mut file.tensors));
        let config = read_config(&file, &weights)?;
        let pipeline = EmbeddingPipeline::from_gguf(&file, ARCHITECTURE, &weights, DEFAULT_POOLING)?;
        let info = ModelInfo::from_gguf(&file, ARCHITECTURE)?;
        let tokenizer = read_tokenizer(&file)?;
        let tokenizer_metadata = tokenizer_metadata(file, record_tensors)?;
        let loader = TensorLoader::new(weights, record_tensors);
        Ok(Self { config, loader, tokenizer, pipeline, info, tokenizer_metadata, weights_path: path.into() })
    }

    fn from_folder(folder: &Path, record_tensors: bool) -> Result<Self> {
        let config = require_json(&folder.join("config.json"))?;
        let (weights, weights_path) = Weights::from_folder(folder, gguf_name)?;
        let config = Config::from_json(&config, weights.first_dim("token_embd.weight")?)?;
        let tokenizer = LlamaTokenizer::from_folder(folder)?;
        let tokenizer_json = folder.join("tokenizer.json");
        let text = std::fs::read_to_string(&tokenizer_json).map_err(|e| Error::io("read", &tokenizer_json, e))?;
        let read = |name: &str| read_json(&folder.join(name)).map(Option::unwrap_or_default);
        let other_files = serde_json::json!({
            "config": read("tokenizer_config.json")?,
            "generation": read("generation_config.json")?,
            "template": tokenizer.chat_template,
        });
        let tokenizer_metadata = vec![
            (TOKENIZER_JSON_KEY.to_string(), MetadataValue::String(text)),
            (TOKENIZER_CONFIG_KEY.to_string(), MetadataValue::String(other_files.to_string())),
        ];
        let pipeline = EmbeddingPipeline::from_folder(folder, DEFAULT_POOLING)?;
        let loader = TensorLoader::new(weights, record_tensors);
        let info = ModelInfo { architecture: ARCHITECTURE.into(), format: "safetensors", ..ModelInfo::default() };
        Ok(Self { config, loader, tokenizer, pipeline, info, tokenizer_metadata, weights_path })
    }

    fn from_llama2c(path: &Path, bytes: &Bytes, record_tensors: bool) -> Result<Self> {
        let header = llama2c::Header::parse(bytes)?;
        let config = Config::from_llama2c(&header)?;
        let weights = Weights::new(header.tensors(bytes)?);
        let tokenizer_bin = TokenizerBin::parse(&map_file(&path.with_file_name("tokenizer.bin"))?, config.vocab_size)?;
        let info = ModelInfo { architecture: ARCHITECTURE.into(), format: "llama2.c", ..ModelInfo::default() };
        Ok(Self {
            config,
            loader: TensorLoader::new(weights, record_tensors),
            tokenizer: LlamaTokenizer::from_spec(&BpeSpec::from_llama2c(&tokenizer_bin))?,
            pipeline: EmbeddingPipeline::new(DEFAULT_POOLING),
            info,
            tokenizer_metadata: tokenizer_bin.gguf_metadata(),
            weights_path: path.into(),
        })
    }
}

fn read_config(file: &Gguf, weights: &Weights) -> Result<Config> {
    if let Some(json) = file.string(CONFIG_KEY)? {
        let config: Config = serde_json::from_str(json)
            .map_err(|e| Error::invalid_model(format!("GGUF key {CONFIG_KEY:?} is invalid: {e}")))?;
        return config.validate();
    }
    let mut config = Config::from_gguf(file, weights.first_dim("token_embd.weight")?)?;
    if weights.contains("rope_freqs.weight") {
        config.rope.freq_factors = weights.floats("rope_freqs.weight", &[config.rope.rotary_dim / 2])?;
    }
    if let Some(bias) = weights.names().find(|name| name.ends_with(".bias")) {
        return Err(Error::invalid_model(format!("tensor {bias:?} is a bias, which is not supported")));
    }
    config.validate()
}

fn read_tokenizer(file: &Gguf) -> Result<LlamaTokenizer> {
    let Some(tokenizer_json) = file.string(TOKENIZER_JSON_KEY)? else { return LlamaTokenizer::from_gguf(file) };
    let other_files = file.string(TOKENIZER_CONFIG_KEY)?.unwrap_or("{}");
    let other_files: Value = serde_json::from_str(other_files)
        .map_err(|e| Error::invalid_model(format!("GGUF key {TOKENIZER_CONFIG_KEY:?} is not JSON: {e}")))?;
    let template = other_files["template"].as_str().map(String::from);
    LlamaTokenizer::from_json(tokenizer_json.as_bytes(), &other_files["config"], &other_files["generation"], template)
}

/// The metadata about the tokenizer, sorted by key, so that equal input gives equal packed files.
fn tokenizer_metadata(file: Gguf, record_tensors: bool) -> Result<Vec<(String, MetadataValue)>> {
    let is_about_tokenizer = |key: &String| key.starts_with("tokenizer.") || key == TOKENIZER_CONFIG_KEY;
    let mut metadata: Vec<_> = file.metadata.into_iter().filter(|(key, _)| is_about_tokenizer(key)).collect();
    metadata.sort_by(|(a, _), (b, _)| a.cmp(b));
    let is_version_1 = |value: &ParsedValue| matches!(value, ParsedValue::Array(array) if !array.has_u64_lengths());
    if let Some((key, _)) = metadata.iter().find(|(_, value)| record_tensors && is_version_1(value)) {
        return Err(Error::invalid_model(format!(
            "GGUF key {key:?} is in a file of version 1, which cannot be packed; expected version 2 or 3"
        )));
    }
    Ok(metadata.into_iter().map(|(key, value)| (key, MetadataValue::Raw(value))).collect())
}

/// GGUF's name for one of Hugging Face's tensors; `None` for tensors that are not used.
fn gguf_name(name: &str) -> Option<String> {
    let name = name.strip_prefix("model.").unwrap_or(name);
    if let Some(rest) = name.strip_prefix("layers.") {
        let (index, rest) = rest.split_once('.')?;
        let gguf_module = match rest.strip_suffix(".weight")? {
            "input_layernorm" => "attn_norm",
            "self_attn.q_proj" => "attn_q",
            "self_attn.k_proj" => "attn_k",
            "self_attn.v_proj" => "attn_v",
            "self_attn.o_proj" => "attn_output",
            "post_attention_layernorm" => "ffn_norm",
            "mlp.gate_proj" => "ffn_gate",
            "mlp.up_proj" => "ffn_up",
            "mlp.down_proj" => "ffn_down",
            _ => return None,
        };
        return Some(format!("blk.{index}.{gguf_module}.weight"));
    }
    match name {
        "embed_tokens.weight" => Some("token_embd.weight".into()),
        "norm.weight" => Some("output_norm.weight".into()),
        "lm_head.weight" => Some("output.weight".into()),
        _ => None,
    }
}
