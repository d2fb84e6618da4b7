//! A model in memory: encoder, decoder and tokenizer.

use super::bpe::BpeEncoder;
use super::config::{N_FRAMES, WhisperConfig};
use super::decoder::{CrossKv, Decoder, DecoderScratch};
use super::encoder::Encoder;
use super::model_files::ModelFiles;
use super::tokenizer::WhisperTokenizer;
use std::path::Path;
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;

/// A Whisper model in memory.
#[derive(Debug)]
pub struct Whisper {
    /// Sizes of the network.
    pub config: WhisperConfig,
    /// Text tokens and special tokens.
    pub tokenizer: WhisperTokenizer,
    pub(crate) encoder: Encoder,
    pub(crate) decoder: Decoder,
}

impl Whisper {
    /// Loads a model folder of faster-whisper (CTranslate2) or Hugging Face (safetensors), whisper.cpp's `.bin`, candle's GGUF with
    /// `config.json` and `tokenizer.json` next to it, or a packed file.
    ///
    /// # Errors
    /// [`ErrorKind::ModelLoad`](tealight_core::ErrorKind) if the file is not a supported Whisper model or is corrupt, and
    /// [`ErrorKind::Io`](tealight_core::ErrorKind). The message starts with the path.
    pub fn load(cpu: &CpuContext, path: &Path) -> Result<Self> {
        let load = || {
            let ModelFiles { config, tokenizer, loader, .. } = ModelFiles::open(path, false)?;
            let encoder = Encoder::new(cpu, &config, &loader)?;
            let decoder = Decoder::new(cpu, &config, &loader)?;
            Ok(Self { config, tokenizer, encoder, decoder })
        };
        load().map_err(|e: Error| e.with_context(format_args!("model {}", path.display())))
    }

    /// Audio features `[max_source_positions, D]` of a window of normalized log-mel frames `[N_FRAMES, num_mel_bins]`.
    ///
    /// # Errors
    /// `mel` has a different length.
    pub fn encode(&self, cpu: &CpuContext, mel: &[f32]) -> Result<Vec<f32>> {
        check_len("mel", mel.len(), N_FRAMES * self.config.num_mel_bins)?;
        Ok(cpu.install(|| self.encoder.encode(cpu, mel)))
    }

    /// The logits after each of `tokens`, `[tokens, V]`, given the audio features of a window.
    ///
    /// # Errors
    /// `audio_features` has a different length than [`Whisper::encode`] returns, `tokens` is empty or longer than
    /// `max_target_positions`, or a token is not in the vocabulary.
    pub fn logits(&self, cpu: &CpuContext, audio_features: &[f32], tokens: &[u32]) -> Result<Vec<Vec<f32>>> {
        let WhisperConfig { max_source_positions, d_model, max_target_positions, vocab_size, .. } = self.config;
        check_len("audio_features", audio_features.len(), max_source_positions * d_model)?;
        if tokens.is_empty() || tokens.len() > max_target_positions {
            let message = format!("tokens has {} tokens; expected 1 to {max_target_positions}", tokens.len());
            return Err(Error::invalid_value("tokens", message));
        }
        if let Some(id) = tokens.iter().find(|id| **id as usize >= vocab_size) {
            let message = format!("tokens has token id {id}; the vocabulary has {vocab_size} tokens");
            return Err(Error::invalid_value("tokens", message));
        }
        let (mut cross_kv, mut scratch, mut logits) = (CrossKv::default(), DecoderScratch::default(), vec![]);
        cpu.install(|| {
            self.decoder.encode_cross_kv(cpu, audio_features, &mut cross_kv);
            self.decoder.forward(cpu, &cross_kv, &mut [self.decoder.new_cache()], tokens, &mut scratch);
            self.decoder.logits(cpu, 0..tokens.len(), &mut scratch, &mut logits);
        });
        let rows = logits.chunks_exact(logits.len() / tokens.len());
        Ok(rows.map(|row| row[..vocab_size].to_vec()).collect())
    }

    /// The tokens of text that precedes a recording.
    ///
    /// # Errors
    /// The vocabulary lacks a token for some byte.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        BpeEncoder::new(&self.tokenizer)?.encode(&format!(" {}", text.trim()))
    }
}

fn check_len(name: &str, len: usize, expected: usize) -> Result<()> {
    if len == expected {
        return Ok(());
    }
    Err(Error::invalid_value(name, format!("{name} has {len} values; expected {expected}")))
}
