//! An encoder of any family.

use super::embeddings::Embeddings;
use super::encoder::{EncoderLayer, Observer, ScratchPool, encode};
use super::linear_kind::LinearKind;
use super::load::LayerLoader;
use super::norm::RowNorm;
use super::padding::PaddedDim;
use crate::batch::TokenBatch;
use crate::formats::weights::Weights;
use crate::spec::EncoderSpec;
use crate::text_encoder::SpecifiedEncoder;
use tealight_core::Result;
use tealight_kernels::CpuContext;

/// An encoder with int8 weights and activations.
#[derive(Debug)]
pub struct Int8Encoder {
    spec: EncoderSpec,
    embeddings: Embeddings,
    layers: Vec<EncoderLayer>,
    final_norm: Option<RowNorm>,
    pool: ScratchPool,
}

impl Int8Encoder {
    /// Reads the tensors of a model, and packs those that the file does not have packed.
    ///
    /// # Errors
    /// A tensor is missing, has another shape, or holds values that are not finite.
    pub fn new(cpu: &CpuContext, spec: EncoderSpec, weights: &Weights) -> Result<Self> {
        let loader = LayerLoader { spec: &spec, weights };
        let shared = loader.shared(cpu.isa)?;
        let indices: Vec<_> = (0..spec.layers.len()).collect();
        // Packed weights are only checked, so threads would not help.
        let is_packed = weights.packed(&LayerLoader::packed_name(0, LinearKind::Qkv, None)).is_some();
        let threads = if is_packed { &cpu.single_threaded() } else { cpu };
        let layers = threads.par_map(&indices, |i| loader.layer(*i, &shared));
        Ok(Self {
            embeddings: Embeddings::new(&loader)?,
            layers: layers.into_iter().collect::<Result<_>>()?,
            final_norm: if spec.final_norm { Some(loader.norm("output_norm", spec.hidden_size)?) } else { None },
            pool: ScratchPool::default(),
            spec,
        })
    }

    /// The hidden states of a batch; `observer` sees the input of each matrix product.
    ///
    /// # Errors
    /// A token has no embedding.
    pub fn forward(&self, cpu: &CpuContext, batch: &TokenBatch, observer: Option<Observer>) -> Result<Vec<f32>> {
        let d = PaddedDim::one(self.spec.hidden_size);
        let stride = d.padded_part();
        let mut x = self.embeddings.forward(cpu.isa, batch, stride)?;
        encode(cpu, &self.layers, &mut x, &batch.cu_seqlens, &self.pool, observer);
        if let Some(norm) = &self.final_norm {
            norm.apply(cpu.isa, &mut x, stride);
        }
        if stride == d.size() {
            return Ok(x);
        }
        Ok(x.chunks_exact(stride).flat_map(|row| &row[..d.size()]).copied().collect())
    }
}

impl SpecifiedEncoder for Int8Encoder {
    fn spec(&self) -> &EncoderSpec {
        &self.spec
    }

    fn hidden_states(&self, cpu: &CpuContext, batch: &TokenBatch) -> Result<Vec<f32>> {
        self.forward(cpu, batch, None)
    }
}
