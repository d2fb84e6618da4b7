//! Scaled dot-product attention over one text, a few rows of scores at a time: `softmax(q k^T / sqrt(width)) v` (Vaswani et
//! al. 2017, arXiv 1706.03762), without a mask, since a text holds no padding.

pub mod float;
pub mod int8;

use std::ops::Range;

/// Queries, keys and values of a batch: row `i` of each begins at `i * stride`. They may lie in one another, as the
/// outputs of one product do.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
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
pub struct Head {
    /// The rows of the sequence.
    pub sequence: Range<usize>,
    /// The query rows to compute, of the sequence.
    pub queries: Range<usize>,
    /// Where the head begins in a row.
    pub at: usize,
    /// Values of a head, a multiple of 16.
    pub width: usize,
}

impl Head {
    /// Panics if rows, columns or the output are not inside their slices, or the width is not a multiple of 16.
    fn check(&self, x: Rows, out: usize, out_stride: usize) {
        let Head { sequence, queries, at, width } = self;
        assert!(width.is_multiple_of(16) && *width > 0 && at + width <= x.stride && *width <= out_stride);
        assert!(sequence.start <= queries.start && queries.start < queries.end && queries.end <= sequence.end);
        let end = (sequence.end - 1) * x.stride + at + width;
        assert!(end <= x.q.len() && end <= x.k.len() && end <= x.v.len());
        assert!((queries.len() - 1) * out_stride + width <= out);
    }
}
