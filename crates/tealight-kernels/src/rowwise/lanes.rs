//! Loops over the vectors of a row whose length need not be a multiple of the lanes.

use crate::simd::{LANES, Simd};

/// The length of the part of a row that consists of whole vectors.
#[inline(always)]
pub(super) fn whole_vectors_len(len: usize) -> usize {
    len / LANES * LANES
}

/// Replaces every vector `v` of a row by `f(v)`. The rest of the row is padded with zeros to a vector, so that the result of a
/// value does not depend on its position.
#[inline(always)]
pub(super) unsafe fn map<S: Simd>(row: &mut [f32], f: impl Fn(S) -> S) {
    let vectors_len = whole_vectors_len(row.len());
    // SAFETY: vectors end at `vectors_len`, inside the row, and the remainder is copied to `padded`; the caller guarantees the
    // instruction set.
    unsafe {
        for i in (0..vectors_len).step_by(LANES) {
            f(S::load(row.as_ptr().add(i))).store(row.as_mut_ptr().add(i));
        }
        if vectors_len < row.len() {
            let mut padded = [0.0; LANES];
            let remainder = row.len() - vectors_len;
            padded[..remainder].copy_from_slice(&row[vectors_len..]);
            f(S::load(padded.as_ptr())).store(padded.as_mut_ptr());
            row[vectors_len..].copy_from_slice(&padded[..remainder]);
        }
    }
}

/// Adds up a row of length `len`: `add(i, sum)` adds the vector that begins at `i` to a sum, `value(i)` is a single value of the
/// remainder.
#[inline(always)]
pub(super) unsafe fn reduce<S: Simd>(len: usize, add: impl Fn(usize, S) -> S, value: impl Fn(usize) -> f32) -> f32 {
    let vectors_len = whole_vectors_len(len);
    // SAFETY: the caller guarantees the instruction set.
    unsafe {
        // Two sums, because each addition waits for the previous one of its sum.
        let (mut even, mut odd) = (S::splat(0.0), S::splat(0.0));
        let pairs = vectors_len / (2 * LANES) * (2 * LANES);
        for i in (0..pairs).step_by(2 * LANES) {
            even = add(i, even);
            odd = add(i + LANES, odd);
        }
        if pairs < vectors_len {
            even = add(pairs, even);
        }
        let mut total = even.add(odd).reduce_sum();
        for i in vectors_len..len {
            total += value(i);
        }
        total
    }
}
