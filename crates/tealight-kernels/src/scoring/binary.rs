//! Scores of one query with many rows of signs, by tables.
//!
//! A row `r` of `D` values is kept as its signs `s`, each 1 or -1, and `f = |r|^2 / |r|_1`. Of all multiples of `s` this is the one
//! whose product with `r` is right: `f s.r = f |r|_1 = r.r`, so that what `f s` is off by is perpendicular to `r`. Then `f s.q` is off
//! only by what that has of a query `q`, which is near 0 and as often above as below: the estimator of RaBitQ (Gao and Long
//! 2024, doi 10.1145/3654970), `<o', q> / <o', o>` where `o = r / |r|` and `o' = s / sqrt(D)`, without its random rotation.
//!
//! `s.q` is `2 a - |q|_1`, where `a` is the sum of the magnitudes of `q` at which the signs agree. Of four values it is one of 16
//! numbers, which are kept in a table of bytes (Quick ADC: André et al. 2017, doi 10.1145/3078971.3078992): a byte of signs looks up two,
//! and one instruction looks up those of many rows. Sums of bytes are whole numbers, so that every set has the same.
//!
//! Rows lie in blocks of 16, `[D / 32][4][16]` bytes.
#![allow(clippy::needless_range_loop)] // Indices are lanes.

use super::scoring::{AHEAD, ROWS};
use super::simd::{LOOKUPS, Simd};
use super::{Isa, dispatch};

/// Values of a row come in so many.
pub const STEP: usize = 32;
/// Signs of as many values of each row of a block.
pub type Group = [u8; ROWS * STEP / 8];
/// Values whose signs are looked up together.
const FOUR: usize = 4;
/// The highest value of a table: two of them are added in a byte.
const MOST: f32 = 127.0;

/// What the rows of a block have besides signs.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Terms {
    /// What a sign of the row stands for.
    pub scale: [f32; ROWS],
    /// Taken from the row's score, times the query's weight.
    pub less: [f32; ROWS],
}

/// Tables for a group: of the lower four bits of its bytes, and of the higher. They fill lines of a cache.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
struct Tables([[[u8; 16]; 4]; 2]);

/// A query as tables; the same on every set.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    tables: Vec<Tables>,
    /// What a sum of table values is multiplied by, and what is then taken from it: `s.q = step sum - all`.
    step: f32,
    all: f32,
    weight: f32,
}

impl Query {
    /// Of a vector, whose values are filled up to a multiple of [`STEP`] with zeros. A table value is within half a step of 1/127 of the
    /// largest `|q|_1` of four values. Terms' `less` counts `weight` times.
    pub fn new(vector: &[f32], weight: f32) -> Self {
        let fours = vector.chunks(FOUR).map(|four| four.iter().map(|v| v.abs()).sum::<f32>());
        let (largest, all) = fours.fold((0.0f32, 0.0), |(largest, all), four| (largest.max(four), all + four));
        let step = if largest > 0.0 { largest / MOST } else { 1.0 };
        let mut tables = vec![Tables([[[0; 16]; 4]; 2]); vector.len().div_ceil(STEP)];
        for (i, four) in vector.chunks(FOUR).enumerate() {
            let (group, byte, half) = (i * FOUR / STEP, i / 2 % 4, i % 2);
            tables[group].0[half][byte] = table(four, step);
        }
        Self { tables, step: 2.0 * step, all, weight }
    }
}

/// For any signs of four values, or fewer, the sum of the magnitudes at which theirs agree, in steps.
fn table(four: &[f32], step: f32) -> [u8; 16] {
    std::array::from_fn(|signs| {
        let agree = |(i, v): (usize, &f32)| if (signs >> i & 1 == 1) == (*v > 0.0) { v.abs() } else { 0.0 };
        (four.iter().enumerate().map(agree).sum::<f32>() / step).round_ties_even() as u8
    })
}

/// Scores of a query with the rows of blocks, to `out`: [`ROWS`] for each of `terms`, whose signs are `signs`.
///
/// # Panics
/// If the lengths do not fit each other.
pub fn scores(isa: Isa, query: &Query, signs: &[Group], terms: &[Terms], out: &mut [f32]) {
    assert!(signs.len() == terms.len() * query.tables.len() && out.len() == terms.len() * ROWS);
    dispatch!(isa, scores_of(query: &Query, signs: &[Group], terms: &[Terms], out: &mut [f32]));
}

#[inline(always)]
unsafe fn scores_of<S: Simd>(query: &Query, signs: &[Group], terms: &[Terms], out: &mut [f32]) {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        match query.tables.len() {
            2 => of_size::<S, 2>(query, signs, terms, out),
            4 => of_size::<S, 4>(query, signs, terms, out),
            8 => of_size::<S, 8>(query, signs, terms, out),
            12 => of_size::<S, 12>(query, signs, terms, out),
            16 => of_size::<S, 16>(query, signs, terms, out),
            24 => of_size::<S, 24>(query, signs, terms, out),
            32 => of_size::<S, 32>(query, signs, terms, out),
            48 => of_size::<S, 48>(query, signs, terms, out),
            groups => {
                for (i, terms) in terms.iter().enumerate() {
                    let signs = &signs[i * groups..(i + 1) * groups];
                    block::<S>(query, &query.tables, signs, terms, &mut out[i * ROWS..]);
                }
            }
        }
    }
}

/// For rows of `32 * GROUPS` values.
#[inline(always)]
unsafe fn of_size<S: Simd, const GROUPS: usize>(query: &Query, signs: &[Group], terms: &[Terms], out: &mut [f32]) {
    let ((blocks, _), Some(tables)) = (signs.as_chunks::<GROUPS>(), query.tables.first_chunk::<GROUPS>()) else {
        return;
    };
    for i in 0..blocks.len() {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { block::<S>(query, tables, &blocks[i], &terms[i], &mut out[i * ROWS..]) }
    }
}

#[inline(always)]
unsafe fn block<S: Simd>(query: &Query, tables: &[Tables], signs: &[Group], terms: &Terms, out: &mut [f32]) {
    let mut sums = [0i32; ROWS];
    let mut start = 0;
    while start < signs.len() {
        let end = signs.len().min(start + LOOKUPS);
        let mut lanes = [0i32; ROWS];
        // SAFETY: tables for each group, and no more groups than a tally holds; the caller vouches for the instruction set.
        unsafe {
            let mut tally = S::tally();
            for g in start..end {
                let group = signs[g].as_ptr();
                S::prefetch(group.wrapping_add(AHEAD));
                tally = S::look_up(tally, tables[g].0.as_ptr().cast(), group);
            }
            S::int_store(S::tallied(tally), lanes.as_mut_ptr());
        }
        for i in 0..ROWS {
            sums[i] += lanes[i];
        }
        start = end;
    }
    for i in 0..ROWS {
        let product = sums[i] as f32 * query.step - query.all;
        out[i] = product * terms.scale[i] - query.weight * terms.less[i];
    }
}
