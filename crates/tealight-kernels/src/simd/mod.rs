//! One vector type for every instruction set, so that each kernel is written once.
//!
//! A [`Simd`] is 16 floats, and [`Simd::Int`] the 16 integers of the same lanes, in as many registers as the set needs: one
//! of AVX-512, two of AVX2, four of NEON. Since every set has the same lanes, the same order of sums and the same rounding
//! (each operation is rounded once, as IEEE 754 has it, and multiply-add is fused), a kernel gives the same bits on
//! each of them. The portable type is the specification.
//!
//! Methods are `unsafe`, since they may only run on a CPU that has the instructions; kernels are generic over the type,
//! inlined always, and called from one function for each set that enables its features ([`dispatch`](super::dispatch)).

mod portable;
pub(crate) use portable::Portable;

#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// 1.5 * 2^23: added to a float it leaves the nearest whole number in the low bits, so that no conversion is needed.
pub(crate) const SHIFT: f32 = 12_582_912.0;

/// A tally holds what so many look-ups add: no more than 8 * 127 each, in 16 bits.
pub(crate) const LOOKUPS: usize = 64;

/// A vector of [`LANES`] floats.
///
/// # Safety
/// Every method needs the CPU to have the instruction set of the type. `load` and `store` touch [`LANES`] values from the
/// pointer on, `load_half` as many half floats, `load_bytes` and `store_fours` four times as many bytes, `broadcast4`
/// four bytes, `look_up` 128 and 64; none needs an alignment.
pub(crate) trait Simd: Copy {
    /// The highest code of an activation: sums of products of such codes with weights must be exact.
    const QMAX: i32;
    /// Added to a code in memory, modulo 256: 128 where the set multiplies signed bytes only.
    const STORAGE_OFFSET: u8;
    /// Rows and vectors of columns of a product's tile, whose sums the registers hold.
    const TILE: Tile;
    /// [`LANES`] i32, or four times as many bytes.
    type Int: Copy;
    /// Sums of bytes for each lane.
    type Tally: Copy;

    unsafe fn splat(v: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn load_half(p: *const u16) -> Self;
    unsafe fn store(self, p: *mut f32);
    unsafe fn add(self, o: Self) -> Self;
    unsafe fn sub(self, o: Self) -> Self;
    unsafe fn mul(self, o: Self) -> Self;
    unsafe fn div(self, o: Self) -> Self;
    /// `self * a + b`, rounded once.
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    /// The larger, and `o` where either is NaN.
    unsafe fn max(self, o: Self) -> Self;
    /// The smaller, and `o` where either is NaN.
    unsafe fn min(self, o: Self) -> Self;
    /// The sum of the lanes, as [`sum_lanes`] adds them.
    unsafe fn sum(self) -> f32;
    /// The largest lane, of lanes that are no NaN.
    unsafe fn largest(self) -> f32;
    /// `self * 2^n` where `shifted` is `n + `[`SHIFT`], for whole `n` and where both factors and the product are normal.
    unsafe fn times_power(self, shifted: Self) -> Self;
    /// Writes the nearest whole numbers of lanes in 0..=255, with [`Simd::STORAGE_OFFSET`] added, as bytes.
    unsafe fn store_codes(self, p: *mut u8);
    /// Writes the nearest whole numbers of lanes in -127..=127 as bytes.
    unsafe fn store_signed(self, p: *mut i8);
    /// Writes the nearest whole numbers of lanes in -127..=127 of four vectors, those of one lane together.
    unsafe fn store_fours(v: [Self; 4], p: *mut i8);

    unsafe fn int_load(p: *const i32) -> Self::Int;
    unsafe fn int_splat(v: i32) -> Self::Int;
    unsafe fn int_store(v: Self::Int, p: *mut i32);
    unsafe fn int_sub(a: Self::Int, b: Self::Int) -> Self::Int;
    /// The larger of `largest` and the magnitudes of lanes, as bits: they order like the magnitudes, what is not finite last.
    unsafe fn magnitude(self, largest: Self::Int) -> Self::Int;
    /// The largest lane.
    unsafe fn int_largest(v: Self::Int) -> i32;
    unsafe fn to_float(v: Self::Int) -> Self;
    /// The nearest whole numbers.
    unsafe fn to_int(self) -> Self::Int;
    /// Four bytes a lane.
    unsafe fn load_bytes(p: *const i8) -> Self::Int;
    /// Asks for a line of memory, at any address.
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        let _ = p;
    }
    /// The same four bytes in every lane.
    unsafe fn broadcast4(p: *const u8) -> Self::Int;
    /// The lower and the higher four bits of each byte.
    unsafe fn nibbles(v: Self::Int) -> [Self::Int; 2];
    /// `sum + codes . weights`, four products a lane, exactly; codes with [`Simd::STORAGE_OFFSET`], at most [`Simd::QMAX`],
    /// weights from -127 to 127.
    unsafe fn dot_codes(sum: Self::Int, codes: Self::Int, weights: Self::Int) -> Self::Int;
    /// `sum + nibbles . codes`, four products a lane, exactly; nibbles from 0 to 15, codes from -127 to 127.
    unsafe fn dot_nibbles(sum: Self::Int, nibbles: Self::Int, codes: Self::Int) -> Self::Int;

    /// Sums of nothing.
    unsafe fn tally() -> Self::Tally;
    /// Adds, for each lane, what four bytes look up: at `bytes` lie the first bytes of all lanes, then the second, and so on; at `tables`
    /// eight tables of 16 values up to 127, a byte each, first four for the bytes' lower four bits, then four for their higher. At most
    /// [`LOOKUPS`] times.
    unsafe fn look_up(tally: Self::Tally, tables: *const u8, bytes: *const u8) -> Self::Tally;
    /// The sums.
    unsafe fn tallied(tally: Self::Tally) -> Self::Int;

    /// The nearest whole numbers, of magnitudes up to 2^22.
    #[inline(always)]
    unsafe fn rounded(self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { self.add(Self::splat(SHIFT)).sub(Self::splat(SHIFT)) }
    }

    /// What a sum of [`Simd::dot_codes`] starts from, given the sums of the weights: it takes the bias out again.
    #[inline(always)]
    unsafe fn start(weight_sums: Self::Int) -> Self::Int {
        let _ = weight_sums;
        // SAFETY: the caller vouches for the instruction set.
        unsafe { Self::int_splat(0) }
    }
}

/// How large a tile is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tile {
    /// 4 rows of 3 vectors: 32 registers of 512 bits hold the integer sums and the float ones.
    R4x3,
    /// 6 rows of 1 vector: enough sums that none waits for the instruction before it.
    R6x1,
    /// 4 rows of 1 vector.
    R4x1,
}

/// Adds 16 partial sums in the order of every set: halves onto each other.
#[inline(always)]
pub(crate) fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}
