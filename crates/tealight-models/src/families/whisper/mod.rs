//! Whisper (Radford et al. 2022, arXiv 2212.04356): speech to text. openai/whisper is the reference of what it decodes.
//!
//! Tensors go by Hugging Face's names for them, without `model.` in front; other files' names are translated.

mod bpe;
mod config;
pub(crate) mod decoder;
mod encoder;
mod file;
mod languages;
mod tensors;
mod tokenizer;

pub use config::{Config, FRAMES};
pub use file::{is_whisper, pack};
pub use languages::{code as language_code, name as language_name};
pub use tokenizer::{Special, Vocabulary};

use std::path::Path;
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;
use tealight_kernels::rowwise;

/// A model in memory.
#[derive(Debug)]
pub struct Whisper {
    /// Sizes.
    pub config: Config,
    /// What ids stand for.
    pub vocabulary: Vocabulary,
    pub(crate) encoder: encoder::Encoder,
    pub(crate) decoder: decoder::Decoder,
}

impl Whisper {
    /// Loads a folder of faster-whisper (CTranslate2) or of Hugging Face (safetensors), or a file: whisper.cpp's `.bin`, candle's
    /// GGUF with `config.json` and `tokenizer.json` beside it, or a packed one.
    ///
    /// # Errors
    /// [`ErrorKind::ModelLoad`](tealight_core::ErrorKind) and [`ErrorKind::Io`](tealight_core::ErrorKind), which name the file and what in it is wrong.
    pub fn load(cpu: &CpuContext, path: &Path) -> Result<Self> {
        Self::of(cpu, path).map_err(|e| e.with_context(format_args!("model {}", path.display())))
    }

    fn of(cpu: &CpuContext, path: &Path) -> Result<Self> {
        let file::File { config, vocabulary, tensors, .. } = file::File::open(path, false)?;
        let encoder = encoder::Encoder::new(cpu, &config, &tensors)?;
        let decoder = decoder::Decoder::new(cpu, &config, &tensors)?;
        Ok(Self { config, vocabulary, encoder, decoder })
    }

    /// What the encoder makes of a window: `frames [FRAMES, bands]` to `[audio_rows, D]`.
    ///
    /// # Errors
    /// There are not so many values.
    pub fn features(&self, cpu: &CpuContext, frames: &[f32]) -> Result<Vec<f32>> {
        count("frames", frames.len(), FRAMES * self.config.bands)?;
        Ok(cpu.install(|| self.encoder.encode(cpu, frames)))
    }

    /// What the decoder expects after each of `tokens`, given the features of a window: logits `[tokens, vocabulary]`.
    ///
    /// # Errors
    /// There are other features than [`Whisper::features`] gives, no tokens or more than the model reads, or one that it has not.
    pub fn logits(&self, cpu: &CpuContext, features: &[f32], tokens: &[u32]) -> Result<Vec<Vec<f32>>> {
        let Config { audio_rows, width, text_tokens, vocabulary, .. } = self.config;
        count("features", features.len(), audio_rows * width)?;
        if tokens.is_empty() || tokens.len() > text_tokens {
            return Err(Error::invalid_value(
                "tokens",
                format!("there are {} tokens, from 1 to {text_tokens} are read", tokens.len()),
            ));
        }
        if let Some(id) = tokens.iter().find(|id| **id as usize >= vocabulary) {
            return Err(Error::invalid_value(
                "tokens",
                format!("the token {id} is beyond the {vocabulary} of the model"),
            ));
        }
        let (mut heard, mut scratch, mut logits) = (decoder::Heard::default(), decoder::Scratch::default(), vec![]);
        cpu.install(|| {
            self.decoder.hear(cpu, features, &mut heard);
            self.decoder.step(cpu, &heard, &mut [self.decoder.cache()], tokens, &mut scratch);
            self.decoder.logits(cpu, 0..tokens.len(), &mut scratch, &mut logits);
        });
        let rows = logits.chunks_exact(logits.len() / tokens.len());
        Ok(rows.map(|row| row[..vocabulary].to_vec()).collect())
    }

    /// The tokens of a text that goes before a recording.
    ///
    /// # Errors
    /// The vocabulary has no token for some byte.
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        bpe::Bpe::new(&self.vocabulary)?.encode(&format!(" {}", text.trim()))
    }

    /// The probability of each language, in the order of the vocabulary's, by the one step that follows the start.
    pub(crate) fn languages(&self, cpu: &CpuContext, heard: &decoder::Heard) -> Vec<f32> {
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

fn count(what: &str, found: usize, wanted: usize) -> Result<()> {
    let message = || format!("there are {found} values of {what}, {wanted} make a window");
    if found == wanted { Ok(()) } else { Err(Error::invalid_value(what, message())) }
}
