//! Normalization of rows.

use super::lanes::{reduce, whole_vectors_len};
use super::product::{dot, dot_vectors};
use crate::dispatch::dispatch;
use crate::isa::Isa;
use crate::simd::{LANES, Simd};

/// LayerNorm of the first `weight.len()` values of each row, in place: `(x - mean) / sqrt(variance + eps) * weight + bias` with the
/// biased variance (Ba, Kiros, Hinton 2016, arXiv 1607.06450). Row `i` begins at `i * stride`.
///
/// # Panics
/// If `weight` and `bias` are empty or of different length, rows are shorter, or the length of `rows` is not a multiple of `stride`.
pub fn layer_norm(isa: Isa, rows: &mut [f32], stride: usize, weight: &[f32], bias: &[f32], eps: f32) {
    assert!(weight.len() == bias.len() && !weight.is_empty());
    assert!(weight.len() <= stride && rows.len().is_multiple_of(stride));
    dispatch!(isa, layer_norm_rows(rows: &mut [f32], stride: usize, weight: &[f32], bias: &[f32], eps: f32));
}

/// Rows that are normalized together, so that their reductions overlap.
const INTERLEAVED_ROWS: usize = 4;

#[inline(always)]
unsafe fn layer_norm_rows<S: Simd>(rows: &mut [f32], stride: usize, weight: &[f32], bias: &[f32], eps: f32) {
    let (d, vectors_len) = (weight.len(), whole_vectors_len(weight.len()));
    for rows in rows.chunks_mut(INTERLEAVED_ROWS * stride) {
        let (mut means, mut scales) = ([0.0; INTERLEAVED_ROWS], [0.0; INTERLEAVED_ROWS]);
        // SAFETY: vectors end at `vectors_len`, inside row, weight and bias; the caller guarantees the instruction set.
        unsafe {
            for (row, mean) in rows.chunks_exact(stride).zip(&mut means) {
                let x = row.as_ptr();
                let value = |i: usize| *x.add(i);
                *mean = reduce::<S>(
                    d,
                    #[inline(always)]
                    |i, sum| S::load(x.add(i)).add(sum),
                    value,
                ) / d as f32;
            }
            for ((row, mean), scale) in rows.chunks_exact(stride).zip(means).zip(&mut scales) {
                let (x, center) = (row.as_ptr(), S::splat(mean));
                let value = |i: usize| (*x.add(i) - mean) * (*x.add(i) - mean);
                let squares = reduce::<S>(
                    d,
                    #[inline(always)]
                    |i, sum| {
                        let v = S::load(x.add(i)).sub(center);
                        v.mul_add(v, sum)
                    },
                    value,
                );
                *scale = 1.0 / (squares / d as f32 + eps).sqrt();
            }
            for ((row, mean), scale) in rows.chunks_exact_mut(stride).zip(means).zip(scales) {
                let (center, factor) = (S::splat(mean), S::splat(scale));
                for i in (0..vectors_len).step_by(LANES) {
                    let v = S::load(row.as_ptr().add(i)).sub(center).mul(factor);
                    let (w, b) = (S::load(weight.as_ptr().add(i)), S::load(bias.as_ptr().add(i)));
                    v.mul_add(w, b).store(row.as_mut_ptr().add(i));
                }
                for i in vectors_len..d {
                    row[i] = (row[i] - mean) * scale * weight[i] + bias[i];
                }
            }
        }
    }
}

/// RMSNorm of the first `weight.len()` values of each row, in place: `x / sqrt(mean of squares + eps) * weight` (Zhang and Sennrich
/// 2019, arXiv 1910.07467). Row `i` begins at `i * stride`.
///
/// # Panics
/// If `weight` is empty, rows are shorter, or the length of `rows` is not a multiple of `stride`.
pub fn rms_norm(isa: Isa, rows: &mut [f32], stride: usize, weight: &[f32], eps: f32) {
    assert!(!weight.is_empty() && weight.len() <= stride && rows.len().is_multiple_of(stride));
    dispatch!(isa, rms_norm_rows(rows: &mut [f32], stride: usize, weight: &[f32], eps: f32));
}

#[inline(always)]
unsafe fn rms_norm_rows<S: Simd>(rows: &mut [f32], stride: usize, weight: &[f32], eps: f32) {
    let (d, vectors_len) = (weight.len(), whole_vectors_len(weight.len()));
    for row in rows.chunks_exact_mut(stride) {
        let row = &mut row[..d];
        // SAFETY: vectors end at `vectors_len`, inside row and weight; the caller guarantees the instruction set.
        unsafe {
            let scale = 1.0 / (dot_vectors::<S>(row, row) / d as f32 + eps).sqrt();
            for i in (0..vectors_len).step_by(LANES) {
                let v = S::load(row.as_ptr().add(i)).mul(S::splat(scale)).mul(S::load(weight.as_ptr().add(i)));
                v.store(row.as_mut_ptr().add(i));
            }
            for i in vectors_len..d {
                row[i] = row[i] * scale * weight[i];
            }
        }
    }
}

/// Scales a vector to unit norm. A zero vector stays zero. It has no `isa`, because it runs once per text.
pub fn normalize(vector: &mut [f32]) {
    let norm = dot(Isa::Scalar, vector, vector).sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|v| *v /= norm);
    }
}
