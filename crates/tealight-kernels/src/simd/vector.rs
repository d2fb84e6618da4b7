//! The trait that the vector types of all instruction sets implement.

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// 1.5 * 2^23: adding it to a float leaves the nearest integer in the low bits of the sum, which saves a conversion.
pub(crate) const ROUND_MAGIC: f32 = 12_582_912.0;

/// Maximum number of calls of [`Simd::lut_add`] whose sums fit in 16 bits: each adds at most 8 * 127.
pub(crate) const MAX_LUT_ADDS: usize = 64;

/// A vector of [`LANES`] floats.
///
/// # Safety
/// Every method requires that the CPU has the instruction set of the type. `load` and `store` access [`LANES`] values from the
/// pointer on, `load_f16` as many half floats, `load_i8x4` and `store_i8x4` four times as many bytes, `splat_u8x4` four bytes,
/// `lut_add` 128 and 64 bytes. None requires an alignment.
pub(crate) trait Simd: Copy {
    /// The largest unsigned quantized value: sums of products of such values with int8 weights are exact.
    const QMAX: i32;
    /// What is added to unsigned values in memory, modulo 256: 128 where the instruction set only multiplies signed bytes.
    const STORAGE_OFFSET: u8;
    /// Size of the tile of a product whose sums fit the registers.
    const TILE: Tile;
    /// [`LANES`] i32, or four times as many bytes.
    type Int: Copy;
    /// Sums of table values for each lane.
    type LutSums: Copy;

    unsafe fn splat(v: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn load_f16(p: *const u16) -> Self;
    unsafe fn store(self, p: *mut f32);
    unsafe fn add(self, o: Self) -> Self;
    unsafe fn sub(self, o: Self) -> Self;
    unsafe fn mul(self, o: Self) -> Self;
    unsafe fn div(self, o: Self) -> Self;
    /// `self * a + b`, rounded once.
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    /// The larger value per lane; `o` where either is NaN.
    unsafe fn max(self, o: Self) -> Self;
    /// The smaller value per lane; `o` where either is NaN.
    unsafe fn min(self, o: Self) -> Self;
    /// The sum of the lanes, in the order of [`sum_lanes`].
    unsafe fn reduce_sum(self) -> f32;
    /// The largest lane. No lane may be NaN.
    unsafe fn reduce_max(self) -> f32;
    /// `self * 2^n`, where `shifted` is `n + `[`ROUND_MAGIC`] for an integer `n`. Both factors and the product must be normal.
    unsafe fn mul_pow2(self, shifted: Self) -> Self;
    /// Rounds lanes from 0 to 255 to the nearest integer and stores them as bytes with [`Simd::STORAGE_OFFSET`] added.
    unsafe fn store_u8(self, p: *mut u8);
    /// Rounds lanes from -127 to 127 to the nearest integer and stores them as bytes.
    unsafe fn store_i8(self, p: *mut i8);
    /// [`Simd::store_i8`] of four vectors, interleaved: the four bytes of a lane are adjacent.
    unsafe fn store_i8x4(v: [Self; 4], p: *mut i8);

    unsafe fn int_load(p: *const i32) -> Self::Int;
    unsafe fn int_splat(v: i32) -> Self::Int;
    unsafe fn int_store(v: Self::Int, p: *mut i32);
    unsafe fn int_sub(a: Self::Int, b: Self::Int) -> Self::Int;
    /// The larger of `bits` and the bits of the lanes' absolute values, which order as the values do, NaN and infinity last.
    unsafe fn max_abs_bits(self, bits: Self::Int) -> Self::Int;
    /// The largest lane.
    unsafe fn int_reduce_max(v: Self::Int) -> i32;
    unsafe fn to_float(v: Self::Int) -> Self;
    /// The nearest integers.
    unsafe fn to_int(self) -> Self::Int;
    /// Four bytes per lane.
    unsafe fn load_i8x4(p: *const i8) -> Self::Int;
    /// Prefetches a cache line. Any address is allowed.
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        let _ = p;
    }
    /// The same four bytes in every lane.
    unsafe fn splat_u8x4(p: *const u8) -> Self::Int;
    /// The lower and the upper four bits of each byte.
    unsafe fn split_nibbles(v: Self::Int) -> [Self::Int; 2];
    /// `sum + a . b`, four products per lane, exactly. `a` has unsigned values up to [`Simd::QMAX`] with
    /// [`Simd::STORAGE_OFFSET`] added, `b` values from -127 to 127.
    unsafe fn dot_u8i8(sum: Self::Int, a: Self::Int, b: Self::Int) -> Self::Int;
    /// `sum + a . b`, four products per lane, exactly. `a` has values from 0 to 15, `b` from -127 to 127.
    unsafe fn dot_u4i8(sum: Self::Int, a: Self::Int, b: Self::Int) -> Self::Int;

    /// Sums of no table values.
    unsafe fn lut_zero() -> Self::LutSums;
    /// Adds, for each lane, the eight table values that four bytes select. `bytes` holds the first byte of every lane, then the
    /// second, and so on. `tables` holds eight tables of 16 one-byte values up to 127: four for the lower four bits of the bytes,
    /// then four for the upper. May be called [`MAX_LUT_ADDS`] times.
    unsafe fn lut_add(sums: Self::LutSums, tables: *const u8, bytes: *const u8) -> Self::LutSums;
    /// The sums as one integer per lane.
    unsafe fn lut_lanes(sums: Self::LutSums) -> Self::Int;

    /// The nearest integers, of values up to 2^22.
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: the caller guarantees the instruction set.
        unsafe { self.add(Self::splat(ROUND_MAGIC)).sub(Self::splat(ROUND_MAGIC)) }
    }

    /// The initial value of sums of [`Simd::dot_u8i8`], from the sums of the weights: it cancels [`Simd::STORAGE_OFFSET`].
    #[inline(always)]
    unsafe fn acc_init(weight_sums: Self::Int) -> Self::Int {
        let _ = weight_sums;
        // SAFETY: the caller guarantees the instruction set.
        unsafe { Self::int_splat(0) }
    }
}

/// The tile of a product whose sums are held in registers: rows (mr) by vectors of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tile {
    /// 4 rows of 3 vectors: 32 registers of 512 bits hold the integer and the float sums.
    R4x3,
    /// 6 rows of 1 vector: enough sums that none waits for the previous instruction.
    R6x1,
    /// 4 rows of 1 vector.
    R4x1,
}

/// Adds 16 partial sums in the order that all instruction sets share: the upper half onto the lower, until one is left.
#[inline(always)]
pub(crate) fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}
