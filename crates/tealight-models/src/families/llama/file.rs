//! Files of a Llama: GGUF, folders of Hugging Face, llama2.c's `.bin`, and one packed file.

use super::config::{ARCHITECTURE, Config};
use super::network::Network;
use super::tensors::Tensors;
use crate::About;
use crate::formats::gguf::{self, Entry, Gguf, TensorData};
use crate::formats::llama2c;
use crate::formats::weights::{Precision, Weights};
use crate::pack::{Labels, general, sha256};
use crate::tasks::embed::Pooling;
use crate::tasks::embed::pipeline::{Pipeline, json};
use crate::tokenizer::Tokens;
use bytes::Bytes;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tealight_core::files::write_atomic;
use tealight_core::mmap::map_file;
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;

/// The key of a packed file's [`Config`], as JSON.
const HEADER: &str = "tealight.llama";
/// The keys of a packed file's tokenizer, where it comes from a folder.
const JSON: &str = "tokenizer.huggingface.json";
const ABOUT: &str = "tealight.tokenizer.config";
/// How rows become a vector where a file does not say.
const POOLING: Pooling = Pooling::LastToken;

/// A model that is opened and not yet in memory.
#[derive(Debug)]
pub(super) struct File {
    pub config: Config,
    pub tensors: Tensors,
    pub tokens: Tokens,
    pub pipeline: Pipeline,
    pub about: About,
    /// What a packed file says of its tokens.
    entries: Vec<(String, Entry)>,
    /// Where its weights are.
    source: PathBuf,
}

impl File {
    /// Opens a file or folder; `keep` keeps what is made of its tensors.
    pub(super) fn open(path: &Path, keep: bool) -> Result<Self> {
        if path.is_dir() {
            return Self::of_folder(path, keep);
        }
        let bytes = map_file(path)?;
        match bytes.starts_with(b"GGUF") {
            true => Self::of_gguf(path, Gguf::parse(bytes)?, keep),
            false => Self::of_llama2c(path, &bytes, keep),
        }
    }

    fn of_gguf(path: &Path, mut file: Gguf, keep: bool) -> Result<Self> {
        let weights = Weights::new(std::mem::take(&mut file.tensors), Precision::Int8);
        let config = match file.string(HEADER)? {
            Some(json) => serde_json::from_str::<Config>(json)
                .map_err(|e| Error::invalid_model(format!("{HEADER} cannot be read: {e}")))?
                .checked()?,
            None => {
                let mut config = Config::from_gguf(&file, weights.rows("token_embd.weight")?)?;
                if weights.contains("rope_freqs.weight") {
                    config.rope.divisors = weights.floats("rope_freqs.weight", &[config.rope.width / 2])?;
                }
                if let Some(bias) = weights.names().find(|name| name.ends_with(".bias")) {
                    return Err(Error::invalid_model(format!("tensor {bias:?} is a bias, which is not computed here")));
                }
                config.checked()?
            }
        };
        let pipeline = Pipeline::from_gguf(&file, ARCHITECTURE, &weights, POOLING)?;
        let text = |key: &str| Ok::<_, Error>(file.string(key)?.map(str::to_string));
        let about = About {
            name: text("general.name")?,
            license: text("general.license")?,
            source: text("general.source.url")?,
            format: "gguf",
            ..About::default()
        };
        let tokens = match file.string(JSON)? {
            None => Tokens::from_gguf(&file)?,
            Some(text) => {
                let files = file.string(ABOUT)?.unwrap_or("{}");
                let files: Value = serde_json::from_str(files)
                    .map_err(|e| Error::invalid_model(format!("{ABOUT} is not JSON: {e}")))?;
                let template = files["template"].as_str().map(String::from);
                Tokens::from_json(text.as_bytes(), &files["config"], &files["generation"], template)?
            }
        };
        let mut entries: Vec<_> = file.metadata.into_iter().filter(|(key, _)| is_about_tokens(key)).collect();
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        if let Some((key, _)) =
            entries.iter().find(|(_, value)| matches!(value, gguf::Value::Array(a) if keep && !a.is_wide()))
        {
            return Err(Error::invalid_model(format!(
                "{key} is of GGUF's first version, which is read and cannot be packed"
            )));
        }
        let entries = entries.into_iter().map(|(key, value)| (key, Entry::Copied(value))).collect();
        let tensors = Tensors::new(weights, keep);
        Ok(Self { config, tensors, tokens, pipeline, about, entries, source: path.into() })
    }

    fn of_folder(folder: &Path, keep: bool) -> Result<Self> {
        let config =
            json(&folder.join("config.json"))?.ok_or_else(|| Error::invalid_model("config.json is missing"))?;
        let (weights, source) = Weights::from_folder(folder, Precision::Int8, renamed)?;
        let vocabulary = weights.rows("token_embd.weight")?;
        let config = Config::from_json(&config, vocabulary)?;
        let tokens = Tokens::from_folder(folder)?;
        let read = |name: &str| json(&folder.join(name)).map(Option::unwrap_or_default);
        let text = std::fs::read_to_string(folder.join("tokenizer.json"));
        let text = text.map_err(|e| Error::io("read", &folder.join("tokenizer.json"), e))?;
        let files = serde_json::json!({
            "config": read("tokenizer_config.json")?,
            "generation": read("generation_config.json")?,
            "template": tokens.template,
        });
        let entries =
            vec![(JSON.to_string(), Entry::String(text)), (ABOUT.to_string(), Entry::String(files.to_string()))];
        let (pipeline, tensors) = (Pipeline::from_folder(folder, POOLING)?, Tensors::new(weights, keep));
        let about = About { format: "safetensors", ..About::default() };
        Ok(Self { config, tensors, tokens, pipeline, about, entries, source })
    }

    fn of_llama2c(path: &Path, bytes: &Bytes, keep: bool) -> Result<Self> {
        let (config, tensors) = llama2c::read(bytes)?;
        let beside = path.with_file_name("tokenizer.bin");
        let entries = llama2c::tokens(&map_file(&beside)?, config.vocabulary)?;
        // The way through a file of GGUF's is the one that reads such keys.
        let mut header = vec![];
        gguf::write(&mut header, &entries, &[])
            .map_err(|e| Error::internal(format!("writing to memory failed: {e}")))?;
        let tokens = Tokens::from_gguf(&Gguf::parse(header.into())?)?;
        let tensors = Tensors::new(Weights::new(tensors, Precision::Int8), keep);
        let (pipeline, about) = (Pipeline::new(POOLING), About { format: "llama2.c", ..About::default() });
        Ok(Self { config, tensors, tokens, pipeline, about, entries, source: path.into() })
    }
}

fn is_about_tokens(key: &str) -> bool {
    key.starts_with("tokenizer.") || key == ABOUT
}

/// GGUF's name for a tensor of Hugging Face's.
fn renamed(name: &str) -> Option<String> {
    let name = name.strip_prefix("model.").unwrap_or(name);
    if let Some(rest) = name.strip_prefix("layers.") {
        let (index, rest) = rest.split_once('.')?;
        let ours = match rest.strip_suffix(".weight")? {
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
        return Some(format!("blk.{index}.{ours}.weight"));
    }
    match name {
        "embed_tokens.weight" => Some("token_embd.weight".into()),
        "norm.weight" => Some("output_norm.weight".into()),
        "lm_head.weight" => Some("output.weight".into()),
        _ => None,
    }
}

/// Whether a folder or file holds a Llama.
pub fn is_llama(path: &Path) -> bool {
    if path.is_dir() {
        let kind = json(&path.join("config.json")).ok().flatten();
        return kind.is_some_and(|k| k["model_type"] == "llama" || k["model_type"] == "mistral");
    }
    let Ok(bytes) = map_file(path) else { return false };
    if !bytes.starts_with(b"GGUF") {
        return llama2c::read(&bytes).is_ok();
    }
    let architecture = |file: Gguf| file.string("general.architecture").ok().flatten() == Some(ARCHITECTURE);
    Gguf::parse(bytes).is_ok_and(architecture)
}

/// Packs a model into `output`: matrices in 4 or 8 bits as the kernels read them, tensors in the order of use. Equal input gives
/// equal bytes.
///
/// # Errors
/// The model cannot be loaded, is packed already, or the file cannot be written.
pub fn pack(cpu: &CpuContext, source: &Path, labels: &Labels, output: &Path) -> Result<()> {
    let named = |e: Error| e.with_context(format_args!("model {}", source.display()));
    let file = File::open(source, true).map_err(named)?;
    if file.tensors.are_packed() {
        return Err(named(Error::invalid_model("is packed already")));
    }
    // On one thread, so that tensors come in one order.
    Network::new(&cpu.single_threaded(), &file.config, &file.tensors).map_err(named)?;
    let header =
        serde_json::to_string(&file.config).map_err(|e| Error::internal(format!("a header is not JSON: {e}")))?;
    let mut metadata = general(ARCHITECTURE, labels, &sha256(&file.source)?);
    metadata.push((HEADER.into(), Entry::String(header)));
    metadata.extend(file.pipeline.entries(ARCHITECTURE));
    metadata.extend(file.entries);
    let mut tensors: Vec<(String, TensorData)> = file.tensors.made();
    tensors.extend(file.pipeline.tensors());
    write_atomic(output, |out| gguf::write(out, &metadata, &tensors))
}
