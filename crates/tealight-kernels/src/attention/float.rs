//! Attention in float: what the int8 one is measured against.
#![allow(clippy::needless_range_loop)] // Indices are rows and columns of tiles.

use super::{HeadSlice, Qkv, exponentials};
use crate::simd::{LANES, Simd, Tile};
use crate::{Isa, dispatch};

/// Query rows that share one pass over the keys.
const ROWS: usize = 4;

/// Columns of keys and scores for so many tokens: whole groups of four vectors.
fn padded(tokens: usize) -> usize {
    tokens.next_multiple_of(64)
}

/// Memory that calls share.
#[derive(Debug, Default)]
pub struct SdpaScratch {
    /// `[width, T padded]`: keys by column.
    keys: Vec<f32>,
    /// `[ROWS, T padded]`.
    scores: Vec<f32>,
}

/// `softmax(q k^T / sqrt(width)) v` (Vaswani et al. 2017, arXiv 1706.03762), without a mask, since a sequence holds no
/// padding. Row `i` of the queries goes to `out[i * out_stride..][..width]`.
///
/// # Panics
/// If rows, columns or `out` are not inside their slices, or `width` is not a multiple of 16.
pub fn sdpa(isa: Isa, x: Qkv, head: &HeadSlice, scratch: &mut SdpaScratch, out: &mut [f32], out_stride: usize) {
    head.check_queries(x, out.len(), out_stride);
    let padded = padded(head.sequence.len());
    scratch.scores.resize(ROWS * padded, 0.0);
    transpose(x, head, &mut scratch.keys, padded);
    dispatch!(isa, sdpa_impl(x: Qkv, head: &HeadSlice, scratch: &mut SdpaScratch, out: &mut [f32], out_stride: usize));
}

fn transpose(x: Qkv, head: &HeadSlice, keys: &mut Vec<f32>, padded: usize) {
    keys.clear();
    keys.resize(head.head_dim * padded, 0.0);
    for (t, row) in head.sequence.clone().enumerate() {
        let k = &x.k[row * x.stride + head.offset..][..head.head_dim];
        for (d, v) in k.iter().enumerate() {
            keys[d * padded + t] = *v;
        }
    }
}

#[inline(always)]
unsafe fn sdpa_impl<S: Simd>(x: Qkv, head: &HeadSlice, scratch: &mut SdpaScratch, out: &mut [f32], out_stride: usize) {
    let mut row = head.queries.start;
    // SAFETY: `sdpa` checked that all rows and columns are inside `x` and `out`, and sized the scratch; a group of
    // rows is only made where as many are left.
    unsafe {
        while row < head.queries.end {
            let out = out.as_mut_ptr().add((row - head.queries.start) * out_stride);
            if row + ROWS <= head.queries.end {
                match S::TILE {
                    Tile::R4x3 => group::<S, ROWS, 4>(x, head, scratch, row, out, out_stride),
                    Tile::R4x1 | Tile::R6x1 => group::<S, ROWS, 1>(x, head, scratch, row, out, out_stride),
                }
                row += ROWS;
            } else {
                group::<S, 1, 4>(x, head, scratch, row, out, out_stride);
                row += 1;
            }
        }
    }
}

#[inline(always)]
unsafe fn group<S: Simd, const M: usize, const NV: usize>(
    x: Qkv,
    head: &HeadSlice,
    scratch: &mut SdpaScratch,
    row: usize,
    out: *mut f32,
    out_stride: usize,
) {
    let (tokens, width) = (head.sequence.len(), head.head_dim);
    let padded = padded(tokens);
    // SAFETY: as in `sdpa_impl`; keys are `[width, padded]`, scores `[ROWS, padded]`, and `padded` is whole groups of
    // four vectors; `width` is whole vectors.
    unsafe {
        let q: [*const f32; M] = std::array::from_fn(|r| x.q.as_ptr().add((row + r) * x.stride + head.offset));
        let (keys, scores) = (scratch.keys.as_ptr(), scratch.scores.as_mut_ptr());
        for t in (0..tokens.next_multiple_of(NV * LANES)).step_by(NV * LANES) {
            let mut sums = [[S::splat(0.0); NV]; M];
            for d in 0..width {
                let mut k = [S::splat(0.0); NV];
                for j in 0..NV {
                    k[j] = S::load(keys.add(d * padded + t + j * LANES));
                }
                for r in 0..M {
                    let q = S::splat(*q[r].add(d));
                    for j in 0..NV {
                        sums[r][j] = q.mul_add(k[j], sums[r][j]);
                    }
                }
            }
            for r in 0..M {
                for j in 0..NV {
                    sums[r][j].store(scores.add(r * padded + t + j * LANES));
                }
            }
        }
        let mut totals = [0.0; M];
        for (r, total) in totals.iter_mut().enumerate() {
            *total = exponentials::<S>(scores.add(r * padded), tokens, width);
        }
        let v = x.v.as_ptr().add(head.sequence.start * x.stride + head.offset);
        let mut c = 0;
        while c < width {
            // Two vectors a pass, or the one that is left.
            if c + 2 * LANES <= width {
                weighted::<S, M, 2>(v.add(c), x.stride, scores, padded, tokens, &totals, out.add(c), out_stride);
                c += 2 * LANES;
            } else {
                weighted::<S, M, 1>(v.add(c), x.stride, scores, padded, tokens, &totals, out.add(c), out_stride);
                c += LANES;
            }
        }
    }
}

/// Qkv of `sum p v / total`, for `NV` vectors of columns.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // Pointers and strides of three matrices.
unsafe fn weighted<S: Simd, const M: usize, const NV: usize>(
    v: *const f32,
    stride: usize,
    p: *const f32,
    padded: usize,
    tokens: usize,
    totals: &[f32; M],
    out: *mut f32,
    out_stride: usize,
) {
    // SAFETY: the caller has `tokens` rows of `v`, M rows of `p` and of `out`, and `NV` vectors of columns in each.
    unsafe {
        let mut sums = [[S::splat(0.0); NV]; M];
        for t in 0..tokens {
            let mut row = [S::splat(0.0); NV];
            for (j, row) in row.iter_mut().enumerate() {
                *row = S::load(v.add(t * stride + j * LANES));
            }
            for r in 0..M {
                let p = S::splat(*p.add(r * padded + t));
                for j in 0..NV {
                    sums[r][j] = p.mul_add(row[j], sums[r][j]);
                }
            }
        }
        for r in 0..M {
            let inverse = S::splat(1.0 / totals[r]);
            for j in 0..NV {
                sums[r][j].mul(inverse).store(out.add(r * out_stride + j * LANES));
            }
        }
    }
}
