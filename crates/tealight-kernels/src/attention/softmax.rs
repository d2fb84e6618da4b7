//! The exponentials of a softmax over scores.

use crate::rowwise::exp2;
use crate::simd::{LANES, Simd};

/// Replaces scores by `exp((score - max) / sqrt(head_dim))` and returns their sum. Padding up to a whole vector becomes 0.
#[inline(always)]
pub(super) unsafe fn exponentials<S: Simd>(scores: *mut f32, tokens: usize, head_dim: usize) -> f32 {
    // SAFETY: the row has room for whole vectors; the caller guarantees the instruction set.
    unsafe {
        let padded = tokens.next_multiple_of(LANES);
        for t in tokens..padded {
            *scores.add(t) = f32::NEG_INFINITY;
        }
        let mut max = S::splat(f32::NEG_INFINITY);
        for t in (0..padded).step_by(LANES) {
            max = S::load(scores.add(t)).max(max);
        }
        let max = S::splat(max.reduce_max());
        let scale = S::splat(std::f32::consts::LOG2_E / (head_dim as f32).sqrt());
        let mut sum = S::splat(0.0);
        for t in (0..padded).step_by(LANES) {
            let e = exp2(S::load(scores.add(t)).sub(max).mul(scale));
            e.store(scores.add(t));
            sum = sum.add(e);
        }
        sum.reduce_sum()
    }
}
