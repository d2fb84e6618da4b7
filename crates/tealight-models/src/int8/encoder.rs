//! Encoder layers with int8 weights and activations.
//!
//! After attention, a block of rows passes through the rest of the layer and the QKV projection of the next layer while it is in
//! the cache of a core. Only attention reads other rows, those of the same text. There is no padding of texts.

use super::attention::Attention;
use super::feed_forward::FeedForwardBlock;
use super::linear_kind::LinearKind;
use super::norm::BlockNorms;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use tealight_kernels::attention::int8::{QUERY_ROWS, SdpaScratch};
use tealight_kernels::int8::{Epilogue, PackedRhs};
use tealight_kernels::quantize::QuantizedRows;
use tealight_kernels::{CpuContext, rowwise};

/// Rows that pass through the feed-forward network at a time. They are to reuse each weight and to stay in the second-level cache: 64
/// rows of 384 values are 96 KiB. No comparison with other values is recorded.
const FFN_ROWS: usize = 64;
/// Target size of a micro-batch in rows. Its queries, keys and values are to stay in the second-level cache through all layers: 128
/// rows of 3 x 384 values are 576 KiB. No comparison with other values is recorded.
const MICRO_BATCH_ROWS: usize = 128;

/// The weights of a layer: two blocks, each `x = residual_norm(x + after_norm(f(before_norm(x))))`.
#[derive(Debug)]
pub struct EncoderLayer {
    /// The first block.
    pub attention: Attention,
    /// Around attention.
    pub attention_norms: BlockNorms,
    /// The second block.
    pub feed_forward: FeedForwardBlock,
    /// Around the feed-forward block.
    pub feed_forward_norms: BlockNorms,
}

/// Called with the input of each matrix product of each layer: layer, product, first column, rows, and the length of a row.
pub type Observer<'a> = &'a (dyn Fn(usize, LinearKind, usize, &[f32], usize) + Sync);

/// What the functions of a layer share.
#[derive(Clone, Copy)]
pub(super) struct LayerRun<'a> {
    pub cpu: &'a CpuContext,
    pub layer: usize,
    pub observer: Option<Observer<'a>>,
}

impl LayerRun<'_> {
    pub(super) fn observe(&self, kind: LinearKind, first_column: usize, rows: &[f32], row_len: usize) {
        if let Some(observer) = self.observer {
            observer(self.layer, kind, first_column, rows, row_len);
        }
    }
}

/// The texts of a micro-batch.
pub(super) struct Texts<'a> {
    /// May start above 0.
    cu_seqlens: &'a [usize],
    /// The position of each row in its text.
    positions: Vec<u32>,
}

impl<'a> Texts<'a> {
    fn new(cu_seqlens: &'a [usize]) -> Self {
        let positions = cu_seqlens.windows(2).flat_map(|w| 0..(w[1] - w[0]) as u32).collect();
        Self { cu_seqlens, positions }
    }

    /// The rows of each text.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let first = self.cu_seqlens[0];
        self.cu_seqlens.windows(2).map(move |w| w[0] - first..w[1] - first)
    }
}

/// Buffers that finished forward passes leave for later ones.
#[derive(Debug, Default)]
pub struct ScratchPool(Mutex<Vec<PassScratch>>);

/// Buffers of a forward pass.
#[derive(Debug, Default)]
struct PassScratch {
    /// Queries, keys and values, `[T, (heads + 2 kv_heads) head_dim]`.
    qkv: Vec<f32>,
    /// Attention output before its projection, `[T, heads * head_dim]`.
    attended: Vec<f32>,
    threads: Vec<ThreadScratch>,
}

/// Buffers of a thread.
#[derive(Debug, Default)]
pub(super) struct ThreadScratch {
    pub attention: SdpaScratch,
    /// The bias of the scores of a head.
    pub bias: Vec<f32>,
    /// The quantized input of a block.
    pub input: QuantizedRows,
    pub activations: QuantizedRows,
    /// `[FFN_ROWS, D]`: rows after the norm before a block.
    normed: Vec<f32>,
    /// `[FFN_ROWS, D]`: the output of a block that is normalized before it is added.
    output: Vec<f32>,
    /// `[FFN_ROWS, G]`: one quantization group of the inner dimension.
    pub inner: Vec<f32>,
}

impl ScratchPool {
    fn with(&self, f: impl FnOnce(&mut PassScratch)) {
        let pool = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = pool().pop().unwrap_or_default();
        f(&mut scratch);
        pool().push(scratch);
    }
}

/// Runs the hidden states `x [T, D]`, padded to whole vectors, through all layers, in place; text `i` has the rows
/// `cu_seqlens[i]..cu_seqlens[i + 1]`.
///
/// # Panics
/// If `cu_seqlens` is empty, decreases or exceeds T, or the sizes of a layer do not fit each other.
pub fn encode(
    cpu: &CpuContext,
    layers: &[EncoderLayer],
    x: &mut [f32],
    cu_seqlens: &[usize],
    pool: &ScratchPool,
    observer: Option<Observer>,
) {
    let Some(first) = layers.first() else { return };
    let d = first.attention.o_proj.n();
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
        pool.with(|scratch| encode_micro_batch(cpu, layers, x, &Texts::new(cu_seqlens), scratch, observer));
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

/// Runs `x [T, D]` through all layers.
fn encode_micro_batch(
    cpu: &CpuContext,
    layers: &[EncoderLayer],
    x: &mut [f32],
    texts: &Texts,
    scratch: &mut PassScratch,
    observer: Option<Observer>,
) {
    let Attention { qkv_proj, o_proj, .. } = &layers[0].attention;
    let (d, n, k) = (o_proj.n(), qkv_proj.n(), o_proj.k());
    let rows = x.len() / d;
    let share = rows.div_ceil(cpu.threads()).next_multiple_of(QUERY_ROWS);
    let PassScratch { qkv, attended, threads } = scratch;
    qkv.resize(rows * n, 0.0);
    attended.resize(rows * k, 0.0);
    threads.resize_with(cpu.threads(), ThreadScratch::default);
    let positions = || texts.positions.chunks(share);
    let parts = x.chunks_mut(share * d).zip(qkv.chunks_mut(share * n)).zip(positions()).zip(threads.iter_mut());
    let first = LayerRun { cpu, layer: 0, observer };
    cpu.par_for_each(parts.collect(), |(((x, qkv), positions), scratch)| {
        layers[0].project_qkv(&first, x, positions, scratch, qkv);
    });
    for (i, layer) in layers.iter().enumerate() {
        let (run, next_run) = (LayerRun { layer: i, ..first }, LayerRun { layer: i + 1, ..first });
        let parts = attended.chunks_mut(share * k).zip(threads.iter_mut()).enumerate();
        cpu.par_for_each(parts.collect(), |(part, (attended, scratch))| {
            let rows = part * share..part * share + attended.len() / k;
            layer.attention.attend(&run, qkv, rows, texts, scratch, attended);
        });
        let parts = x.chunks_mut(share * d).zip(attended.chunks(share * k)).zip(qkv.chunks_mut(share * n));
        let parts = parts.zip(positions()).zip(threads.iter_mut());
        cpu.par_for_each(parts.collect(), |((((x, attended), qkv), positions), scratch)| {
            for (x, attended) in x.chunks_mut(FFN_ROWS * d).zip(attended.chunks(FFN_ROWS * k)) {
                layer.finish(&run, attended, scratch, x);
            }
            if let Some(next) = layers.get(i + 1) {
                next.project_qkv(&next_run, x, positions, scratch, qkv);
            }
        });
    }
}

impl EncoderLayer {
    fn project_qkv(&self, run: &LayerRun, x: &[f32], positions: &[u32], scratch: &mut ThreadScratch, qkv: &mut [f32]) {
        let (d, rhs) = (self.attention.o_proj.n(), &self.attention.qkv_proj);
        let blocks = x.chunks(FFN_ROWS * d).zip(qkv.chunks_mut(FFN_ROWS * rhs.n())).zip(positions.chunks(FFN_ROWS));
        for ((x, qkv), positions) in blocks {
            scratch.quantize(run, &self.attention_norms, LinearKind::Qkv, rhs, x);
            self.attention.project(run, scratch, positions, qkv);
        }
    }

    /// The part of a layer after attention.
    fn finish(&self, run: &LayerRun, attended: &[f32], scratch: &mut ThreadScratch, x: &mut [f32]) {
        add_block(run, &self.attention_norms, self.attention.o_proj.n(), scratch, x, |scratch, epilogue, out| {
            self.attention.project_output(run, attended, scratch, epilogue, out);
        });
        let (norms, d) = (&self.feed_forward_norms, self.attention.o_proj.n());
        match &self.feed_forward {
            FeedForwardBlock::Dense(network) => {
                scratch.quantize(run, norms, LinearKind::Up, &network.up_proj, x);
                add_block(run, norms, d, scratch, x, |scratch, epilogue, out| {
                    network.forward(run, scratch, epilogue, out);
                });
            }
            FeedForwardBlock::Experts(mixture) => {
                // A copy also without a norm, because the sums of the rows and the outputs replace the rows.
                scratch.copy_normed(run, norms, d, x);
                let rows = std::mem::take(&mut scratch.normed);
                run.observe(LinearKind::Up, 0, &rows, d);
                add_block(run, norms, d, scratch, x, |scratch, epilogue, out| {
                    mixture.forward(run, &rows, scratch, epilogue, out);
                });
                scratch.normed = rows;
            }
        }
    }
}

/// Adds the output of a block to the rows `x`, with the norms after the block. `block` combines its output with rows.
fn add_block(
    run: &LayerRun,
    norms: &BlockNorms,
    d: usize,
    scratch: &mut ThreadScratch,
    x: &mut [f32],
    block: impl FnOnce(&mut ThreadScratch, Epilogue, &mut [f32]),
) {
    match &norms.after {
        None => block(scratch, Epilogue::Add, x),
        Some(norm) => {
            let mut output = std::mem::take(&mut scratch.output);
            output.resize(x.len(), 0.0);
            if norms.inner_residual {
                output.copy_from_slice(x);
                block(scratch, Epilogue::Add, &mut output);
            } else {
                block(scratch, Epilogue::Store, &mut output);
            }
            norm.apply(run.cpu.isa, &mut output, d);
            rowwise::add(x, &output);
            scratch.output = output;
        }
    }
    if let Some(norm) = &norms.residual {
        norm.apply(run.cpu.isa, x, d);
    }
}

impl ThreadScratch {
    /// Quantizes rows for the first product of a block, after the norm before it.
    fn quantize(&mut self, run: &LayerRun, norms: &BlockNorms, kind: LinearKind, rhs: &PackedRhs, x: &[f32]) {
        let rows = if norms.before.is_some() {
            self.copy_normed(run, norms, rhs.k(), x);
            &self.normed
        } else {
            x
        };
        run.observe(kind, 0, rows, rhs.k());
        self.input.quantize(run.cpu.isa, rows, &rhs.layout());
    }

    /// Copies rows to `normed`, and applies the norm before a block.
    fn copy_normed(&mut self, run: &LayerRun, norms: &BlockNorms, d: usize, x: &[f32]) {
        self.normed.clear();
        self.normed.extend_from_slice(x);
        if let Some(norm) = &norms.before {
            norm.apply(run.cpu.isa, &mut self.normed, d);
        }
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
