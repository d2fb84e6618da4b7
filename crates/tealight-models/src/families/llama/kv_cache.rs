//! The KV cache of a sequence.

use super::config::Config;
use tealight_kernels::attention::gqa::HeadKvCache;

/// Keys and values of the tokens so far, in every layer.
#[derive(Debug, Clone, Default)]
pub(super) struct KvCache {
    /// `[num_hidden_layers][num_key_value_heads]`.
    pub layers: Vec<Vec<HeadKvCache>>,
    /// Number of cached tokens.
    pub tokens: usize,
}

impl KvCache {
    pub(super) fn new(config: &Config) -> Self {
        let heads = vec![HeadKvCache::new(config.head_dim); config.num_key_value_heads];
        Self { layers: vec![heads; config.num_hidden_layers], tokens: 0 }
    }

    /// Drops all but the first `tokens` tokens.
    pub(super) fn truncate(&mut self, tokens: usize) {
        self.tokens = tokens.min(self.tokens);
        self.layers.iter_mut().flatten().for_each(|head| head.truncate(tokens));
    }

    /// A copy of the first `tokens` tokens.
    pub(super) fn clone_prefix(&self, tokens: usize) -> Self {
        let layer = |heads: &Vec<HeadKvCache>| heads.iter().map(|head| head.clone_prefix(tokens)).collect();
        Self { layers: self.layers.iter().map(layer).collect(), tokens: tokens.min(self.tokens) }
    }

    /// Frees memory that the tokens do not need.
    pub(super) fn shrink_to_fit(&mut self) {
        self.layers.iter_mut().flatten().for_each(HeadKvCache::shrink_to_fit);
    }

    /// Reserves memory for `tokens` in total.
    pub(super) fn reserve(&mut self, tokens: usize) {
        self.layers.iter_mut().flatten().for_each(|head| head.reserve(tokens));
    }
}
