//! The decoder: tokens to the logits of the next token, with cached keys and values.

use super::config::WhisperConfig;
use crate::formats::tensor_loader::TensorLoader;
use crate::layers::LayerNorm;
use std::ops::Range;
use tealight_core::Result;
use tealight_kernels::CpuContext;
use tealight_kernels::attention::int8::{QuantizedKv, QueryScratch, StridedRows, sdpa_quantized_kv};
use tealight_kernels::attention::single_query::{self, KvView};
use tealight_kernels::attention::{HeadSlice, Qkv, ScoreMod};
use tealight_kernels::int8::{Epilogue, PackedRhs, gemm};
use tealight_kernels::quantize::QuantizedRows;
use tealight_kernels::rowwise;

/// The matrix of token embeddings in packed files.
pub(super) const EMBED_TOKENS: &str = "decoder.embed_tokens";

/// The weights of the decoder.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// `[V padded, D]`: the token embeddings, which are also the weights of the output layer.
    embed_tokens: PackedRhs,
    /// `[max_target_positions, D]`.
    embed_positions: Vec<f32>,
    layers: Vec<DecoderLayer>,
    layer_norm: LayerNorm,
    num_heads: usize,
}

#[derive(Debug)]
struct DecoderLayer {
    self_attn_layer_norm: LayerNorm,
    qkv_proj: PackedRhs,
    o_proj: PackedRhs,
    encoder_attn_layer_norm: LayerNorm,
    encoder_attn_q_proj: PackedRhs,
    /// Keys and values of the audio features, `[2 x D, D]`.
    encoder_attn_kv_proj: PackedRhs,
    encoder_attn_o_proj: PackedRhs,
    final_layer_norm: LayerNorm,
    fc1: PackedRhs,
    fc2: PackedRhs,
}

/// Keys and values of cross-attention for a window.
#[derive(Debug, Default)]
pub(crate) struct CrossKv {
    /// `[layers][heads]`.
    heads: Vec<Vec<QuantizedKv>>,
    /// `[max_source_positions, D]`, from which word timestamps compute keys in f32.
    audio_features: Vec<f32>,
}

/// Keys and values of self-attention for the tokens of a hypothesis.
#[derive(Debug, Clone, Default)]
pub(crate) struct DecoderCache {
    /// `[layers]` of (keys, values), each `[tokens, D]`.
    layers: Vec<(Vec<f32>, Vec<f32>)>,
    token_count: usize,
}

impl DecoderCache {
    pub(crate) fn token_count(&self) -> usize {
        self.token_count
    }
}

/// Memory reused by consecutive forward passes.
#[derive(Debug, Default)]
pub(crate) struct DecoderScratch {
    /// Hidden states, `[tokens, D]`.
    x: Vec<f32>,
    normed: Vec<f32>,
    /// Output of a projection to queries, keys and values, or to the hidden layer of the feed-forward network.
    projected: Vec<f32>,
    /// Attention output before its projection, `[tokens, D]`.
    attended: Vec<f32>,
    quantized: QuantizedRows,
    queries: QueryScratch,
    scores: Vec<f32>,
    /// Logits of a range of columns, one list per thread.
    logit_parts: Vec<Vec<f32>>,
}

/// Called in each layer with its index and the queries of cross-attention, `[tokens, D]`.
type CrossQueryObserver<'a> = &'a mut dyn FnMut(usize, &[f32]);

impl Decoder {
    pub(super) fn new(cpu: &CpuContext, config: &WhisperConfig, loader: &TensorLoader) -> Result<Self> {
        let d = config.d_model;
        let layers =
            cpu.par_map(&(0..config.decoder_layers).collect::<Vec<_>>(), |i| DecoderLayer::new(*i, config, loader));
        let (vocab_size, padded) = (config.vocab_size, config.vocab_size.next_multiple_of(16));
        let embed_tokens = loader.packed(EMBED_TOKENS, (padded, d), |weights| {
            let mut matrix = weights.floats("decoder.embed_tokens.weight", &[vocab_size, d])?;
            matrix.resize(padded * d, 0.0);
            Ok((matrix, vec![0.0; padded]))
        })?;
        Ok(Self {
            embed_tokens,
            embed_positions: loader.floats("decoder.embed_positions.weight", &[config.max_target_positions, d])?,
            layers: layers.into_iter().collect::<Result<_>>()?,
            layer_norm: loader.layer_norm("decoder.layer_norm", d)?,
            num_heads: config.num_attention_heads,
        })
    }

    fn d_model(&self) -> usize {
        self.layer_norm.weight.len()
    }

    /// Computes the keys and values of cross-attention for `audio_features [positions, D]`.
    pub(crate) fn encode_cross_kv(&self, cpu: &CpuContext, audio_features: &[f32], cross_kv: &mut CrossKv) {
        let d = self.d_model();
        let (positions, head_dim) = (audio_features.len() / d, d / self.num_heads);
        cross_kv.audio_features.clear();
        cross_kv.audio_features.extend_from_slice(audio_features);
        cross_kv.heads.resize_with(self.layers.len(), || vec![QuantizedKv::default(); self.num_heads]);
        let mut kv = vec![0.0; positions * 2 * d];
        for (layer, heads) in self.layers.iter().zip(&mut cross_kv.heads) {
            let rows_per_thread = positions.div_ceil(cpu.threads()).next_multiple_of(8);
            let parts = audio_features.chunks(rows_per_thread * d).zip(kv.chunks_mut(rows_per_thread * 2 * d));
            cpu.par_for_each(parts.collect(), |(features, kv)| {
                let mut quantized = QuantizedRows::default();
                quantized.quantize(cpu.isa, features, &layer.encoder_attn_kv_proj.layout());
                gemm(cpu.isa, &quantized, &layer.encoder_attn_kv_proj, 0..2 * d, Epilogue::Store, kv);
            });
            let qkv = Qkv { q: &kv, k: &kv, v: &kv[d..], stride: 2 * d };
            cpu.par_for_each(heads.iter_mut().enumerate().collect(), |(h, head)| {
                let (sequence, queries) = (0..positions, 0..positions);
                head.quantize(cpu.isa, qkv, &HeadSlice { sequence, queries, first_column: h * head_dim, head_dim });
            });
        }
    }

    /// A cache without tokens.
    pub(crate) fn new_cache(&self) -> DecoderCache {
        DecoderCache { layers: vec![Default::default(); self.layers.len()], token_count: 0 }
    }

    /// Runs `tokens` after those in the caches, and appends them there: several tokens with one cache, or one token for each of
    /// several caches. The hidden states `[tokens, D]` remain in `scratch` for [`Decoder::logits`].
    pub(crate) fn forward(
        &self,
        cpu: &CpuContext,
        cross_kv: &CrossKv,
        caches: &mut [DecoderCache],
        tokens: &[u32],
        scratch: &mut DecoderScratch,
    ) {
        self.forward_observed(cpu, cross_kv, caches, tokens, scratch, &mut |_, _| {});
    }

    fn forward_observed(
        &self,
        cpu: &CpuContext,
        cross_kv: &CrossKv,
        caches: &mut [DecoderCache],
        tokens: &[u32],
        scratch: &mut DecoderScratch,
        observe: CrossQueryObserver,
    ) {
        let d = self.d_model();
        let tokens_per_cache = tokens.len() / caches.len();
        scratch.x.resize(tokens.len() * d, 0.0);
        for (i, (token, x)) in tokens.iter().zip(scratch.x.chunks_exact_mut(d)).enumerate() {
            let position = caches[i / tokens_per_cache].token_count + i % tokens_per_cache;
            self.embed_tokens.dequantize_row(*token as usize, x);
            rowwise::add(x, &self.embed_positions[position * d..][..d]);
        }
        for (index, layer) in self.layers.iter().enumerate() {
            layer.self_attention(cpu, index, caches, self.num_heads, scratch);
            layer.cross_attention(cpu, index, &cross_kv.heads[index], scratch, observe);
            layer.feed_forward(cpu, scratch);
        }
        caches.iter_mut().for_each(|cache| cache.token_count += tokens_per_cache);
        self.layer_norm.apply(cpu.isa, &mut scratch.x);
    }

    /// The queries of cross-attention for `tokens`: `[layers]` of `[tokens, D]`.
    pub(crate) fn cross_queries(
        &self,
        cpu: &CpuContext,
        cross_kv: &CrossKv,
        tokens: &[u32],
        scratch: &mut DecoderScratch,
    ) -> Vec<Vec<f32>> {
        let mut queries = vec![vec![]; self.layers.len()];
        let observe: CrossQueryObserver = &mut |layer, layer_queries| queries[layer] = layer_queries.to_vec();
        self.forward_observed(cpu, cross_kv, &mut [self.new_cache()], tokens, scratch, observe);
        queries
    }

    /// The keys of cross-attention of one head for the first `positions` audio features: `[positions, head_dim]`.
    pub(crate) fn cross_keys(
        &self,
        cpu: &CpuContext,
        cross_kv: &CrossKv,
        layer: usize,
        head: usize,
        positions: usize,
    ) -> Vec<f32> {
        let (d, kv_proj) = (self.d_model(), &self.layers[layer].encoder_attn_kv_proj);
        let (mut quantized, mut keys) = (QuantizedRows::default(), vec![0.0; positions * d]);
        quantized.quantize(cpu.isa, &cross_kv.audio_features[..positions * d], &kv_proj.layout());
        gemm(cpu.isa, &quantized, kv_proj, 0..d, Epilogue::Store, &mut keys);
        let head_dim = d / self.num_heads;
        keys.chunks_exact(d).flat_map(|row| &row[head * head_dim..(head + 1) * head_dim]).copied().collect()
    }

    /// The logits after some tokens of the last forward pass, `[tokens, V padded]`.
    pub(crate) fn logits(
        &self,
        cpu: &CpuContext,
        tokens: Range<usize>,
        scratch: &mut DecoderScratch,
        out: &mut Vec<f32>,
    ) {
        let (d, n) = (self.d_model(), self.embed_tokens.n());
        out.resize(tokens.len() * n, 0.0);
        scratch.quantized.quantize(cpu.isa, &scratch.x[tokens.start * d..tokens.end * d], &self.embed_tokens.layout());
        let (quantized, columns_per_thread) = (&scratch.quantized, n.div_ceil(cpu.threads()).next_multiple_of(16));
        let ranges: Vec<Range<usize>> =
            (0..n).step_by(columns_per_thread).map(|first| first..(first + columns_per_thread).min(n)).collect();
        let product = |columns: &Range<usize>, out: &mut [f32]| {
            gemm(cpu.isa, quantized, &self.embed_tokens, columns.clone(), Epilogue::Store, out);
        };
        if tokens.len() == 1 {
            let parts = ranges.iter().zip(out.chunks_mut(columns_per_thread)).collect();
            cpu.par_for_each(parts, |(columns, out)| product(columns, out));
            return;
        }
        scratch.logit_parts.resize_with(ranges.len(), Vec::new);
        cpu.par_for_each(ranges.iter().zip(&mut scratch.logit_parts).collect(), |(columns, out)| {
            out.resize(tokens.len() * columns.len(), 0.0);
            product(columns, out);
        });
        for (columns, part) in ranges.iter().zip(&scratch.logit_parts) {
            for (row, part) in out.chunks_exact_mut(n).zip(part.chunks_exact(columns.len())) {
                row[columns.clone()].copy_from_slice(part);
            }
        }
    }
}

impl DecoderLayer {
    fn new(index: usize, config: &WhisperConfig, loader: &TensorLoader) -> Result<Self> {
        let (d, ffn_dim) = (config.d_model, config.ffn_dim);
        let name = |part: &str| format!("decoder.layers.{index}.{part}");
        let self_attn = |part: &str| name(&format!("self_attn.{part}_proj"));
        let encoder_attn = |part: &str| name(&format!("encoder_attn.{part}_proj"));
        Ok(Self {
            self_attn_layer_norm: loader.layer_norm(&name("self_attn_layer_norm"), d)?,
            qkv_proj: loader.stacked_linear(&[&self_attn("q"), &self_attn("k"), &self_attn("v")], d, d)?,
            o_proj: loader.stacked_linear(&[&self_attn("out")], d, d)?,
            encoder_attn_layer_norm: loader.layer_norm(&name("encoder_attn_layer_norm"), d)?,
            encoder_attn_q_proj: loader.stacked_linear(&[&encoder_attn("q")], d, d)?,
            encoder_attn_kv_proj: loader.stacked_linear(&[&encoder_attn("k"), &encoder_attn("v")], d, d)?,
            encoder_attn_o_proj: loader.stacked_linear(&[&encoder_attn("out")], d, d)?,
            final_layer_norm: loader.layer_norm(&name("final_layer_norm"), d)?,
            fc1: loader.stacked_linear(&[&name("fc1")], ffn_dim, d)?,
            fc2: loader.stacked_linear(&[&name("fc2")], d, ffn_dim)?,
        })
    }

    /// Normalizes the hidden states and quantizes them as the input of `weight`.
    fn norm_and_quantize(cpu: &CpuContext, norm: &LayerNorm, weight: &PackedRhs, scratch: &mut DecoderScratch) {
        scratch.normed.clear();
        scratch.normed.extend_from_slice(&scratch.x);
        norm.apply(cpu.isa, &mut scratch.normed);
        scratch.quantized.quantize(cpu.isa, &scratch.normed, &weight.layout());
    }

    fn self_attention(
        &self,
        cpu: &CpuContext,
        index: usize,
        caches: &mut [DecoderCache],
        num_heads: usize,
        scratch: &mut DecoderScratch,
    ) {
        let (isa, d) = (cpu.isa, self.o_proj.n());
        Self::norm_and_quantize(cpu, &self.self_attn_layer_norm, &self.qkv_proj, scratch);
        let tokens = scratch.quantized.rows();
        scratch.projected.resize(tokens * 3 * d, 0.0);
        gemm(isa, &scratch.quantized, &self.qkv_proj, 0..3 * d, Epilogue::Store, &mut scratch.projected);
        scratch.attended.resize(tokens * d, 0.0);
        let tokens_per_cache = tokens / caches.len();
        let qkv = scratch.projected.chunks_exact(3 * d).zip(scratch.attended.chunks_exact_mut(d));
        for (i, (qkv, attended)) in qkv.enumerate() {
            let (keys, values) = &mut caches[i / tokens_per_cache].layers[index];
            keys.extend_from_slice(&qkv[d..2 * d]);
            values.extend_from_slice(&qkv[2 * d..]);
            let kv = KvView { keys, values, stride: d };
            single_query::sdpa(isa, &qkv[..d], kv, d / num_heads, &mut scratch.scores, attended);
        }
        scratch.quantized.quantize(isa, &scratch.attended, &self.o_proj.layout());
        gemm(isa, &scratch.quantized, &self.o_proj, 0..d, Epilogue::Add, &mut scratch.x);
    }

    fn cross_attention(
        &self,
        cpu: &CpuContext,
        index: usize,
        heads: &[QuantizedKv],
        scratch: &mut DecoderScratch,
        observe: CrossQueryObserver,
    ) {
        let (isa, d) = (cpu.isa, self.encoder_attn_o_proj.n());
        Self::norm_and_quantize(cpu, &self.encoder_attn_layer_norm, &self.encoder_attn_q_proj, scratch);
        let (tokens, head_dim) = (scratch.quantized.rows(), d / heads.len());
        scratch.projected.resize(tokens * d, 0.0);
        gemm(isa, &scratch.quantized, &self.encoder_attn_q_proj, 0..d, Epilogue::Store, &mut scratch.projected);
        observe(index, &scratch.projected);
        scratch.attended.resize(tokens * d, 0.0);
        for (h, kv) in heads.iter().enumerate() {
            let q = StridedRows { data: &scratch.projected[h * head_dim..], stride: d };
            let out = &mut scratch.attended[h * head_dim..];
            sdpa_quantized_kv(isa, kv, q, tokens, ScoreMod::scaled(head_dim), &mut scratch.queries, out, d);
        }
        scratch.quantized.quantize(isa, &scratch.attended, &self.encoder_attn_o_proj.layout());
        gemm(isa, &scratch.quantized, &self.encoder_attn_o_proj, 0..d, Epilogue::Add, &mut scratch.x);
    }

    fn feed_forward(&self, cpu: &CpuContext, scratch: &mut DecoderScratch) {
        let (isa, d, ffn_dim) = (cpu.isa, self.fc2.n(), self.fc1.n());
        Self::norm_and_quantize(cpu, &self.final_layer_norm, &self.fc1, scratch);
        scratch.projected.resize(scratch.quantized.rows() * ffn_dim, 0.0);
        gemm(isa, &scratch.quantized, &self.fc1, 0..ffn_dim, Epilogue::Gelu, &mut scratch.projected);
        scratch.quantized.quantize(isa, &scratch.projected, &self.fc2.layout());
        gemm(isa, &scratch.quantized, &self.fc2, 0..d, Epilogue::Add, &mut scratch.x);
    }
}
