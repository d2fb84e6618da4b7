//! Which rows and columns of the projections belong to one head of one sequence.

use std::ops::Range;

/// The largest head dimension for which integer sums of products are exact.
const MAX_HEAD_DIM: usize = 1 << 16;

/// Queries, keys and values of a batch: row `i` of each begins at `i * stride`. The slices may overlap, as when one product
/// computes all three.
#[derive(Debug, Clone, Copy)]
pub struct Qkv<'a> {
    /// Queries.
    pub q: &'a [f32],
    /// Keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
    /// Row stride, in elements.
    pub stride: usize,
}

/// One head of one sequence of a batch.
#[derive(Debug, Clone)]
pub struct HeadSlice {
    /// The rows of the sequence.
    pub sequence: Range<usize>,
    /// The rows for which the result is computed, inside `sequence`.
    pub queries: Range<usize>,
    /// First column of the head.
    pub first_column: usize,
    /// Columns of the head, a multiple of 16.
    pub head_dim: usize,
}

impl HeadSlice {
    /// Panics if rows or columns of keys and values are outside their slices, or `head_dim` is not a multiple of 16.
    pub(super) fn check_keys(&self, x: Qkv) {
        let HeadSlice { sequence, first_column, head_dim, .. } = self;
        assert!(head_dim.is_multiple_of(16) && (1..=MAX_HEAD_DIM).contains(head_dim) && !sequence.is_empty());
        let columns = first_column.checked_add(*head_dim);
        assert!(
            columns.is_some_and(|end| end <= x.stride && fits(sequence.end, x.stride, end, x.k.len().min(x.v.len())))
        );
    }

    /// Panics if anything is outside its slice, or queries are outside the sequence.
    pub(super) fn check(&self, x: Qkv, out: usize, out_stride: usize) {
        self.check_keys(x);
        let HeadSlice { sequence, queries, first_column, head_dim } = self;
        assert!(sequence.start <= queries.start && queries.start < queries.end && queries.end <= sequence.end);
        assert!(fits(queries.end, x.stride, first_column + head_dim, x.q.len()));
        assert!(*head_dim <= out_stride && fits(queries.len(), out_stride, *head_dim, out));
    }
}

/// Whether `rows` rows, the last of which ends `last_len` elements after its start, are inside a slice of length `len`.
pub(super) fn fits(rows: usize, stride: usize, last_len: usize, len: usize) -> bool {
    let last_start = rows.checked_sub(1).and_then(|before| before.checked_mul(stride));
    // Unchecked arithmetic could wrap around and accept any size.
    rows == 0 || last_start.and_then(|start| start.checked_add(last_len)).is_some_and(|end| end <= len)
}
