//! The attention block of a layer.

use super::encoder::{LayerRun, Texts, ThreadScratch};
use super::linear_kind::LinearKind;
use super::norm::RowNorm;
use super::position_bias::{AttentionPattern, HeadRows, PositionBiasWeights};
use super::rope_table::RopeTable;
use std::ops::Range;
use std::sync::Arc;
use tealight_kernels::attention::int8::sdpa;
use tealight_kernels::attention::{HeadSlice, Qkv, ScoreMod};
use tealight_kernels::int8::{Epilogue, PackedRhs, gemm};

/// Queries that share a range of keys if a query attends to a part of its text only. The ranges begin at multiples of this, so that
/// a result does not depend on the division of a text between threads.
const QUERY_BLOCK: usize = 64;

/// The weights of an attention block.
#[derive(Debug)]
pub struct Attention {
    /// The rows of all queries, then those of all keys and values, each head padded to a multiple of 16.
    pub qkv_proj: PackedRhs,
    /// `[D, heads * padded head_dim]`.
    pub o_proj: PackedRhs,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Values of a head, without padding.
    pub head_dim: usize,
    /// Scores are divided by this.
    pub divisor: f32,
    /// Normalizations of queries and keys.
    pub qk_norms: Option<QkNorms>,
    /// Rotation of queries and keys.
    pub rope: Option<Arc<RopeTable>>,
    /// Which keys a query attends to, and how much.
    pub pattern: AttentionPattern,
}

/// Normalizations of queries and keys.
#[derive(Debug)]
pub enum QkNorms {
    /// Of each head.
    Heads(RowNorm, RowNorm),
    /// Of all heads together.
    All(RowNorm, RowNorm),
}

impl Attention {
    fn padded_head_dim(&self) -> usize {
        self.o_proj.k() / self.heads
    }

    /// Columns of queries, and of keys or values.
    fn columns(&self) -> (usize, usize) {
        (self.o_proj.k(), self.kv_heads * self.padded_head_dim())
    }

    /// Queries, keys and values of the quantized rows in `scratch.input`, normalized and rotated: `qkv [rows, N]`. `positions` are
    /// those of the rows in their texts.
    pub(super) fn project(&self, run: &LayerRun, scratch: &ThreadScratch, positions: &[u32], qkv: &mut [f32]) {
        let isa = run.cpu.isa;
        let n = self.qkv_proj.n();
        gemm(isa, &scratch.input, &self.qkv_proj, 0..n, Epilogue::Store, qkv);
        let (q, k) = self.columns();
        let head = self.padded_head_dim();
        if let Some(norms) = &self.qk_norms {
            for row in qkv.chunks_exact_mut(n) {
                let (queries, keys) = row[..q + k].split_at_mut(q);
                match norms {
                    QkNorms::Heads(q_norm, k_norm) => {
                        q_norm.apply(isa, queries, head);
                        k_norm.apply(isa, keys, head);
                    }
                    QkNorms::All(q_norm, k_norm) => {
                        self.normalize_all_heads(run, q_norm, queries);
                        self.normalize_all_heads(run, k_norm, keys);
                    }
                }
            }
        }
        if let Some(rope) = &self.rope {
            rope.apply(qkv, n, q + k, head, positions);
        }
    }

    /// Normalizes heads together; their padding does not count.
    fn normalize_all_heads(&self, run: &LayerRun, norm: &RowNorm, heads: &mut [f32]) {
        let padded = self.padded_head_dim();
        if padded == self.head_dim {
            norm.apply(run.cpu.isa, heads, heads.len());
            return;
        }
        let mut values: Vec<f32> = heads.chunks_exact(padded).flat_map(|h| &h[..self.head_dim]).copied().collect();
        let len = values.len();
        norm.apply(run.cpu.isa, &mut values, len);
        for (head, values) in heads.chunks_exact_mut(padded).zip(values.chunks_exact(self.head_dim)) {
            head[..self.head_dim].copy_from_slice(values);
        }
    }

    /// Attention of the rows `rows`, each over the rows of its text, to `attended [rows, heads * padded head_dim]`.
    pub(super) fn attend(
        &self,
        run: &LayerRun,
        qkv: &[f32],
        rows: Range<usize>,
        texts: &Texts,
        scratch: &mut ThreadScratch,
        attended: &mut [f32],
    ) {
        for text in texts.ranges().filter(|t| t.start < rows.end && t.end > rows.start) {
            let mut start = rows.start.max(text.start);
            let end = rows.end.min(text.end);
            while start < end {
                let (block_end, keys) = self.keys_of(&text, start);
                let queries = start..block_end.min(end);
                start = queries.end;
                let out_stride = attended.len() / rows.len();
                let out = &mut attended[(queries.start - rows.start) * out_stride..][..queries.len() * out_stride];
                self.attend_block(run, qkv, queries, keys, scratch, out);
            }
        }
    }

    /// The end of the block of queries that begins at or before row `query`, and the rows of the keys that the block attends to.
    fn keys_of(&self, text: &Range<usize>, query: usize) -> (usize, Range<usize>) {
        let block_start = text.start + (query - text.start) / QUERY_BLOCK * QUERY_BLOCK;
        let block_end = (block_start + QUERY_BLOCK).min(text.end);
        if !self.pattern.causal && self.pattern.window.is_none_or(|window| text.len() <= window + QUERY_BLOCK) {
            // The bias of disentangled attention is a matrix of queries and keys, which blocks of queries bound.
            let is_matrix = matches!(self.pattern.bias, PositionBiasWeights::Disentangled(_));
            return (if is_matrix { block_end } else { text.end }, text.clone());
        }
        let window = self.pattern.window.unwrap_or(text.len());
        let first = block_start.saturating_sub(window).max(text.start);
        let last = if self.pattern.causal { block_end } else { (block_end + window).min(text.end) };
        (block_end, first..last)
    }

    fn attend_block(
        &self,
        run: &LayerRun,
        qkv: &[f32],
        queries: Range<usize>,
        keys: Range<usize>,
        scratch: &mut ThreadScratch,
        out: &mut [f32],
    ) {
        let (n, head_dim) = (self.qkv_proj.n(), self.padded_head_dim());
        let (q_columns, kv_columns) = self.columns();
        let ThreadScratch { attention, bias, .. } = scratch;
        for head in 0..self.heads {
            let kv_head = head * self.kv_heads / self.heads;
            let q = &qkv[head * head_dim..];
            let k = &qkv[q_columns + kv_head * head_dim..];
            let v = &qkv[q_columns + kv_columns + kv_head * head_dim..];
            let rows = HeadRows {
                q: &q[queries.start * n..],
                k: &k[keys.start * n..],
                stride: n,
                head_dim,
                tokens: keys.len(),
                first_query: queries.start - keys.start,
                queries: queries.len(),
                divisor: self.divisor,
            };
            let score_mod = ScoreMod { divisor: self.divisor, bias: self.pattern.bias(run, head, &rows, bias) };
            let slice = HeadSlice { sequence: keys.clone(), queries: queries.clone(), first_column: 0, head_dim };
            let x = Qkv { q, k, v, stride: n };
            sdpa(run.cpu.isa, x, &slice, score_mod, attention, &mut out[head * head_dim..], q_columns);
        }
    }

    /// Multiplies the output of attention, `attended`, and combines it with `out [rows, D]`.
    pub(super) fn project_output(
        &self,
        run: &LayerRun,
        attended: &[f32],
        scratch: &mut ThreadScratch,
        epilogue: Epilogue,
        out: &mut [f32],
    ) {
        run.observe(LinearKind::AttentionOutput, 0, attended, self.o_proj.k());
        scratch.input.quantize(run.cpu.isa, attended, &self.o_proj.layout());
        gemm(run.cpu.isa, &scratch.input, &self.o_proj, 0..self.o_proj.n(), epilogue, out);
    }
}
