//! Whisper (Radford et al. 2022, arXiv 2212.04356): speech to text. openai/whisper is the reference of what it decodes.
//!
//! Tensors go by Hugging Face's names for them, without `model.` in front; other files' names are translated.

mod config;
mod ct2;
mod decode;
mod decoder;
mod encoder;
mod languages;
mod listen;
pub mod mel;
mod rules;
mod transcribe;
mod vocabulary;

pub use config::{Config, FRAMES};
pub use languages::{code as language_code, name as language_name};
pub use listen::{Listener, Pieces, Window};
pub use transcribe::{Options, Segment, Transcript};
pub use vocabulary::{Special, Vocabulary};

use super::map::map;
use super::pipeline::json;
use super::tokenizer::Tokenizer;
use super::weights::{Precision, Weights};
use crate::error::{Error, Result};
use crate::kernels::int8::Packed;
use crate::kernels::rowwise;
use crate::nn::{Cpu, LayerNorm};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Values along K that share a scale.
const GROUP: usize = 192;
/// Of every layer norm.
const EPS: f32 = 1e-5;

/// What is written of speech.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Task {
    /// What was said.
    #[default]
    Transcribe,
    /// The same in English.
    Translate,
}

/// A model in memory.
#[derive(Debug)]
pub struct Whisper {
    /// Sizes.
    pub config: Config,
    /// What ids stand for.
    pub vocabulary: Vocabulary,
    encoder: encoder::Encoder,
    decoder: decoder::Decoder,
    /// Where prompts find the way from text to tokens.
    tokenizer: PathBuf,
}

impl Whisper {
    /// Loads a folder of faster-whisper (CTranslate2) or of Hugging Face (safetensors).
    ///
    /// # Errors
    /// [`Kind::ModelLoad`](crate::Kind) and [`Kind::Io`](crate::Kind), which name the file and what in it is wrong.
    pub fn load(cpu: &Cpu, folder: &Path) -> Result<Self> {
        Self::of_folder(cpu, folder).map_err(|e| e.context(format_args!("model {}", folder.display())))
    }

    fn of_folder(cpu: &Cpu, folder: &Path) -> Result<Self> {
        let (weights, heads, json) = open(folder)?;
        let config = Config::new(&weights, heads, &json)?;
        let tokenizer = folder.join("tokenizer.json");
        let vocabulary =
            Vocabulary::from_json(&std::fs::read(&tokenizer).map_err(|e| Error::io("read", &tokenizer, e))?)?;
        let encoder = encoder::Encoder::new(cpu, &config, &weights)?;
        let decoder = decoder::Decoder::new(cpu, &config, &weights)?;
        Ok(Self { config, vocabulary, encoder, decoder, tokenizer })
    }

    /// The tokens of a text that goes before a recording.
    ///
    /// # Errors
    /// The tokenizer's file is gone or damaged.
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        // Read only now: what is heard needs the way from tokens to text alone, and this takes long.
        let json = std::fs::read(&self.tokenizer).map_err(|e| Error::io("read", &self.tokenizer, e))?;
        Tokenizer::from_json(&json)?.ids(&format!(" {}", text.trim()))
    }

    /// The probability of each language, in the order of the vocabulary's, by the one step that follows the start.
    fn languages(&self, cpu: &Cpu, heard: &decoder::Heard) -> Vec<f32> {
        let (mut scratch, mut logits) = (decoder::Scratch::default(), vec![]);
        let start = self.vocabulary.special.start;
        self.decoder.step(cpu, heard, &mut [self.decoder.cache()], &[start], &mut scratch);
        self.decoder.logits(cpu, 0..1, &mut scratch, &mut logits);
        let first = start as usize + 1;
        let mut languages = logits[first..first + self.vocabulary.languages.len()].to_vec();
        rowwise::softmax(cpu.isa, &mut languages);
        languages
    }
}

/// Tensors, heads where the file tells, and what is said of the model beside them.
fn open(folder: &Path) -> Result<(Weights, Option<usize>, Value)> {
    let mut about = json(&folder.join("config.json"))?.ok_or_else(|| Error::model("config.json is missing"))?;
    let (ct2, safetensors) = (folder.join("model.bin"), folder.join("model.safetensors"));
    if ct2.exists() {
        let (tensors, heads) = ct2::read(&map(&ct2)?)?;
        return Ok((Weights::from_gguf(tensors, Precision::Int8), heads, about));
    }
    if !safetensors.exists() {
        return Err(Error::model("has neither model.bin nor model.safetensors"));
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

/// Matrices `[n, k]` one above another, with zeros where a bias is missing, packed.
fn matrix(weights: &Weights, parts: &[&str], n: usize, k: usize) -> Result<Packed> {
    let (mut matrix, mut bias) = (vec![], vec![]);
    for part in parts {
        let name = format!("{part}.bias");
        matrix.extend(weights.floats(&format!("{part}.weight"), &[n, k])?);
        match weights.contains(&name) {
            true => bias.extend(weights.floats(&name, &[n])?),
            false => bias.resize(bias.len() + n, 0.0),
        }
    }
    Packed::of(&matrix, &bias, &vec![1.0; k], GROUP)
}

fn norm(weights: &Weights, name: &str, d: usize) -> Result<LayerNorm> {
    Ok(LayerNorm {
        weight: weights.floats(&format!("{name}.weight"), &[d])?,
        bias: weights.floats(&format!("{name}.bias"), &[d])?,
        eps: EPS,
    })
}
