//! Causal grouped-query attention (GQA, Ainslie et al. 2023, arXiv 2305.13245) of new tokens to the tokens before them, whose keys
//! and values are cached in float16.
//!
//! The query heads that share a KV head are computed together, in tiles of up to six, so that the cache is read once for each tile
//! instead of once for each head. The result of a row depends on no other row.
#![allow(clippy::needless_range_loop)] // Indices are rows of a tile.

use super::softmax::exponentials;
use crate::dispatch::dispatch;
use crate::isa::Isa;
use crate::simd::{LANES, Simd};
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

/// The cached keys and values of one head.
///
/// Keys are stored in blocks of 16 tokens, `[blocks][head_dim][16]`, so that the scores of 16 tokens are one vector; values in
/// rows, `[tokens][head_dim padded to 16]`.
#[derive(Debug, Clone, Default)]
pub struct HeadKvCache {
    keys: Vec<u16>,
    values: Vec<u16>,
    head_dim: usize,
    tokens: usize,
}

impl HeadKvCache {
    /// An empty cache.
    ///
    /// # Panics
    /// If `head_dim` is 0.
    pub fn new(head_dim: usize) -> Self {
        assert!(head_dim > 0);
        Self { head_dim, ..Self::default() }
    }

    /// Number of cached tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Bytes that the keys and values of a token occupy.
    pub fn bytes_per_token(head_dim: usize) -> usize {
        2 * (head_dim + head_dim.next_multiple_of(LANES))
    }

    /// Reserves memory for `tokens` tokens in total, and no more.
    pub fn reserve(&mut self, tokens: usize) {
        let keys = tokens.next_multiple_of(LANES) * self.head_dim;
        let values = tokens * self.head_dim.next_multiple_of(LANES);
        self.keys.reserve_exact(keys.saturating_sub(self.keys.len()));
        self.values.reserve_exact(values.saturating_sub(self.values.len()));
    }

    /// Appends a token. Values beyond the range of float16 become infinite, so that results with them are visibly wrong.
    ///
    /// # Panics
    /// If the length of `key` or `value` is not `head_dim`.
    pub fn push(&mut self, key: &[f32], value: &[f32]) {
        assert!(key.len() == self.head_dim && value.len() == self.head_dim);
        let (block, lane) = (self.tokens / LANES * self.head_dim * LANES, self.tokens % LANES);
        if lane == 0 {
            self.keys.resize(block + self.head_dim * LANES, 0);
        }
        for (d, v) in key.iter().enumerate() {
            self.keys[block + d * LANES + lane] = f16::from_f32(*v).to_bits();
        }
        let start = self.values.len();
        self.values.resize(start + self.head_dim.next_multiple_of(LANES), 0);
        let row = self.values[start..start + self.head_dim].reinterpret_cast_mut::<f16>();
        row.convert_from_f32_slice(value);
        self.tokens += 1;
    }

    /// Drops all but the first `tokens` tokens.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens = tokens.min(self.tokens);
        self.keys.truncate(self.tokens.next_multiple_of(LANES) * self.head_dim);
        self.values.truncate(self.tokens * self.head_dim.next_multiple_of(LANES));
    }

    /// A copy of the first `tokens` tokens.
    pub fn clone_prefix(&self, tokens: usize) -> Self {
        let tokens = tokens.min(self.tokens);
        let keys = self.keys[..tokens.next_multiple_of(LANES) * self.head_dim].to_vec();
        let values = self.values[..tokens * self.head_dim.next_multiple_of(LANES)].to_vec();
        Self { keys, values, head_dim: self.head_dim, tokens }
    }

    /// Releases reserved memory that no token uses.
    pub fn shrink_to_fit(&mut self) {
        self.keys.shrink_to_fit();
        self.values.shrink_to_fit();
    }
}

/// Query heads that share one KV head, in rows of consecutive tokens.
#[derive(Debug, Clone, Copy)]
pub struct GqaQueries<'a> {
    /// `[rows, stride]`, of which the columns `first_column..first_column + heads * head_dim` are these heads.
    pub q: &'a [f32],
    /// Row stride, in elements.
    pub stride: usize,
    /// First column of the heads.
    pub first_column: usize,
    /// Number of heads.
    pub heads: usize,
    /// Tokens that the first row attends to: row `r` attends to the first `causal_len + r` tokens.
    pub causal_len: usize,
}

/// Computes `softmax(q k^T / sqrt(head_dim)) v` for each head of each row. `out` has as many rows as there are queries; the heads
/// begin at its column `out_column`. `scores` is scratch memory that calls can share.
///
/// # Panics
/// If the sizes do not match, or a row attends to no token or to more than are cached.
pub fn sdpa(isa: Isa, x: GqaQueries, cache: &HeadKvCache, scores: &mut Vec<f32>, out: &mut [f32], out_column: usize) {
    let rows = x.q.len() / x.stride;
    let columns = x.heads * cache.head_dim;
    assert!(x.stride > 0 && x.q.len().is_multiple_of(x.stride) && x.first_column + columns <= x.stride && x.heads > 0);
    assert!(rows > 0 && out.len().is_multiple_of(rows) && out_column + columns <= out.len() / rows);
    assert!(x.causal_len > 0 && x.causal_len + rows - 1 <= cache.tokens);
    scores.resize(QUERY_ROWS * cache.tokens.next_multiple_of(LANES), 0.0);
    dispatch!(isa, sdpa_rows(x: GqaQueries, cache: &HeadKvCache, scores: &mut [f32], out: &mut [f32], out_column: usize));
}

/// Rows of queries, each of one head and token, that are computed together.
const QUERY_ROWS: usize = 6;

#[inline(always)]
unsafe fn sdpa_rows<S: Simd>(
    x: GqaQueries,
    cache: &HeadKvCache,
    scores: &mut [f32],
    out: &mut [f32],
    out_column: usize,
) {
    let (rows, head_dim) = (x.q.len() / x.stride, cache.head_dim);
    let out_stride = out.len() / rows;
    let total = rows * x.heads;
    let mut first = 0;
    while first < total {
        // A tile with fewer rows is filled up with copies of its last row.
        let count = QUERY_ROWS.min(total - first);
        let mut tile = [QueryRow { q: x.q.as_ptr(), causal_len: 1, out: out.as_mut_ptr() }; QUERY_ROWS];
        for i in 0..QUERY_ROWS {
            let index = first + i.min(count - 1);
            let (row, head) = (index / x.heads, index % x.heads);
            let q = x.q[row * x.stride + x.first_column + head * head_dim..][..head_dim].as_ptr();
            let out = out[row * out_stride + out_column + head * head_dim..][..head_dim].as_mut_ptr();
            tile[i] = QueryRow { q, causal_len: x.causal_len + row, out };
        }
        // SAFETY: each query and output has `head_dim` values, and attends to cached tokens; there are scores for a tile; the
        // caller guarantees the instruction set.
        unsafe {
            match count {
                1 => sdpa_tile::<S, 1>(&tile, cache, scores),
                2 => sdpa_tile::<S, 2>(&tile, cache, scores),
                3 => sdpa_tile::<S, 3>(&tile, cache, scores),
                _ => sdpa_tile::<S, QUERY_ROWS>(&tile, cache, scores),
            }
        }
        first += count;
    }
}

/// One head of one token.
#[derive(Clone, Copy)]
struct QueryRow {
    q: *const f32,
    causal_len: usize,
    out: *mut f32,
}

#[inline(always)]
unsafe fn sdpa_tile<S: Simd, const MR: usize>(tile: &[QueryRow; QUERY_ROWS], cache: &HeadKvCache, scores: &mut [f32]) {
    let head_dim = cache.head_dim;
    let mut max_len = 0;
    for r in 0..MR {
        max_len = tile[r].causal_len.max(max_len);
    }
    let (stride, blocks) = (scores.len() / QUERY_ROWS, max_len.div_ceil(LANES));
    let weights = scores.as_mut_ptr();
    // SAFETY: blocks and rows are those of cached tokens, and a row of scores has room for all of them; the caller guarantees the
    // instruction set.
    unsafe {
        for b in 0..blocks {
            let keys = cache.keys.as_ptr().add(b * head_dim * LANES);
            let mut sums = [S::splat(0.0); MR];
            for d in 0..head_dim {
                let key = S::load_f16(keys.add(d * LANES));
                for r in 0..MR {
                    sums[r] = S::splat(*tile[r].q.add(d)).mul_add(key, sums[r]);
                }
            }
            for r in 0..MR {
                sums[r].store(weights.add(r * stride + b * LANES));
            }
        }
        let mut totals = [0.0; MR];
        for r in 0..MR {
            let (row, causal_len) = (weights.add(r * stride), tile[r].causal_len);
            totals[r] = exponentials::<S>(row, causal_len, head_dim);
            // Tokens that only other rows of the tile attend to have weight 0.
            for t in causal_len..max_len {
                *row.add(t) = 0.0;
            }
        }
        for c in (0..head_dim).step_by(LANES) {
            let mut sums = [S::splat(0.0); MR];
            let row_len = head_dim.next_multiple_of(LANES);
            for t in 0..max_len {
                let value = S::load_f16(cache.values.as_ptr().add(t * row_len + c));
                for r in 0..MR {
                    sums[r] = S::splat(*weights.add(r * stride + t)).mul_add(value, sums[r]);
                }
            }
            for r in 0..MR {
                let y = sums[r].mul(S::splat(1.0 / totals[r]));
                if c + LANES <= head_dim {
                    y.store(tile[r].out.add(c));
                } else {
                    let mut rest = [0.0; LANES];
                    y.store(rest.as_mut_ptr());
                    rest.as_ptr().copy_to(tile[r].out.add(c), head_dim - c);
                }
            }
        }
    }
}
