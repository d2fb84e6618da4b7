//! Files of a Whisper: folders of faster-whisper and Hugging Face, whisper.cpp's and candle's files, and one packed file.

use super::bpe::Bpe;
use super::config::Config;
use super::tensors::Tensors;
use super::tokenizer::{Special, Vocabulary};
use crate::formats::gguf::{self, Gguf, MetadataValue};
use crate::formats::json::read_json;
use crate::formats::packed_file::{PackMetadata, general_metadata, sha256};
use crate::formats::tensor::TensorData;
use crate::formats::weights::{Precision, Weights, packed_name};
use crate::formats::{ctranslate2, ggml};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tealight_core::files::write_atomic;
use tealight_core::mmap::map_file;
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;

/// The architecture of a packed file.
pub const ARCHITECTURE: &str = "whisper";
/// What stands beside weights.
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
/// The key of [`Header`].
const HEADER: &str = "tealight.whisper";
/// Tensors of the vocabulary.
const TOKENS: &str = "tokenizer.tokens";
const STARTS: &str = "tokenizer.starts";
/// Weights of folders, in the order of looking.
const CTRANSLATE2: &str = "model.bin";
const SAFETENSORS: &str = "model.safetensors";
/// A tensor that candle's GGUF files have and packed ones have not.
const CANDLES: &str = "model.encoder.conv1.weight";

/// What a packed file says of its tensors.
#[derive(Serialize, Deserialize)]
struct Header {
    config: Config,
    special: Special,
    languages: Vec<String>,
}

/// A model that is opened and not yet in memory.
#[derive(Debug)]
pub(super) struct File {
    pub config: Config,
    pub vocabulary: Vocabulary,
    pub tensors: Tensors,
    /// Where its weights are.
    source: PathBuf,
}

impl File {
    /// Opens a folder or a file; `keep` keeps what is made of its tensors.
    pub(super) fn open(path: &Path, keep: bool) -> Result<Self> {
        if path.is_dir() {
            return Self::of_folder(path, keep);
        }
        let bytes = map_file(path)?;
        if bytes.starts_with(ggml::MAGIC) {
            return Self::of_ggml(path, &bytes, keep);
        }
        let mut file = Gguf::parse(bytes)?;
        match file.tensors.contains_key(CANDLES) {
            true => Self::of_candle(path, std::mem::take(&mut file.tensors), keep),
            false => Self::of_packed(path, file),
        }
    }

    fn of_folder(folder: &Path, keep: bool) -> Result<Self> {
        let mut about = read(&folder.join(CONFIG))?;
        let (ct2, safetensors) = (folder.join(CTRANSLATE2), folder.join(SAFETENSORS));
        let tokenizer = folder.join(TOKENIZER);
        if ct2.exists() {
            let (tensors, heads) = ctranslate2::read(&map_file(&ct2)?)?;
            return Self::of_parts(Weights::new(tensors, Precision::Int8), heads, &about, &tokenizer, ct2, keep);
        }
        if !safetensors.exists() {
            return Err(Error::invalid_model(format!("has neither {CTRANSLATE2} nor {SAFETENSORS}")));
        }
        if let Some(Value::Object(generation)) = read_json(&folder.join("generation_config.json"))? {
            // Newer files keep there what config.json had.
            for key in ["alignment_heads", "suppress_tokens"] {
                if let Some(value) = generation.get(key) {
                    about[key] = value.clone();
                }
            }
        }
        let rename = |name: &str| Some(huggingface(name).to_string());
        let weights = Weights::from_safetensors(&map_file(&safetensors)?, Precision::Int8, rename)?;
        Self::of_parts(weights, heads(&about), &about, &tokenizer, safetensors, keep)
    }

    /// candle's GGUF has Hugging Face's tensors and no word about them: that stands in `config.json` and `tokenizer.json` beside
    /// it. Of `model-NAME-QUANTISATION.gguf` it is `config-NAME.json` and `tokenizer-NAME.json`, where they exist.
    fn of_candle(path: &Path, tensors: HashMap<String, TensorData>, keep: bool) -> Result<Self> {
        let stem = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.strip_prefix("model-"));
        let model = stem.map(|s| s.rsplit_once('-').map_or(s, |(model, _)| model));
        let beside = |name: &str| {
            let own = model.map(|model| path.with_file_name(name.replace(".json", &format!("-{model}.json"))));
            own.filter(|path| path.exists()).unwrap_or_else(|| path.with_file_name(name))
        };
        let about = read(&beside(CONFIG))?;
        let tensors = tensors.into_iter().map(|(name, tensor)| (huggingface(&name).to_string(), tensor)).collect();
        let weights = Weights::new(tensors, Precision::Int8);
        Self::of_parts(weights, heads(&about), &about, &beside(TOKENIZER), path.into(), keep)
    }

    fn of_parts(
        weights: Weights,
        heads: Option<usize>,
        about: &Value,
        tokenizer: &Path,
        source: PathBuf,
        keep: bool,
    ) -> Result<Self> {
        let config = Config::new(&weights, heads, about)?;
        let tokenizer = std::fs::read(tokenizer).map_err(|e| Error::io("read", tokenizer, e))?;
        let vocabulary = Vocabulary::from_json(&tokenizer, config.vocabulary)?;
        Self { config, vocabulary, tensors: Tensors::new(weights, keep), source }.suppressing()
    }

    fn of_ggml(path: &Path, bytes: &Bytes, keep: bool) -> Result<Self> {
        let ggml::File { tensors, heads, ids, texts } = ggml::read(bytes)?;
        let weights = Weights::new(tensors, Precision::Int8);
        let config = Config::new(&weights, Some(heads), &Value::Null)?;
        if config.vocabulary != ids {
            return Err(Error::invalid_model(format!("has {ids} ids and rows of {}", config.vocabulary)));
        }
        let vocabulary = Vocabulary::from_texts(&texts, ids)?;
        Self { config, vocabulary, tensors: Tensors::new(weights, keep), source: path.into() }.suppressing()
    }

    /// Where no file says what is never text, openai/whisper's rule does.
    fn suppressing(mut self) -> Result<Self> {
        if self.config.suppressed.is_empty() {
            self.config.suppressed = Bpe::new(&self.vocabulary)?.annotations()?;
        }
        Ok(self)
    }

    fn of_packed(path: &Path, mut file: Gguf) -> Result<Self> {
        let architecture = file.string("general.architecture")?.unwrap_or_default();
        let header = file.string(HEADER)?.filter(|_| architecture == ARCHITECTURE).ok_or_else(|| {
            Error::invalid_model(format!(
                "is a file of the architecture {architecture:?}, not a packed {ARCHITECTURE:?}"
            ))
        })?;
        let Header { config, special, languages } =
            serde_json::from_str(header).map_err(|e| Error::invalid_model(format!("{HEADER} cannot be read: {e}")))?;
        let config = config.checked()?;
        let weights = Weights::new(std::mem::take(&mut file.tensors), Precision::Int8);
        let bytes = |name: &str| {
            let found = weights.packed(name).cloned();
            found.ok_or_else(|| Error::invalid_model(format!("tensor {:?} is missing", packed_name(name))))
        };
        let vocabulary = Vocabulary::new(bytes(TOKENS)?, &bytes(STARTS)?, special, languages, config.vocabulary)?;
        Ok(Self { config, vocabulary, tensors: Tensors::new(weights, false), source: path.into() })
    }
}

/// A file that must be there.
fn read(path: &Path) -> Result<Value> {
    let name = path.file_name().unwrap_or_default().display();
    read_json(path)?.ok_or_else(|| Error::invalid_model(format!("{name} is missing")))
}

/// What `config.json` says of heads.
fn heads(about: &Value) -> Option<usize> {
    about["encoder_attention_heads"].as_u64().map(|n| n as usize)
}

/// A tensor's name without what some files put in front.
fn huggingface(name: &str) -> &str {
    name.strip_prefix("model.").unwrap_or(name)
}

/// Whether a folder or file holds a Whisper.
pub fn is_whisper(path: &Path) -> bool {
    if path.is_dir() {
        let kind = read_json(&path.join(CONFIG)).ok().flatten();
        return path.join(CTRANSLATE2).exists() || kind.is_some_and(|k| k["model_type"] == ARCHITECTURE);
    }
    let Ok(bytes) = map_file(path) else { return false };
    let is_gguf = |file: Gguf| {
        let architecture = file.string("general.architecture").ok().flatten();
        architecture == Some(ARCHITECTURE) || file.tensors.contains_key(CANDLES)
    };
    bytes.starts_with(ggml::MAGIC) || Gguf::parse(bytes).is_ok_and(is_gguf)
}

/// Packs a model into `output`: matrices in int8 as the kernels read them, the rest in f32, tensors in the order of use.
/// Equal input gives equal bytes.
///
/// # Errors
/// The model cannot be loaded, or the file cannot be written.
pub fn pack(cpu: &CpuContext, source: &Path, labels: &PackMetadata, output: &Path) -> Result<()> {
    let file = File::open(source, true)?;
    if file.tensors.are_packed() {
        return Err(Error::invalid_model(format!("{} is packed already", source.display())));
    }
    // On one thread, so that tensors come in one order.
    let cpu = cpu.single_threaded();
    super::encoder::Encoder::new(&cpu, &file.config, &file.tensors)?;
    super::decoder::Decoder::new(&cpu, &file.config, &file.tensors)?;
    let File { config, vocabulary, tensors, source } = file;
    let mut tensors = tensors.made();
    let (tokens, starts) = vocabulary.parts();
    for (name, bytes) in [(TOKENS, tokens), (STARTS, starts)] {
        tensors.push((packed_name(name), TensorData::from_bytes(bytes)));
    }
    let source = sha256(&source)?;
    let header = Header { config, special: vocabulary.special.clone(), languages: vocabulary.languages.clone() };
    let header = serde_json::to_string(&header).map_err(|e| Error::internal(format!("a header is not JSON: {e}")))?;
    let mut metadata = general_metadata(ARCHITECTURE, labels, &source);
    metadata.push((HEADER.into(), MetadataValue::String(header)));
    write_atomic(output, |out| gguf::write(out, &metadata, &tensors))
}
