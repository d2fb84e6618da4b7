//! Loops over the vectors of a row whose length need not be a multiple of the lanes.

use crate::simd::{LANES, Simd};

/// The part of a row that is whole vectors.
#[inline(always)]
pub(super) fn whole(len: usize) -> usize {
    len / LANES * LANES
}

/// Replaces every vector `v` of a row by `f(v)`. The rest of the row is padded with zeros to a vector, so that the result of a value does
/// not depend on its position.
#[inline(always)]
pub(super) unsafe fn map<S: Simd>(row: &mut [f32], f: impl Fn(S) -> S) {
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

/// Adds up a row of length `len`: `add(i, sum)` adds the vector that begins at `i` to a sum, `value(i)` is a single value of the rest.
#[inline(always)]
pub(super) unsafe fn reduce<S: Simd>(len: usize, add: impl Fn(usize, S) -> S, value: impl Fn(usize) -> f32) -> f32 {
    let whole = whole(len);
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        // Two sums, because each addition waits for the previous one of its sum.
        let (mut even, mut odd) = (S::splat(0.0), S::splat(0.0));
        let pairs = whole / (2 * LANES) * (2 * LANES);
        for i in (0..pairs).step_by(2 * LANES) {
            even = add(i, even);
            odd = add(i + LANES, odd);
        }
        if pairs < whole {
            even = add(pairs, even);
        }
        let mut total = even.add(odd).reduce_sum();
        for i in whole..len {
            total += value(i);
        }
        total
    }
}
