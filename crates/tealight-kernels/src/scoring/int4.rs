//! Scores of rows of 4-bit values.
#![allow(clippy::needless_range_loop)] // Indices are lanes.

use super::{BLOCK_ROWS, PREFETCH_BYTES, SUMS};
use crate::dispatch::dispatch;
use crate::isa::Isa;
use crate::simd::Simd;

/// The dimension is padded to a multiple of this.
pub const DIM_ALIGN: usize = 8;
/// Largest quantized value of a row.
pub const QMAX: u8 = 15;
/// Bytes per vector lane, each with two values.
const LANE_BYTES: usize = 4;
/// Eight adjacent values of each row of a block. Each byte holds a value and, in its upper bits, the value four places after it.
pub type CodeGroup = [i8; BLOCK_ROWS * LANE_BYTES];

/// Per-row parameters of a block: a quantized value `q` represents `low + scale q`.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockParams {
    /// The scale of the row's values.
    pub scale: [f32; BLOCK_ROWS],
    /// The smallest value of the row.
    pub low: [f32; BLOCK_ROWS],
    /// Subtracted from the row's score: half the squared norm for distances, 0 for inner products, infinity for rows of padding.
    pub score_offset: [f32; BLOCK_ROWS],
}

/// A query quantized to int8, in the same way for all instruction sets.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedQuery {
    values: Vec<u8>,
    scale: f32,
    /// The sum of the values, dequantized.
    sum: f32,
}

impl QuantizedQuery {
    /// Quantizes a vector and pads it to a multiple of [`DIM_ALIGN`]. The scale is 1/127 of the largest magnitude.
    pub fn new(vector: &[f32]) -> Self {
        let max_abs = vector.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let scale = if max_abs > 0.0 { max_abs / 127.0 } else { 1.0 };
        let signed: Vec<i8> = vector.iter().map(|v| (v / scale).round_ties_even() as i8).collect();
        let sum = scale * signed.iter().map(|value| i32::from(*value)).sum::<i32>() as f32;
        let mut values: Vec<u8> = signed.into_iter().map(|value| value as u8).collect();
        values.resize(vector.len().next_multiple_of(DIM_ALIGN), 0);
        Self { values, scale, sum }
    }
}

/// Scores a query against the rows of blocks: writes [`BLOCK_ROWS`] scores to `out` for each of `params`, whose values are in
/// `codes`.
///
/// # Panics
/// If the lengths do not match.
pub fn scores(isa: Isa, query: &QuantizedQuery, codes: &[CodeGroup], params: &[BlockParams], out: &mut [f32]) {
    assert!(codes.len() == params.len() * (query.values.len() / DIM_ALIGN) && out.len() == params.len() * BLOCK_ROWS);
    dispatch!(isa, score_blocks(query: &QuantizedQuery, codes: &[CodeGroup], params: &[BlockParams], out: &mut [f32]));
}

#[inline(always)]
unsafe fn score_blocks<S: Simd>(query: &QuantizedQuery, codes: &[CodeGroup], params: &[BlockParams], out: &mut [f32]) {
    // SAFETY: the caller guarantees the instruction set.
    unsafe {
        match query.values.len() / DIM_ALIGN {
            8 => score_blocks_of::<S, 8>(query, codes, params, out),
            16 => score_blocks_of::<S, 16>(query, codes, params, out),
            32 => score_blocks_of::<S, 32>(query, codes, params, out),
            48 => score_blocks_of::<S, 48>(query, codes, params, out),
            64 => score_blocks_of::<S, 64>(query, codes, params, out),
            96 => score_blocks_of::<S, 96>(query, codes, params, out),
            128 => score_blocks_of::<S, 128>(query, codes, params, out),
            192 => score_blocks_of::<S, 192>(query, codes, params, out),
            len => {
                for (i, params) in params.iter().enumerate() {
                    score_block::<S>(query, &codes[i * len..(i + 1) * len], params, &mut out[i * BLOCK_ROWS..]);
                }
            }
        }
    }
}

/// Blocks of rows of `8 * LEN` values.
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
    // SAFETY: there are eight values of the query for each of `codes`, and arrays for the lanes of all sums; the caller guarantees
    // the instruction set.
    unsafe {
        let mut sums = [S::int_splat(0); SUMS];
        let query = query.values.as_ptr();
        for i in 0..codes.len() {
            let row_values = codes[i].as_ptr();
            S::prefetch(row_values.cast::<u8>().wrapping_add(PREFETCH_BYTES));
            let [low, high] = S::split_nibbles(S::load_i8x4(row_values));
            let j = 2 * (i % 2);
            sums[j] = S::dot_u4i8(sums[j], low, S::splat_u8x4(query.add(i * DIM_ALIGN)));
            sums[j + 1] = S::dot_u4i8(sums[j + 1], high, S::splat_u8x4(query.add(i * DIM_ALIGN + LANE_BYTES)));
        }
        for j in 0..SUMS {
            S::int_store(sums[j], lanes[j].as_mut_ptr());
        }
    }
    for i in 0..BLOCK_ROWS {
        let mut dot = 0;
        for j in 0..SUMS {
            dot += lanes[j][i];
        }
        out[i] = dot as f32 * query.scale * params.scale[i] + query.sum * params.low[i] - params.score_offset[i];
    }
}
