//! Activation functions and softmax.

use super::exp2::{exp2, polynomial};
use super::lanes::{map, reduce};
use crate::dispatch::dispatch;
use crate::isa::Isa;
use crate::simd::Simd;

/// The largest error of [`gelu_erf`], relative to the larger of 1 and the magnitude of the value.
pub const GELU_ERROR: f64 = 5e-7;

/// GELU with the exact error function, `x * (1 + erf(x / sqrt 2)) / 2` (Hendrycks and Gimpel 2016, arXiv 1606.08415), of each
/// value, to [`GELU_ERROR`]. NaN and minus infinity become NaN.
pub fn gelu_erf(isa: Isa, rows: &mut [f32]) {
    dispatch!(isa, gelu_values(rows: &mut [f32]));
}

#[inline(always)]
unsafe fn gelu_values<S: Simd>(rows: &mut [f32]) {
    // SAFETY: the caller guarantees the instruction set.
    unsafe {
        map(
            rows,
            #[inline(always)]
            |v: S| gelu(v),
        )
    }
}

/// From this magnitude on, GELU is the value itself or 0, to [`GELU_ERROR`].
const GELU_LIMIT: f32 = 5.0;
/// Coefficients of `erf(x / sqrt 2) / 2x` as a polynomial of `2 x^2 / 25 - 1`, fitted for the smallest error of GELU, with the
/// constraint that it is 1/10 at the limit, where the error function is 1, so that GELU continues there without a step
/// (tests/fixtures/fit.py).
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

/// [`gelu_erf`] of each lane.
#[inline(always)]
pub(crate) unsafe fn gelu<S: Simd>(x: S) -> S {
    // SAFETY: the caller guarantees the instruction set.
    unsafe {
        // NaN stays NaN, because it is the second operand.
        let z = S::splat(GELU_LIMIT).min(S::splat(-GELU_LIMIT).max(x));
        let t = z.mul(z).mul_add(S::splat(2.0 / (GELU_LIMIT * GELU_LIMIT)), S::splat(-1.0));
        let half_erf = z.mul(polynomial(t, &ERF));
        x.mul_add(half_erf, x.mul(S::splat(0.5)))
    }
}

/// GELU with the tanh approximation, for models that were trained with `gelu_new` or `gelu_pytorch_tanh`, of each value:
/// `x (1 + tanh(y)) / 2 = x / (1 + exp(-2 y))` with `y = sqrt(2 / pi) (x + 0.044715 x^3)`.
pub fn gelu_tanh(isa: Isa, rows: &mut [f32]) {
    dispatch!(isa, gelu_tanh_values(rows: &mut [f32]));
}

#[inline(always)]
unsafe fn gelu_tanh_values<S: Simd>(rows: &mut [f32]) {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    const MINUS_2_LOG2_E: f32 = -2.0 * std::f32::consts::LOG2_E;
    // SAFETY: the caller guarantees the instruction set.
    unsafe {
        map(
            rows,
            #[inline(always)]
            |v: S| {
                // Below -8, the result is almost 0 and the exponential would overflow. NaN stays NaN.
                let v = S::splat(-8.0).max(v);
                let cube_factor = v.mul(v).mul_add(S::splat(0.044_715), S::splat(1.0));
                v.div(exp2(v.mul(cube_factor).mul(S::splat(SQRT_2_OVER_PI * MINUS_2_LOG2_E))).add(S::splat(1.0)))
            },
        )
    }
}

/// SiLU, `x / (1 + exp(-x))` (Elfwing, Uchibe, Doya 2017, arXiv 1702.03118), of each value.
pub fn silu(isa: Isa, rows: &mut [f32]) {
    dispatch!(isa, silu_values(rows: &mut [f32]));
}

#[inline(always)]
unsafe fn silu_values<S: Simd>(rows: &mut [f32]) {
    // SAFETY: the caller guarantees the instruction set.
    unsafe {
        map(
            rows,
            #[inline(always)]
            |v: S| {
                // Below -88, the result is almost 0 and the exponential would overflow. NaN stays NaN.
                let v = S::splat(-88.0).max(v);
                v.div(exp2(v.mul(S::splat(-std::f32::consts::LOG2_E))).add(S::splat(1.0)))
            },
        );
    }
}

/// Softmax of a row, in place: `exp(x - max)` divided by the sum of these. A row that contains NaN becomes NaN.
pub fn softmax(isa: Isa, row: &mut [f32]) {
    dispatch!(isa, softmax_row(row: &mut [f32]));
}

#[inline(always)]
unsafe fn softmax_row<S: Simd>(row: &mut [f32]) {
    let max = row.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    // SAFETY: the caller guarantees the instruction set.
    unsafe {
        map(
            row,
            #[inline(always)]
            |v: S| exp2(v.sub(S::splat(max)).mul(S::splat(std::f32::consts::LOG2_E))),
        );
        let x = row.as_ptr();
        let total = reduce::<S>(
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
