//! Scores of one query with many rows: products of codes of 8 and of 4 bits, and of half floats.
//!
//! Rows of codes lie in blocks of 16, `[D / 4][16][4]`, so that the lanes of a vector are rows and no sum goes across them. Of
//! codes of 4 bits a byte has two: of the value and of the fourth behind it.
//! The loop over a block is compiled for each common D, whose trip count the compiler then knows; any other D has a loop of
//! its own.
#![allow(clippy::needless_range_loop)] // Indices are lanes.

use super::simd::{LANES, Simd};
use super::{Isa, dispatch};

/// Rows of a block.
pub const ROWS: usize = LANES;
/// Values of a row come in fours.
pub const STEP: usize = 4;
/// Four codes of each row of a block.
pub type Group = [i8; ROWS * STEP];
/// Sums that go on beside each other, so that no instruction waits for the one before it.
const SUMS: usize = 4;
/// How far ahead memory is asked for, in bytes: what does that by itself stops at the end of each page of a mapped file.
pub(super) const AHEAD: usize = 4096;
/// Bytes that memory gives at once.
const LINE: usize = 64;
/// Half floats of a row come in so many.
pub const HALVES: usize = LANES;

/// What the rows of a block have besides codes.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Terms {
    /// What a code of the row stands for.
    pub scale: [f32; ROWS],
    /// The sum of the row's codes.
    pub sum: [i32; ROWS],
    /// Taken from the row's score.
    pub less: [f32; ROWS],
}

/// A query as codes, for an instruction set.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    codes: Vec<u8>,
    zero: i32,
    step: f32,
}

impl Query {
    /// Of a vector, whose values are filled up to a multiple of [`STEP`] with zeros. A code is within half a step of 1/127 of the
    /// largest value, or of 1/63 on AVX2 without VNNI.
    pub fn new(isa: Isa, vector: &[f32]) -> Self {
        dispatch!(isa, query(vector: &[f32]) -> Query)
    }
}

#[inline(always)]
unsafe fn query<S: Simd>(vector: &[f32]) -> Query {
    let zero = (S::QMAX + 1) / 2;
    let largest = vector.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    // Less than the least normal number is nothing in a product, and may be 0 here.
    let step = largest.max(f32::MIN_POSITIVE) / (zero - 1) as f32;
    let mut codes = Vec::with_capacity(vector.len().next_multiple_of(STEP));
    for v in vector {
        codes.push(((v / step).round_ties_even() as i32 + zero) as u8);
    }
    codes.resize(vector.len().next_multiple_of(STEP), zero as u8);
    codes.iter_mut().for_each(|code| *code = code.wrapping_add(S::STORAGE_OFFSET));
    Query { codes, zero, step }
}

/// Scores of a query with the rows of blocks, to `out`: [`ROWS`] for each of `terms`, whose codes are `codes`. `fixed` takes the loop
/// for the dimension where there is one.
///
/// # Panics
/// If the lengths do not fit each other.
pub fn scores(isa: Isa, query: &Query, codes: &[Group], terms: &[Terms], fixed: bool, out: &mut [f32]) {
    assert!(codes.len() == terms.len() * (query.codes.len() / STEP) && out.len() == terms.len() * ROWS);
    dispatch!(isa, scores_of(query: &Query, codes: &[Group], terms: &[Terms], fixed: bool, out: &mut [f32]));
}

#[inline(always)]
unsafe fn scores_of<S: Simd>(query: &Query, codes: &[Group], terms: &[Terms], fixed: bool, out: &mut [f32]) {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        match (query.codes.len() / STEP, fixed) {
            (16, true) => of_size::<S, 16>(query, codes, terms, out),
            (32, true) => of_size::<S, 32>(query, codes, terms, out),
            (64, true) => of_size::<S, 64>(query, codes, terms, out),
            (96, true) => of_size::<S, 96>(query, codes, terms, out),
            (128, true) => of_size::<S, 128>(query, codes, terms, out),
            (192, true) => of_size::<S, 192>(query, codes, terms, out),
            (256, true) => of_size::<S, 256>(query, codes, terms, out),
            (384, true) => of_size::<S, 384>(query, codes, terms, out),
            (groups, _) => {
                for (i, terms) in terms.iter().enumerate() {
                    block::<S>(query, &codes[i * groups..(i + 1) * groups], terms, &mut out[i * ROWS..]);
                }
            }
        }
    }
}

/// For rows of `4 * GROUPS` values.
#[inline(always)]
unsafe fn of_size<S: Simd, const GROUPS: usize>(query: &Query, codes: &[Group], terms: &[Terms], out: &mut [f32]) {
    let (blocks, _) = codes.as_chunks::<GROUPS>();
    for i in 0..blocks.len() {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { block::<S>(query, &blocks[i], &terms[i], &mut out[i * ROWS..]) }
    }
}

#[inline(always)]
unsafe fn block<S: Simd>(query: &Query, codes: &[Group], terms: &Terms, out: &mut [f32]) {
    let mut lanes = [[0i32; ROWS]; SUMS];
    // SAFETY: a group of codes and four codes of the query for each of `codes`, sums of lanes in arrays of as many; the caller vouches
    // for the instruction set.
    unsafe {
        let mut sums = [S::int_splat(0); SUMS];
        sums[0] = S::start(S::int_load(terms.sum.as_ptr()));
        let of_query = query.codes.as_ptr();
        let whole = codes.len() / SUMS * SUMS;
        let mut g = 0;
        while g < whole {
            for j in 0..SUMS {
                let code = S::broadcast4(of_query.add((g + j) * STEP));
                let group = codes[g + j].as_ptr();
                S::prefetch(group.cast::<u8>().wrapping_add(AHEAD));
                sums[j] = S::dot_codes(sums[j], code, S::load_bytes(group));
            }
            g += SUMS;
        }
        while g < codes.len() {
            sums[0] = S::dot_codes(sums[0], S::broadcast4(of_query.add(g * STEP)), S::load_bytes(codes[g].as_ptr()));
            g += 1;
        }
        for j in 0..SUMS {
            S::int_store(sums[j], lanes[j].as_mut_ptr());
        }
    }
    for i in 0..ROWS {
        // A file may say that the sum is any number; of what was written none is beyond 32 bits.
        let mut dot = (-query.zero).wrapping_mul(terms.sum[i]);
        for j in 0..SUMS {
            dot = dot.wrapping_add(lanes[j][i]);
        }
        out[i] = dot as f32 * query.step * terms.scale[i] - terms.less[i];
    }
}

/// Values of a row of 4-bit codes come in eights.
pub const STEP4: usize = 8;
/// The highest code of 4 bits.
pub const MOST4: u8 = 15;

/// What the rows of a block of 4-bit codes have besides codes: a code `q` stands for `low + scale q`.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Terms4 {
    /// What a code of the row stands for.
    pub scale: [f32; ROWS],
    /// What the code 0 stands for.
    pub low: [f32; ROWS],
    /// Taken from the row's score.
    pub less: [f32; ROWS],
}

/// A query as codes for rows of 4 bits; the same on every set.
#[derive(Debug, Clone, PartialEq)]
pub struct Query4 {
    codes: Vec<u8>,
    step: f32,
    sum: f32,
}

impl Query4 {
    /// Of a vector, whose values are filled up to a multiple of [`STEP4`] with zeros. A code is within half a step of 1/127 of the
    /// largest value.
    pub fn new(vector: &[f32]) -> Self {
        let largest = vector.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let step = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        let whole: Vec<i8> = vector.iter().map(|v| (v / step).round_ties_even() as i8).collect();
        let sum = step * whole.iter().map(|code| i32::from(*code)).sum::<i32>() as f32;
        let mut codes: Vec<u8> = whole.into_iter().map(|code| code as u8).collect();
        codes.resize(vector.len().next_multiple_of(STEP4), 0);
        Self { codes, step, sum }
    }
}

/// Scores of a query with the rows of blocks of 4-bit codes, to `out`: [`ROWS`] for each of `terms`, whose codes are `codes`.
///
/// # Panics
/// If the lengths do not fit each other.
pub fn scores4(isa: Isa, query: &Query4, codes: &[Group], terms: &[Terms4], out: &mut [f32]) {
    assert!(codes.len() == terms.len() * (query.codes.len() / STEP4) && out.len() == terms.len() * ROWS);
    dispatch!(isa, scores4_of(query: &Query4, codes: &[Group], terms: &[Terms4], out: &mut [f32]));
}

#[inline(always)]
unsafe fn scores4_of<S: Simd>(query: &Query4, codes: &[Group], terms: &[Terms4], out: &mut [f32]) {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        match query.codes.len() / STEP4 {
            8 => of_size4::<S, 8>(query, codes, terms, out),
            16 => of_size4::<S, 16>(query, codes, terms, out),
            32 => of_size4::<S, 32>(query, codes, terms, out),
            48 => of_size4::<S, 48>(query, codes, terms, out),
            64 => of_size4::<S, 64>(query, codes, terms, out),
            96 => of_size4::<S, 96>(query, codes, terms, out),
            128 => of_size4::<S, 128>(query, codes, terms, out),
            192 => of_size4::<S, 192>(query, codes, terms, out),
            groups => {
                for (i, terms) in terms.iter().enumerate() {
                    block4::<S>(query, &codes[i * groups..(i + 1) * groups], terms, &mut out[i * ROWS..]);
                }
            }
        }
    }
}

/// For rows of `8 * GROUPS` values.
#[inline(always)]
unsafe fn of_size4<S: Simd, const GROUPS: usize>(query: &Query4, codes: &[Group], terms: &[Terms4], out: &mut [f32]) {
    let (blocks, _) = codes.as_chunks::<GROUPS>();
    for i in 0..blocks.len() {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { block4::<S>(query, &blocks[i], &terms[i], &mut out[i * ROWS..]) }
    }
}

#[inline(always)]
unsafe fn block4<S: Simd>(query: &Query4, codes: &[Group], terms: &Terms4, out: &mut [f32]) {
    let mut lanes = [[0i32; ROWS]; SUMS];
    // SAFETY: a group of codes for eight codes of the query, sums of lanes in arrays of as many; the caller vouches for the
    // instruction set.
    unsafe {
        let mut sums = [S::int_splat(0); SUMS];
        let of_query = query.codes.as_ptr();
        for g in 0..codes.len() {
            let group = codes[g].as_ptr();
            S::prefetch(group.cast::<u8>().wrapping_add(AHEAD));
            let [low, high] = S::nibbles(S::load_bytes(group));
            let j = 2 * (g % 2);
            sums[j] = S::dot_nibbles(sums[j], low, S::broadcast4(of_query.add(g * STEP4)));
            sums[j + 1] = S::dot_nibbles(sums[j + 1], high, S::broadcast4(of_query.add(g * STEP4 + STEP)));
        }
        for j in 0..SUMS {
            S::int_store(sums[j], lanes[j].as_mut_ptr());
        }
    }
    for i in 0..ROWS {
        let mut dot = 0;
        for j in 0..SUMS {
            dot += lanes[j][i];
        }
        out[i] = dot as f32 * query.step * terms.scale[i] + query.sum * terms.low[i] - terms.less[i];
    }
}

/// The product of a query with a row of half floats, as their bits.
///
/// # Panics
/// If they have not as many values, a multiple of [`HALVES`].
pub fn half_dot(isa: Isa, query: &[f32], row: &[u16]) -> f32 {
    assert!(query.len() == row.len() && row.len().is_multiple_of(HALVES));
    dispatch!(isa, half_dot_of(query: &[f32], row: &[u16]) -> f32)
}

#[inline(always)]
unsafe fn half_dot_of<S: Simd>(query: &[f32], row: &[u16]) -> f32 {
    // SAFETY: both have as many values, whole vectors; the caller vouches for the instruction set.
    unsafe {
        let mut sum = S::splat(0.0);
        for at in (0..row.len()).step_by(HALVES) {
            sum = S::load(query.as_ptr().add(at)).mul_add(S::load_half(row.as_ptr().add(at)), sum);
        }
        sum.sum()
    }
}

/// Asks for the memory of a row of half floats, which lies anywhere.
pub fn fetch(isa: Isa, row: &[u16]) {
    dispatch!(isa, fetch_of(row: &[u16]));
}

#[inline(always)]
unsafe fn fetch_of<S: Simd>(row: &[u16]) {
    for at in (0..row.len()).step_by(LINE / size_of::<u16>()) {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { S::prefetch(row[at..].as_ptr().cast()) }
    }
}
