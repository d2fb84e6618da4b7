//! Attention of one new token to the tokens before it, whose keys and values are cached in float32.

use super::softmax::exponentials;
use crate::dispatch::dispatch;
use crate::isa::Isa;
use crate::simd::{LANES, Simd};

/// The cached keys and values of the tokens so far, of all heads.
#[derive(Debug, Clone, Copy)]
pub struct KvView<'a> {
    /// `[tokens, stride]`.
    pub keys: &'a [f32],
    /// `[tokens, stride]`.
    pub values: &'a [f32],
    /// Row length: the heads are adjacent.
    pub stride: usize,
}

/// Computes `softmax(q k^T / sqrt(head_dim)) v` for each head of `q [heads, head_dim]` to `out [heads, head_dim]`. `scores` is
/// scratch memory that calls can share.
///
/// # Panics
/// If there are no tokens, the sizes do not match, or `head_dim` is not a multiple of 16.
pub fn sdpa(isa: Isa, q: &[f32], cache: KvView, head_dim: usize, scores: &mut Vec<f32>, out: &mut [f32]) {
    let KvView { keys, values, stride } = cache;
    assert!(head_dim > 0 && head_dim.is_multiple_of(LANES) && stride > 0 && stride.is_multiple_of(head_dim));
    assert!(!keys.is_empty() && keys.len().is_multiple_of(stride) && values.len() == keys.len());
    assert!(q.len() == out.len() && q.len() == stride);
    scores.resize((keys.len() / stride).next_multiple_of(LANES), 0.0);
    dispatch!(isa, sdpa_heads(q: &[f32], cache: KvView, head_dim: usize, scores: &mut [f32], out: &mut [f32]));
}

#[inline(always)]
unsafe fn sdpa_heads<S: Simd>(q: &[f32], cache: KvView, head_dim: usize, scores: &mut [f32], out: &mut [f32]) {
    for (h, (q, out)) in q.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)).enumerate() {
        let first_column = h * head_dim;
        // SAFETY: `sdpa` checked that rows have the columns `first_column..first_column + head_dim`, whole vectors, and that there is a score
        // for each row, in whole vectors; the caller guarantees the instruction set.
        unsafe {
            let total = softmax_numerators::<S>(q, cache, first_column, scores);
            let mut c = 0;
            while c < head_dim {
                // Four vectors per pass over the values, then one at a time.
                if c + 4 * LANES <= head_dim {
                    weighted_sum::<S, 4>(cache, first_column + c, scores, total, out.as_mut_ptr().add(c));
                    c += 4 * LANES;
                } else {
                    weighted_sum::<S, 1>(cache, first_column + c, scores, total, out.as_mut_ptr().add(c));
                    c += LANES;
                }
            }
        }
    }
}

/// Writes `exp((score - max) / sqrt(head_dim))` for each token and returns the sum.
#[inline(always)]
unsafe fn softmax_numerators<S: Simd>(q: &[f32], cache: KvView, first_column: usize, scores: &mut [f32]) -> f32 {
    let (head_dim, tokens) = (q.len(), cache.keys.len() / cache.stride);
    // SAFETY: as in `sdpa_heads`.
    unsafe {
        for (t, score) in scores[..tokens].iter_mut().enumerate() {
            let key = cache.keys.as_ptr().add(t * cache.stride + first_column);
            let mut sum = S::splat(0.0);
            for i in (0..head_dim).step_by(LANES) {
                sum = S::load(q.as_ptr().add(i)).mul_add(S::load(key.add(i)), sum);
            }
            *score = sum.reduce_sum();
        }
        exponentials::<S>(scores.as_mut_ptr(), tokens, head_dim)
    }
}

/// `sum of weight * value / total` for `NV` vectors of columns from `column` on.
#[inline(always)]
unsafe fn weighted_sum<S: Simd, const NV: usize>(
    cache: KvView,
    column: usize,
    weights: &[f32],
    total: f32,
    out: *mut f32,
) {
    // SAFETY: as in `sdpa_heads`.
    unsafe {
        let mut sums = [S::splat(0.0); NV];
        for (t, weight) in weights[..cache.keys.len() / cache.stride].iter().enumerate() {
            let (value, weight) = (cache.values.as_ptr().add(t * cache.stride + column), S::splat(*weight));
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = weight.mul_add(S::load(value.add(j * LANES)), *sum);
            }
        }
        let inv_total = S::splat(1.0 / total);
        for (j, sum) in sums.iter().enumerate() {
            sum.mul(inv_total).store(out.add(j * LANES));
        }
    }
}
