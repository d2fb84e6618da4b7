//! Attention of new tokens to those before them, whose keys and values lie in a cache in half floats.
//!
//! Several heads of queries share a head of keys (Ainslie et al. 2023, arXiv 2305.13245): their rows are computed together,
//! so that what is read of the cache is read once for all. A row's result depends on no other row.
#![allow(clippy::needless_range_loop)] // Indices are rows that are computed together.

use super::exponentials;
use crate::simd::{LANES, Simd};
use crate::{Isa, dispatch};
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Tokens that lie in the cache, of one head of keys.
///
/// Keys stand in blocks of 16 tokens, `[blocks][width][16]`, so that the scores of 16 tokens are one vector; values in rows,
/// `[tokens][width filled up to 16]`.
#[derive(Debug, Clone, Default)]
pub struct KvCache {
    keys: Vec<u16>,
    values: Vec<u16>,
    width: usize,
    tokens: usize,
}

impl KvCache {
    /// An empty one for heads of `width` values.
    ///
    /// # Panics
    /// If `width` is 0.
    pub fn new(width: usize) -> Self {
        assert!(width > 0);
        Self { width, ..Self::default() }
    }

    /// How many tokens it holds.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Bytes of a token's keys and values.
    pub fn bytes_per_token(width: usize) -> usize {
        2 * (width + width.next_multiple_of(LANES))
    }

    /// Makes room for `tokens` in all, and for no more.
    pub fn reserve(&mut self, tokens: usize) {
        let keys = tokens.next_multiple_of(LANES) * self.width;
        let values = tokens * self.width.next_multiple_of(LANES);
        self.keys.reserve_exact(keys.saturating_sub(self.keys.len()));
        self.values.reserve_exact(values.saturating_sub(self.values.len()));
    }

    /// Adds a token. What a half float cannot hold becomes infinite, and shows.
    ///
    /// # Panics
    /// If key or value has another width.
    pub fn push(&mut self, key: &[f32], value: &[f32]) {
        assert!(key.len() == self.width && value.len() == self.width);
        let (block, lane) = (self.tokens / LANES * self.width * LANES, self.tokens % LANES);
        if lane == 0 {
            self.keys.resize(block + self.width * LANES, 0);
        }
        for (d, v) in key.iter().enumerate() {
            self.keys[block + d * LANES + lane] = f16::from_f32(*v).to_bits();
        }
        let start = self.values.len();
        self.values.resize(start + self.width.next_multiple_of(LANES), 0);
        let row =
            half::slice::HalfBitsSliceExt::reinterpret_cast_mut::<f16>(&mut self.values[start..start + self.width]);
        row.convert_from_f32_slice(value);
        self.tokens += 1;
    }

    /// Forgets all but the first tokens.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens = tokens.min(self.tokens);
        self.keys.truncate(self.tokens.next_multiple_of(LANES) * self.width);
        self.values.truncate(self.tokens * self.width.next_multiple_of(LANES));
    }

    /// A copy of the first tokens.
    pub fn clone_prefix(&self, tokens: usize) -> Self {
        let tokens = tokens.min(self.tokens);
        let keys = self.keys[..tokens.next_multiple_of(LANES) * self.width].to_vec();
        let values = self.values[..tokens * self.width.next_multiple_of(LANES)].to_vec();
        Self { keys, values, width: self.width, tokens }
    }

    /// Gives back the memory of tokens that it does not hold.
    pub fn shrink_to_fit(&mut self) {
        self.keys.shrink_to_fit();
        self.values.shrink_to_fit();
    }
}

/// Some rows of queries, and which tokens each may see.
#[derive(Debug, Clone, Copy)]
pub struct GqaQueries<'a> {
    /// Each row's place: `[rows, stride]`, of which columns `at..at + heads * width` are the heads that share the keys.
    pub q: &'a [f32],
    /// Values of a row.
    pub stride: usize,
    /// The first column.
    pub offset: usize,
    /// Heads.
    pub heads: usize,
    /// Row `r` sees the first `visible + r` tokens.
    pub causal_len: usize,
}

/// `softmax(q k^T / sqrt(width)) v` for each head of each row, to the same columns of `out`, whose rows have `out.len() / rows`
/// values; `out_offset` is the first column there. `scores` is memory that calls share.
///
/// # Panics
/// If sizes do not fit each other, or a row sees no token or more than there are.
pub fn sdpa(isa: Isa, x: GqaQueries, cache: &KvCache, scores: &mut Vec<f32>, out: &mut [f32], out_offset: usize) {
    let rows = x.q.len() / x.stride;
    let columns = x.heads * cache.width;
    assert!(x.stride > 0 && x.q.len().is_multiple_of(x.stride) && x.offset + columns <= x.stride && x.heads > 0);
    assert!(rows > 0 && out.len().is_multiple_of(rows) && out_offset + columns <= out.len() / rows);
    assert!(x.causal_len > 0 && x.causal_len + rows - 1 <= cache.tokens);
    scores.resize(TILE * cache.tokens.next_multiple_of(LANES), 0.0);
    dispatch!(isa, sdpa_impl(x: GqaQueries, cache: &KvCache, scores: &mut [f32], out: &mut [f32], out_offset: usize));
}

/// GqaQueries of queries that are computed together.
const TILE: usize = 6;

#[inline(always)]
unsafe fn sdpa_impl<S: Simd>(x: GqaQueries, cache: &KvCache, scores: &mut [f32], out: &mut [f32], out_offset: usize) {
    let (rows, width) = (x.q.len() / x.stride, cache.width);
    let wide = out.len() / rows;
    let total = rows * x.heads;
    let mut first = 0;
    while first < total {
        // Tiles of rows that are not whole are computed with the last row more than once.
        let count = TILE.min(total - first);
        let mut tile = [Query { q: x.q.as_ptr(), causal_len: 1, out: out.as_mut_ptr() }; TILE];
        for i in 0..TILE {
            let index = first + i.min(count - 1);
            let (row, head) = (index / x.heads, index % x.heads);
            let q = x.q[row * x.stride + x.offset + head * width..][..width].as_ptr();
            let place = out[row * wide + out_offset + head * width..][..width].as_mut_ptr();
            tile[i] = Query { q, causal_len: x.causal_len + row, out: place };
        }
        // SAFETY: each query and place has `width` values, and sees tokens that there are; there are scores for a tile; the
        // caller vouches for the instruction set.
        unsafe {
            match count {
                1 => together::<S, 1>(&tile, cache, scores),
                2 => together::<S, 2>(&tile, cache, scores),
                3 => together::<S, 3>(&tile, cache, scores),
                _ => together::<S, TILE>(&tile, cache, scores),
            }
        }
        first += count;
    }
}

#[derive(Clone, Copy)]
struct Query {
    q: *const f32,
    causal_len: usize,
    out: *mut f32,
}

#[inline(always)]
unsafe fn together<S: Simd, const MR: usize>(tile: &[Query; TILE], cache: &KvCache, scores: &mut [f32]) {
    let width = cache.width;
    let mut most = 0;
    for r in 0..MR {
        most = tile[r].causal_len.max(most);
    }
    let (stride, blocks) = (scores.len() / TILE, most.div_ceil(LANES));
    let weights = scores.as_mut_ptr();
    // SAFETY: blocks and rows are of tokens in the cache, and a row of scores has room for all of them; the caller vouches for
    // the rest.
    unsafe {
        for b in 0..blocks {
            let keys = cache.keys.as_ptr().add(b * width * LANES);
            let mut sums = [S::splat(0.0); MR];
            for d in 0..width {
                let key = S::load_half(keys.add(d * LANES));
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
            totals[r] = exponentials::<S>(row, causal_len, width);
            // What is not visible has no weight at all, whatever is computed with it.
            for t in causal_len..most {
                *row.add(t) = 0.0;
            }
        }
        for c in (0..width).step_by(LANES) {
            let mut sums = [S::splat(0.0); MR];
            let row = width.next_multiple_of(LANES);
            for t in 0..most {
                let value = S::load_half(cache.values.as_ptr().add(t * row + c));
                for r in 0..MR {
                    sums[r] = S::splat(*weights.add(r * stride + t)).mul_add(value, sums[r]);
                }
            }
            for r in 0..MR {
                let y = sums[r].mul(S::splat(1.0 / totals[r]));
                if c + LANES <= width {
                    y.store(tile[r].out.add(c));
                } else {
                    let mut rest = [0.0; LANES];
                    y.store(rest.as_mut_ptr());
                    rest.as_ptr().copy_to(tile[r].out.add(c), width - c);
                }
            }
        }
    }
}
