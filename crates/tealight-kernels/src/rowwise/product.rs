//! Sums and products of float32 rows.
//!
//! [`add`] and [`add_bias`] have no `isa`: they are plain loops, which the compiler vectorizes for the baseline of the target.

use super::lanes::reduce;
use crate::dispatch::dispatch;
use crate::isa::Isa;
use crate::simd::Simd;

/// Adds `bias` to each row of `bias.len()` values.
///
/// # Panics
/// If `bias` is empty, or the length of `rows` is not a multiple of its length.
pub fn add_bias(rows: &mut [f32], bias: &[f32]) {
    assert!(!bias.is_empty() && rows.len().is_multiple_of(bias.len()));
    rows.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias));
}

/// `x += y`, element by element.
///
/// # Panics
/// If the lengths differ.
pub fn add(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// The dot product of two vectors.
///
/// # Panics
/// If the lengths differ.
pub fn dot(isa: Isa, x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len());
    dispatch!(isa, dot_vectors(x: &[f32], y: &[f32]) -> f32)
}

#[inline(always)]
pub(super) unsafe fn dot_vectors<S: Simd>(x: &[f32], y: &[f32]) -> f32 {
    let (x_ptr, y_ptr) = (x.as_ptr(), y.as_ptr());
    // SAFETY: `reduce` loads whole vectors inside the rows, which are equally long; the caller guarantees the instruction set.
    unsafe {
        reduce::<S>(
            x.len(),
            #[inline(always)]
            |i, sum| S::load(x_ptr.add(i)).mul_add(S::load(y_ptr.add(i)), sum),
            |i| x[i] * y[i],
        )
    }
}

/// `out [M, N] = x w^T` in float32, for `x [M, K]` and `w [N, K]`.
///
/// # Panics
/// If `k` is 0, or the sizes do not match.
pub fn matmul(isa: Isa, x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
    assert!(k > 0 && x.len().is_multiple_of(k) && w.len().is_multiple_of(k));
    assert_eq!(out.len(), x.len() / k * (w.len() / k));
    dispatch!(isa, matmul_rows(x: &[f32], w: &[f32], k: usize, out: &mut [f32]));
}

#[inline(always)]
unsafe fn matmul_rows<S: Simd>(x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(k).zip(out.chunks_exact_mut(w.len() / k)) {
        for (value, w) in out.iter_mut().zip(w.chunks_exact(k)) {
            // SAFETY: both rows have `k` values; the caller guarantees the instruction set.
            *value = unsafe { dot_vectors::<S>(x, w) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{LANES, sum_lanes};

    #[test]
    fn lanes_are_added_in_the_same_order_on_all_isas() {
        let lanes: [f32; LANES] = std::array::from_fn(|i| (i as f32 * 0.7).exp() * if i % 3 == 0 { -1.0 } else { 1.0 });
        for isa in Isa::available() {
            assert_eq!(dot(isa, &lanes, &[1.0; LANES]).to_bits(), sum_lanes(lanes).to_bits(), "{}", isa.as_str());
        }
    }
}
