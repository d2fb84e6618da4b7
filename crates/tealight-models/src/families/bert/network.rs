//! The network: embeddings, encoder layers in int8 or f32.

use super::config::Config;
use super::f32_layer::F32Layer;
use super::layer_weights::{LinearKind, layer_norm};
use crate::batch::TokenBatch;
use crate::formats::embedding_table::EmbeddingTable;
use crate::formats::weights::{Precision, Weights};
use crate::layers::{self, EncoderLayer, LayerNorm, NormPlacement, ScratchPool, from_rows};
use crate::text_encoder::TextEncoder;
use candle_core::Tensor;
use tealight_core::Result;
use tealight_kernels::int8::PackedRhs;
use tealight_kernels::{CpuContext, rowwise};

/// A model in memory. Large tensors of packed files are used in place.
#[derive(Debug)]
pub struct Bert {
    pub(super) config: Config,
    word_embeddings: EmbeddingTable,
    position_embeddings: EmbeddingTable,
    /// `[D]`: the embedding of token type 0.
    token_type_embedding: Vec<f32>,
    embeddings_norm: LayerNorm,
    pub(super) network: Network,
}

#[derive(Debug)]
pub(super) enum Network {
    /// float32: operations on candle tensors.
    F32(Vec<F32Layer>),
    /// int8: fused layers.
    Int8(Vec<EncoderLayer>, ScratchPool),
}

impl Bert {
    /// Reads the tensors of a model, and packs those that the file does not have packed.
    ///
    /// # Errors
    /// A tensor is missing, has another shape, or holds values that are not finite.
    pub fn new(cpu: &CpuContext, config: Config, weights: &Weights) -> Result<Self> {
        let d = config.hidden_size;
        let mut token_type_embedding = weights.floats("token_types.weight", &[config.type_vocab_size, d])?;
        token_type_embedding.truncate(d);
        Ok(Self {
            word_embeddings: weights.embedding_table("token_embd.weight", config.vocab_size, d)?,
            position_embeddings: weights.embedding_table("position_embd.weight", config.max_position_embeddings, d)?,
            token_type_embedding,
            embeddings_norm: layer_norm(weights, "token_embd_norm", &config)?,
            network: Network::new(cpu, &config, weights)?,
            config,
        })
    }

    /// `[T, D]`: the normalized sums of token, position and token type embeddings.
    fn embed(&self, cpu: &CpuContext, batch: &TokenBatch) -> Result<Vec<f32>> {
        let d = self.config.hidden_size;
        let (mut out, mut position) = (vec![0.0; batch.ids.len() * d], vec![0.0; d]);
        for text in batch.cu_seqlens.windows(2) {
            let rows = out[text[0] * d..text[1] * d].chunks_exact_mut(d);
            for (i, (row, id)) in rows.zip(&batch.ids[text[0]..text[1]]).enumerate() {
                self.word_embeddings.read_row(*id as usize, row)?;
                self.position_embeddings.read_row(i, &mut position)?;
                rowwise::add(&mut position, &self.token_type_embedding);
                rowwise::add(row, &position);
            }
        }
        self.embeddings_norm.apply(cpu.isa, &mut out);
        Ok(out)
    }

    /// `encode` in f32; `observe` is called with the input of each matrix product of each layer.
    pub(super) fn forward_f32(
        &self,
        cpu: &CpuContext,
        layers: &[F32Layer],
        batch: &TokenBatch,
        observe: &mut dyn FnMut(usize, LinearKind, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let mut x = from_rows(self.embed(cpu, batch)?, self.config.hidden_size)?;
        for (i, layer) in layers.iter().enumerate() {
            x = layer.forward(cpu, &x, &batch.cu_seqlens, &self.config, &mut |kind, x| observe(i, kind, x))?;
        }
        Ok(x)
    }
}

impl Network {
    fn new(cpu: &CpuContext, config: &Config, weights: &Weights) -> Result<Self> {
        let indices: Vec<_> = (0..config.num_hidden_layers).collect();
        let fits_int8 = PackedRhs::can_pack(config.hidden_size) && PackedRhs::can_pack(config.intermediate_size);
        if !fits_int8 && weights.precision() == Precision::Int8 {
            let (d, i) = (config.hidden_size, config.intermediate_size);
            tracing::warn!("hidden size {d} or FFN size {i} is not a multiple of 16: using slow float32");
        }
        if !fits_int8 || weights.precision() == Precision::F32 {
            let layers = cpu.par_map(&indices, |i| F32Layer::new(*i, config, weights));
            return Ok(Network::F32(layers.into_iter().collect::<Result<_>>()?));
        }
        // Packed weights are only checked, so threads would not help.
        let is_packed = weights.packed(&LinearKind::Qkv.tensor_name(0)).is_some();
        let cpu = if is_packed { &cpu.single_threaded() } else { cpu };
        let layers = cpu.par_map(&indices, |i| int8_layer(*i, config, weights));
        Ok(Network::Int8(layers.into_iter().collect::<Result<_>>()?, ScratchPool::default()))
    }
}

fn int8_layer(index: usize, config: &Config, weights: &Weights) -> Result<EncoderLayer> {
    let packed = |kind: LinearKind| kind.packed(index, config, weights);
    let norm = |name: &str| layer_norm(weights, &format!("blk.{index}.{name}"), config);
    Ok(EncoderLayer {
        norm_placement: NormPlacement::PostNorm,
        qkv_proj: packed(LinearKind::Qkv)?,
        o_proj: packed(LinearKind::AttentionOutput)?,
        attention_norm: norm("attn_output_norm")?,
        up_proj: packed(LinearKind::Up)?,
        activation: config.hidden_act,
        down_proj: packed(LinearKind::Down)?,
        ffn_norm: norm("layer_output_norm")?,
    })
}

impl TextEncoder for Bert {
    fn hidden_size(&self) -> usize {
        self.config.hidden_size
    }

    fn max_tokens(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn vocab_size(&self) -> usize {
        self.word_embeddings.rows()
    }

    fn matmul_ops(&self, tokens: usize) -> u64 {
        let Config { hidden_size: d, intermediate_size, num_hidden_layers, .. } = self.config;
        // Per token four projections and two products of the feed-forward network; per pair of tokens a score and its product
        // with a value.
        let products = tokens * (4 * d * d + 2 * d * intermediate_size) + 2 * tokens * tokens * d;
        2 * (num_hidden_layers * products) as u64
    }

    fn encode(&self, cpu: &CpuContext, batch: &TokenBatch) -> Result<Tensor> {
        match &self.network {
            Network::Int8(layers, pool) => {
                let mut x = self.embed(cpu, batch)?;
                layers::encode(cpu, layers, self.config.num_attention_heads, &mut x, &batch.cu_seqlens, pool);
                from_rows(x, self.config.hidden_size)
            }
            Network::F32(layers) => self.forward_f32(cpu, layers, batch, &mut |_, _, _| Ok(())),
        }
    }
}
