//! Scores of single rows in float16.

use crate::dispatch::dispatch;
use crate::isa::Isa;
use crate::simd::{LANES, Simd};

/// Rows of half floats are padded to a multiple of this length.
pub const F16_ALIGN: usize = LANES;
const CACHE_LINE_BYTES: usize = 64;

/// The dot product of a query and a row of half floats, given as their bits.
///
/// # Panics
/// If the lengths differ or are not a multiple of [`F16_ALIGN`].
pub fn dot_f16(isa: Isa, query: &[f32], row: &[u16]) -> f32 {
    assert!(query.len() == row.len() && row.len().is_multiple_of(F16_ALIGN));
    dispatch!(isa, dot(query: &[f32], row: &[u16]) -> f32)
}

#[inline(always)]
unsafe fn dot<S: Simd>(query: &[f32], row: &[u16]) -> f32 {
    // SAFETY: both are equally long, whole vectors; the caller guarantees the instruction set.
    unsafe {
        let mut sum = S::splat(0.0);
        for i in (0..row.len()).step_by(F16_ALIGN) {
            sum = S::load(query.as_ptr().add(i)).mul_add(S::load_f16(row.as_ptr().add(i)), sum);
        }
        sum.reduce_sum()
    }
}

/// Prefetches a row of half floats that is scored soon.
pub fn prefetch_f16(isa: Isa, row: &[u16]) {
    dispatch!(isa, prefetch(row: &[u16]));
}

#[inline(always)]
unsafe fn prefetch<S: Simd>(row: &[u16]) {
    for i in (0..row.len()).step_by(CACHE_LINE_BYTES / size_of::<u16>()) {
        // SAFETY: the caller guarantees the instruction set.
        unsafe { S::prefetch(row[i..].as_ptr().cast()) }
    }
}
