//! Scaled dot-product attention over one text, a few rows of scores at a time: `softmax(q k^T / sqrt(width)) v` (Vaswani et
//! al. 2017, arXiv 1706.03762), without a mask, since a text holds no padding.

pub mod cached;
pub mod float;
pub mod gqa;
pub mod int8;

use crate::rowwise::exp2;
use crate::simd::{LANES, Simd};
use std::ops::Range;

/// The widest head: sums of products of its codes are exact.
const MAX_HEAD_DIM: usize = 1 << 16;

/// Queries, keys and values of a batch: row `i` of each begins at `i * stride`. They may lie in one another, as the
/// outputs of one product do.
#[derive(Debug, Clone, Copy)]
pub struct Qkv<'a> {
    /// Queries.
    pub q: &'a [f32],
    /// Keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
    /// From one row to the next.
    pub stride: usize,
}

/// One head of one sequence.
#[derive(Debug, Clone)]
pub struct HeadSlice {
    /// The rows of the sequence.
    pub sequence: Range<usize>,
    /// The query rows to compute, of the sequence.
    pub queries: Range<usize>,
    /// Where the head begins in a row.
    pub offset: usize,
    /// Values of a head, a multiple of 16.
    pub head_dim: usize,
}

impl HeadSlice {
    /// Panics if rows or columns of keys and values are outside their slices, or `head_dim` is not a multiple of 16.
    fn check_rows(&self, x: Qkv) {
        let HeadSlice { sequence, offset, head_dim, .. } = self;
        assert!(head_dim.is_multiple_of(16) && (1..=MAX_HEAD_DIM).contains(head_dim) && !sequence.is_empty());
        let columns = offset.checked_add(*head_dim);
        assert!(
            columns.is_some_and(|end| end <= x.stride && fits(sequence.end, x.stride, end, x.k.len().min(x.v.len())))
        );
    }

    /// Panics if queries or the output are outside their slices or the sequence.
    fn check_queries(&self, x: Qkv, out: usize, out_stride: usize) {
        self.check_rows(x);
        let HeadSlice { sequence, queries, offset, head_dim } = self;
        assert!(sequence.start <= queries.start && queries.start < queries.end && queries.end <= sequence.end);
        assert!(fits(queries.end, x.stride, offset + head_dim, x.q.len()));
        assert!(*head_dim <= out_stride && fits(queries.len(), out_stride, *head_dim, out));
    }
}

/// Whether so many rows, of which the last ends `width` behind its beginning, are inside a slice of this length.
fn fits(rows: usize, stride: usize, width: usize, length: usize) -> bool {
    let last = rows.checked_sub(1).and_then(|before| before.checked_mul(stride));
    // Sums that wrap around would let anything pass.
    rows == 0 || last.and_then(|at| at.checked_add(width)).is_some_and(|end| end <= length)
}

/// Scores to `exp((score - largest) / sqrt(width))`, in place; returns their sum.
#[inline(always)]
unsafe fn exponentials<S: Simd>(scores: *mut f32, tokens: usize, width: usize) -> f32 {
    // SAFETY: the row has room for whole vectors; the caller vouches for the instruction set.
    unsafe {
        let whole = tokens.next_multiple_of(LANES);
        for t in tokens..whole {
            *scores.add(t) = f32::NEG_INFINITY;
        }
        let mut largest = S::splat(f32::NEG_INFINITY);
        for t in (0..whole).step_by(LANES) {
            largest = S::load(scores.add(t)).max(largest);
        }
        let largest = S::splat(largest.largest());
        let scale = S::splat(std::f32::consts::LOG2_E / (width as f32).sqrt());
        let mut sum = S::splat(0.0);
        for t in (0..whole).step_by(LANES) {
            let e = exp2(S::load(scores.add(t)).sub(largest).mul(scale));
            e.store(scores.add(t));
            sum = sum.add(e);
        }
        sum.sum()
    }
}
