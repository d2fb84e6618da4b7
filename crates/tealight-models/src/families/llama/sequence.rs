//! A sequence of tokens that a model has processed.

use super::config::Config;
use super::decoder_layer::Scratch;
use super::kv_caches::KvCaches;

/// Tokens with their keys and values.
#[derive(Debug)]
pub struct Sequence {
    pub(super) tokens: Vec<u32>,
    pub(super) caches: KvCaches,
    pub(super) scratch: Scratch,
}

impl Sequence {
    /// An empty sequence with memory for `capacity` tokens.
    pub(super) fn new(config: &Config, capacity: usize) -> Self {
        let mut caches = KvCaches::new(config);
        caches.reserve(capacity.min(config.max_position_embeddings));
        Self { tokens: vec![], caches, scratch: Scratch::default() }
    }

    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Truncates to the first tokens.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
        self.caches.truncate(tokens);
    }

    /// A copy of the first tokens.
    pub(crate) fn clone_prefix(&self, tokens: usize) -> Self {
        let tokens = tokens.min(self.tokens.len());
        let caches = self.caches.clone_prefix(tokens);
        Self { tokens: self.tokens[..tokens].to_vec(), caches, scratch: Scratch::default() }
    }

    /// Frees memory that is needed only while tokens are processed.
    pub(crate) fn shrink_to_fit(&mut self) {
        self.scratch = Scratch::default();
        self.caches.shrink_to_fit();
    }
}
