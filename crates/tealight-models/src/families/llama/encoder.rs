//! Vectors of texts by a model that writes: the row of the last token, or the mean of all, as a pipeline says.

use super::{Llama, network};
use crate::{About, Batch, Embedder, Encoder};
use candle_core::{Device, Tensor};
use std::sync::Arc;
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;

/// The rows of a Llama, normalised, before they become logits.
#[derive(Debug)]
struct Decoder(Arc<Llama>);

impl Encoder for Decoder {
    fn dimension(&self) -> usize {
        self.0.config.width
    }

    fn max_tokens(&self) -> usize {
        self.0.config.context
    }

    fn vocabulary(&self) -> usize {
        self.0.config.vocabulary
    }

    fn operations(&self, tokens: usize) -> u64 {
        2 * tokens as u64 * self.0.network.weights() as u64
    }

    fn encode(&self, cpu: &CpuContext, batch: &Batch) -> Result<Tensor> {
        let texts: Vec<_> = batch.starts.windows(2).map(|w| &batch.ids[w[0]..w[1]]).collect();
        // One text is shared out among threads, many are by whole texts; neither changes a row.
        let rows = match &texts[..] {
            [text] => vec![self.0.rows(cpu, text)],
            texts => cpu.par_map(texts, |text| self.0.rows(&cpu.single_threaded(), text)),
        };
        let rows = rows.into_iter().collect::<Result<Vec<_>>>()?.concat();
        let shape = (rows.len() / self.dimension(), self.dimension());
        Tensor::from_vec(rows, shape, &Device::Cpu).map_err(|e| Error::internal(format!("rows are no tensor: {e}")))
    }
}

impl Llama {
    /// `[T, D]`, normalised, for a text.
    fn rows(&self, cpu: &CpuContext, tokens: &[u32]) -> Result<Vec<f32>> {
        let (mut cache, mut scratch, mut all) =
            (network::Cache::new(&self.config), network::Scratch::default(), vec![]);
        cache.reserve(tokens.len());
        self.network.run(cpu, &mut cache, tokens, &mut scratch, |_, rows| {
            all.extend_from_slice(rows);
            Ok(())
        })?;
        Ok(all)
    }
}

impl Embedder {
    /// The vectors of a model that writes, which stays where it is in memory.
    ///
    /// # Errors
    /// [`ErrorKind::ModelLoad`](tealight_core::ErrorKind), where tokenizer and weights do not fit.
    pub fn of_llama(model: Arc<Llama>) -> Result<Self> {
        let about = About { architecture: super::config::ARCHITECTURE.into(), ..model.about.clone() };
        let (tokenizer, pipeline) = (model.tokens.around(), model.pipeline.clone());
        Self::assemble(Box::new(Decoder(model)), tokenizer, pipeline, about)
    }
}
