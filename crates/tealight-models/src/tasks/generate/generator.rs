//! A text-generation model with its prefix cache and its compiler of grammars.

use super::grammar::{Constraint, GrammarCompiler};
use super::prefix_cache::PrefixCache;
use crate::families::llama::{Llama, Sequence};
use serde_json::Value;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tealight_core::Result;
use tealight_kernels::CpuContext;

/// A text-generation model, the cache of its prompts, and the compiler of grammars for its vocabulary.
#[derive(Debug)]
pub struct Generator {
    /// The network, the tokenizer and the hyperparameters.
    pub llama: Arc<Llama>,
    prefix_cache: PrefixCache,
    /// Created by the first request with a schema.
    grammar_compiler: Mutex<Option<Arc<GrammarCompiler>>>,
}

impl Generator {
    /// A generator for a loaded model, with an empty prefix cache.
    pub fn new(llama: Arc<Llama>) -> Self {
        Self { llama, prefix_cache: PrefixCache::default(), grammar_compiler: Mutex::default() }
    }

    /// Loads a model file or folder.
    ///
    /// # Errors
    /// As for [`Llama::load`].
    pub fn load(cpu: &CpuContext, path: &Path) -> Result<Self> {
        Llama::load(cpu, path).map(|llama| Self::new(Arc::new(llama)))
    }

    /// The grammar that constrains a text to a JSON schema.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`](tealight_core::ErrorKind): the schema is invalid, unsupported or too large.
    /// [`ErrorKind::ModelLoad`](tealight_core::ErrorKind): the model has no end-of-text token.
    pub fn constraint(&self, schema: &Value) -> Result<Constraint> {
        self.grammar_compiler()?.constraint(schema)
    }

    fn grammar_compiler(&self) -> Result<Arc<GrammarCompiler>> {
        let mut compiler = self.grammar_compiler.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiler) = &*compiler {
            return Ok(compiler.clone());
        }
        let new = Arc::new(GrammarCompiler::new(&self.llama.tokenizer, self.llama.config.vocab_size)?);
        Ok(compiler.insert(new).clone())
    }

    /// The cached sequence with the longest common prefix with `tokens`, truncated to that prefix, or an empty sequence with memory
    /// for `capacity` tokens. At least the last token remains to be processed.
    pub fn restore_prefix(&self, tokens: &[u32], capacity: usize) -> Sequence {
        self.prefix_cache.restore(tokens).unwrap_or_else(|| self.llama.new_sequence(capacity))
    }

    /// Caches a sequence for [`Generator::restore_prefix`]; the oldest ones are dropped.
    pub fn store_prefix(&self, sequence: Sequence) {
        self.prefix_cache.store(sequence, self.llama.config.max_position_embeddings);
    }
}
