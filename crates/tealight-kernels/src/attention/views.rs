//! Which rows and columns of the projections belong to one head of one sequence, and how their scores are modified.

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

/// How scores become the exponents of the softmax: `q k^T / divisor + bias`.
#[derive(Debug, Clone, Copy)]
pub struct ScoreMod<'a> {
    /// Usually the square root of the dimension of a head.
    pub divisor: f32,
    /// Added to the scores after the division.
    pub bias: Option<ScoreBias<'a>>,
}

impl ScoreMod<'_> {
    /// `q k^T / sqrt(head_dim)`, without a bias (Vaswani et al. 2017, arXiv 1706.03762).
    pub fn scaled(head_dim: usize) -> Self {
        Self { divisor: (head_dim as f32).sqrt(), bias: None }
    }
}

/// A number for each query and key. Minus infinity masks a key; each query needs a key that is not masked.
#[derive(Debug, Clone, Copy)]
pub struct ScoreBias<'a> {
    values: &'a [f32],
    /// Where the row of the first query begins.
    first: usize,
    /// From the row of a query to that of the next, in elements.
    step: isize,
}

impl<'a> ScoreBias<'a> {
    /// A bias by distance (ALiBi, relative position buckets, causal masks, windows): `values` are `[2 * tokens - 1]`, and key `j` of
    /// query `i` gets `values[tokens - 1 + j - i]`. The first query is query `first_query` of the sequence.
    ///
    /// # Panics
    /// If there are fewer values, or `first_query` is not below `tokens`.
    pub fn relative(values: &'a [f32], tokens: usize, first_query: usize) -> Self {
        assert!(first_query < tokens && 2 * tokens - 1 <= values.len());
        Self { values, first: tokens - 1 - first_query, step: -1 }
    }

    /// A row of `tokens` numbers for each query.
    pub fn rows(values: &'a [f32], tokens: usize) -> Self {
        Self { values, first: 0, step: tokens as isize }
    }

    /// The biases of all keys for a query, counted from the first.
    ///
    /// # Panics
    /// If there is no such row.
    pub(super) fn row(&self, query: usize, tokens: usize) -> &'a [f32] {
        let start = self.first as isize + query as isize * self.step;
        &self.values[usize::try_from(start).unwrap_or(usize::MAX)..][..tokens]
    }
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
