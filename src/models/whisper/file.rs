//! Files of a Whisper: folders of faster-whisper and Hugging Face, and one packed file.

use super::config::Config;
use super::ct2;
use super::tensors::Tensors;
use super::vocabulary::{Special, Vocabulary};
use crate::error::{Error, Result};
use crate::models::gguf::{self, Entry, Gguf, TensorData};
use crate::models::map::map;
use crate::models::pack::{Labels, general, replace, sha256};
use crate::models::pipeline::json;
use crate::models::weights::{Precision, Weights, packed_name};
use crate::nn::Cpu;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The architecture of a packed file.
pub const ARCHITECTURE: &str = "whisper";
/// The key of [`Header`].
const HEADER: &str = "tealight.whisper";
/// Tensors of the vocabulary.
const TOKENS: &str = "tokenizer.tokens";
const STARTS: &str = "tokenizer.starts";
const TOKENIZER: &str = "tokenizer.json";
/// Weights of folders, in the order of looking.
const CTRANSLATE2: &str = "model.bin";
const SAFETENSORS: &str = "model.safetensors";

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
    pub tokenizer: TokenizerFile,
}

/// Where a `tokenizer.json` is.
pub(super) enum TokenizerFile {
    Path(PathBuf),
    Bytes(Bytes),
}

impl std::fmt::Debug for TokenizerFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenizerFile")
    }
}

impl TokenizerFile {
    pub(super) fn read(&self) -> Result<Bytes> {
        match self {
            TokenizerFile::Bytes(bytes) => Ok(bytes.clone()),
            TokenizerFile::Path(path) => Ok(std::fs::read(path).map_err(|e| Error::io("read", path, e))?.into()),
        }
    }
}

impl File {
    /// Opens a folder or a packed file; `keep` keeps what is made of its tensors.
    pub(super) fn open(path: &Path, keep: bool) -> Result<Self> {
        if path.is_dir() { Self::of_folder(path, keep) } else { Self::of_gguf(path) }
    }

    fn of_folder(folder: &Path, keep: bool) -> Result<Self> {
        let (weights, heads, json) = weights(folder)?;
        let config = Config::new(&weights, heads, &json)?;
        let tokenizer = TokenizerFile::Path(folder.join(TOKENIZER));
        let vocabulary = Vocabulary::from_json(&tokenizer.read()?, config.vocabulary)?;
        Ok(Self { config, vocabulary, tensors: Tensors::new(weights, keep), tokenizer })
    }

    fn of_gguf(path: &Path) -> Result<Self> {
        let mut file = Gguf::parse(map(path)?)?;
        let architecture = file.string("general.architecture")?.unwrap_or_default();
        let header = file.string(HEADER)?.filter(|_| architecture == ARCHITECTURE).ok_or_else(|| {
            Error::model(format!("is a file of the architecture {architecture:?}, not a packed {ARCHITECTURE:?}"))
        })?;
        let Header { config, special, languages } =
            serde_json::from_str(header).map_err(|e| Error::model(format!("{HEADER} cannot be read: {e}")))?;
        let config = config.checked()?;
        let weights = Weights::new(std::mem::take(&mut file.tensors), Precision::Int8);
        let bytes = |name: &str| {
            let found = weights.packed(name).cloned();
            found.ok_or_else(|| Error::model(format!("tensor {:?} is missing", packed_name(name))))
        };
        let vocabulary = Vocabulary::new(bytes(TOKENS)?, &bytes(STARTS)?, special, languages, config.vocabulary)?;
        let tokenizer = TokenizerFile::Bytes(bytes(TOKENIZER)?);
        Ok(Self { config, vocabulary, tensors: Tensors::new(weights, false), tokenizer })
    }
}

/// Tensors of a folder, heads where the file tells, and what is said of the model beside them.
fn weights(folder: &Path) -> Result<(Weights, Option<usize>, Value)> {
    let mut about = json(&folder.join("config.json"))?.ok_or_else(|| Error::model("config.json is missing"))?;
    let (ct2, safetensors) = (folder.join(CTRANSLATE2), folder.join(SAFETENSORS));
    if ct2.exists() {
        let (tensors, heads) = ct2::read(&map(&ct2)?)?;
        return Ok((Weights::new(tensors, Precision::Int8), heads, about));
    }
    if !safetensors.exists() {
        return Err(Error::model(format!("has neither {CTRANSLATE2} nor {SAFETENSORS}")));
    }
    let rename = |name: &str| Some(name.strip_prefix("model.").unwrap_or(name).to_string());
    let weights = Weights::from_safetensors(&map(&safetensors)?, Precision::Int8, rename)?;
    let heads = about["encoder_attention_heads"].as_u64().map(|n| n as usize);
    if let Some(Value::Object(generation)) = json(&folder.join("generation_config.json"))? {
        // Newer files keep there what config.json had.
        for key in ["alignment_heads", "suppress_tokens"] {
            if let Some(value) = generation.get(key) {
                about[key] = value.clone();
            }
        }
    }
    Ok((weights, heads, about))
}

/// Whether a folder or file holds a Whisper.
pub fn is_whisper(path: &Path) -> bool {
    if path.is_dir() {
        let kind = json(&path.join("config.json")).ok().flatten();
        return path.join(CTRANSLATE2).exists() || kind.is_some_and(|k| k["model_type"] == ARCHITECTURE);
    }
    let architecture = map(path).and_then(Gguf::parse).ok();
    architecture.is_some_and(|file| file.string("general.architecture").ok().flatten() == Some(ARCHITECTURE))
}

/// Packs a folder into `output`: matrices in int8 as the kernels read them, the rest in f32, tensors in the order of use.
/// Equal input gives equal bytes.
///
/// # Errors
/// The model cannot be loaded, or the file cannot be written.
pub fn pack(cpu: &Cpu, folder: &Path, labels: &Labels, output: &Path) -> Result<()> {
    if !folder.is_dir() {
        return Err(Error::model(format!("{} is no folder of a Whisper", folder.display())));
    }
    let file = File::open(folder, true)?;
    // On one thread, so that tensors come in one order.
    let cpu = cpu.alone();
    super::encoder::Encoder::new(&cpu, &file.config, &file.tensors)?;
    super::decoder::Decoder::new(&cpu, &file.config, &file.tensors)?;
    let File { config, vocabulary, tensors, tokenizer } = file;
    let mut tensors = tensors.made();
    let (tokens, starts) = vocabulary.parts();
    for (name, bytes) in [(TOKENS, tokens), (STARTS, starts), (TOKENIZER, tokenizer.read()?)] {
        tensors.push((packed_name(name), TensorData::bytes(bytes)));
    }
    let weights = [CTRANSLATE2, SAFETENSORS].map(|name| folder.join(name)).into_iter().find(|path| path.exists());
    let source = sha256(&weights.ok_or_else(|| Error::internal("a folder lost its weights"))?)?;
    let header = Header { config, special: vocabulary.special.clone(), languages: vocabulary.languages.clone() };
    let header = serde_json::to_string(&header).map_err(|e| Error::internal(format!("a header is not JSON: {e}")))?;
    let mut metadata = general(ARCHITECTURE, labels, &source);
    metadata.push((HEADER.into(), Entry::String(header)));
    replace(output, |out| gguf::write(out, &metadata, &tensors))
}
