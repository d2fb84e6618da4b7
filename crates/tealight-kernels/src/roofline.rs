//! The peak rates of this machine, for comparison with measured kernels: int8 products in registers, and reads from memory.
#![allow(clippy::needless_range_loop)] // Indices are independent sums.

use crate::dispatch::dispatch;
#[cfg(target_arch = "x86_64")]
use crate::int8::amx;
use crate::isa::Isa;
use crate::simd::{LANES, Simd, Tile};
use std::hint::black_box;
use std::time::Instant;

/// Operations per instruction: eight per lane, which are four multiplications and four additions.
const OPS_PER_INSTRUCTION: usize = 2 * 4 * LANES;
const ROUNDS: usize = 5;
/// Instructions per sum and round: a few milliseconds on the slowest instruction set.
const REPEATS: usize = 20_000;
/// Size of the buffer for measuring memory, in u64: 512 MiB, more than caches hold.
const BUFFER_LEN: usize = 1 << 26;
/// Independent sums, so that none waits for the previous addition.
const SUMS: usize = 32;

/// Int8 multiplications and additions of registers on one thread, in 10^9 per second. The best of a few rounds.
pub fn int8_gops(isa: Isa) -> f64 {
    (0..ROUNDS).map(|_| int8_gops_round(isa)).fold(0.0, f64::max)
}

/// Bytes that `threads` threads together read from memory, in 10^9 per second. The best of a few rounds.
pub fn read_gb_per_second(threads: usize) -> f64 {
    let buffer = vec![1u64; BUFFER_LEN];
    let share = BUFFER_LEN.div_ceil(threads.max(1));
    let round = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in buffer.chunks(share) {
                scope.spawn(|| black_box(sum(part)));
            }
        });
        8e-9 * BUFFER_LEN as f64 / start.elapsed().as_secs_f64()
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
    sums.iter().fold(0, |total, sum| total.wrapping_add(*sum))
}

fn int8_gops_round(isa: Isa) -> f64 {
    let start = Instant::now();
    #[cfg(target_arch = "x86_64")]
    let operations = match isa {
        Isa::Amx(_) => amx::multiply_zeros(isa, REPEATS),
        _ => multiply_vectors(isa, REPEATS),
    };
    #[cfg(not(target_arch = "x86_64"))]
    let operations = multiply_vectors(isa, REPEATS);
    operations as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// Multiplies vectors in registers; returns the number of operations.
fn multiply_vectors(isa: Isa, repeats: usize) -> usize {
    dispatch!(isa, multiply(repeats: usize) -> usize)
}

#[inline(always)]
unsafe fn multiply<S: Simd>(repeats: usize) -> usize {
    // SAFETY: the caller guarantees the instruction set.
    unsafe {
        match S::TILE {
            Tile::R4x3 => accumulate::<S, 12>(repeats),
            Tile::R6x1 => accumulate::<S, 6>(repeats),
            Tile::R4x1 => accumulate::<S, 4>(repeats),
        }
    }
}

/// `N` independent sums, as many as a tile of a product has.
#[inline(always)]
unsafe fn accumulate<S: Simd, const N: usize>(repeats: usize) -> usize {
    let (lhs, rhs) = ([[3u8; 4]; N], black_box([1i8; 4 * LANES]));
    // SAFETY: there are four bytes per sum and a vector of weights; the caller guarantees the instruction set.
    unsafe {
        let weights = S::load_i8x4(rhs.as_ptr());
        let mut sums = [S::int_splat(0); N];
        for _ in 0..repeats {
            // The compiler must assume that these values change, so that it cannot reuse a product.
            let lhs = black_box(lhs.as_ptr());
            for i in 0..N {
                sums[i] = S::dot_u8i8(sums[i], S::splat_u8x4(lhs.add(i).cast()), weights);
            }
        }
        for i in 0..N {
            let mut lanes = [0; LANES];
            S::int_store(sums[i], lanes.as_mut_ptr());
            black_box(lanes);
        }
    }
    repeats * N * OPS_PER_INSTRUCTION
}
