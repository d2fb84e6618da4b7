//! Attention in float32: used by networks in float32, and the reference for [`int8`](super::int8).
#![allow(clippy::needless_range_loop)] // Indices are rows and columns of tiles.

use super::softmax::exponentials;
use super::views::{HeadSlice, Qkv};
use crate::dispatch::dispatch;
use crate::isa::Isa;
use crate::simd::{LANES, Simd, Tile};

/// Rows of queries that share a pass over the keys.
const QUERY_ROWS: usize = 4;

/// Tokens padded to four vectors, the widest tile.
fn padded(tokens: usize) -> usize {
    tokens.next_multiple_of(4 * LANES)
}

/// Scratch memory that calls can share.
#[derive(Debug, Default)]
pub struct SdpaScratch {
    /// Transposed keys, `[head_dim, padded tokens]`.
    keys: Vec<f32>,
    /// `[QUERY_ROWS, padded tokens]`.
    scores: Vec<f32>,
}

/// Computes `softmax(q k^T / sqrt(head_dim)) v` for the queries of a head. Row `i` is written to
/// `out[i * out_stride..][..head_dim]`.
///
/// # Panics
/// If rows, columns or `out` are outside their slices, or `head_dim` is not a multiple of 16.
pub fn sdpa(isa: Isa, x: Qkv, head: &HeadSlice, scratch: &mut SdpaScratch, out: &mut [f32], out_stride: usize) {
    head.check(x, out.len(), out_stride);
    let padded = padded(head.sequence.len());
    scratch.scores.resize(QUERY_ROWS * padded, 0.0);
    transpose_keys(x, head, &mut scratch.keys, padded);
    dispatch!(isa, sdpa_rows(x: Qkv, head: &HeadSlice, scratch: &mut SdpaScratch, out: &mut [f32], out_stride: usize));
}

fn transpose_keys(x: Qkv, head: &HeadSlice, keys: &mut Vec<f32>, padded: usize) {
    keys.clear();
    keys.resize(head.head_dim * padded, 0.0);
    for (t, row) in head.sequence.clone().enumerate() {
        let k = &x.k[row * x.stride + head.first_column..][..head.head_dim];
        for (d, v) in k.iter().enumerate() {
            keys[d * padded + t] = *v;
        }
    }
}

#[inline(always)]
unsafe fn sdpa_rows<S: Simd>(x: Qkv, head: &HeadSlice, scratch: &mut SdpaScratch, out: &mut [f32], out_stride: usize) {
    let mut row = head.queries.start;
    // SAFETY: `sdpa` checked that all rows and columns are inside `x` and `out`, and resized the scratch; a tile is only computed
    // if as many rows remain.
    unsafe {
        while row < head.queries.end {
            let out = out.as_mut_ptr().add((row - head.queries.start) * out_stride);
            if row + QUERY_ROWS <= head.queries.end {
                match S::TILE {
                    // `R4x3` stands for AVX-512, whose 32 registers also hold this larger tile.
                    Tile::R4x3 => sdpa_tile::<S, QUERY_ROWS, 4>(x, head, scratch, row, out, out_stride),
                    Tile::R4x1 | Tile::R6x1 => sdpa_tile::<S, QUERY_ROWS, 1>(x, head, scratch, row, out, out_stride),
                }
                row += QUERY_ROWS;
            } else {
                sdpa_tile::<S, 1, 4>(x, head, scratch, row, out, out_stride);
                row += 1;
            }
        }
    }
}

#[inline(always)]
unsafe fn sdpa_tile<S: Simd, const MR: usize, const NV: usize>(
    x: Qkv,
    head: &HeadSlice,
    scratch: &mut SdpaScratch,
    row: usize,
    out: *mut f32,
    out_stride: usize,
) {
    let (tokens, head_dim) = (head.sequence.len(), head.head_dim);
    let padded = padded(tokens);
    // SAFETY: as in `sdpa_rows`; keys are `[head_dim, padded]`, scores `[QUERY_ROWS, padded]`, and `padded` is a multiple of four
    // vectors; `head_dim` is whole vectors.
    unsafe {
        let q: [*const f32; MR] = std::array::from_fn(|r| x.q.as_ptr().add((row + r) * x.stride + head.first_column));
        let (keys, scores) = (scratch.keys.as_ptr(), scratch.scores.as_mut_ptr());
        for t in (0..tokens.next_multiple_of(NV * LANES)).step_by(NV * LANES) {
            let mut sums = [[S::splat(0.0); NV]; MR];
            for d in 0..head_dim {
                let mut k = [S::splat(0.0); NV];
                for j in 0..NV {
                    k[j] = S::load(keys.add(d * padded + t + j * LANES));
                }
                for r in 0..MR {
                    let q = S::splat(*q[r].add(d));
                    for j in 0..NV {
                        sums[r][j] = q.mul_add(k[j], sums[r][j]);
                    }
                }
            }
            for r in 0..MR {
                for j in 0..NV {
                    sums[r][j].store(scores.add(r * padded + t + j * LANES));
                }
            }
        }
        let mut totals = [0.0; MR];
        for (r, total) in totals.iter_mut().enumerate() {
            *total = exponentials::<S>(scores.add(r * padded), tokens, head_dim);
        }
        let v = x.v.as_ptr().add(head.sequence.start * x.stride + head.first_column);
        let mut c = 0;
        while c < head_dim {
            // Two vectors per pass over the values, then one.
            if c + 2 * LANES <= head_dim {
                weighted_sums::<S, MR, 2>(v.add(c), x.stride, scores, padded, tokens, &totals, out.add(c), out_stride);
                c += 2 * LANES;
            } else {
                weighted_sums::<S, MR, 1>(v.add(c), x.stride, scores, padded, tokens, &totals, out.add(c), out_stride);
                c += LANES;
            }
        }
    }
}

/// `sum of weight * value / total` for `MR` rows and `NV` vectors of columns.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // Pointers and strides of three matrices.
unsafe fn weighted_sums<S: Simd, const MR: usize, const NV: usize>(
    v: *const f32,
    stride: usize,
    weights: *const f32,
    padded: usize,
    tokens: usize,
    totals: &[f32; MR],
    out: *mut f32,
    out_stride: usize,
) {
    // SAFETY: the caller has `tokens` rows of `v`, `MR` rows of `weights` and of `out`, and `NV` vectors of columns in each.
    unsafe {
        let mut sums = [[S::splat(0.0); NV]; MR];
        for t in 0..tokens {
            let mut value = [S::splat(0.0); NV];
            for (j, value) in value.iter_mut().enumerate() {
                *value = S::load(v.add(t * stride + j * LANES));
            }
            for r in 0..MR {
                let weight = S::splat(*weights.add(r * padded + t));
                for j in 0..NV {
                    sums[r][j] = weight.mul_add(value[j], sums[r][j]);
                }
            }
        }
        for r in 0..MR {
            let inv_total = S::splat(1.0 / totals[r]);
            for j in 0..NV {
                sums[r][j].mul(inv_total).store(out.add(r * out_stride + j * LANES));
            }
        }
    }
}
