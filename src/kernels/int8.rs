//! Products of int8 weights, packed for the kernels, with activations quantised on the way.
//!
//! Weights have one scale an output row and are symmetric, `w = t q` with `q` in -127..=127. Activations have one scale
//! and one zero point a row, `x / smooth = s (u - z)` with `u` in 0..=255 (0..=127 on AVX2). So
//! `y = s t (sum u q - z sum q) + bias`: the sums are exact integers, and nothing is scaled inside the loop over K.
//! Dividing each input channel by `smooth`, and multiplying the weights by it, evens out channels of different size
//! (SmoothQuant, Xiao et al. 2022, arXiv 2211.10438).
#![allow(clippy::needless_range_loop)] // Indices are rows and columns of tiles.

use super::simd::Simd;
use super::{Isa, dispatch};
use crate::error::{Error, Result};
use bytes::Bytes;

/// Outputs of a panel.
pub const PANEL: usize = 16;
/// K is filled with zero weights to a multiple of this.
pub const STEP: usize = 64;
/// Scale, sum and bias of a panel's outputs, in bytes.
const META: usize = 3 * PANEL * 4;

/// A matrix `[N, K]` with its bias, as the kernels read it, in a mapped file or in memory.
///
/// Layout: `1 / smooth` `[K padded]` f32; then for each 16 outputs a panel: weights `[K padded / 4][16][4]` i8, scale
/// `[16]` f32, sum of weights `[16]` i32, bias `[16]` f32. Little-endian, without gaps.
#[derive(Debug, Clone)]
pub struct Packed {
    bytes: Bytes,
    n: usize,
    k: usize,
}

impl Packed {
    /// Packs `weights [N, K]` and `bias [N]`; `smooth [K]` is what input channels are divided by.
    ///
    /// # Errors
    /// The shape cannot be packed: N and K must be multiples of 16.
    pub fn of(weights: &[f32], bias: &[f32], smooth: &[f32]) -> Result<Self> {
        let (n, k) = (bias.len(), smooth.len());
        let fits = n > 0 && k > 0 && n.is_multiple_of(PANEL) && k.is_multiple_of(PANEL);
        if !fits || weights.len() != n * k {
            return Err(Error::model(format!(
                "a matrix [{n}, {k}] cannot be packed: both must be multiples of {PANEL}"
            )));
        }
        Ok(Self { bytes: pack(weights, bias, smooth).into(), n, k })
    }

    /// N.
    pub fn rows(&self) -> usize {
        self.n
    }

    /// K.
    pub fn columns(&self) -> usize {
        self.k
    }

    fn padded(&self) -> usize {
        self.k.next_multiple_of(STEP)
    }

    fn panel_bytes(&self) -> usize {
        PANEL * self.padded() + META
    }
}

fn pack(weights: &[f32], bias: &[f32], smooth: &[f32]) -> Vec<u8> {
    let (n, k) = (bias.len(), smooth.len());
    let padded = k.next_multiple_of(STEP);
    let mut out = Vec::with_capacity(4 * padded + n / PANEL * (PANEL * padded + META));
    let inverse = smooth.iter().map(|s| 1.0 / s).chain(std::iter::repeat(0.0));
    inverse.take(padded).for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
    let rows: Vec<Row> = weights.chunks_exact(k).map(|row| Row::quantise(row, smooth)).collect();
    for (rows, bias) in rows.chunks_exact(PANEL).zip(bias.chunks_exact(PANEL)) {
        for group in 0..padded / 4 {
            for row in rows {
                out.extend((4 * group..4 * group + 4).map(|i| row.codes.get(i).copied().unwrap_or(0) as u8));
            }
        }
        rows.iter().for_each(|r| out.extend_from_slice(&r.scale.to_le_bytes()));
        rows.iter().for_each(|r| out.extend_from_slice(&r.sum().to_le_bytes()));
        bias.iter().for_each(|b| out.extend_from_slice(&b.to_le_bytes()));
    }
    out
}

struct Row {
    codes: Vec<i8>,
    scale: f32,
}

impl Row {
    fn quantise(row: &[f32], smooth: &[f32]) -> Self {
        let row: Vec<f32> = row.iter().zip(smooth).map(|(w, s)| w * s).collect();
        let largest = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        Self { codes: row.iter().map(|v| (v / scale).round() as i8).collect(), scale }
    }

    fn sum(&self) -> i32 {
        self.codes.iter().map(|c| *c as i32).sum()
    }
}

/// Rows of activations, quantised for one matrix. Kept between calls, so that nothing is allocated on the way.
#[derive(Debug, Default)]
pub struct Codes {
    codes: Vec<u8>,
    scale: Vec<f32>,
    zero: Vec<i32>,
    width: usize,
    /// The highest code, by the set that quantised.
    levels: i32,
}

impl Codes {
    /// Quantises rows of K values for products with `w`; a row depends on no other.
    ///
    /// A row with a value that is not finite gets the scale NaN, so that what was wrong stays visible.
    pub fn quantise(&mut self, isa: Isa, rows: &[f32], w: &Packed) {
        assert!(rows.len().is_multiple_of(w.k), "rows of {} values", w.k);
        let count = rows.len() / w.k;
        self.width = w.padded();
        self.codes.resize(count * self.width, 0);
        self.scale.resize(count, 0.0);
        self.zero.resize(count, 0);
        let codes = self;
        dispatch!(isa, quantise(rows: &[f32], w: &Packed, codes: &mut Codes));
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.scale.len()
    }
}

#[inline(always)]
unsafe fn quantise<S: Simd>(rows: &[f32], w: &Packed, out: &mut Codes) {
    out.levels = S::LEVELS;
    let inverse = w.bytes.as_ptr().cast::<f32>();
    for (r, row) in rows.chunks_exact(w.k).enumerate() {
        // SAFETY: `row` and the file's `1 / smooth` have K values, a multiple of 16 and so of the lanes, and the row of
        // codes as many bytes; the caller vouches for the instruction set.
        unsafe {
            let nothing = S::splat(0.0);
            let (mut low, mut high, mut check) = (nothing, nothing, nothing);
            for i in (0..w.k).step_by(S::LANES) {
                let v = S::load(row.as_ptr().add(i)).mul(S::load(inverse.add(i)));
                low = v.min(low);
                high = v.max(high);
                check = v.mul_add(nothing, check);
            }
            let (low, high) = (-S::splat(0.0).sub(low).largest(), high.largest());
            let step = (high - low) / S::LEVELS as f32;
            let step = if step > 0.0 { step } else { 1.0 };
            let zero = (-low / step).round_ties_even();
            let (scale, offset) = (S::splat(1.0 / step), S::splat(zero));
            let codes = out.codes.as_mut_ptr().add(r * out.width);
            for i in (0..w.k).step_by(S::LANES) {
                let code = S::load(row.as_ptr().add(i)).mul(S::load(inverse.add(i))).mul_add(scale, offset);
                code.max(nothing).min(S::splat(S::LEVELS as f32)).store_codes(codes.add(i));
            }
            // Zero, or NaN where a value was not finite.
            out.scale[r] = step + check.sum();
            out.zero[r] = zero as i32;
        }
        out.codes[r * out.width + w.k..(r + 1) * out.width].fill(0);
    }
}

/// What a product becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The output.
    Store,
    /// The output, through the exact GELU.
    Gelu,
    /// Added to the output.
    Add,
}

/// `out [rows, N] = x W^T + bias`, or what [`Then`] makes of it.
///
/// # Panics
/// If `x` was quantised for another K or by a set of more levels, or `out` has another size.
pub fn gemm(isa: Isa, x: &Codes, w: &Packed, then: Then, out: &mut [f32]) {
    assert_eq!(x.width, w.padded());
    assert_eq!(out.len(), x.rows() * w.n);
    dispatch!(isa, product(x: &Codes, w: &Packed, then: Then, out: &mut [f32]));
}

#[inline(always)]
unsafe fn product<S: Simd>(x: &Codes, w: &Packed, then: Then, out: &mut [f32]) {
    assert!(x.levels <= S::LEVELS, "codes up to {} on a set that is exact up to {}", x.levels, S::LEVELS);
    // SAFETY: columns and rows stay below N and the rows of `x`, whose sizes `gemm` checked; the caller vouches for the
    // instruction set.
    unsafe {
        // 24 sums of 16 lanes and 8 of 8 fill the registers of either set.
        if S::LANES == 16 {
            let wide = w.n / (3 * PANEL) * (3 * PANEL);
            for c in (0..wide).step_by(3 * PANEL) {
                column::<S, 8, 3>(x, w, c, then, out);
            }
            for c in (wide..w.n).step_by(PANEL) {
                column::<S, 8, 1>(x, w, c, then, out);
            }
        } else {
            for c in (0..w.n).step_by(PANEL) {
                column::<S, 4, 2>(x, w, c, then, out);
            }
        }
    }
}

/// All rows of `NV` vectors of columns, `MR` at a time and then fewer.
#[inline(always)]
unsafe fn column<S: Simd, const MR: usize, const NV: usize>(
    x: &Codes,
    w: &Packed,
    c: usize,
    then: Then,
    out: &mut [f32],
) {
    let rows = x.rows();
    let mut r = 0;
    // SAFETY: a tile of m rows is only made where m rows are left.
    unsafe {
        while r + MR <= rows {
            tile::<S, MR, NV>(x, w, r, c, then, out);
            r += MR;
        }
        if MR > 4 && r + 4 <= rows {
            tile::<S, 4, NV>(x, w, r, c, then, out);
            r += 4;
        }
        if r + 2 <= rows {
            tile::<S, 2, NV>(x, w, r, c, then, out);
            r += 2;
        }
        if r < rows {
            tile::<S, 1, NV>(x, w, r, c, then, out);
        }
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, const MR: usize, const NV: usize>(
    x: &Codes,
    w: &Packed,
    row: usize,
    column: usize,
    then: Then,
    out: &mut [f32],
) {
    let (depth, panel) = (x.width, w.panel_bytes());
    // SAFETY: the caller has `row + MR` rows of `x` and `column + NV * LANES` columns of `w`, and `out` has room for
    // them; a panel holds `depth * 16` weights and behind them scale, sum and bias.
    unsafe {
        let first = w.bytes.as_ptr().add(4 * depth);
        let of = |j: usize| {
            let c = column + j * S::LANES;
            (first.add(c / PANEL * panel), c % PANEL * 4)
        };
        let weights: [*const i8; NV] = std::array::from_fn(|j| of(j).0.add(of(j).1).cast());
        let codes = x.codes.as_ptr().add(row * depth);
        let mut sums = [[S::int_zero(); NV]; MR];
        for k in (0..depth).step_by(4) {
            let mut b = [S::int_zero(); NV];
            for j in 0..NV {
                b[j] = S::load_weights(weights[j].add(k * PANEL));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let a = S::broadcast4(codes.add(r * depth + k));
                for j in 0..NV {
                    sums[j] = S::dot4(sums[j], a, b[j]);
                }
            }
        }
        for j in 0..NV {
            let meta = of(j).0.add(PANEL * depth + of(j).1);
            let (scale, bias) = (S::load(meta.cast()), S::load(meta.add(8 * PANEL).cast()));
            let sum = S::int_load(meta.add(4 * PANEL).cast());
            for (r, sums) in sums.iter().enumerate() {
                let exact = S::int_sub(sums[j], S::int_mul(S::int_splat(x.zero[row + r]), sum));
                let y = S::to_float(exact).mul(S::splat(x.scale[row + r])).mul_add(scale, bias);
                let at = out.as_mut_ptr().add((row + r) * w.n + column + j * S::LANES);
                match then {
                    Then::Store => y.store(at),
                    Then::Gelu => super::rowwise::gelu(y).store(at),
                    Then::Add => S::load(at).add(y).store(at),
                }
            }
        }
    }
}
