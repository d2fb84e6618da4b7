//! What works on one row at a time: normalisation, activation, sums.

use super::simd::Simd;
use super::{Isa, dispatch};

/// How much of a row is whole vectors.
#[inline(always)]
fn split<S: Simd>(length: usize) -> usize {
    length / S::LANES * S::LANES
}

/// The mean and the biased variance of a row.
#[inline(always)]
unsafe fn moments<S: Simd>(x: &[f32]) -> (f32, f32) {
    let (whole, n) = (split::<S>(x.len()), x.len() as f32);
    // SAFETY: vectors end at `whole`, inside the row; the caller vouches for the instruction set.
    unsafe {
        let mut sum = S::splat(0.0);
        for i in (0..whole).step_by(S::LANES) {
            sum = sum.add(S::load(x.as_ptr().add(i)));
        }
        let mean = x[whole..].iter().fold(sum.sum(), |s, v| s + v) / n;
        let mut sum = S::splat(0.0);
        for i in (0..whole).step_by(S::LANES) {
            let v = S::load(x.as_ptr().add(i)).sub(S::splat(mean));
            sum = v.mul_add(v, sum);
        }
        (mean, x[whole..].iter().fold(sum.sum(), |s, v| s + (v - mean) * (v - mean)) / n)
    }
}

/// LayerNorm over each row of `weight.len()` values, in place: `(x - mean) / sqrt(variance + eps) * weight + bias` with
/// the biased variance (Ba, Kiros, Hinton 2016, arXiv 1607.06450).
pub fn layer_norm(isa: Isa, rows: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    assert_eq!(weight.len(), bias.len());
    dispatch!(isa, norm(rows: &mut [f32], weight: &[f32], bias: &[f32], eps: f32));
}

#[inline(always)]
unsafe fn norm<S: Simd>(rows: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let (d, whole) = (weight.len(), split::<S>(weight.len()));
    for row in rows.chunks_exact_mut(d) {
        // SAFETY: vectors end at `whole`, inside row, weight and bias; the caller vouches for the instruction set.
        unsafe {
            let (mean, variance) = moments::<S>(row);
            let scale = 1.0 / (variance + eps).sqrt();
            for i in (0..whole).step_by(S::LANES) {
                let v = S::load(row.as_ptr().add(i)).sub(S::splat(mean)).mul(S::splat(scale));
                let (w, b) = (S::load(weight.as_ptr().add(i)), S::load(bias.as_ptr().add(i)));
                v.mul_add(w, b).store(row.as_mut_ptr().add(i));
            }
            for i in whole..d {
                row[i] = (row[i] - mean) * scale * weight[i] + bias[i];
            }
        }
    }
}

/// Adds `bias` to each row of `bias.len()` values.
pub fn add_bias(rows: &mut [f32], bias: &[f32]) {
    rows.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias));
}

/// `x += y`, value by value.
pub fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// The dot product of two rows of equal length.
pub fn dot(isa: Isa, x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len());
    dispatch!(isa, dot_of(x: &[f32], y: &[f32]) -> f32)
}

#[inline(always)]
unsafe fn dot_of<S: Simd>(x: &[f32], y: &[f32]) -> f32 {
    let whole = split::<S>(x.len());
    // SAFETY: vectors end at `whole`, inside both rows; the caller vouches for the instruction set.
    unsafe {
        let mut sum = S::splat(0.0);
        for i in (0..whole).step_by(S::LANES) {
            sum = S::load(x.as_ptr().add(i)).mul_add(S::load(y.as_ptr().add(i)), sum);
        }
        x[whole..].iter().zip(&y[whole..]).fold(sum.sum(), |s, (x, y)| s + x * y)
    }
}

/// `out[r, c] = x[r] . w[c]` in f32, for rows of `k` values.
pub fn matmul(isa: Isa, x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
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

/// GELU with the exact error function, `x * (1 + erf(x / sqrt 2)) / 2` (Hendrycks and Gimpel 2016, arXiv 1606.08415), for
/// each value.
pub fn gelu_erf(isa: Isa, rows: &mut [f32]) {
    dispatch!(isa, gelu_of(rows: &mut [f32]));
}

#[inline(always)]
unsafe fn gelu_of<S: Simd>(rows: &mut [f32]) {
    let whole = split::<S>(rows.len());
    // SAFETY: vectors end at `whole`, inside the row; the caller vouches for the instruction set.
    unsafe {
        for i in (0..whole).step_by(S::LANES) {
            gelu(S::load(rows.as_ptr().add(i))).store(rows.as_mut_ptr().add(i));
        }
        // By the same vectors, so that a value's result does not depend on its place.
        let mut rest = [0.0; 16];
        let left = rows.len() - whole;
        rest[..left].copy_from_slice(&rows[whole..]);
        gelu(S::load(rest.as_ptr())).store(rest.as_mut_ptr());
        rows[whole..].copy_from_slice(&rest[..left]);
    }
}

/// `erf(z) = z P(z^2) / Q(z^2)` for `|z| <= 4`, where erf is 1 to the last place of an f32; P and Q, of degree 5, fitted
/// to the largest error (Lawson's weighted least squares), which is 4e-7 in f32; so GELU is exact to 1e-6.
const ERF_LIMIT: f32 = 4.0;
/// Next to 2 / sqrt(pi), as the fit has it.
#[allow(clippy::approx_constant)]
const FITTED_2_SQRT_PI: f32 = 1.128_379;
const ERF_P: [f32; 6] = [1.974_819e-6, 2.880_418_6e-4, 4.003_681e-3, 5.346_758_7e-2, 1.962_498_6e-1, FITTED_2_SQRT_PI];
const ERF_Q: [f32; 6] = [3.748_077e-5, 1.216_367_7e-3, 1.544_449_3e-2, 1.164_768_2e-1, 5.072_530_5e-1, 1.0];

/// A polynomial by Horner's rule, highest coefficient first.
#[inline(always)]
pub(crate) unsafe fn polynomial<S: Simd, const N: usize>(x: S, coefficients: &[f32; N]) -> S {
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
        let z = x.mul(S::splat(std::f32::consts::FRAC_1_SQRT_2));
        // NaN, as the second operand, stays.
        let z = S::splat(ERF_LIMIT).min(S::splat(-ERF_LIMIT).max(z));
        let t = z.mul(z);
        let erf = z.mul(polynomial(t, &ERF_P)).div(polynomial(t, &ERF_Q));
        let half = x.mul(S::splat(0.5));
        half.mul_add(erf, half)
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

/// Scales a vector to length 1; a zero vector stays zero.
pub fn normalise(vector: &mut [f32]) {
    let norm = dot(Isa::Scalar, vector, vector).sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|v| *v /= norm);
    }
}
