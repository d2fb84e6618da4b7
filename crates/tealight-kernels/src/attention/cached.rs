//! Attention of one new token to those before it, whose keys and values lie in a cache, in float.

use super::exponentials;
use crate::simd::{LANES, Simd};
use crate::{Isa, dispatch};

/// Keys and values of the tokens so far, a row of `stride` values each. Heads may share them in groups (Ainslie et al. 2023,
/// arXiv 2305.13245).
#[derive(Debug, Clone, Copy)]
pub struct KvView<'a> {
    /// `[T, stride]`.
    pub keys: &'a [f32],
    /// `[T, stride]`.
    pub values: &'a [f32],
    /// Values of a row: as many heads as are kept, next to each other.
    pub stride: usize,
}

/// `softmax(q k^T / sqrt(width)) v` for each head of `q [H, width]`, to `out [H, width]`; `scores` is memory that calls share.
///
/// # Panics
/// If there are no tokens, sizes do not fit each other, or `width` is not a multiple of 16.
pub fn sdpa(isa: Isa, q: &[f32], cache: KvView, width: usize, scores: &mut Vec<f32>, out: &mut [f32]) {
    let KvView { keys, values, stride } = cache;
    assert!(width > 0 && width.is_multiple_of(LANES) && stride > 0 && stride.is_multiple_of(width));
    assert!(!keys.is_empty() && keys.len().is_multiple_of(stride) && values.len() == keys.len());
    assert!(q.len() == out.len() && !q.is_empty() && q.len().is_multiple_of(stride));
    scores.resize((keys.len() / stride).next_multiple_of(LANES), 0.0);
    dispatch!(isa, sdpa_impl(q: &[f32], cache: KvView, width: usize, scores: &mut [f32], out: &mut [f32]));
}

#[inline(always)]
unsafe fn sdpa_impl<S: Simd>(q: &[f32], cache: KvView, width: usize, scores: &mut [f32], out: &mut [f32]) {
    let shared = q.len() / cache.stride;
    for (h, (q, out)) in q.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
        let at = h / shared * width;
        // SAFETY: `sdpa` checked that rows have the columns `at..at + width`, whole vectors, and that there is a score for
        // each row, in whole vectors; the caller vouches for the instruction set.
        unsafe {
            let total = weights::<S>(q, cache, at, scores);
            let mut c = 0;
            while c < width {
                // Four vectors a pass, or one.
                if c + 4 * LANES <= width {
                    weighted::<S, 4>(cache, at + c, scores, total, out.as_mut_ptr().add(c));
                    c += 4 * LANES;
                } else {
                    weighted::<S, 1>(cache, at + c, scores, total, out.as_mut_ptr().add(c));
                    c += LANES;
                }
            }
        }
    }
}

/// Scores to `exp((score - largest) / sqrt(width))`; returns their sum.
#[inline(always)]
unsafe fn weights<S: Simd>(q: &[f32], cache: KvView, at: usize, scores: &mut [f32]) -> f32 {
    let (width, tokens) = (q.len(), cache.keys.len() / cache.stride);
    // SAFETY: as in `sdpa_impl`.
    unsafe {
        for (t, score) in scores[..tokens].iter_mut().enumerate() {
            let key = cache.keys.as_ptr().add(t * cache.stride + at);
            let mut sum = S::splat(0.0);
            for i in (0..width).step_by(LANES) {
                sum = S::load(q.as_ptr().add(i)).mul_add(S::load(key.add(i)), sum);
            }
            *score = sum.sum();
        }
        exponentials::<S>(scores.as_mut_ptr(), tokens, width)
    }
}

/// `sum p v / total`, for `NV` vectors of columns from `at` on.
#[inline(always)]
unsafe fn weighted<S: Simd, const NV: usize>(cache: KvView, at: usize, weights: &[f32], total: f32, out: *mut f32) {
    // SAFETY: as in `sdpa_impl`.
    unsafe {
        let mut sums = [S::splat(0.0); NV];
        for (t, weight) in weights[..cache.keys.len() / cache.stride].iter().enumerate() {
            let (value, weight) = (cache.values.as_ptr().add(t * cache.stride + at), S::splat(*weight));
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = weight.mul_add(S::load(value.add(j * LANES)), *sum);
            }
        }
        let inverse = S::splat(1.0 / total);
        for (j, sum) in sums.iter().enumerate() {
            sum.mul(inverse).store(out.add(j * LANES));
        }
    }
}
