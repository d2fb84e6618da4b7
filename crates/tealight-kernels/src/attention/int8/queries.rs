//! Attention of rows of queries to quantized keys and values.
#![allow(clippy::needless_range_loop)] // Indices are rows and columns of tiles.

use super::kv::{QuantizedKv, encoding, max_abs, padded, scales_from_max_abs};
use crate::attention::views::{ScoreBias, ScoreMod, fits};
use crate::dispatch::dispatch;
use crate::isa::Isa;
use crate::rowwise::exp2_coarse;
use crate::simd::{LANES, Simd, Tile};

/// Maximum number of rows of queries that share a pass over keys and values: 8 with AVX-512, 4 on other instruction
/// sets. Splitting fewer rows between threads saves no time.
pub const QUERY_ROWS: usize = 8;

/// Scratch memory for a tile of queries.
#[derive(Debug, Default)]
pub struct QueryScratch {
    /// Quantized queries, `[QUERY_ROWS, head_dim]`.
    queries: Vec<u8>,
    /// `[QUERY_ROWS, padded tokens]`.
    scores: Vec<f32>,
    /// Quantized softmax weights, `[QUERY_ROWS, padded tokens]`.
    weights: Vec<u8>,
}

impl QueryScratch {
    pub(super) fn resize(&mut self, kv: &QuantizedKv) {
        let padded = padded(kv.tokens);
        self.queries.resize(QUERY_ROWS * kv.head_dim, 0);
        self.scores.resize(QUERY_ROWS * padded, 0.0);
        self.weights.resize(QUERY_ROWS * padded, 0);
    }
}

/// Rows of queries: row `i` begins at `i * stride`.
#[derive(Debug, Clone, Copy)]
pub struct StridedRows<'a> {
    /// Begins with the first row.
    pub data: &'a [f32],
    /// Row stride, in elements.
    pub stride: usize,
}

/// Computes `softmax(q k^T / divisor + bias) v` for the first `count` rows of `q`. Row `i` is written to
/// `out[i * out_stride..][..head_dim]`.
///
/// # Panics
/// If rows are outside their slices, there are no keys, or another instruction set quantized them.
#[allow(clippy::too_many_arguments)] // Queries and outputs with their strides.
pub fn sdpa_quantized_kv(
    isa: Isa,
    kv: &QuantizedKv,
    q: StridedRows,
    count: usize,
    score_mod: ScoreMod,
    scratch: &mut QueryScratch,
    out: &mut [f32],
    out_stride: usize,
) {
    assert!(kv.tokens > 0 && kv.head_dim <= out_stride && kv.head_dim <= q.stride);
    assert!(fits(count, q.stride, kv.head_dim, q.data.len()) && fits(count, out_stride, kv.head_dim, out.len()));
    scratch.resize(kv);
    dispatch!(isa, sdpa_rows(kv: &QuantizedKv, q: StridedRows, count: usize, score_mod: ScoreMod, scratch: &mut QueryScratch, out: &mut [f32], out_stride: usize));
}

#[inline(always)]
pub(super) unsafe fn sdpa_rows<S: Simd>(
    kv: &QuantizedKv,
    q: StridedRows,
    count: usize,
    score_mod: ScoreMod,
    scratch: &mut QueryScratch,
    out: &mut [f32],
    out_stride: usize,
) {
    assert_eq!(kv.encoding, encoding::<S>(), "keys quantized by another instruction set");
    let mut row = 0;
    // SAFETY: `sdpa_quantized_kv` checked that all rows are inside `q` and `out`, and resized the scratch; a tile is only computed
    // if as many rows remain.
    unsafe {
        while row < count {
            let q = StridedRows { data: &q.data[row * q.stride..], stride: q.stride };
            let out = out.as_mut_ptr().add(row * out_stride);
            row += match count - row {
                // `R4x3` stands for AVX-512, whose 32 registers also hold this larger tile.
                left if left >= QUERY_ROWS && S::TILE == Tile::R4x3 => {
                    sdpa_tile::<S, QUERY_ROWS, 2>(kv, q, row, score_mod, scratch, out, out_stride)
                }
                left if left >= 4 => sdpa_tile::<S, 4, 1>(kv, q, row, score_mod, scratch, out, out_stride),
                left if left >= 2 => sdpa_tile::<S, 2, 1>(kv, q, row, score_mod, scratch, out, out_stride),
                _ => sdpa_tile::<S, 1, 1>(kv, q, row, score_mod, scratch, out, out_stride),
            };
        }
    }
}

/// The first `MR` rows of `q`, which begin with query `row`; returns `MR`.
#[inline(always)]
unsafe fn sdpa_tile<S: Simd, const MR: usize, const NV: usize>(
    kv: &QuantizedKv,
    q: StridedRows,
    row: usize,
    score_mod: ScoreMod,
    scratch: &mut QueryScratch,
    out: *mut f32,
    out_stride: usize,
) -> usize {
    // SAFETY: as in `sdpa_rows`.
    unsafe {
        let mut score_scales = quantize_queries::<S, MR>(q, kv.head_dim, score_mod.divisor, scratch);
        scores::<S, MR, NV>(kv, scratch);
        if let Some(bias) = score_mod.bias {
            add_bias::<S, MR>(kv.tokens, bias, row, &mut score_scales, scratch);
        }
        let weight_scales = quantize_weights::<S, MR>(kv, scratch, &score_scales);
        let mut d = 0;
        while d < kv.head_dim {
            // Two vectors per pass over the values, then one.
            if d + 2 * LANES <= kv.head_dim {
                weighted_sums::<S, MR, 2>(kv, scratch, d, &weight_scales, out, out_stride);
                d += 2 * LANES;
            } else {
                weighted_sums::<S, MR, 1>(kv, scratch, d, &weight_scales, out, out_stride);
                d += LANES;
            }
        }
    }
    MR
}

/// Quantizes rows of queries. Returns the factor for the scores of each row that makes them exponents of base 2.
#[inline(always)]
unsafe fn quantize_queries<S: Simd, const MR: usize>(
    q: StridedRows,
    head_dim: usize,
    divisor: f32,
    scratch: &mut QueryScratch,
) -> [f32; LANES] {
    let zero_point = ((S::QMAX + 1) / 2) as f32;
    let (mut scales, mut inv_scales) = ([0.0; LANES], [0.0; LANES]);
    // SAFETY: queries have `head_dim` values, whole vectors, and the scratch has room for them; the caller guarantees the
    // instruction set.
    unsafe {
        let query = |r: usize| q.data[r * q.stride..][..head_dim].as_ptr();
        for r in 0..MR {
            scales[r] = max_abs::<S>(query(r), head_dim);
        }
        scales_from_max_abs::<S>(&mut scales, &mut inv_scales, zero_point - 1.0);
        for r in 0..MR {
            let out = scratch.queries.as_mut_ptr().add(r * head_dim);
            for i in (0..head_dim).step_by(LANES) {
                S::load(query(r).add(i)).mul_add(S::splat(inv_scales[r]), S::splat(zero_point)).store_u8(out.add(i));
            }
        }
        let log2_scale = S::splat(std::f32::consts::LOG2_E / divisor);
        S::load(scales.as_ptr()).mul(log2_scale).store(scales.as_mut_ptr());
    }
    scales
}

/// Scores of `MR` rows, before the factor of the row.
#[inline(always)]
unsafe fn scores<S: Simd, const MR: usize, const NV: usize>(kv: &QuantizedKv, scratch: &mut QueryScratch) {
    let (tokens, head_dim) = (kv.tokens, kv.head_dim);
    let padded = padded(tokens);
    // SAFETY: as in `sdpa_rows`; the scratch has room for tokens padded to `NV` vectors.
    unsafe {
        let (queries, scores) = (scratch.queries.as_ptr(), scratch.scores.as_mut_ptr());
        for t in (0..tokens).step_by(NV * LANES) {
            let mut sums = [[S::int_splat(0); NV]; MR];
            for j in 0..NV {
                let init = S::int_load(kv.key_acc_init.as_ptr().add(t + j * LANES));
                for r in 0..MR {
                    sums[r][j] = init;
                }
            }
            let keys = kv.keys.as_ptr().add(t * head_dim);
            for d in (0..head_dim).step_by(4) {
                let mut k = [S::int_splat(0); NV];
                for j in 0..NV {
                    k[j] = S::load_i8x4(keys.add(j * LANES * head_dim + d * LANES));
                }
                for r in 0..MR {
                    let q = S::splat_u8x4(queries.add(r * head_dim + d));
                    for j in 0..NV {
                        sums[r][j] = S::dot_u8i8(sums[r][j], q, k[j]);
                    }
                }
            }
            for j in 0..NV {
                let scales = S::load(kv.key_scales.as_ptr().add(t + j * LANES));
                for r in 0..MR {
                    S::to_float(sums[r][j]).mul(scales).store(scores.add(r * padded + t + j * LANES));
                }
            }
        }
    }
}

/// Multiplies the scores of `MR` rows, which begin with query `row`, by the factor of the row and adds the bias; the factors become 1.
#[inline(always)]
unsafe fn add_bias<S: Simd, const MR: usize>(
    tokens: usize,
    bias: ScoreBias,
    row: usize,
    score_scales: &mut [f32; LANES],
    scratch: &mut QueryScratch,
) {
    let padded = padded(tokens);
    for r in 0..MR {
        let (scores, bias) = (&mut scratch.scores[r * padded..][..padded], bias.row(row + r, tokens));
        // SAFETY: whole vectors of biases are read from a row or its padded copy, and a row of scores has whole vectors; the caller
        // guarantees the instruction set.
        unsafe {
            let (scale, log2_e) = (S::splat(score_scales[r]), S::splat(std::f32::consts::LOG2_E));
            for t in (0..tokens).step_by(LANES) {
                let mut padded_bias = [0.0; LANES];
                let p = if t + LANES <= tokens {
                    bias.as_ptr().add(t)
                } else {
                    padded_bias[..tokens - t].copy_from_slice(&bias[t..]);
                    padded_bias.as_ptr()
                };
                let scores = scores.as_mut_ptr().add(t);
                S::load(scores).mul_add(scale, S::load(p).mul(log2_e)).store(scores);
            }
        }
    }
    *score_scales = [1.0; LANES];
}

/// Computes the softmax weights of `MR` rows times the scales of the values, and quantizes them. Returns their scales.
///
/// Each step is done for all rows before the next, so that the reductions of the rows overlap.
#[inline(always)]
unsafe fn quantize_weights<S: Simd, const MR: usize>(
    kv: &QuantizedKv,
    scratch: &mut QueryScratch,
    score_scales: &[f32; LANES],
) -> [f32; LANES] {
    let tokens = kv.tokens;
    let padded = padded(tokens);
    let (mut max_scores, mut totals) = ([0.0; MR], [1.0; LANES]);
    let (mut weight_scales, mut inv_scales) = ([0.0; LANES], [0.0; LANES]);
    // SAFETY: the scratch has room for whole vectors of the rows; the caller guarantees the instruction set.
    unsafe {
        let value_scales = kv.value_scales.as_ptr();
        for r in 0..MR {
            let scores = scratch.scores.as_mut_ptr().add(r * padded);
            for t in tokens..tokens.next_multiple_of(LANES) {
                *scores.add(t) = f32::NEG_INFINITY;
            }
            let mut max = S::splat(f32::NEG_INFINITY);
            for t in (0..tokens).step_by(LANES) {
                max = S::load(scores.add(t)).max(max);
            }
            max_scores[r] = max.reduce_max();
        }
        for r in 0..MR {
            let scores = scratch.scores.as_mut_ptr().add(r * padded);
            let (scale, max_score) = (S::splat(score_scales[r]), S::splat(max_scores[r]));
            let (mut total, mut max_weight) = (S::splat(0.0), S::splat(0.0));
            for t in (0..tokens).step_by(LANES) {
                let weight = exp2_coarse(S::load(scores.add(t)).sub(max_score).mul(scale));
                total = total.add(weight);
                let weight = weight.mul(S::load(value_scales.add(t)));
                max_weight = weight.max(max_weight);
                weight.store(scores.add(t));
            }
            (totals[r], weight_scales[r]) = (total.reduce_sum(), max_weight.reduce_max());
        }
        scales_from_max_abs::<S>(&mut weight_scales, &mut inv_scales, S::QMAX as f32);
        for r in 0..MR {
            let scores = scratch.scores.as_ptr().add(r * padded);
            let out = scratch.weights.as_mut_ptr().add(r * padded);
            for t in (0..tokens).step_by(LANES) {
                S::load(scores.add(t)).mul(S::splat(inv_scales[r])).store_u8(out.add(t));
            }
        }
        let normalized = S::load(weight_scales.as_ptr()).div(S::load(totals.as_ptr())).add(S::splat(kv.nan_flag));
        normalized.store(weight_scales.as_mut_ptr());
    }
    weight_scales
}

/// `sum of weight * value` for `MR` rows and `NV` vectors of columns from `d` on.
#[inline(always)]
unsafe fn weighted_sums<S: Simd, const MR: usize, const NV: usize>(
    kv: &QuantizedKv,
    scratch: &QueryScratch,
    d: usize,
    weight_scales: &[f32; LANES],
    out: *mut f32,
    out_stride: usize,
) {
    let (tokens, head_dim) = (kv.tokens, kv.head_dim);
    let padded = padded(tokens);
    // SAFETY: as in `sdpa_rows`.
    unsafe {
        let (weights, values) = (scratch.weights.as_ptr(), kv.values.as_ptr().add(4 * d));
        let mut sums = [[S::int_splat(0); NV]; MR];
        for j in 0..NV {
            let init = S::acc_init(S::to_int(S::load(kv.value_sums.as_ptr().add(d + j * LANES))));
            for r in 0..MR {
                sums[r][j] = init;
            }
        }
        for t in (0..tokens).step_by(4) {
            let mut v = [S::int_splat(0); NV];
            for j in 0..NV {
                v[j] = S::load_i8x4(values.add(t * head_dim + j * 4 * LANES));
            }
            for r in 0..MR {
                let p = S::splat_u8x4(weights.add(r * padded + t));
                for j in 0..NV {
                    sums[r][j] = S::dot_u8i8(sums[r][j], p, v[j]);
                }
            }
        }
        for r in 0..MR {
            for j in 0..NV {
                let value = S::to_float(sums[r][j]).mul(S::splat(weight_scales[r]));
                value.store(out.add(r * out_stride + d + j * LANES));
            }
        }
    }
}
