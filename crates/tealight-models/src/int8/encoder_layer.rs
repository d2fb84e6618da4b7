//! The blocks of an encoder, each as one function: what BERT and the encoder of Whisper are made of.
//!
//! Rows go through the rest of a block, and the first product of the next one, while they are in the cache. Only
//! attention looks at other rows, those of its own text. Nothing is padded, and a row is computed alike wherever it stands.

use super::{Activation, LayerNorm};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use tealight_kernels::CpuContext;
use tealight_kernels::attention::int8::{SdpaScratch, sdpa};
use tealight_kernels::attention::{HeadSlice, Qkv};
use tealight_kernels::int8::{Epilogue, PackedRhs, gemm};
use tealight_kernels::quantize::QuantizedRows;

/// Rows that go through the feed-forward network together: enough to use each weight often, few enough for the cache.
const ROWS: usize = 64;
/// Texts go through all blocks together up to so many rows: their queries, keys and values then stay in the cache.
const UNIT: usize = 128;

/// Rows that attention computes at once: fewer are not worth sharing.
const TOGETHER: usize = 8;

/// Where a block normalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norms {
    /// The sum of a residual and what is added to it (Vaswani et al. 2017): BERT.
    After,
    /// What attention and the feed-forward network read (Xiong et al. 2020, arXiv 2002.04745): Whisper.
    Before,
}

/// The weights of a block.
#[derive(Debug)]
pub struct Block {
    /// Where both norms stand.
    pub norms: Norms,
    /// `[3 D, D]`: query, key and value.
    pub qkv: PackedRhs,
    /// `[D, D]`: from attended values to the residual.
    pub output: PackedRhs,
    /// Of attention.
    pub attention_norm: LayerNorm,
    /// `[inner, D]`.
    pub up: PackedRhs,
    /// Between the two.
    pub activation: Activation,
    /// `[D, inner]`.
    pub down: PackedRhs,
    /// Of the feed-forward network.
    pub output_norm: LayerNorm,
}

/// Memory of forward passes that are not under way.
#[derive(Debug, Default)]
pub struct Arenas(Mutex<Vec<Arena>>);

/// Memory of a forward pass.
#[derive(Debug, Default)]
struct Arena {
    /// `[T, 3 D]`.
    qkv: Vec<f32>,
    /// `[T, D]`.
    attended: Vec<f32>,
    threads: Vec<Scratch>,
}

/// What a thread needs besides its rows.
#[derive(Debug, Default)]
struct Scratch {
    attention: SdpaScratch,
    codes: QuantizedRows,
    inner_codes: QuantizedRows,
    /// `[ROWS, D]`: normalised rows, where norms stand before.
    normed: Vec<f32>,
    /// `[ROWS, a group of the inner width]`.
    inner: Vec<f32>,
}

impl Arenas {
    fn with(&self, f: impl FnOnce(&mut Arena)) {
        let arenas = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut arena = arenas().pop().unwrap_or_default();
        f(&mut arena);
        arenas().push(arena);
    }
}

/// Runs `x [T, D]` through all blocks, in place; text `i` has the rows `starts[i]..starts[i + 1]`.
pub fn encode(cpu: &CpuContext, blocks: &[Block], heads: usize, x: &mut [f32], starts: &[usize], arenas: &Arenas) {
    let Some(first) = blocks.first() else { return };
    let d = first.output.n();
    let rows = x.len() / d;
    let units = units(starts, cpu.threads());
    let mut parts = vec![];
    let mut rest = x;
    for unit in &units {
        let (own, behind) = rest.split_at_mut((starts[unit.end] - starts[unit.start]) * d);
        parts.push((own, &starts[unit.start..=unit.end]));
        rest = behind;
    }
    let alone = cpu.single_threaded();
    if rows <= TOGETHER {
        parts.into_iter().for_each(|(x, starts)| arenas.with(|a| encode_unit(&alone, blocks, heads, x, starts, a)));
    } else if units.len() >= cpu.threads() {
        // Each unit by a thread of its own; where there are too few, each by all threads.
        cpu.par_for_each(parts, |(x, starts)| {
            arenas.with(|arena| encode_unit(&alone, blocks, heads, x, starts, arena))
        });
    } else {
        cpu.install(|| {
            parts.into_iter().for_each(|(x, starts)| arenas.with(|a| encode_unit(cpu, blocks, heads, x, starts, a)));
        });
    }
}

/// Texts, in order, in units of about [`UNIT`] rows, of which there are as many for each thread.
fn units(starts: &[usize], threads: usize) -> Vec<Range<usize>> {
    let rows = starts[starts.len() - 1] - starts[0];
    let rounds = rows.div_ceil(threads * UNIT);
    let target = rows.div_ceil((threads * rounds).max(1));
    let (mut units, mut first) = (vec![], 0);
    for text in 0..starts.len() - 1 {
        // A unit ends where that is nearer to its target than one text later.
        let behind = starts.get(text + 2).map_or(usize::MAX, |end| end - starts[first]);
        let size = starts[text + 1] - starts[first];
        if behind == usize::MAX || size >= target || behind.abs_diff(target) > size.abs_diff(target) {
            units.push(first..text + 1);
            first = text + 1;
        }
    }
    units
}

/// Runs `x [T, D]` through all blocks; `starts` counts from any row.
fn encode_unit(cpu: &CpuContext, blocks: &[Block], heads: usize, x: &mut [f32], starts: &[usize], arena: &mut Arena) {
    let d = blocks[0].output.n();
    let rows = x.len() / d;
    let share = rows.div_ceil(cpu.threads()).next_multiple_of(TOGETHER);
    let Arena { qkv, attended, threads } = arena;
    qkv.resize(3 * x.len(), 0.0);
    attended.resize(x.len(), 0.0);
    threads.resize_with(cpu.threads(), Scratch::default);
    let parts = x.chunks_mut(share * d).zip(qkv.chunks_mut(share * 3 * d)).zip(threads.iter_mut());
    cpu.par_for_each(parts.collect(), |((x, qkv), scratch)| scratch.project(cpu, &blocks[0], x, qkv));
    for (i, block) in blocks.iter().enumerate() {
        let parts = attended.chunks_mut(share * d).zip(threads.iter_mut()).enumerate();
        cpu.par_for_each(parts.collect(), |(part, (attended, scratch))| {
            let own = part * share..part * share + attended.len() / d;
            scratch.attend(cpu, qkv, own, starts, heads, attended);
        });
        let parts = x.chunks_mut(share * d).zip(attended.chunks(share * d)).zip(qkv.chunks_mut(share * 3 * d));
        cpu.par_for_each(parts.zip(threads.iter_mut()).collect(), |(((x, attended), qkv), scratch)| {
            for (x, attended) in x.chunks_mut(ROWS * d).zip(attended.chunks(ROWS * d)) {
                scratch.feed_forward(cpu, block, attended, x);
            }
            if let Some(next) = blocks.get(i + 1) {
                scratch.project(cpu, next, x, qkv);
            }
        });
    }
}

impl Scratch {
    /// Quantises rows for a product that reads the residual.
    fn read(&mut self, cpu: &CpuContext, block: &Block, norm: &LayerNorm, x: &[f32], product: &PackedRhs) {
        match block.norms {
            Norms::After => self.codes.quantize(cpu.isa, x, &product.layout()),
            Norms::Before => {
                self.normed.clear();
                self.normed.extend_from_slice(x);
                norm.apply(cpu.isa, &mut self.normed);
                self.codes.quantize(cpu.isa, &self.normed, &product.layout());
            }
        }
    }

    /// Query, key and value of rows.
    fn project(&mut self, cpu: &CpuContext, block: &Block, x: &[f32], qkv: &mut [f32]) {
        let (d, n) = (block.qkv.k(), block.qkv.n());
        for (x, qkv) in x.chunks(ROWS * d).zip(qkv.chunks_mut(ROWS * n)) {
            self.read(cpu, block, &block.attention_norm, x, &block.qkv);
            gemm(cpu.isa, &self.codes, &block.qkv, 0..n, Epilogue::Store, qkv);
        }
    }

    /// Attention of the rows `own`, each over its text.
    fn attend(
        &mut self,
        cpu: &CpuContext,
        qkv: &[f32],
        own: Range<usize>,
        starts: &[usize],
        heads: usize,
        attended: &mut [f32],
    ) {
        let d = attended.len() / own.len();
        let width = d / heads;
        let x = Qkv { q: qkv, k: &qkv[d..], v: &qkv[2 * d..], stride: 3 * d };
        let texts = starts.windows(2).map(|w| w[0] - starts[0]..w[1] - starts[0]);
        for text in texts.filter(|t| t.start < own.end && t.end > own.start) {
            let queries = own.start.max(text.start)..own.end.min(text.end);
            let out = &mut attended[(queries.start - own.start) * d..(queries.end - own.start) * d];
            for h in 0..heads {
                let head =
                    HeadSlice { sequence: text.clone(), queries: queries.clone(), offset: h * width, head_dim: width };
                sdpa(cpu.isa, x, &head, &mut self.attention, &mut out[h * width..], d);
            }
        }
    }

    /// The rest of a block for the rows `x`.
    fn feed_forward(&mut self, cpu: &CpuContext, block: &Block, attended: &[f32], x: &mut [f32]) {
        let (isa, d, inner) = (cpu.isa, block.output.n(), block.up.n());
        let rows = x.len() / d;
        self.codes.quantize(isa, attended, &block.output.layout());
        gemm(isa, &self.codes, &block.output, 0..d, Epilogue::Add, x);
        if block.norms == Norms::After {
            block.attention_norm.apply(isa, x);
        }
        self.read(cpu, block, &block.output_norm, x, &block.up);
        // A group of inner values at a time, which is quantised while it is in the nearest cache.
        self.inner_codes.resize(rows, &block.down.layout());
        for (g, start) in (0..inner).step_by(block.down.group_size()).enumerate() {
            let columns = start..(start + block.down.group_size()).min(inner);
            self.inner.resize(rows * columns.len(), 0.0);
            match block.activation {
                Activation::Gelu => gemm(isa, &self.codes, &block.up, columns, Epilogue::Gelu, &mut self.inner),
                other => {
                    gemm(isa, &self.codes, &block.up, columns, Epilogue::Store, &mut self.inner);
                    other.apply(isa, &mut self.inner);
                }
            }
            self.inner_codes.quantize_groups(isa, g, &self.inner, &block.down.layout());
        }
        gemm(isa, &self.inner_codes, &block.down, 0..d, Epilogue::Add, x);
        if block.norms == Norms::After {
            block.output_norm.apply(isa, x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_whole_texts_and_as_many_for_each_thread() {
        let starts = |lengths: &[usize]| {
            let sum = |s: &mut usize, n: &usize| {
                *s += n;
                Some(*s)
            };
            [0].into_iter().chain(lengths.iter().scan(0, sum)).collect::<Vec<_>>()
        };
        assert_eq!(units(&starts(&[128; 4]), 1), [0..1, 1..2, 2..3, 3..4]);
        assert_eq!(units(&starts(&[32; 8]), 2), [0..4, 4..8]);
        assert_eq!(units(&starts(&[300]), 2).len(), 1);
        assert_eq!(units(&starts(&[1; 10]), 3).len(), 3);
        for threads in 1..5 {
            let starts = starts(&[5, 250, 1, 1, 70, 13, 128, 9, 9, 9, 200, 31]);
            let units = units(&starts, threads);
            assert_eq!((units[0].start, units[units.len() - 1].end), (0, starts.len() - 1));
            assert!(units.windows(2).all(|w| w[0].end == w[1].start) && units.iter().all(|u| !u.is_empty()));
        }
    }
}
