//! A model in memory.

use super::config::Config;
use super::memory;
use super::model_files::ModelFiles;
use super::network::Network;
use super::sequence::Sequence;
use crate::model_info::ModelInfo;
use crate::sentence_transformers::EmbeddingPipeline;
use crate::tokenizer::LlamaTokenizer;
use std::ops::Range;
use std::path::Path;
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;

/// A text-generation model.
#[derive(Debug)]
pub struct Llama {
    /// Hyperparameters, as in Hugging Face's `config.json`.
    pub config: Config,
    /// Text to tokens and back.
    pub tokenizer: LlamaTokenizer,
    /// How hidden states become embeddings.
    pub pipeline: EmbeddingPipeline,
    /// Name, license and origin.
    pub info: ModelInfo,
    network: Network,
}

impl Llama {
    /// Loads a GGUF file of the architecture `llama`, a packed file, a Hugging Face folder with safetensors, or llama2.c's `.bin`
    /// with `tokenizer.bin` beside it.
    ///
    /// # Errors
    /// [`ErrorKind::ModelLoad`](tealight_core::ErrorKind) and [`ErrorKind::Io`](tealight_core::ErrorKind), with the path of the
    /// model and the reason.
    pub fn load(cpu: &CpuContext, path: &Path) -> Result<Self> {
        Self::open(cpu, path).map_err(|e| e.with_context(format_args!("model {}", path.display())))
    }

    fn open(cpu: &CpuContext, path: &Path) -> Result<Self> {
        let ModelFiles { config, loader, tokenizer, pipeline, info, .. } = ModelFiles::open(path, false)?;
        memory::check_weights(Network::matrix_bytes(&config, &loader))?;
        let network = Network::new(cpu, &config, &loader)?;
        Ok(Self { config, tokenizer, pipeline, info, network })
    }

    /// Bytes of weights that are read for each generated token.
    pub fn weight_bytes(&self) -> usize {
        self.network.weight_bytes()
    }

    /// Number of weights in the matrix products for a hidden state, without the output matrix.
    pub(super) fn layer_weight_count(&self) -> usize {
        self.network.layer_weight_count()
    }

    /// An empty sequence with memory for `capacity` tokens.
    pub fn new_sequence(&self, capacity: usize) -> Sequence {
        Sequence::new(&self.config, capacity)
    }

    /// Hidden states `[T, D]` of a text, normalized.
    pub(super) fn hidden_states(&self, cpu: &CpuContext, tokens: &[u32]) -> Result<Vec<f32>> {
        let mut sequence = self.new_sequence(tokens.len());
        let mut all = vec![];
        self.network.forward(cpu, &mut sequence.kv_cache, tokens, &mut sequence.scratch, |_, hidden_states| {
            all.extend_from_slice(hidden_states);
            Ok(())
        })?;
        Ok(all)
    }

    /// Appends tokens to a sequence, and returns the logits `[count, vocab_size]` after each of the last `count` of them.
    /// `check_cancelled` is called from time to time; its error ends the computation, and the sequence stays as it was.
    ///
    /// # Errors
    /// As for [`Llama::forward_with`].
    pub fn forward(
        &self,
        cpu: &CpuContext,
        sequence: &mut Sequence,
        tokens: &[u32],
        count: usize,
        check_cancelled: impl Fn() -> Result<()> + Sync,
    ) -> Result<Vec<f32>> {
        let mut all = vec![];
        self.forward_with(cpu, sequence, tokens, count, check_cancelled, |_, logits| all.extend_from_slice(logits))?;
        Ok(all)
    }

    /// As [`Llama::forward`], but calls `on_logits(i, logits)` for each of the last `count` tokens, where `i` is the index in
    /// `tokens`.
    ///
    /// # Errors
    /// There are no tokens, more than the context has room for, or one that is not in the vocabulary; memory does not suffice for
    /// the KV cache; the weights are damaged; or an error of `check_cancelled`.
    pub fn forward_with(
        &self,
        cpu: &CpuContext,
        sequence: &mut Sequence,
        tokens: &[u32],
        count: usize,
        check_cancelled: impl Fn() -> Result<()> + Sync,
        mut on_logits: impl FnMut(usize, &[f32]) + Send,
    ) -> Result<()> {
        self.validate_tokens(sequence, tokens)?;
        memory::check_kv_cache((tokens.len() * self.config.kv_bytes_per_token()) as u64)?;
        let d = self.config.hidden_size;
        let requested_range = tokens.len().saturating_sub(count)..tokens.len();
        let mut logits = vec![];
        let Sequence { kv_cache, scratch, .. } = sequence;
        let outcome = cpu.install(|| {
            self.network.forward(cpu, kv_cache, tokens, scratch, |first, hidden_states| {
                for i in overlap(first, hidden_states.len() / d, &requested_range) {
                    self.network.logits(cpu, &hidden_states[i * d..(i + 1) * d], &mut logits);
                    if !logits.iter().all(|v| v.is_finite()) {
                        return Err(Error::invalid_model(
                            "the model computed a value that is not finite: its weights are damaged",
                        ));
                    }
                    on_logits(first + i, &logits);
                }
                check_cancelled()
            })
        });
        match outcome {
            Ok(()) => sequence.tokens.extend_from_slice(tokens),
            Err(_) => sequence.kv_cache.truncate(sequence.tokens.len()),
        }
        outcome
    }

    fn validate_tokens(&self, sequence: &Sequence, tokens: &[u32]) -> Result<()> {
        let (total, context) = (sequence.tokens.len() + tokens.len(), self.config.max_position_embeddings);
        if tokens.is_empty() || total > context {
            return Err(Error::invalid_value(
                "prompt",
                format!("the sequence has {total} tokens; expected 1 to {context}"),
            ));
        }
        match tokens.iter().find(|id| **id as usize >= self.config.vocab_size) {
            Some(id) => Err(Error::invalid_value(
                "prompt",
                format!("prompt has token id {id}; the vocabulary has {} tokens", self.config.vocab_size),
            )),
            None => Ok(()),
        }
    }
}

/// The part of `range` among `count` tokens from `first` on, relative to `first`.
fn overlap(first: usize, count: usize, range: &Range<usize>) -> Range<usize> {
    let clamp = |index: usize| index.clamp(first, first + count) - first;
    clamp(range.start)..clamp(range.end)
}
