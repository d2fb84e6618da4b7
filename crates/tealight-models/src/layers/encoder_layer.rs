//! Transformer encoder layers with int8 weights and activations: BERT, and the encoder of Whisper.
//!
//! After attention, a block of rows passes through the rest of the layer and the QKV projection of the next layer while it is in
//! the cache of a core. Only attention reads other rows, those of the same text. There is no padding.

use super::activation::Activation;
use super::layer_norm::LayerNorm;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use tealight_kernels::attention::int8::{QUERY_ROWS, SdpaScratch, sdpa};
use tealight_kernels::attention::{HeadSlice, Qkv};
use tealight_kernels::int8::{Epilogue, PackedRhs, gemm};
use tealight_kernels::quantize::QuantizedRows;
use tealight_kernels::{CpuContext, Isa};

/// Rows that pass through the feed-forward network at a time. They are to reuse each weight and to stay in the second-level cache: 64
/// rows of 384 values are 96 KiB. No comparison with other values is recorded.
const FFN_ROWS: usize = 64;
/// Target size of a micro-batch in rows. Its queries, keys and values are to stay in the second-level cache through all layers: 128
/// rows of 3 x 384 values are 576 KiB. No comparison with other values is recorded.
const MICRO_BATCH_ROWS: usize = 128;

/// Where a layer normalizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormPlacement {
    /// After each residual connection (Vaswani et al. 2017): BERT.
    PostNorm,
    /// Before attention and before the feed-forward network (Xiong et al. 2020, arXiv 2002.04745): Whisper.
    PreNorm,
}

/// The weights of a layer.
#[derive(Debug)]
pub struct EncoderLayer {
    /// Where both norms are applied.
    pub norm_placement: NormPlacement,
    /// `[3 D, D]`: queries, keys and values.
    pub qkv_proj: PackedRhs,
    /// `[D, D]`: the output projection of attention.
    pub o_proj: PackedRhs,
    /// LayerNorm before (pre-norm) or after (post-norm) attention.
    pub attention_norm: LayerNorm,
    /// `[I, D]`: the first matrix of the feed-forward network.
    pub up_proj: PackedRhs,
    /// Applied between the two matrices of the feed-forward network.
    pub activation: Activation,
    /// `[D, I]`: the second matrix of the feed-forward network.
    pub down_proj: PackedRhs,
    /// LayerNorm before (pre-norm) or after (post-norm) the feed-forward network.
    pub ffn_norm: LayerNorm,
}

/// Buffers that finished forward passes leave for later ones.
#[derive(Debug, Default)]
pub struct ScratchPool(Mutex<Vec<PassScratch>>);

/// Buffers of a forward pass.
#[derive(Debug, Default)]
struct PassScratch {
    /// Queries, keys and values, `[T, 3 D]`.
    qkv: Vec<f32>,
    /// Attention output before its projection, `[T, D]`.
    attended: Vec<f32>,
    threads: Vec<ThreadScratch>,
}

/// Buffers of a thread.
#[derive(Debug, Default)]
struct ThreadScratch {
    attention: SdpaScratch,
    input: QuantizedRows,
    activations: QuantizedRows,
    /// `[FFN_ROWS, D]`: normalized rows, with [`NormPlacement::PreNorm`].
    normed: Vec<f32>,
    /// `[FFN_ROWS, G]`: one quantization group of the inner dimension.
    inner: Vec<f32>,
}

impl ScratchPool {
    fn with(&self, f: impl FnOnce(&mut PassScratch)) {
        let pool = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = pool().pop().unwrap_or_default();
        f(&mut scratch);
        pool().push(scratch);
    }
}

/// Runs the hidden states `x [T, D]` through all layers, in place; text `i` has the rows `cu_seqlens[i]..cu_seqlens[i + 1]`.
///
/// # Panics
/// If `cu_seqlens` is empty, decreases or exceeds T, `heads` is 0, or D / `heads` is not a multiple of 16.
pub fn encode(
    cpu: &CpuContext,
    layers: &[EncoderLayer],
    heads: usize,
    x: &mut [f32],
    cu_seqlens: &[usize],
    pool: &ScratchPool,
) {
    let Some(first) = layers.first() else { return };
    let d = first.o_proj.n();
    let rows = x.len() / d;
    let micro_batches = micro_batches(cu_seqlens, cpu.threads());
    let mut parts = vec![];
    let mut remaining = x;
    for texts in &micro_batches {
        let (x, rest) = remaining.split_at_mut((cu_seqlens[texts.end] - cu_seqlens[texts.start]) * d);
        parts.push((x, &cu_seqlens[texts.start..=texts.end]));
        remaining = rest;
    }
    let run = |cpu: &CpuContext, (x, cu_seqlens): (&mut [f32], &[usize])| {
        pool.with(|scratch| encode_micro_batch(cpu, layers, heads, x, cu_seqlens, scratch));
    };
    let single_threaded = cpu.single_threaded();
    if rows <= QUERY_ROWS {
        parts.into_iter().for_each(|part| run(&single_threaded, part));
    } else if micro_batches.len() >= cpu.threads() {
        cpu.par_for_each(parts, |part| run(&single_threaded, part));
    } else {
        // Too few micro-batches for all threads: the rows of each are split between the threads.
        cpu.install(|| parts.into_iter().for_each(|part| run(cpu, part)));
    }
}

/// Splits texts into consecutive micro-batches of about [`MICRO_BATCH_ROWS`] rows; every thread gets the same number of them, as far
/// as the lengths of the texts allow.
fn micro_batches(cu_seqlens: &[usize], threads: usize) -> Vec<Range<usize>> {
    let rows = cu_seqlens[cu_seqlens.len() - 1] - cu_seqlens[0];
    let rounds = rows.div_ceil(threads * MICRO_BATCH_ROWS);
    let target = rows.div_ceil((threads * rounds).max(1));
    let (mut micro_batches, mut first) = (vec![], 0);
    for text in 0..cu_seqlens.len() - 1 {
        // A micro-batch ends if its size is nearer to the target than it would be with one more text.
        let next_size = cu_seqlens.get(text + 2).map_or(usize::MAX, |end| end - cu_seqlens[first]);
        let size = cu_seqlens[text + 1] - cu_seqlens[first];
        if next_size == usize::MAX || size >= target || next_size.abs_diff(target) > size.abs_diff(target) {
            micro_batches.push(first..text + 1);
            first = text + 1;
        }
    }
    micro_batches
}

/// Runs `x [T, D]` through all layers; `cu_seqlens` may start above 0.
fn encode_micro_batch(
    cpu: &CpuContext,
    layers: &[EncoderLayer],
    heads: usize,
    x: &mut [f32],
    cu_seqlens: &[usize],
    scratch: &mut PassScratch,
) {
    let d = layers[0].o_proj.n();
    let rows = x.len() / d;
    let share = rows.div_ceil(cpu.threads()).next_multiple_of(QUERY_ROWS);
    let PassScratch { qkv, attended, threads } = scratch;
    qkv.resize(3 * x.len(), 0.0);
    attended.resize(x.len(), 0.0);
    threads.resize_with(cpu.threads(), ThreadScratch::default);
    let parts = x.chunks_mut(share * d).zip(qkv.chunks_mut(share * 3 * d)).zip(threads.iter_mut());
    cpu.par_for_each(parts.collect(), |((x, qkv), scratch)| scratch.project_qkv(cpu, &layers[0], x, qkv));
    for (i, layer) in layers.iter().enumerate() {
        let parts = attended.chunks_mut(share * d).zip(threads.iter_mut()).enumerate();
        cpu.par_for_each(parts.collect(), |(part, (attended, scratch))| {
            let rows = part * share..part * share + attended.len() / d;
            scratch.attend(cpu, qkv, rows, cu_seqlens, heads, attended);
        });
        let parts = x.chunks_mut(share * d).zip(attended.chunks(share * d)).zip(qkv.chunks_mut(share * 3 * d));
        cpu.par_for_each(parts.zip(threads.iter_mut()).collect(), |(((x, attended), qkv), scratch)| {
            for (x, attended) in x.chunks_mut(FFN_ROWS * d).zip(attended.chunks(FFN_ROWS * d)) {
                scratch.finish_layer(cpu, layer, attended, x);
            }
            if let Some(next) = layers.get(i + 1) {
                scratch.project_qkv(cpu, next, x, qkv);
            }
        });
    }
}

impl ThreadScratch {
    /// Quantizes hidden states for a product, after `norm` with [`NormPlacement::PreNorm`].
    fn norm_and_quantize(
        &mut self,
        cpu: &CpuContext,
        layer: &EncoderLayer,
        norm: &LayerNorm,
        x: &[f32],
        rhs: &PackedRhs,
    ) {
        match layer.norm_placement {
            NormPlacement::PostNorm => self.input.quantize(cpu.isa, x, &rhs.layout()),
            NormPlacement::PreNorm => {
                self.normed.clear();
                self.normed.extend_from_slice(x);
                norm.apply(cpu.isa, &mut self.normed);
                self.input.quantize(cpu.isa, &self.normed, &rhs.layout());
            }
        }
    }

    fn project_qkv(&mut self, cpu: &CpuContext, layer: &EncoderLayer, x: &[f32], qkv: &mut [f32]) {
        let (d, n) = (layer.qkv_proj.k(), layer.qkv_proj.n());
        for (x, qkv) in x.chunks(FFN_ROWS * d).zip(qkv.chunks_mut(FFN_ROWS * n)) {
            self.norm_and_quantize(cpu, layer, &layer.attention_norm, x, &layer.qkv_proj);
            gemm(cpu.isa, &self.input, &layer.qkv_proj, 0..n, Epilogue::Store, qkv);
        }
    }

    /// Attention of the query rows `rows`, each over the rows of its text.
    fn attend(
        &mut self,
        cpu: &CpuContext,
        qkv: &[f32],
        rows: Range<usize>,
        cu_seqlens: &[usize],
        heads: usize,
        attended: &mut [f32],
    ) {
        let d = attended.len() / rows.len();
        let head_dim = d / heads;
        let x = Qkv { q: qkv, k: &qkv[d..], v: &qkv[2 * d..], stride: 3 * d };
        let texts = cu_seqlens.windows(2).map(|w| w[0] - cu_seqlens[0]..w[1] - cu_seqlens[0]);
        for text in texts.filter(|t| t.start < rows.end && t.end > rows.start) {
            let queries = rows.start.max(text.start)..rows.end.min(text.end);
            let out = &mut attended[(queries.start - rows.start) * d..(queries.end - rows.start) * d];
            for h in 0..heads {
                let head = HeadSlice {
                    sequence: text.clone(),
                    queries: queries.clone(),
                    first_column: h * head_dim,
                    head_dim,
                };
                sdpa(cpu.isa, x, &head, &mut self.attention, &mut out[h * head_dim..], d);
            }
        }
    }

    /// The part of a layer after attention: output projection, feed-forward network and norms.
    fn finish_layer(&mut self, cpu: &CpuContext, layer: &EncoderLayer, attended: &[f32], x: &mut [f32]) {
        let (isa, d) = (cpu.isa, layer.o_proj.n());
        self.input.quantize(isa, attended, &layer.o_proj.layout());
        gemm(isa, &self.input, &layer.o_proj, 0..d, Epilogue::Add, x);
        if layer.norm_placement == NormPlacement::PostNorm {
            layer.attention_norm.apply(isa, x);
        }
        self.norm_and_quantize(cpu, layer, &layer.ffn_norm, x, &layer.up_proj);
        self.feed_forward(isa, layer, x);
        if layer.norm_placement == NormPlacement::PostNorm {
            layer.ffn_norm.apply(isa, x);
        }
    }

    /// Adds the output of the feed-forward network for the quantized input to `x`. One quantization group of the inner dimension is
    /// computed at a time and quantized while it is in the innermost cache.
    fn feed_forward(&mut self, isa: Isa, layer: &EncoderLayer, x: &mut [f32]) {
        let (d, intermediate, group) = (layer.o_proj.n(), layer.up_proj.n(), layer.down_proj.group_size());
        let rows = x.len() / d;
        self.activations.resize(rows, &layer.down_proj.layout());
        for (g, start) in (0..intermediate).step_by(group).enumerate() {
            let columns = start..(start + group).min(intermediate);
            self.inner.resize(rows * columns.len(), 0.0);
            if layer.activation == Activation::Gelu {
                gemm(isa, &self.input, &layer.up_proj, columns, Epilogue::Gelu, &mut self.inner);
            } else {
                gemm(isa, &self.input, &layer.up_proj, columns, Epilogue::Store, &mut self.inner);
                layer.activation.apply(isa, &mut self.inner);
            }
            self.activations.quantize_groups(isa, g, &self.inner, &layer.down_proj.layout());
        }
        gemm(isa, &self.activations, &layer.down_proj, 0..d, Epilogue::Add, x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micro_batches_hold_whole_texts_and_are_balanced_between_threads() {
        let cu_seqlens = |lengths: &[usize]| {
            let sum = |s: &mut usize, n: &usize| {
                *s += n;
                Some(*s)
            };
            [0].into_iter().chain(lengths.iter().scan(0, sum)).collect::<Vec<_>>()
        };
        assert_eq!(micro_batches(&cu_seqlens(&[128; 4]), 1), [0..1, 1..2, 2..3, 3..4]);
        assert_eq!(micro_batches(&cu_seqlens(&[32; 8]), 2), [0..4, 4..8]);
        assert_eq!(micro_batches(&cu_seqlens(&[300]), 2).len(), 1);
        assert_eq!(micro_batches(&cu_seqlens(&[1; 10]), 3).len(), 3);
        for threads in 1..5 {
            let cu_seqlens = cu_seqlens(&[5, 250, 1, 1, 70, 13, 128, 9, 9, 9, 200, 31]);
            let batches = micro_batches(&cu_seqlens, threads);
            assert_eq!((batches[0].start, batches[batches.len() - 1].end), (0, cu_seqlens.len() - 1));
            assert!(batches.windows(2).all(|w| w[0].end == w[1].start) && batches.iter().all(|b| !b.is_empty()));
        }
    }
}
