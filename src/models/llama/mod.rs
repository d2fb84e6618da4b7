//! Llama and what has its shape: text from text. llama.cpp is the reference of its files.

pub mod chat;
mod config;
mod file;
mod matrix;
mod network;
mod rope;
mod sample;
mod tensors;
mod tokens;
mod written;

pub use config::Config;
pub use sample::{Sampler, Sampling, best, log_probabilities};
pub use tokens::Tokens;
pub use written::Written;

use crate::error::{Error, Result};
use crate::nn::Cpu;
use network::{Network, Scratch};
use std::ops::Range;
use std::path::Path;

/// A model in memory.
#[derive(Debug)]
pub struct Llama {
    /// Sizes.
    pub config: Config,
    /// Text to tokens and back.
    pub tokens: Tokens,
    network: Network,
}

/// A text that is being read and written: its tokens, and what each layer keeps of them.
#[derive(Debug, Clone)]
pub struct State {
    tokens: Vec<u32>,
    cache: network::Cache,
}

impl State {
    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Forgets all but the first tokens.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
        self.cache.truncate(tokens);
    }
}

impl Llama {
    /// Loads a GGUF file of the architecture `llama`, or a packed one.
    ///
    /// # Errors
    /// [`Kind::ModelLoad`](crate::Kind) and [`Kind::Io`](crate::Kind), which name the file and what in it is wrong.
    pub fn load(cpu: &Cpu, path: &Path) -> Result<Self> {
        Self::of(cpu, path).map_err(|e| e.context(format_args!("model {}", path.display())))
    }

    fn of(cpu: &Cpu, path: &Path) -> Result<Self> {
        let file::File { config, tensors, tokens } = file::File::open(path, false)?;
        let network = Network::new(cpu, &config, &tensors)?;
        Ok(Self { config, tokens, network })
    }

    /// Bytes of weights that each new token reads.
    pub fn bytes(&self) -> usize {
        self.network.bytes()
    }

    /// An empty text with room for so many tokens.
    pub fn start(&self, tokens: usize) -> State {
        let mut cache = network::Cache::new(&self.config);
        cache.reserve(tokens.min(self.config.context));
        State { tokens: vec![], cache }
    }

    /// Reads tokens behind those of `state`; returns the logits `[V]` after each of the last `wanted` of them.
    ///
    /// # Errors
    /// There are no tokens, more than the context holds, or one that the model has not.
    pub fn read(&self, cpu: &Cpu, state: &mut State, tokens: &[u32], wanted: usize) -> Result<Vec<f32>> {
        let (mut scratch, mut logits, mut part) = (Scratch::default(), vec![], vec![]);
        self.rows(cpu, state, tokens, tokens.len().saturating_sub(wanted)..tokens.len(), &mut scratch, |rows| {
            self.network.logits(cpu, rows, &mut part);
            logits.append(&mut part);
        })?;
        Ok(logits)
    }

    /// Reads tokens; `f` gets the rows `[n, D]` of those that are wanted.
    fn rows(
        &self,
        cpu: &Cpu,
        state: &mut State,
        tokens: &[u32],
        wanted: Range<usize>,
        scratch: &mut Scratch,
        mut f: impl FnMut(&[f32]) + Send,
    ) -> Result<()> {
        self.check(state, tokens)?;
        let d = self.config.width;
        cpu.inside(|| {
            self.network.run(cpu, &mut state.cache, tokens, scratch, |first, rows| {
                let some = network::overlap(first, rows.len() / d, &wanted);
                if !some.is_empty() {
                    f(&rows[some.start * d..some.end * d]);
                }
                Ok(())
            })
        })?;
        state.tokens.extend_from_slice(tokens);
        Ok(())
    }

    fn check(&self, state: &State, tokens: &[u32]) -> Result<()> {
        let (total, context) = (state.tokens.len() + tokens.len(), self.config.context);
        if tokens.is_empty() || total > context {
            return Err(Error::value("prompt", format!("the text has {total} tokens, from 1 to {context} are read")));
        }
        match tokens.iter().find(|id| **id as usize >= self.config.vocabulary) {
            Some(id) => Err(Error::value(
                "prompt",
                format!("the token {id} is beyond the {} of the model", self.config.vocabulary),
            )),
            None => Ok(()),
        }
    }
}
