//! A text-generation model as an encoder: its hidden states before the projection to logits.

use super::model::Llama;
use crate::batch::TokenBatch;
use crate::text_encoder::TextEncoder;
use std::sync::Arc;
use tealight_core::Result;
use tealight_kernels::CpuContext;

/// Shares the weights of a text-generation model.
#[derive(Debug)]
pub(crate) struct LlamaEncoder(pub Arc<Llama>);

impl TextEncoder for LlamaEncoder {
    fn hidden_size(&self) -> usize {
        self.0.config.hidden_size
    }

    fn max_tokens(&self) -> usize {
        self.0.config.max_position_embeddings
    }

    fn vocab_size(&self) -> usize {
        self.0.config.vocab_size
    }

    fn matmul_ops(&self, tokens: usize) -> u64 {
        2 * tokens as u64 * self.0.layer_weight_count() as u64
    }

    fn encode(&self, cpu: &CpuContext, batch: &TokenBatch) -> Result<Vec<f32>> {
        let texts: Vec<_> = batch.cu_seqlens.windows(2).map(|w| &batch.ids[w[0]..w[1]]).collect();
        // A single text is divided between threads; several texts are distributed over them.
        let hidden_states = match &texts[..] {
            [text] => vec![self.0.hidden_states(cpu, text)],
            texts => cpu.par_map(texts, |text| self.0.hidden_states(&cpu.single_threaded(), text)),
        };
        Ok(hidden_states.into_iter().collect::<Result<Vec<_>>>()?.concat())
    }
}
