//! Llama and what has its shape: text from text. llama.cpp is the reference of its files.

mod config;
mod encoder;
mod file;
mod matrix;
mod network;
mod rope;
mod tensors;

pub use config::Config;
pub use file::{is_llama, pack};
pub(crate) use rope::{Pairs, Rope};

use crate::tasks::embed::pipeline::Pipeline;
use crate::tasks::generate::{Constraint, Schemas};
use crate::tokenizer::Tokens;
use crate::{About, memory};
use network::{Network, Scratch};
use serde_json::Value;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;

/// Texts that are kept for those that go on with them.
const KEPT: usize = 4;

/// A model in memory.
#[derive(Debug)]
pub struct Llama {
    /// Sizes.
    pub config: Config,
    /// Text to tokens and back.
    pub tokens: Tokens,
    /// How its rows become vectors.
    pub pipeline: Pipeline,
    /// What the file says about itself.
    pub about: About,
    network: Network,
    /// Texts that were read, the last one at the end.
    kept: Mutex<Vec<State>>,
    /// Made when a schema is first asked for.
    schemas: Mutex<Option<Arc<Schemas>>>,
}

/// A text that is being read and written: its tokens, and what each layer keeps of them.
#[derive(Debug)]
pub struct State {
    tokens: Vec<u32>,
    cache: network::Cache,
    scratch: Scratch,
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
    /// Loads a GGUF file of the architecture `llama`, llama2.c's `.bin` with `tokenizer.bin` beside it, a folder of Hugging Face's
    /// (`model.safetensors`), or a packed file.
    ///
    /// # Errors
    /// [`ErrorKind::ModelLoad`](tealight_core::ErrorKind) and [`ErrorKind::Io`](tealight_core::ErrorKind), which name the file and what in it is wrong.
    pub fn load(cpu: &CpuContext, path: &Path) -> Result<Self> {
        Self::of(cpu, path).map_err(|e| e.with_context(format_args!("model {}", path.display())))
    }

    fn of(cpu: &CpuContext, path: &Path) -> Result<Self> {
        let file::File { config, tensors, tokens, pipeline, about, .. } = file::File::open(path, false)?;
        memory::check(tensors.packed_bytes())?;
        let network = Network::new(cpu, &config, &tensors)?;
        Ok(Self { config, tokens, pipeline, about, network, kept: Mutex::default(), schemas: Mutex::default() })
    }

    /// Bytes of weights that each new token reads.
    pub fn bytes(&self) -> usize {
        self.network.bytes()
    }

    /// What keeps a text to a JSON schema.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`](tealight_core::ErrorKind), where the schema cannot be kept to.
    pub fn constraint(&self, schema: &Value) -> Result<Constraint> {
        let mut place = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        let schemas = match &*place {
            Some(schemas) => schemas.clone(),
            None => place.insert(Arc::new(Schemas::new(&self.tokens, self.config.vocabulary)?)).clone(),
        };
        drop(place);
        schemas.constraint(schema)
    }

    /// An empty text with room for so many tokens.
    pub fn start(&self, tokens: usize) -> State {
        let mut cache = network::Cache::new(&self.config);
        cache.reserve(tokens.min(self.config.context));
        State { tokens: vec![], cache, scratch: Scratch::default() }
    }

    /// The text that begins as `tokens` do and was read already, as far as they agree, but for the last of them; an empty one where
    /// there is none. A text that agrees in its smaller part stays kept, too.
    pub fn resume(&self, tokens: &[u32], room: usize) -> State {
        let common = |state: &State| state.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let longest =
            kept.iter().map(common).enumerate().max_by_key(|(_, count)| *count).filter(|(_, count)| *count > 0);
        match longest {
            None => self.start(room),
            Some((index, count)) => {
                let useful = count.min(tokens.len().saturating_sub(1));
                if 2 * count >= kept[index].tokens.len() {
                    let mut state = kept.remove(index);
                    state.truncate(useful);
                    return state;
                }
                let cache = kept[index].cache.beginning(useful);
                State { tokens: tokens[..useful].to_vec(), cache, scratch: Scratch::default() }
            }
        }
    }

    /// Keeps a text for [`Llama::resume`]; of many the oldest goes.
    pub fn keep(&self, mut state: State) {
        state.scratch = Scratch::default();
        state.cache.shrink();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(state);
        let tokens = |kept: &[State]| kept.iter().map(|s| s.tokens.len()).sum::<usize>();
        while kept.len() > KEPT || kept.len() > 1 && tokens(&kept) > self.config.context {
            kept.remove(0);
        }
    }

    /// Reads tokens behind those of `state`; returns the logits `[V]` after each of the last `wanted` of them. `each` is called now
    /// and then, and stops it by an error; `state` then holds what it held before.
    ///
    /// # Errors
    /// As of [`Llama::read_rows`].
    pub fn read(
        &self,
        cpu: &CpuContext,
        state: &mut State,
        tokens: &[u32],
        wanted: usize,
        each: impl Fn() -> Result<()> + Sync,
    ) -> Result<Vec<f32>> {
        let mut all = vec![];
        self.read_rows(cpu, state, tokens, wanted, each, |_, logits| all.extend_from_slice(logits))?;
        Ok(all)
    }

    /// The same, but for the logits: `on_logits` gets those after a token with its number, one token after another.
    ///
    /// # Errors
    /// There are no tokens, more than the context holds, or one that the model has not; there is no memory for what is kept of them;
    /// the weights are damaged; or what `each` says.
    pub fn read_rows(
        &self,
        cpu: &CpuContext,
        state: &mut State,
        tokens: &[u32],
        wanted: usize,
        each: impl Fn() -> Result<()> + Sync,
        mut on_logits: impl FnMut(usize, &[f32]) + Send,
    ) -> Result<()> {
        self.check(state, tokens)?;
        memory::check_more((tokens.len() * self.config.bytes_per_token()) as u64)?;
        let (d, wanted) = (self.config.width, tokens.len().saturating_sub(wanted)..tokens.len());
        let mut logits = vec![];
        let State { cache, scratch, .. } = state;
        let outcome = cpu.install(|| {
            self.network.run(cpu, cache, tokens, scratch, |first, rows| {
                for i in network::overlap(first, rows.len() / d, &wanted) {
                    self.network.logits(cpu, &rows[i * d..(i + 1) * d], &mut logits);
                    if !logits.iter().all(|v| v.is_finite()) {
                        return Err(Error::invalid_model(
                            "the model gave values that are not numbers: its weights are damaged",
                        ));
                    }
                    on_logits(first + i, &logits);
                }
                each()
            })
        });
        match outcome {
            Ok(()) => state.tokens.extend_from_slice(tokens),
            Err(_) => state.cache.truncate(state.tokens.len()),
        }
        outcome
    }

    fn check(&self, state: &State, tokens: &[u32]) -> Result<()> {
        let (total, context) = (state.tokens.len() + tokens.len(), self.config.context);
        if tokens.is_empty() || total > context {
            return Err(Error::invalid_value(
                "prompt",
                format!("the text has {total} tokens, from 1 to {context} are read"),
            ));
        }
        match tokens.iter().find(|id| **id as usize >= self.config.vocabulary) {
            Some(id) => Err(Error::invalid_value(
                "prompt",
                format!("the token {id} is beyond the {} of the model", self.config.vocabulary),
            )),
            None => Ok(()),
        }
    }
}
