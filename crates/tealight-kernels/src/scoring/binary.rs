//! Scores of rows of sign bits, with lookup tables.
//!
//! A row `r` of `D` values is stored as its signs `s`, each 1 or -1, and the scale `f = |r|^2 / |r|_1`, which is chosen so that
//! `(f s).r = r.r`. The error of `f s` is then perpendicular to `r`, so that the error of `(f s).q` for a query `q` comes only from
//! the part of `q` that is perpendicular to `r` as well.
//!
//! This is the estimator of RaBitQ (Gao and Long 2024, doi 10.1145/3654970), `<o', q> / <o', o>` with `o = r / |r|` and
//! `o' = s / sqrt(D)`, but without its random rotation. The paper derives from the rotation that the error is unbiased and bounded;
//! neither is guaranteed here. The tests of tealight-index measure the recall on clustered vectors, docs/performance.md#search has it
//! for real sentences.
//!
//! `s.q` is `2 a - |q|_1`, where `a` is the sum of the magnitudes of `q` whose signs agree with `s`. For four values, `a` is one of
//! 16 numbers, which a table of bytes holds (Quick ADC, André et al. 2017, doi 10.1145/3078971.3078992). A byte of signs selects
//! from two tables, and one instruction looks up the bytes of many rows. Sums of bytes are integers, so all instruction sets give
//! the same result.
#![allow(clippy::needless_range_loop)] // Indices are lanes.

use super::{BLOCK_ROWS, PREFETCH_BYTES};
use crate::dispatch::dispatch;
use crate::isa::Isa;
use crate::simd::{MAX_LUT_ADDS, Simd};

/// The dimension is padded to a multiple of this.
pub const DIM_ALIGN: usize = 32;
/// The signs of 32 adjacent values of each row of a block, `[4][16]` bytes. A block is `[D / 32]` of these.
pub type CodeGroup = [u8; BLOCK_ROWS * DIM_ALIGN / 8];
/// Number of values per lookup table; their signs select an entry.
const LUT_DIMS: usize = 4;
/// Largest value of a lookup table: the sum of two must fit in a byte.
const LUT_MAX: f32 = 127.0;

/// Per-row parameters of a block: scale and score offset.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockParams {
    /// The scale of the row's signs.
    pub scale: [f32; BLOCK_ROWS],
    /// Subtracted from the row's score, times the weight of the query: a term of the score that is stored exactly.
    pub score_offset: [f32; BLOCK_ROWS],
}

/// The tables for 32 values, `[half of the byte][byte][16]`, aligned to cache lines.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
struct LookupTables([[[u8; 16]; 4]; 2]);

/// A query as lookup tables, the same for all instruction sets.
#[derive(Debug, Clone, PartialEq)]
pub struct BinaryQuery {
    tables: Vec<LookupTables>,
    /// `s.q = scale * sum - abs_sum` for a sum of table values.
    scale: f32,
    abs_sum: f32,
    weight: f32,
}

impl BinaryQuery {
    /// Computes the tables of a vector, padded with zeros to a multiple of [`DIM_ALIGN`]. Table values are in units of 1/127 of the
    /// largest `|q|_1` of four values.
    ///
    /// `weight` multiplies [`BlockParams::score_offset`], so that a term of the score that depends on the query and the row can be
    /// stored exactly: the product of their parts along a common direction (`weight` is the query's part), or half the squared norm
    /// of the row for distances (`weight` is 1). tealight-index explains both in `scan/binary.rs`.
    pub fn new(vector: &[f32], weight: f32) -> Self {
        let abs_sums = vector.chunks(LUT_DIMS).map(|values| values.iter().map(|v| v.abs()).sum::<f32>());
        let (max, abs_sum) = abs_sums.fold((0.0f32, 0.0), |(max, total), sum| (max.max(sum), total + sum));
        let unit = if max > 0.0 { max / LUT_MAX } else { 1.0 };
        let mut tables = vec![LookupTables([[[0; 16]; 4]; 2]); vector.len().div_ceil(DIM_ALIGN)];
        for (i, values) in vector.chunks(LUT_DIMS).enumerate() {
            let (index, byte, half) = (i * LUT_DIMS / DIM_ALIGN, i / 2 % 4, i % 2);
            tables[index].0[half][byte] = lookup_table(values, unit);
        }
        Self { tables, scale: 2.0 * unit, abs_sum, weight }
    }
}

/// For each combination of signs of up to four values, the sum of the magnitudes whose signs agree, in units of `unit`.
fn lookup_table(values: &[f32], unit: f32) -> [u8; 16] {
    std::array::from_fn(|signs| {
        let agreeing = |(i, v): (usize, &f32)| if (signs >> i & 1 == 1) == (*v > 0.0) { v.abs() } else { 0.0 };
        (values.iter().enumerate().map(agreeing).sum::<f32>() / unit).round_ties_even() as u8
    })
}

/// Scores a query against the rows of blocks: writes [`BLOCK_ROWS`] scores to `out` for each of `params`, whose signs are in
/// `codes`.
///
/// # Panics
/// If the lengths do not match.
pub fn scores(isa: Isa, query: &BinaryQuery, codes: &[CodeGroup], params: &[BlockParams], out: &mut [f32]) {
    assert!(codes.len() == params.len() * query.tables.len() && out.len() == params.len() * BLOCK_ROWS);
    dispatch!(isa, score_blocks(query: &BinaryQuery, codes: &[CodeGroup], params: &[BlockParams], out: &mut [f32]));
}

#[inline(always)]
unsafe fn score_blocks<S: Simd>(query: &BinaryQuery, codes: &[CodeGroup], params: &[BlockParams], out: &mut [f32]) {
    // SAFETY: the caller guarantees the instruction set.
    unsafe {
        match query.tables.len() {
            2 => score_blocks_of::<S, 2>(query, codes, params, out),
            4 => score_blocks_of::<S, 4>(query, codes, params, out),
            8 => score_blocks_of::<S, 8>(query, codes, params, out),
            12 => score_blocks_of::<S, 12>(query, codes, params, out),
            16 => score_blocks_of::<S, 16>(query, codes, params, out),
            24 => score_blocks_of::<S, 24>(query, codes, params, out),
            32 => score_blocks_of::<S, 32>(query, codes, params, out),
            48 => score_blocks_of::<S, 48>(query, codes, params, out),
            len => {
                for (i, params) in params.iter().enumerate() {
                    let codes = &codes[i * len..(i + 1) * len];
                    score_block::<S>(query, &query.tables, codes, params, &mut out[i * BLOCK_ROWS..]);
                }
            }
        }
    }
}

/// Blocks of rows of `32 * LEN` values.
#[inline(always)]
unsafe fn score_blocks_of<S: Simd, const LEN: usize>(
    query: &BinaryQuery,
    codes: &[CodeGroup],
    params: &[BlockParams],
    out: &mut [f32],
) {
    let ((blocks, _), Some(tables)) = (codes.as_chunks::<LEN>(), query.tables.first_chunk::<LEN>()) else {
        return;
    };
    for i in 0..blocks.len() {
        // SAFETY: the caller guarantees the instruction set.
        unsafe { score_block::<S>(query, tables, &blocks[i], &params[i], &mut out[i * BLOCK_ROWS..]) }
    }
}

#[inline(always)]
unsafe fn score_block<S: Simd>(
    query: &BinaryQuery,
    tables: &[LookupTables],
    codes: &[CodeGroup],
    params: &BlockParams,
    out: &mut [f32],
) {
    let mut totals = [0i32; BLOCK_ROWS];
    let mut start = 0;
    while start < codes.len() {
        let end = codes.len().min(start + MAX_LUT_ADDS);
        let mut lanes = [0i32; BLOCK_ROWS];
        // SAFETY: there are tables for each of `codes`, and no more lookups than sums can hold; the caller guarantees the
        // instruction set.
        unsafe {
            let mut sums = S::lut_zero();
            for i in start..end {
                let signs = codes[i].as_ptr();
                S::prefetch(signs.wrapping_add(PREFETCH_BYTES));
                sums = S::lut_add(sums, tables[i].0.as_ptr().cast(), signs);
            }
            S::int_store(S::lut_lanes(sums), lanes.as_mut_ptr());
        }
        for i in 0..BLOCK_ROWS {
            totals[i] += lanes[i];
        }
        start = end;
    }
    for i in 0..BLOCK_ROWS {
        let dot = totals[i] as f32 * query.scale - query.abs_sum;
        out[i] = dot * params.scale[i] - query.weight * params.score_offset[i];
    }
}
