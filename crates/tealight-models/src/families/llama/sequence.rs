//! A sequence of tokens that a model has processed.

use super::config::Config;
use super::decoder_layer::Scratch;
use super::kv_cache::KvCache;

/// Tokens with their keys and values.
#[derive(Debug)]
pub struct Sequence {
    pub(super) tokens: Vec<u32>,
    pub(super) kv_cache: KvCache,
    pub(super) scratch: Scratch,
}

impl Sequence {
    /// An empty sequence with memory for `capacity` tokens.
    pub(super) fn new(config: &Config, capacity: usize) -> Self {
        let mut kv_cache = KvCache::new(config);
        kv_cache.reserve(capacity.min(config.max_position_embeddings));
        Self { tokens: vec![], kv_cache, scratch: Scratch::default() }
    }

    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Drops all but the first `tokens` tokens.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
        self.kv_cache.truncate(tokens);
    }

    /// A copy of the first `tokens` tokens.
    pub(crate) fn clone_prefix(&self, tokens: usize) -> Self {
        let tokens = tokens.min(self.tokens.len());
        let kv_cache = self.kv_cache.clone_prefix(tokens);
        Self { tokens: self.tokens[..tokens].to_vec(), kv_cache, scratch: Scratch::default() }
    }

    /// Frees memory that is needed only while tokens are processed.
    pub(crate) fn shrink_to_fit(&mut self) {
        self.scratch = Scratch::default();
        self.kv_cache.shrink_to_fit();
    }
}
