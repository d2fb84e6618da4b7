//! Whisper (Radford et al. 2022, arXiv 2212.04356): speech to text. openai/whisper is the reference of what it decodes.
//!
//! Tensors go by Hugging Face's names for them, without `model.` in front; other files' names are translated.

mod config;
mod ct2;
mod decode;
mod decoder;
mod encoder;
mod file;
mod languages;
mod listen;
pub mod mel;
mod rules;
mod tensors;
mod transcribe;
mod vocabulary;
mod words;

pub use config::{Config, FRAMES};
pub use file::{is_whisper, pack};
pub use languages::{code as language_code, name as language_name};
pub use listen::{Listener, Pieces, Window};
pub use transcribe::{Options, Segment, Transcript};
pub use vocabulary::{Special, Vocabulary};
pub use words::Word;

use super::tokenizer::Tokenizer;
use crate::error::Result;
use crate::kernels::rowwise;
use crate::nn::Cpu;
use std::path::Path;

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
    tokenizer: file::TokenizerFile,
}

impl Whisper {
    /// Loads a folder of faster-whisper (CTranslate2) or of Hugging Face (safetensors), or a packed file.
    ///
    /// # Errors
    /// [`Kind::ModelLoad`](crate::Kind) and [`Kind::Io`](crate::Kind), which name the file and what in it is wrong.
    pub fn load(cpu: &Cpu, path: &Path) -> Result<Self> {
        Self::of(cpu, path).map_err(|e| e.context(format_args!("model {}", path.display())))
    }

    fn of(cpu: &Cpu, path: &Path) -> Result<Self> {
        let file::File { config, vocabulary, tensors, tokenizer } = file::File::open(path, false)?;
        let encoder = encoder::Encoder::new(cpu, &config, &tensors)?;
        let decoder = decoder::Decoder::new(cpu, &config, &tensors)?;
        Ok(Self { config, vocabulary, encoder, decoder, tokenizer })
    }

    /// The tokens of a text that goes before a recording.
    ///
    /// # Errors
    /// The tokenizer's file is gone or damaged.
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        // Read only now: what is heard needs the way from tokens to text alone, and this takes long.
        Tokenizer::from_json(&self.tokenizer.read()?)?.ids(&format!(" {}", text.trim()))
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
