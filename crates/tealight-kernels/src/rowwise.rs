//! What works on one row at a time: normalisation, activations, softmax, sums.

use super::simd::{LANES, SHIFT, Simd};
use super::{Isa, dispatch};

/// How much of a row is whole vectors.
#[inline(always)]
fn whole(length: usize) -> usize {
    length / LANES * LANES
}

/// Calls `f` for every vector of a row, in place, and for the rest of the row as a vector filled with zeros: so a value's
/// result does not depend on its place.
#[inline(always)]
unsafe fn map<S: Simd>(row: &mut [f32], f: impl Fn(S) -> S) {
    let whole = whole(row.len());
    // SAFETY: vectors end at `whole`, inside the row, and the rest has its own; the caller vouches for the instruction set.
    unsafe {
        for i in (0..whole).step_by(LANES) {
            f(S::load(row.as_ptr().add(i))).store(row.as_mut_ptr().add(i));
        }
        if whole < row.len() {
            let mut rest = [0.0; LANES];
            let left = row.len() - whole;
            rest[..left].copy_from_slice(&row[whole..]);
            f(S::load(rest.as_ptr())).store(rest.as_mut_ptr());
            row[whole..].copy_from_slice(&rest[..left]);
        }
    }
}

/// The sum of `f(i)` over the vectors of a row, and behind them of `g(i)` value by value.
#[inline(always)]
unsafe fn sum<S: Simd>(length: usize, f: impl Fn(usize, S) -> S, g: impl Fn(usize) -> f32) -> f32 {
    let whole = whole(length);
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        // Two sums, since each addition waits for the one before it.
        let (mut even, mut odd) = (S::splat(0.0), S::splat(0.0));
        let pairs = whole / (2 * LANES) * (2 * LANES);
        for i in (0..pairs).step_by(2 * LANES) {
            even = f(i, even);
            odd = f(i + LANES, odd);
        }
        if pairs < whole {
            even = f(pairs, even);
        }
        let mut total = even.add(odd).sum();
        for i in whole..length {
            total += g(i);
        }
        total
    }
}

/// LayerNorm over each row of `weight.len()` values, in place: `(x - mean) / sqrt(variance + eps) * weight + bias` with
/// the biased variance (Ba, Kiros, Hinton 2016, arXiv 1607.06450).
///
/// # Panics
/// If `weight` and `bias` differ in length or are empty, or `rows` is not whole rows.
pub fn layer_norm(isa: Isa, rows: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    assert!(weight.len() == bias.len() && !weight.is_empty() && rows.len().is_multiple_of(weight.len()));
    dispatch!(isa, layer_norm_of(rows: &mut [f32], weight: &[f32], bias: &[f32], eps: f32));
}

/// Rows whose sums wait together.
const TOGETHER: usize = 4;

#[inline(always)]
unsafe fn layer_norm_of<S: Simd>(rows: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let (d, whole) = (weight.len(), whole(weight.len()));
    for rows in rows.chunks_mut(TOGETHER * d) {
        let (mut means, mut scales) = ([0.0; TOGETHER], [0.0; TOGETHER]);
        // SAFETY: vectors end at `whole`, inside row, weight and bias; the caller vouches for the instruction set.
        unsafe {
            for (row, mean) in rows.chunks_exact(d).zip(&mut means) {
                let x = row.as_ptr();
                let add = |i: usize| *x.add(i);
                *mean = sum::<S>(
                    d,
                    #[inline(always)]
                    |i, sum| S::load(x.add(i)).add(sum),
                    add,
                ) / d as f32;
            }
            for ((row, mean), scale) in rows.chunks_exact(d).zip(means).zip(&mut scales) {
                let (x, centre) = (row.as_ptr(), S::splat(mean));
                let add = |i: usize| (*x.add(i) - mean) * (*x.add(i) - mean);
                let squares = sum::<S>(
                    d,
                    #[inline(always)]
                    |i, sum| {
                        let v = S::load(x.add(i)).sub(centre);
                        v.mul_add(v, sum)
                    },
                    add,
                );
                *scale = 1.0 / (squares / d as f32 + eps).sqrt();
            }
            for ((row, mean), scale) in rows.chunks_exact_mut(d).zip(means).zip(scales) {
                let (centre, factor) = (S::splat(mean), S::splat(scale));
                for i in (0..whole).step_by(LANES) {
                    let v = S::load(row.as_ptr().add(i)).sub(centre).mul(factor);
                    let (w, b) = (S::load(weight.as_ptr().add(i)), S::load(bias.as_ptr().add(i)));
                    v.mul_add(w, b).store(row.as_mut_ptr().add(i));
                }
                for i in whole..d {
                    row[i] = (row[i] - mean) * scale * weight[i] + bias[i];
                }
            }
        }
    }
}

/// RMSNorm over each row of `weight.len()` values, in place: `x / sqrt(mean of squares + eps) * weight` (Zhang and Sennrich
/// 2019, arXiv 1910.07467).
///
/// # Panics
/// If `weight` is empty, or `rows` is not whole rows.
pub fn rms_norm(isa: Isa, rows: &mut [f32], weight: &[f32], eps: f32) {
    assert!(!weight.is_empty() && rows.len().is_multiple_of(weight.len()));
    dispatch!(isa, rms_norm_of(rows: &mut [f32], weight: &[f32], eps: f32));
}

#[inline(always)]
unsafe fn rms_norm_of<S: Simd>(rows: &mut [f32], weight: &[f32], eps: f32) {
    let (d, whole) = (weight.len(), whole(weight.len()));
    for row in rows.chunks_exact_mut(d) {
        // SAFETY: vectors end at `whole`, inside row and weight; the caller vouches for the instruction set.
        unsafe {
            let scale = 1.0 / (dot_of::<S>(row, row) / d as f32 + eps).sqrt();
            for i in (0..whole).step_by(LANES) {
                let v = S::load(row.as_ptr().add(i)).mul(S::splat(scale)).mul(S::load(weight.as_ptr().add(i)));
                v.store(row.as_mut_ptr().add(i));
            }
            for i in whole..d {
                row[i] = row[i] * scale * weight[i];
            }
        }
    }
}

/// Adds `bias` to each row of `bias.len()` values.
///
/// # Panics
/// If `bias` is empty, or `rows` is not whole rows.
pub fn add_bias(rows: &mut [f32], bias: &[f32]) {
    assert!(!bias.is_empty() && rows.len().is_multiple_of(bias.len()));
    rows.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias));
}

/// `x += y`, value by value.
///
/// # Panics
/// If they differ in length.
pub fn add(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// The dot product of two rows.
///
/// # Panics
/// If they differ in length.
pub fn dot(isa: Isa, x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len());
    dispatch!(isa, dot_of(x: &[f32], y: &[f32]) -> f32)
}

#[inline(always)]
unsafe fn dot_of<S: Simd>(x: &[f32], y: &[f32]) -> f32 {
    let (x_at, y_at) = (x.as_ptr(), y.as_ptr());
    // SAFETY: `sum` asks for whole vectors inside the rows, which are equally long; the caller vouches for the set.
    unsafe {
        sum::<S>(
            x.len(),
            #[inline(always)]
            |i, sum| S::load(x_at.add(i)).mul_add(S::load(y_at.add(i)), sum),
            |i| x[i] * y[i],
        )
    }
}

/// `out [M, N] = x W^T` in f32, for `x [M, k]` and `w [N, k]`.
///
/// # Panics
/// If `k` is 0, or the sizes do not fit each other.
pub fn matmul(isa: Isa, x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
    assert!(k > 0 && x.len().is_multiple_of(k) && w.len().is_multiple_of(k));
    assert_eq!(out.len(), x.len() / k * (w.len() / k));
    dispatch!(isa, matmul_of(x: &[f32], w: &[f32], k: usize, out: &mut [f32]));
}

#[inline(always)]
unsafe fn matmul_of<S: Simd>(x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(k).zip(out.chunks_exact_mut(w.len() / k)) {
        for (value, w) in out.iter_mut().zip(w.chunks_exact(k)) {
            // SAFETY: both rows have `k` values; the caller vouches for the instruction set.
            *value = unsafe { dot_of::<S>(x, w) };
        }
    }
}

/// The largest error of the exact GELU, relative to the larger of 1 and the value's magnitude.
pub const GELU_ERROR: f64 = 5e-7;

/// GELU with the exact error function, `x * (1 + erf(x / sqrt 2)) / 2` (Hendrycks and Gimpel 2016, arXiv 1606.08415), for
/// each value, to [`GELU_ERROR`]. NaN and minus infinity become NaN.
pub fn gelu_erf(isa: Isa, rows: &mut [f32]) {
    dispatch!(isa, gelu_of(rows: &mut [f32]));
}

#[inline(always)]
unsafe fn gelu_of<S: Simd>(rows: &mut [f32]) {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        map(
            rows,
            #[inline(always)]
            |v: S| gelu(v),
        )
    }
}

/// From where on GELU is the value or 0, to [`GELU_ERROR`].
const GELU_LIMIT: f32 = 5.0;
/// `erf(x / sqrt 2) / 2x` as a polynomial of `2 x^2 / 25 - 1`, fitted to the largest error of GELU, and to 1/10 at the
/// limit (tests/fixtures/fit.py).
const ERF: [f32; 13] = [
    7.340_204e-4,
    -1.710_891_7e-3,
    1.411_143_8e-3,
    -2.455_476_4e-3,
    6.695_019e-3,
    -1.135_882_7e-2,
    1.628_579_4e-2,
    -2.319_797_5e-2,
    3.146_288_5e-2,
    -4.045_286e-2,
    5.151_924_5e-2,
    -7.029_588e-2,
    1.413_638e-1,
];

/// A polynomial by Horner's rule, highest coefficient first.
#[inline(always)]
unsafe fn polynomial<S: Simd, const N: usize>(x: S, coefficients: &[f32; N]) -> S {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let mut value = S::splat(coefficients[0]);
        for c in &coefficients[1..] {
            value = value.mul_add(x, S::splat(*c));
        }
        value
    }
}

/// GELU of each lane.
#[inline(always)]
pub(crate) unsafe fn gelu<S: Simd>(x: S) -> S {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        // NaN, as the second operand, stays.
        let z = S::splat(GELU_LIMIT).min(S::splat(-GELU_LIMIT).max(x));
        let t = z.mul(z).mul_add(S::splat(2.0 / (GELU_LIMIT * GELU_LIMIT)), S::splat(-1.0));
        let half_erf = z.mul(polynomial(t, &ERF));
        x.mul_add(half_erf, x.mul(S::splat(0.5)))
    }
}

/// GELU with the tanh approximation, which models trained as `gelu_new` or `gelu_pytorch_tanh` want.
pub fn gelu_tanh(rows: &mut [f32]) {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    for v in rows {
        let inner = SQRT_2_OVER_PI * (*v + 0.044_715 * *v * *v * *v);
        *v = 0.5 * *v * (1.0 + libm::tanhf(inner));
    }
}

/// `2^x` on [-1/2, 1/2] to 1e-4, where 8-bit codes follow.
const EXP2_COARSE: [f32; 4] = [5.500_869e-2, 2.422_109_7e-1, 6.932_83e-1, 1.0];

/// The largest relative error of [`softmax`]'s and [`silu`]'s exponentials, but for arguments of large magnitude, whose own
/// rounding counts.
pub const EXP_ERROR: f64 = 2e-7;
/// Below this power of two an exponential stays at it: what is smaller would not be a normal number.
const LOWEST_POWER: f32 = -125.0;
/// `2^x` on [-1/2, 1/2], fitted to the largest relative error (tests/fixtures/fit.py).
#[allow(clippy::approx_constant)] // Next to ln 2, as the fit has it.
const EXP2: [f32; 6] = [1.326_473_5e-3, 9.671_518e-3, 5.550_734e-2, 2.402_224_2e-1, 6.931_47e-1, 1.0];

/// `2^x` of each lane, to [`EXP_ERROR`], for `x <= 126`; `2^-125` below -125. NaN stays.
#[inline(always)]
pub(crate) unsafe fn exp2<S: Simd>(x: S) -> S {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { exp2_by(x, &EXP2) }
}

/// As [`exp2`], to 1e-4.
#[inline(always)]
pub(crate) unsafe fn exp2_coarse<S: Simd>(x: S) -> S {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { exp2_by(x, &EXP2_COARSE) }
}

#[inline(always)]
unsafe fn exp2_by<S: Simd, const N: usize>(x: S, coefficients: &[f32; N]) -> S {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let x = S::splat(LOWEST_POWER).max(x);
        let shifted = x.add(S::splat(SHIFT));
        let fraction = x.sub(shifted.sub(S::splat(SHIFT)));
        polynomial(fraction, coefficients).times_power(shifted)
    }
}

/// SiLU, `x / (1 + exp(-x))` (Elfwing, Uchibe, Doya 2017, arXiv 1702.03118), for each value.
pub fn silu(isa: Isa, rows: &mut [f32]) {
    dispatch!(isa, silu_of(rows: &mut [f32]));
}

#[inline(always)]
unsafe fn silu_of<S: Simd>(rows: &mut [f32]) {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        map(
            rows,
            #[inline(always)]
            |v: S| {
                // Below, the result is next to nothing, and the exponential too large for a float. NaN stays.
                let v = S::splat(-88.0).max(v);
                v.div(exp2(v.mul(S::splat(-std::f32::consts::LOG2_E))).add(S::splat(1.0)))
            },
        );
    }
}

/// Softmax of a row, in place: `exp(x - largest)` over the sum of them. A row with NaN becomes NaN.
pub fn softmax(isa: Isa, row: &mut [f32]) {
    dispatch!(isa, softmax_of(row: &mut [f32]));
}

#[inline(always)]
unsafe fn softmax_of<S: Simd>(row: &mut [f32]) {
    let largest = row.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        map(
            row,
            #[inline(always)]
            |v: S| exp2(v.sub(S::splat(largest)).mul(S::splat(std::f32::consts::LOG2_E))),
        );
        let x = row.as_ptr();
        let total = sum::<S>(
            row.len(),
            #[inline(always)]
            |i, sum| S::load(x.add(i)).add(sum),
            |i| *x.add(i),
        );
        let scale = S::splat(1.0 / total);
        map(
            row,
            #[inline(always)]
            |v: S| v.mul(scale),
        );
    }
}

/// Scales a vector to length 1; a zero vector stays zero.
pub fn normalize(vector: &mut [f32]) {
    let norm = dot(Isa::Scalar, vector, vector).sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|v| *v /= norm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::sum_lanes;

    #[test]
    fn every_set_adds_lanes_in_one_order() {
        let lanes: [f32; LANES] = std::array::from_fn(|i| (i as f32 * 0.7).exp() * if i % 3 == 0 { -1.0 } else { 1.0 });
        for isa in Isa::available() {
            assert_eq!(dot(isa, &lanes, &[1.0; LANES]).to_bits(), sum_lanes(lanes).to_bits(), "{}", isa.as_str());
        }
    }
}
