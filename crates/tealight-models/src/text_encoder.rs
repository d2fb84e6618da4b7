//! The interface of networks that compute a hidden state per token.

use crate::batch::TokenBatch;
use crate::spec::EncoderSpec;
use tealight_core::Result;
use tealight_kernels::CpuContext;

/// A network that computes a hidden state for each token of a text.
pub trait TextEncoder: std::fmt::Debug + Send + Sync {
    /// Values of a hidden state, D.
    fn hidden_size(&self) -> usize;
    /// The longest text, in tokens.
    fn max_tokens(&self) -> usize;
    /// One more than the highest token id.
    fn vocab_size(&self) -> usize;
    /// Operations of the matrix products for a text of `tokens` tokens; a multiplication and an addition count as two.
    fn matmul_ops(&self, tokens: usize) -> u64;
    /// Hidden states `[T, D]` of a batch whose texts have 1 to `max_tokens` ids below `vocab_size`. The hidden states of a text do
    /// not depend on other texts.
    ///
    /// # Errors
    /// The network cannot be computed.
    fn encode(&self, cpu: &CpuContext, batch: &TokenBatch) -> Result<Vec<f32>>;
}

/// A network that an [`EncoderSpec`] describes.
pub(crate) trait SpecifiedEncoder: std::fmt::Debug + Send + Sync {
    fn spec(&self) -> &EncoderSpec;
    /// As [`TextEncoder::encode`].
    fn hidden_states(&self, cpu: &CpuContext, batch: &TokenBatch) -> Result<Vec<f32>>;
}

impl<E: SpecifiedEncoder> TextEncoder for E {
    fn hidden_size(&self) -> usize {
        self.spec().hidden_size
    }

    fn max_tokens(&self) -> usize {
        self.spec().max_tokens
    }

    fn vocab_size(&self) -> usize {
        self.spec().vocab_size
    }

    fn matmul_ops(&self, tokens: usize) -> u64 {
        self.spec().matmul_ops(tokens)
    }

    fn encode(&self, cpu: &CpuContext, batch: &TokenBatch) -> Result<Vec<f32>> {
        self.hidden_states(cpu, batch)
    }
}
