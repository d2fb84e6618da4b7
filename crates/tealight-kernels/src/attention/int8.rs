//! Attention with integer products: a quarter of the instructions of the float one, and next to no loss.
//!
//! Each row of a head, of queries, keys and values, has one step of its own and symmetric codes. Scores are exact integer
//! sums times two steps; their softmax is float. A weight `p` then takes in the step of its value, `p s_v`, and a row of
//! those is rounded to codes of 0..=255 (0..=127 on AVX2), the largest to the highest code: so the second product is an exact
//! integer sum, too. The largest of `p` itself would be a poor measure: the tokens that attention rests on have small values.
#![allow(clippy::needless_range_loop)] // Indices are rows and columns of tiles.

use super::{HeadSlice, Qkv, fits};
use crate::quantize::MIN_RANGE;
use crate::rowwise::exp2_coarse;
use crate::simd::{LANES, Simd, Tile};
use crate::{Isa, dispatch};

/// Query rows that share one pass over keys and values.
const ROWS: usize = 8;
/// Codes of keys and values have this magnitude at most.
const KEY_LEVELS: f32 = 127.0;

/// Columns of scores for so many tokens: whole groups of two vectors.
fn padded(tokens: usize) -> usize {
    tokens.next_multiple_of(2 * LANES)
}

/// Keys and values of one head of a sequence, quantised: made once, attended to by as many queries as there are.
#[derive(Debug, Default, Clone)]
pub struct QuantizedKv {
    tokens: usize,
    width: usize,
    /// Codes of keys, `[T padded / 16][width / 4][16][4]`.
    keys: Vec<i8>,
    /// `[T padded]`.
    key_steps: Vec<f32>,
    /// `[T padded]`: what sums start from, so that the zero point of queries cancels.
    key_starts: Vec<i32>,
    /// Codes of values, `[T / 4][width][4]`.
    values: Vec<i8>,
    /// `[T padded]`.
    value_steps: Vec<f32>,
    /// `[T padded]`: codes for one unit of keys or values.
    per_unit: Vec<f32>,
    /// Zero, or NaN where a value of the text was not finite.
    poison: f32,
    /// `[width]`: sums of codes of values, where the set needs them.
    value_sums: Vec<f32>,
    /// The highest code of queries, and what is added to codes in memory, by the set that quantised.
    form: (i32, u8),
}

/// Memory of a group of queries.
#[derive(Debug, Default)]
pub struct QueryScratch {
    /// Codes, `[ROWS, width]`.
    codes: Vec<u8>,
    /// `[ROWS, T padded]`.
    scores: Vec<f32>,
    /// `[ROWS, T padded]`.
    weights: Vec<u8>,
}

/// Memory that calls of [`sdpa`] share.
#[derive(Debug, Default)]
pub struct SdpaScratch {
    sequence: QuantizedKv,
    queries: QueryScratch,
}

impl QuantizedKv {
    /// Quantises keys and values of a head of `x`; what was there before is gone.
    ///
    /// # Panics
    /// If rows or columns are not inside their slices, or the width is not a multiple of 16.
    pub fn quantize(&mut self, isa: Isa, x: Qkv, head: &HeadSlice) {
        head.check_rows(x);
        self.make_room(head.sequence.len(), head.head_dim);
        let sequence = self;
        dispatch!(isa, fill(x: Qkv, head: &HeadSlice, sequence: &mut QuantizedKv));
    }

    fn make_room(&mut self, tokens: usize, width: usize) {
        let padded = padded(tokens);
        (self.tokens, self.width) = (tokens, width);
        // Keys of tokens past the end may be anything; values must be finite, and codes always are.
        self.keys.resize(padded * width, 0);
        self.values.resize(tokens.next_multiple_of(4) * width, 0);
        self.key_steps.resize(padded, 0.0);
        self.key_starts.resize(padded, 0);
        self.value_steps.resize(padded, 0.0);
        self.per_unit.resize(padded, 0.0);
        self.value_sums.clear();
        self.value_sums.resize(width, 0.0);
    }
}

impl QueryScratch {
    fn make_room(&mut self, sequence: &QuantizedKv) {
        let padded = padded(sequence.tokens);
        self.codes.resize(ROWS * sequence.width, 0);
        self.scores.resize(ROWS * padded, 0.0);
        self.weights.resize(ROWS * padded, 0);
    }
}

/// Row `i` of the queries goes to `out[i * out_stride..][..width]`.
///
/// A query that is not finite makes its row NaN, a key or value every row of the text.
///
/// # Panics
/// If rows, columns or `out` are not inside their slices, or `width` is not a multiple of 16.
pub fn sdpa(isa: Isa, x: Qkv, head: &HeadSlice, scratch: &mut SdpaScratch, out: &mut [f32], out_stride: usize) {
    head.check_queries(x, out.len(), out_stride);
    let SdpaScratch { sequence, queries } = scratch;
    sequence.quantize(isa, x, head);
    let rows = StridedRows { data: &x.q[head.queries.start * x.stride + head.offset..], stride: x.stride };
    sdpa_quantized_kv(isa, sequence, rows, head.queries.len(), queries, out, out_stride);
}

/// Qkv of queries: row `i` begins at `i * stride`.
#[derive(Debug, Clone, Copy)]
pub struct StridedRows<'a> {
    /// The first row, and what follows.
    pub data: &'a [f32],
    /// From one row to the next.
    pub stride: usize,
}

/// Attention of `count` rows `q` to a sequence; row `i` goes to `out[i * out_stride..][..width]`.
///
/// # Panics
/// If rows are not inside their slices, the sequence is empty, or another set quantised it.
pub fn sdpa_quantized_kv(
    isa: Isa,
    sequence: &QuantizedKv,
    q: StridedRows,
    count: usize,
    scratch: &mut QueryScratch,
    out: &mut [f32],
    out_stride: usize,
) {
    assert!(sequence.tokens > 0 && sequence.width <= out_stride && sequence.width <= q.stride);
    assert!(fits(count, q.stride, sequence.width, q.data.len()) && fits(count, out_stride, sequence.width, out.len()));
    scratch.make_room(sequence);
    dispatch!(isa, sdpa_impl(sequence: &QuantizedKv, q: StridedRows, count: usize, scratch: &mut QueryScratch, out: &mut [f32], out_stride: usize));
}

#[inline(always)]
unsafe fn fill<S: Simd>(x: Qkv, head: &HeadSlice, sequence: &mut QuantizedKv) {
    sequence.form = (S::QMAX, S::STORAGE_OFFSET);
    // SAFETY: `QuantizedKv::quantize` checked that all rows and columns are inside `x`, and made room; the caller vouches for the
    // instruction set.
    unsafe {
        keys::<S>(x, head, sequence);
        values::<S>(x, head, sequence);
    }
}

#[inline(always)]
unsafe fn sdpa_impl<S: Simd>(
    sequence: &QuantizedKv,
    q: StridedRows,
    count: usize,
    scratch: &mut QueryScratch,
    out: &mut [f32],
    out_stride: usize,
) {
    assert_eq!(sequence.form, (S::QMAX, S::STORAGE_OFFSET), "another set's sequence");
    let mut row = 0;
    // SAFETY: `sdpa_quantized_kv` checked that all rows are inside `q` and `out`, and sized the scratch; a group of rows is only made
    // where as many are left.
    unsafe {
        while row < count {
            let q = StridedRows { data: &q.data[row * q.stride..], stride: q.stride };
            let out = out.as_mut_ptr().add(row * out_stride);
            row += match count - row {
                left if left >= ROWS && S::TILE == Tile::R4x3 => {
                    group::<S, ROWS, 2>(sequence, q, scratch, out, out_stride)
                }
                left if left >= 4 => group::<S, 4, 1>(sequence, q, scratch, out, out_stride),
                left if left >= 2 => group::<S, 2, 1>(sequence, q, scratch, out, out_stride),
                _ => group::<S, 1, 1>(sequence, q, scratch, out, out_stride),
            };
        }
    }
}

/// The largest magnitude of a row; NaN or infinity where a value is not finite.
#[inline(always)]
unsafe fn magnitude<S: Simd>(row: *const f32, width: usize) -> f32 {
    // SAFETY: the caller's row has `width` values; it vouches for the instruction set.
    unsafe {
        let mut largest = S::int_splat(0);
        for i in (0..width).step_by(LANES) {
            largest = S::load(row.add(i)).magnitude(largest);
        }
        f32::from_bits(S::int_largest(largest) as u32)
    }
}

/// Turns the largest magnitudes of rows, whole vectors of them, into the steps of `levels` codes on each side, NaN where a
/// value was not finite, and the codes for one unit.
#[inline(always)]
unsafe fn steps<S: Simd>(magnitudes: &mut [f32], per_unit: &mut [f32], levels: f32) {
    // SAFETY: both slices are equally long, whole vectors; the caller vouches for the instruction set.
    unsafe {
        for i in (0..magnitudes.len()).step_by(LANES) {
            let largest = S::load(magnitudes.as_ptr().add(i));
            let bounded = S::splat(MIN_RANGE).max(largest);
            S::splat(levels).div(bounded).store(per_unit.as_mut_ptr().add(i));
            let step = largest.mul_add(S::splat(0.0), bounded.mul(S::splat(1.0 / levels)));
            step.store(magnitudes.as_mut_ptr().add(i));
        }
    }
}

/// Quantises the keys of a head.
#[inline(always)]
unsafe fn keys<S: Simd>(x: Qkv, head: &HeadSlice, sequence: &mut QuantizedKv) {
    let (width, tokens) = (head.head_dim, head.sequence.len());
    // SAFETY: keys have `width` values, whole vectors, and the sequence room for their codes, whole vectors of tokens; the
    // caller vouches for the instruction set.
    unsafe {
        let key = |t: usize| x.k[(head.sequence.start + t) * x.stride + head.offset..][..width].as_ptr();
        for t in 0..tokens {
            sequence.key_steps[t] = magnitude::<S>(key(t), width);
        }
        let whole = tokens.next_multiple_of(LANES);
        steps::<S>(&mut sequence.key_steps[..whole], &mut sequence.per_unit[..whole], KEY_LEVELS);
        for t in 0..tokens {
            let (key, scale) = (key(t), S::splat(sequence.per_unit[t]));
            let codes = sequence.keys.as_mut_ptr().add(t / LANES * LANES * width + t % LANES * 4);
            for i in (0..width).step_by(LANES) {
                let mut bytes = [0i8; LANES];
                S::load(key.add(i)).mul(scale).store_signed(bytes.as_mut_ptr());
                for four in 0..LANES / 4 {
                    let lane = codes.add((i / 4 + four) * 4 * LANES).cast::<[i8; 4]>();
                    lane.write_unaligned(bytes.as_ptr().add(4 * four).cast::<[i8; 4]>().read());
                }
            }
        }
        // What queries have added to their codes, but for what the set adds in memory itself.
        let zero = [((S::QMAX + 1) / 2) as u8 - S::STORAGE_OFFSET; 4];
        for t in (0..tokens).step_by(LANES) {
            let mut sums = S::int_splat(0);
            for d in (0..width).step_by(4) {
                let keys = S::load_bytes(sequence.keys.as_ptr().add(t * width + d * LANES));
                sums = S::dot_codes(sums, S::broadcast4(zero.as_ptr()), keys);
            }
            S::int_store(S::int_sub(S::int_splat(0), sums), sequence.key_starts.as_mut_ptr().add(t));
        }
    }
}

/// Quantises the values of a head.
#[inline(always)]
unsafe fn values<S: Simd>(x: Qkv, head: &HeadSlice, sequence: &mut QuantizedKv) {
    let (width, tokens) = (head.head_dim, head.sequence.len());
    // SAFETY: values have `width` numbers, whole vectors, and the sequence room for their codes; the caller vouches for the
    // instruction set.
    unsafe {
        let value = |t: usize| x.v[(head.sequence.start + t) * x.stride + head.offset..][..width].as_ptr();
        for t in 0..tokens {
            sequence.value_steps[t] = magnitude::<S>(value(t), width);
        }
        let whole = tokens.next_multiple_of(LANES);
        steps::<S>(&mut sequence.value_steps[..whole], &mut sequence.per_unit[..whole], KEY_LEVELS);
        // Zero, or NaN where a value was not finite: codes would hide it.
        sequence.poison = sequence.value_steps[..tokens].iter().map(|s| s * 0.0).sum();
        // Past the end stands a weight that is next to nothing; so that it is nothing.
        sequence.value_steps[tokens..].fill(0.0);
        for four in (0..tokens).step_by(4) {
            let codes = sequence.values.as_mut_ptr().add(four * width);
            for d in (0..width).step_by(LANES) {
                let mut code = [S::splat(0.0); 4];
                for i in 0..4 {
                    // Behind the last token, the last again: its weight there is zero.
                    let t = (four + i).min(tokens - 1);
                    code[i] = S::load(value(t).add(d)).mul(S::splat(sequence.per_unit[t]));
                }
                S::store_fours(code, codes.add(4 * d));
                if S::STORAGE_OFFSET != 0 {
                    let sums = sequence.value_sums[d..][..LANES].as_mut_ptr();
                    let total = code[0].rounded().add(code[1].rounded()).add(code[2].rounded().add(code[3].rounded()));
                    S::load(sums).add(total).store(sums);
                }
            }
        }
    }
}

/// The first `M` rows of queries; returns `M`.
#[inline(always)]
unsafe fn group<S: Simd, const M: usize, const NV: usize>(
    sequence: &QuantizedKv,
    q: StridedRows,
    scratch: &mut QueryScratch,
    out: *mut f32,
    out_stride: usize,
) -> usize {
    // SAFETY: as in `sdpa_impl`.
    unsafe {
        let factors = queries::<S, M>(q, sequence.width, scratch);
        scores::<S, M, NV>(sequence, scratch);
        let units = weights::<S, M>(sequence, scratch, &factors);
        let mut d = 0;
        while d < sequence.width {
            // Two vectors a pass, or the one that is left.
            if d + 2 * LANES <= sequence.width {
                weighted::<S, M, 2>(sequence, scratch, d, &units, out, out_stride);
                d += 2 * LANES;
            } else {
                weighted::<S, M, 1>(sequence, scratch, d, &units, out, out_stride);
                d += LANES;
            }
        }
    }
    M
}

/// Quantises rows of queries; returns the factor of each that makes scores powers of two.
#[inline(always)]
unsafe fn queries<S: Simd, const M: usize>(q: StridedRows, width: usize, scratch: &mut QueryScratch) -> [f32; LANES] {
    let zero = ((S::QMAX + 1) / 2) as f32;
    let (mut factors, mut per_unit) = ([0.0; LANES], [0.0; LANES]);
    // SAFETY: queries have `width` values, whole vectors, and the scratch room for their codes; the caller vouches for the
    // instruction set.
    unsafe {
        let query = |r: usize| q.data[r * q.stride..][..width].as_ptr();
        for r in 0..M {
            factors[r] = magnitude::<S>(query(r), width);
        }
        steps::<S>(&mut factors, &mut per_unit, zero - 1.0);
        for r in 0..M {
            let codes = scratch.codes.as_mut_ptr().add(r * width);
            for i in (0..width).step_by(LANES) {
                S::load(query(r).add(i)).mul_add(S::splat(per_unit[r]), S::splat(zero)).store_codes(codes.add(i));
            }
        }
        let scale = S::splat(std::f32::consts::LOG2_E / (width as f32).sqrt());
        S::load(factors.as_ptr()).mul(scale).store(factors.as_mut_ptr());
    }
    factors
}

/// Scores of `M` rows, but for the factor of the row.
#[inline(always)]
unsafe fn scores<S: Simd, const M: usize, const NV: usize>(sequence: &QuantizedKv, scratch: &mut QueryScratch) {
    let (tokens, width) = (sequence.tokens, sequence.width);
    let padded = padded(tokens);
    // SAFETY: as in `sdpa_impl`; tokens come in whole groups of `NV` vectors, for which the scratch has room.
    unsafe {
        let (queries, scores) = (scratch.codes.as_ptr(), scratch.scores.as_mut_ptr());
        for t in (0..tokens).step_by(NV * LANES) {
            let mut sums = [[S::int_splat(0); NV]; M];
            for j in 0..NV {
                let start = S::int_load(sequence.key_starts.as_ptr().add(t + j * LANES));
                for r in 0..M {
                    sums[r][j] = start;
                }
            }
            let keys = sequence.keys.as_ptr().add(t * width);
            for d in (0..width).step_by(4) {
                let mut k = [S::int_splat(0); NV];
                for j in 0..NV {
                    k[j] = S::load_bytes(keys.add(j * LANES * width + d * LANES));
                }
                for r in 0..M {
                    let q = S::broadcast4(queries.add(r * width + d));
                    for j in 0..NV {
                        sums[r][j] = S::dot_codes(sums[r][j], q, k[j]);
                    }
                }
            }
            for j in 0..NV {
                let steps = S::load(sequence.key_steps.as_ptr().add(t + j * LANES));
                for r in 0..M {
                    S::to_float(sums[r][j]).mul(steps).store(scores.add(r * padded + t + j * LANES));
                }
            }
        }
    }
}

/// Codes of the weights of `M` rows, whose scores become powers of two by `factors`; returns what a code is worth.
///
/// Each step is done for all rows, so that the reductions of one wait together with those of the others.
#[inline(always)]
unsafe fn weights<S: Simd, const M: usize>(
    sequence: &QuantizedKv,
    scratch: &mut QueryScratch,
    factors: &[f32; LANES],
) -> [f32; LANES] {
    let tokens = sequence.tokens;
    let padded = padded(tokens);
    let (mut largest, mut highest, mut sums, mut per_unit) = ([0.0; M], [0.0; LANES], [1.0; LANES], [0.0; LANES]);
    // SAFETY: the scratch has room for whole vectors of the rows; the caller vouches for the instruction set.
    unsafe {
        let value_steps = sequence.value_steps.as_ptr();
        for r in 0..M {
            let scores = scratch.scores.as_mut_ptr().add(r * padded);
            for t in tokens..tokens.next_multiple_of(LANES) {
                *scores.add(t) = f32::NEG_INFINITY;
            }
            let mut row = S::splat(f32::NEG_INFINITY);
            for t in (0..tokens).step_by(LANES) {
                row = S::load(scores.add(t)).max(row);
            }
            largest[r] = row.largest();
        }
        for r in 0..M {
            let scores = scratch.scores.as_mut_ptr().add(r * padded);
            let (scale, most) = (S::splat(factors[r]), S::splat(largest[r]));
            let (mut sum, mut high) = (S::splat(0.0), S::splat(0.0));
            for t in (0..tokens).step_by(LANES) {
                let weight = exp2_coarse(S::load(scores.add(t)).sub(most).mul(scale));
                sum = sum.add(weight);
                let weight = weight.mul(S::load(value_steps.add(t)));
                high = weight.max(high);
                weight.store(scores.add(t));
            }
            (sums[r], highest[r]) = (sum.sum(), high.largest());
        }
        steps::<S>(&mut highest, &mut per_unit, S::QMAX as f32);
        for r in 0..M {
            let scores = scratch.scores.as_ptr().add(r * padded);
            let codes = scratch.weights.as_mut_ptr().add(r * padded);
            for t in (0..tokens).step_by(LANES) {
                S::load(scores.add(t)).mul(S::splat(per_unit[r])).store_codes(codes.add(t));
            }
        }
        let units = S::load(highest.as_ptr()).div(S::load(sums.as_ptr())).add(S::splat(sequence.poison));
        units.store(highest.as_mut_ptr());
    }
    highest
}

/// Qkv of `sum p v`, for `NV` vectors of columns from `d` on; a code of a weight is worth `units[r]`.
#[inline(always)]
unsafe fn weighted<S: Simd, const M: usize, const NV: usize>(
    sequence: &QuantizedKv,
    scratch: &QueryScratch,
    d: usize,
    units: &[f32; LANES],
    out: *mut f32,
    out_stride: usize,
) {
    let (tokens, width) = (sequence.tokens, sequence.width);
    let padded = padded(tokens);
    // SAFETY: as in `sdpa_impl`.
    unsafe {
        let (weights, values) = (scratch.weights.as_ptr(), sequence.values.as_ptr().add(4 * d));
        let mut sums = [[S::int_splat(0); NV]; M];
        for j in 0..NV {
            let start = S::start(S::to_int(S::load(sequence.value_sums.as_ptr().add(d + j * LANES))));
            for r in 0..M {
                sums[r][j] = start;
            }
        }
        for t in (0..tokens).step_by(4) {
            let mut v = [S::int_splat(0); NV];
            for j in 0..NV {
                v[j] = S::load_bytes(values.add(t * width + j * 4 * LANES));
            }
            for r in 0..M {
                let p = S::broadcast4(weights.add(r * padded + t));
                for j in 0..NV {
                    sums[r][j] = S::dot_codes(sums[r][j], p, v[j]);
                }
            }
        }
        for r in 0..M {
            for j in 0..NV {
                let value = S::to_float(sums[r][j]).mul(S::splat(units[r]));
                value.store(out.add(r * out_stride + d + j * LANES));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Portable;

    /// AVX2 has coarser codes than the other sets; with as coarse ones, the portable kernel gives the same bits.
    #[test]
    fn avx2_is_the_portable_kernel_with_7_bits() {
        let Ok(avx2) = Isa::from_name("avx2") else { return };
        let (tokens, width) = (37, 32);
        let x: Vec<f32> = (0..tokens * 3 * width).map(|i| (i as f32 * 0.37).sin() * (1.0 + (i % 7) as f32)).collect();
        let rows = Qkv { q: &x, k: &x[width..], v: &x[2 * width..], stride: 3 * width };
        let head = HeadSlice { sequence: 0..tokens, queries: 0..tokens, offset: 0, head_dim: width };
        let (mut found, mut expected) = (vec![0.0; tokens * width], vec![0.0; tokens * width]);
        sdpa(avx2, rows, &head, &mut SdpaScratch::default(), &mut found, width);
        let SdpaScratch { mut sequence, mut queries } = SdpaScratch::default();
        sequence.make_room(tokens, width);
        queries.make_room(&sequence);
        let q = StridedRows { data: &x, stride: rows.stride };
        // SAFETY: the portable type needs nothing of the CPU; sizes are those that `sdpa` accepted.
        unsafe {
            fill::<Portable<127>>(rows, &head, &mut sequence);
            sdpa_impl::<Portable<127>>(&sequence, q, tokens, &mut queries, &mut expected, width);
        }
        assert_eq!(found, expected);
    }
}
