//! The blocks of a post-norm encoder, fused: what BERT is made of.
//!
//! Rows go through the rest of a block, and the first product of the next one, while they are in the cache. Only
//! attention looks at other rows, those of its own text, so that threads meet once a block. Nothing is padded, and a row
//! is computed alike wherever it stands.

use super::{Cpu, LayerNorm};
use crate::kernels::attention::{self, Head, Rows, attend};
use crate::kernels::int8::{Codes, Packed, Then, gemm};
use std::ops::Range;

/// Rows that go through the feed-forward network together: enough to use each weight often, few enough for the cache.
const ROWS: usize = 64;

/// The weights of a block.
#[derive(Debug)]
pub struct Block {
    /// `[3 D, D]`: query, key and value.
    pub qkv: Packed,
    /// `[D, D]`: from attended values to the residual.
    pub output: Packed,
    /// After attention.
    pub attention_norm: LayerNorm,
    /// `[inner, D]`, followed by the exact GELU.
    pub up: Packed,
    /// `[D, inner]`.
    pub down: Packed,
    /// After the feed-forward network.
    pub output_norm: LayerNorm,
}

/// Memory of a forward pass, kept between passes.
#[derive(Debug, Default)]
pub struct Arena {
    /// `[T, 3 D]`, of the block under way.
    qkv: Vec<f32>,
    /// The same of the next one.
    next: Vec<f32>,
    threads: Vec<Scratch>,
}

/// What a thread needs besides its rows.
#[derive(Debug, Default)]
struct Scratch {
    attention: attention::Scratch,
    codes: Codes,
    /// `[T of the thread, D]`.
    attended: Vec<f32>,
    /// `[ROWS, inner]`.
    inner: Vec<f32>,
}

/// Runs `x [T, D]` through all blocks, in place; text `i` has the rows `starts[i]..starts[i + 1]`.
pub fn encode(cpu: &Cpu, blocks: &[Block], heads: usize, x: &mut [f32], starts: &[usize], arena: &mut Arena) {
    let Some(first) = blocks.first() else { return };
    let d = first.output.rows();
    let rows = x.len() / d;
    // Whole groups of eight rows, which is what a product computes at once.
    let share = rows.div_ceil(cpu.threads()).next_multiple_of(8);
    let Arena { qkv, next, threads } = arena;
    qkv.resize(3 * x.len(), 0.0);
    next.resize(3 * x.len(), 0.0);
    threads.resize_with(cpu.threads(), Scratch::default);
    let parts = x.chunks_mut(share * d).zip(qkv.chunks_mut(share * 3 * d)).zip(threads.iter_mut());
    cpu.each(parts.collect(), |((x, qkv), scratch)| {
        for (x, qkv) in x.chunks(ROWS * d).zip(qkv.chunks_mut(ROWS * 3 * d)) {
            scratch.project(cpu, first, x, qkv);
        }
    });
    for (i, block) in blocks.iter().enumerate() {
        let parts = x.chunks_mut(share * d).zip(next.chunks_mut(share * 3 * d)).zip(threads.iter_mut());
        cpu.each(parts.enumerate().collect(), |(part, ((x, next), scratch))| {
            let own = part * share..part * share + x.len() / d;
            let qkv = Rows { q: qkv, k: &qkv[d..], v: &qkv[2 * d..], stride: 3 * d };
            scratch.attend(cpu, qkv, own, starts, heads);
            for (b, (x, next)) in x.chunks_mut(ROWS * d).zip(next.chunks_mut(ROWS * 3 * d)).enumerate() {
                scratch.feed_forward(cpu, block, x, b * ROWS);
                if let Some(following) = blocks.get(i + 1) {
                    scratch.project(cpu, following, x, next);
                }
            }
        });
        std::mem::swap(qkv, next);
    }
}

impl Scratch {
    /// Query, key and value of some rows.
    fn project(&mut self, cpu: &Cpu, block: &Block, x: &[f32], qkv: &mut [f32]) {
        self.codes.quantise(cpu.isa, x, &block.qkv);
        gemm(cpu.isa, &self.codes, &block.qkv, Then::Store, qkv);
    }

    /// Attention of the rows `own`, each over its text.
    fn attend(&mut self, cpu: &Cpu, qkv: Rows, own: Range<usize>, starts: &[usize], heads: usize) {
        let d = qkv.stride / 3;
        let width = d / heads;
        self.attended.resize(own.len() * d, 0.0);
        for text in starts.windows(2).filter(|w| w[0] < own.end && w[1] > own.start) {
            let queries = own.start.max(text[0])..own.end.min(text[1]);
            let out = &mut self.attended[(queries.start - own.start) * d..(queries.end - own.start) * d];
            for h in 0..heads {
                let head = Head { sequence: text[0]..text[1], queries: queries.clone(), at: h * width, width };
                attend(cpu.isa, qkv, &head, &mut self.attention, &mut out[h * width..], d);
            }
        }
    }

    /// The rest of a block for the rows `x`, whose attended values begin at row `from`.
    fn feed_forward(&mut self, cpu: &Cpu, block: &Block, x: &mut [f32], from: usize) {
        let (isa, d) = (cpu.isa, block.output.rows());
        let attended = &self.attended[from * d..][..x.len()];
        self.codes.quantise(isa, attended, &block.output);
        gemm(isa, &self.codes, &block.output, Then::Add, x);
        block.attention_norm.apply(isa, x);
        self.inner.resize(x.len() / d * block.up.rows(), 0.0);
        self.codes.quantise(isa, x, &block.up);
        gemm(isa, &self.codes, &block.up, Then::Gelu, &mut self.inner);
        self.codes.quantise(isa, &self.inner, &block.down);
        gemm(isa, &self.codes, &block.down, Then::Add, x);
        block.output_norm.apply(isa, x);
    }
}
