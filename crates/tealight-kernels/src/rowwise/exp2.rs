//! Powers of two, the core of softmax and SiLU.

use crate::simd::{ROUND_MAGIC, Simd};

/// The largest relative error of the exponentials of [`softmax`](super::softmax) and [`silu`](super::silu), except for arguments of
/// large magnitude, whose own rounding error dominates.
pub const EXP_ERROR: f64 = 2e-7;
/// The smallest exponent: one more than that of the smallest normal number, 2^-126.
const MIN_EXPONENT: f32 = -125.0;
/// Coefficients of `2^x` on [-1/2, 1/2], fitted for the smallest relative error (tests/fixtures/fit.py).
#[allow(clippy::approx_constant)] // Close to ln 2, but a result of the fit.
const EXP2: [f32; 6] = [1.326_473_5e-3, 9.671_518e-3, 5.550_734e-2, 2.402_224_2e-1, 6.931_47e-1, 1.0];
/// Coefficients of `2^x` on [-1/2, 1/2] to 1e-4, which is enough for values that are quantized to 8 bits.
const EXP2_COARSE: [f32; 4] = [5.500_869e-2, 2.422_109_7e-1, 6.932_83e-1, 1.0];

/// `2^x` of each lane, to [`EXP_ERROR`], for `x <= 127`; `2^-125` below -125. NaN stays NaN.
#[inline(always)]
pub(crate) unsafe fn exp2<S: Simd>(x: S) -> S {
    // SAFETY: the caller guarantees the instruction set.
    unsafe { exp2_with(x, &EXP2) }
}

/// [`exp2`] with a relative error of 1e-4.
#[inline(always)]
pub(crate) unsafe fn exp2_coarse<S: Simd>(x: S) -> S {
    // SAFETY: the caller guarantees the instruction set.
    unsafe { exp2_with(x, &EXP2_COARSE) }
}

#[inline(always)]
unsafe fn exp2_with<S: Simd, const N: usize>(x: S, coefficients: &[f32; N]) -> S {
    // SAFETY: the caller guarantees the instruction set.
    unsafe {
        let x = S::splat(MIN_EXPONENT).max(x);
        let shifted = x.add(S::splat(ROUND_MAGIC));
        let fraction = x.sub(shifted.sub(S::splat(ROUND_MAGIC)));
        polynomial(fraction, coefficients).mul_pow2(shifted)
    }
}

/// A polynomial by Horner's rule, highest coefficient first.
#[inline(always)]
pub(super) unsafe fn polynomial<S: Simd, const N: usize>(x: S, coefficients: &[f32; N]) -> S {
    // SAFETY: the caller guarantees the instruction set.
    unsafe {
        let mut value = S::splat(coefficients[0]);
        for c in &coefficients[1..] {
            value = value.mul_add(x, S::splat(*c));
        }
        value
    }
}
