//! Scores of rows of int8 values.
#![allow(clippy::needless_range_loop)] // Indices are lanes.

use super::{BLOCK_ROWS, PREFETCH_BYTES, SUMS};
use crate::dispatch::dispatch;
use crate::isa::Isa;
use crate::simd::Simd;

/// The dimension is padded to a multiple of this.
pub const DIM_ALIGN: usize = 4;
/// Four adjacent values of each row of a block. A block is `[D / 4]` of these.
pub type CodeGroup = [i8; BLOCK_ROWS * DIM_ALIGN];

/// Per-row parameters of a block: scale, sum of the quantized values, and score offset.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockParams {
    /// The scale of the row's values.
    pub scale: [f32; BLOCK_ROWS],
    /// The sum of the row's quantized values.
    pub sum: [i32; BLOCK_ROWS],
    /// Subtracted from the row's score: half the squared norm for distances, 0 for inner products, infinity for rows of padding.
    pub score_offset: [f32; BLOCK_ROWS],
}

/// A query quantized for one instruction set.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedQuery {
    values: Vec<u8>,
    zero_point: i32,
    scale: f32,
}

impl QuantizedQuery {
    /// Quantizes a vector and pads it to a multiple of [`DIM_ALIGN`]. The scale is 1/127 of the largest magnitude, or 1/63 on AVX2
    /// without VNNI.
    pub fn new(isa: Isa, vector: &[f32]) -> Self {
        dispatch!(isa, quantize(vector: &[f32]) -> QuantizedQuery)
    }
}

#[inline(always)]
unsafe fn quantize<S: Simd>(vector: &[f32]) -> QuantizedQuery {
    let zero_point = (S::QMAX + 1) / 2;
    let max_abs = vector.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    // A subnormal query is treated as zeros; any nonzero scale works.
    let scale = max_abs.max(f32::MIN_POSITIVE) / (zero_point - 1) as f32;
    let mut values = Vec::with_capacity(vector.len().next_multiple_of(DIM_ALIGN));
    for v in vector {
        values.push(((v / scale).round_ties_even() as i32 + zero_point) as u8);
    }
    values.resize(vector.len().next_multiple_of(DIM_ALIGN), zero_point as u8);
    values.iter_mut().for_each(|value| *value = value.wrapping_add(S::STORAGE_OFFSET));
    QuantizedQuery { values, zero_point, scale }
}

/// Scores a query against the rows of blocks: writes [`BLOCK_ROWS`] scores to `out` for each of `params`, whose values are in
/// `codes`.
///
/// # Panics
/// If the lengths do not match.
pub fn scores(isa: Isa, query: &QuantizedQuery, codes: &[CodeGroup], params: &[BlockParams], out: &mut [f32]) {
    scores_with(isa, query, codes, params, true, out);
}

/// [`scores`] without the loops for common dimensions, for comparison.
#[doc(hidden)]
pub fn scores_any_dim(isa: Isa, query: &QuantizedQuery, codes: &[CodeGroup], params: &[BlockParams], out: &mut [f32]) {
    scores_with(isa, query, codes, params, false, out);
}

fn scores_with(
    isa: Isa,
    query: &QuantizedQuery,
    codes: &[CodeGroup],
    params: &[BlockParams],
    specialize_dim: bool,
    out: &mut [f32],
) {
    assert!(codes.len() == params.len() * (query.values.len() / DIM_ALIGN) && out.len() == params.len() * BLOCK_ROWS);
    dispatch!(isa, score_blocks(query: &QuantizedQuery, codes: &[CodeGroup], params: &[BlockParams], specialize_dim: bool, out: &mut [f32]));
}

#[inline(always)]
unsafe fn score_blocks<S: Simd>(
    query: &QuantizedQuery,
    codes: &[CodeGroup],
    params: &[BlockParams],
    specialize_dim: bool,
    out: &mut [f32],
) {
    // SAFETY: the caller guarantees the instruction set.
    unsafe {
        match (query.values.len() / DIM_ALIGN, specialize_dim) {
            (16, true) => score_blocks_of::<S, 16>(query, codes, params, out),
            (32, true) => score_blocks_of::<S, 32>(query, codes, params, out),
            (64, true) => score_blocks_of::<S, 64>(query, codes, params, out),
            (96, true) => score_blocks_of::<S, 96>(query, codes, params, out),
            (128, true) => score_blocks_of::<S, 128>(query, codes, params, out),
            (192, true) => score_blocks_of::<S, 192>(query, codes, params, out),
            (256, true) => score_blocks_of::<S, 256>(query, codes, params, out),
            (384, true) => score_blocks_of::<S, 384>(query, codes, params, out),
            (len, _) => {
                for (i, params) in params.iter().enumerate() {
                    score_block::<S>(query, &codes[i * len..(i + 1) * len], params, &mut out[i * BLOCK_ROWS..]);
                }
            }
        }
    }
}

/// Blocks of rows of `4 * LEN` values.
#[inline(always)]
unsafe fn score_blocks_of<S: Simd, const LEN: usize>(
    query: &QuantizedQuery,
    codes: &[CodeGroup],
    params: &[BlockParams],
    out: &mut [f32],
) {
    let (blocks, _) = codes.as_chunks::<LEN>();
    for i in 0..blocks.len() {
        // SAFETY: the caller guarantees the instruction set.
        unsafe { score_block::<S>(query, &blocks[i], &params[i], &mut out[i * BLOCK_ROWS..]) }
    }
}

#[inline(always)]
unsafe fn score_block<S: Simd>(query: &QuantizedQuery, codes: &[CodeGroup], params: &BlockParams, out: &mut [f32]) {
    let mut lanes = [[0i32; BLOCK_ROWS]; SUMS];
    // SAFETY: there are four values of the query for each of `codes`, and arrays for the lanes of all sums; the caller guarantees
    // the instruction set.
    unsafe {
        let mut sums = [S::int_splat(0); SUMS];
        sums[0] = S::acc_init(S::int_load(params.sum.as_ptr()));
        let query = query.values.as_ptr();
        let whole = codes.len() / SUMS * SUMS;
        let mut i = 0;
        while i < whole {
            for j in 0..SUMS {
                let value = S::splat_u8x4(query.add((i + j) * DIM_ALIGN));
                let row_values = codes[i + j].as_ptr();
                S::prefetch(row_values.cast::<u8>().wrapping_add(PREFETCH_BYTES));
                sums[j] = S::dot_u8i8(sums[j], value, S::load_i8x4(row_values));
            }
            i += SUMS;
        }
        while i < codes.len() {
            let value = S::splat_u8x4(query.add(i * DIM_ALIGN));
            sums[0] = S::dot_u8i8(sums[0], value, S::load_i8x4(codes[i].as_ptr()));
            i += 1;
        }
        for j in 0..SUMS {
            S::int_store(sums[j], lanes[j].as_mut_ptr());
        }
    }
    for i in 0..BLOCK_ROWS {
        // Wraps only if a file has a wrong sum: correct sums do not exceed 32 bits.
        let mut dot = (-query.zero_point).wrapping_mul(params.sum[i]);
        for j in 0..SUMS {
            dot = dot.wrapping_add(lanes[j][i]);
        }
        out[i] = dot as f32 * query.scale * params.scale[i] - params.score_offset[i];
    }
}
