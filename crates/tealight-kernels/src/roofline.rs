//! How fast this machine can go: the instruction that multiplies int8, and memory. What products are measured against.
#![allow(clippy::needless_range_loop)] // Sums that are all of one kind.

use super::simd::{LANES, Simd, Tile};
use super::{Isa, dispatch};
use std::hint::black_box;
use std::time::Instant;

/// Multiplications of a sum's lanes by one instruction, and as many additions.
const OPERATIONS: usize = 2 * 4 * LANES;
const ROUNDS: usize = 5;
/// Instructions a sum of a round: some milliseconds on the slowest set.
const REPEATS: usize = 20_000;

/// Operations a second, in 10^9, of int8 products of registers on one thread: the best of some rounds of milliseconds.
pub fn gops(isa: Isa) -> f64 {
    (0..ROUNDS).map(|_| round(isa)).fold(0.0, f64::max)
}

/// Numbers in the buffer that memory is measured with: 512 MiB, more than caches hold.
const NUMBERS: usize = 1 << 26;
/// Sums that go on beside each other, so that none waits for the one before.
const SUMS: usize = 32;

/// Bytes a second, in 10^9, that so many threads read from memory together: the best of some rounds.
pub fn bandwidth(threads: usize) -> f64 {
    let buffer = vec![1u64; NUMBERS];
    let share = NUMBERS.div_ceil(threads.max(1));
    let round = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in buffer.chunks(share) {
                scope.spawn(|| black_box(sum(part)));
            }
        });
        8e-9 * NUMBERS as f64 / start.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(|_| round()).fold(0.0, f64::max)
}

fn sum(numbers: &[u64]) -> u64 {
    let mut sums = [0u64; SUMS];
    for part in numbers.chunks_exact(SUMS) {
        for i in 0..SUMS {
            sums[i] = sums[i].wrapping_add(part[i]);
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}

fn round(isa: Isa) -> f64 {
    let start = Instant::now();
    #[cfg(target_arch = "x86_64")]
    let operations = match isa {
        Isa::Amx(_) => super::amx::peak(isa, REPEATS),
        _ => vectors(isa, REPEATS),
    };
    #[cfg(not(target_arch = "x86_64"))]
    let operations = vectors(isa, REPEATS);
    operations as f64 / start.elapsed().as_secs_f64() / 1e9
}

fn vectors(isa: Isa, repeats: usize) -> usize {
    dispatch!(isa, multiply(repeats: usize) -> usize)
}

/// Returns how many operations it did.
#[inline(always)]
unsafe fn multiply<S: Simd>(repeats: usize) -> usize {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        match S::TILE {
            Tile::R4x3 => sums::<S, 12>(repeats),
            Tile::R6x1 => sums::<S, 6>(repeats),
            Tile::R4x1 => sums::<S, 4>(repeats),
        }
    }
}

/// As many sums as a tile has, so that none waits for the instruction before it.
#[inline(always)]
unsafe fn sums<S: Simd, const N: usize>(repeats: usize) -> usize {
    let (codes, bytes) = ([[3u8; 4]; N], black_box([1i8; 4 * LANES]));
    // SAFETY: four codes a sum and a vector of weights; the caller vouches for the instruction set.
    unsafe {
        let weights = S::load_bytes(bytes.as_ptr());
        let mut sums = [S::int_splat(0); N];
        for _ in 0..repeats {
            // Codes of each sum's own that may have changed, so that no product is computed once for all.
            let codes = black_box(codes.as_ptr());
            for i in 0..N {
                sums[i] = S::dot_codes(sums[i], S::broadcast4(codes.add(i).cast()), weights);
            }
        }
        for i in 0..N {
            let mut lanes = [0; LANES];
            S::int_store(sums[i], lanes.as_mut_ptr());
            black_box(lanes);
        }
    }
    repeats * N * OPERATIONS
}
