//! AVX2, with or without AVX-VNNI, and AVX-512 with VNNI.

use super::vector::{LANES, Simd, Tile};
use std::arch::x86_64::*;

// Functions that end in `_x8` or `_x16` work on that many lanes.

/// Two registers of AVX2 with FMA and F16C, and with AVX-VNNI if `VNNI`.
///
/// Without VNNI, `vpmaddubsw` adds two products in 16 bits, so quantized values have 7 bits: 2 * 127 * 127 < 32768.
#[derive(Clone, Copy)]
pub(crate) struct Avx2<const VNNI: bool>([__m256; 2]);

/// The sum of eight lanes: the upper half is added to the lower, until one is left.
#[inline(always)]
unsafe fn reduce_sum_x8(v: __m256) -> f32 {
    // SAFETY: the caller guarantees AVX2.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// The largest of eight lanes.
#[inline(always)]
unsafe fn reduce_max_x8(v: __m256) -> f32 {
    // SAFETY: the caller guarantees AVX2.
    unsafe {
        let four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
    }
}

/// The larger of `bits` and the bits of the absolute values of eight lanes.
#[inline(always)]
unsafe fn max_abs_bits_x8(v: __m256, bits: __m256i) -> __m256i {
    // SAFETY: the caller guarantees AVX2.
    unsafe { _mm256_max_epi32(bits, _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(i32::MAX))) }
}

/// The largest of eight lanes.
#[inline(always)]
unsafe fn int_reduce_max_x8(v: __m256i) -> i32 {
    // SAFETY: the caller guarantees AVX2.
    unsafe {
        let four = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
        let two = _mm_max_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
        _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
    }
}

#[inline(always)]
unsafe fn mul_pow2_x8(v: __m256, shifted: __m256) -> __m256 {
    // SAFETY: the caller guarantees AVX2.
    unsafe {
        let exponents = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
        _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), exponents))
    }
}

/// Rounds four vectors to integers and stores them as bytes, interleaved by lane.
#[inline(always)]
unsafe fn pack_i8x4_x8(v: [__m256; 4]) -> __m256i {
    // SAFETY: the caller guarantees AVX2.
    unsafe {
        let byte = _mm256_set1_epi32(255);
        let first = _mm256_and_si256(_mm256_cvtps_epi32(v[0]), byte);
        let second = _mm256_slli_epi32::<8>(_mm256_and_si256(_mm256_cvtps_epi32(v[1]), byte));
        let third = _mm256_slli_epi32::<16>(_mm256_and_si256(_mm256_cvtps_epi32(v[2]), byte));
        let fourth = _mm256_slli_epi32::<24>(_mm256_cvtps_epi32(v[3]));
        _mm256_or_si256(_mm256_or_si256(first, second), _mm256_or_si256(third, fourth))
    }
}

/// Rounds 16 lanes to 16-bit integers, in order.
#[inline(always)]
unsafe fn to_words(v: [__m256; 2]) -> __m256i {
    // SAFETY: the caller guarantees AVX2.
    unsafe {
        let words = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
        _mm256_permute4x64_epi64::<0b11_01_10_00>(words)
    }
}

/// `sum + unsigned . signed`, four products per lane. Without VNNI, pairs of products must fit in 16 bits.
#[inline(always)]
unsafe fn dot_bytes<const VNNI: bool>(sum: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
    // SAFETY: the caller guarantees AVX2, and AVX-VNNI if `VNNI`.
    unsafe {
        if VNNI {
            return _mm256_dpbusd_avx_epi32(sum, unsigned, signed);
        }
        let pairs = _mm256_maddubs_epi16(unsigned, signed);
        _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}

/// Looks up the bytes of `low` and `high` and adds their sums: to `sums[0]` as 16-bit words, whose lower bytes carry into the
/// upper, and to `sums[1]` the upper bytes alone.
#[inline(always)]
unsafe fn lut_add_32_bytes(sums: [__m256i; 2], low: *const u8, high: *const u8, bytes: *const u8) -> [__m256i; 2] {
    // SAFETY: the caller guarantees AVX2, and 32 bytes at each pointer.
    unsafe {
        let (bytes, nibble_mask) = (_mm256_loadu_si256(bytes.cast()), _mm256_set1_epi8(15));
        let low = _mm256_shuffle_epi8(_mm256_loadu_si256(low.cast()), _mm256_and_si256(bytes, nibble_mask));
        let bytes = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble_mask);
        let sum = _mm256_add_epi8(low, _mm256_shuffle_epi8(_mm256_loadu_si256(high.cast()), bytes));
        [_mm256_add_epi16(sums[0], sum), _mm256_add_epi16(sums[1], _mm256_srli_epi16::<8>(sum))]
    }
}

/// The sums of 16 lanes as 16-bit words. Both halves of the vectors hold sums of the same lanes.
#[inline(always)]
unsafe fn lut_lanes_x16(sums: [__m256i; 2]) -> [__m128i; 2] {
    // SAFETY: the caller guarantees AVX2.
    unsafe {
        // The words may have wrapped around, but subtracting the upper bytes leaves the sums of the lower bytes, which fit.
        let even = _mm256_sub_epi16(sums[0], _mm256_slli_epi16::<8>(sums[1]));
        let even = _mm_add_epi16(_mm256_castsi256_si128(even), _mm256_extracti128_si256::<1>(even));
        let odd = _mm_add_epi16(_mm256_castsi256_si128(sums[1]), _mm256_extracti128_si256::<1>(sums[1]));
        [_mm_unpacklo_epi16(even, odd), _mm_unpackhi_epi16(even, odd)]
    }
}

// SAFETY of every block: the caller guarantees the instruction set and the pointers, as the trait says.
#[rustfmt::skip]
#[allow(clippy::undocumented_unsafe_blocks)] // One reason for all, above.
impl<const VNNI: bool> Simd for Avx2<VNNI> {
    const QMAX: i32 = if VNNI { 255 } else { 127 };
    const STORAGE_OFFSET: u8 = 0;
    const TILE: Tile = if VNNI { Tile::R6x1 } else { Tile::R4x1 };
    type Int = [__m256i; 2];
    type LutSums = [__m256i; 2];

    #[inline(always)] unsafe fn splat(v: f32) -> Self { Self([unsafe { _mm256_set1_ps(v) }; 2]) }
    #[inline(always)] unsafe fn load(p: *const f32) -> Self { Self(unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }) }
    #[inline(always)] unsafe fn load_f16(p: *const u16) -> Self { Self(unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(p.cast())), _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast()))] }) }
    #[inline(always)] unsafe fn store(self, p: *mut f32) { unsafe { _mm256_storeu_ps(p, self.0[0]); _mm256_storeu_ps(p.add(8), self.0[1]) } }
    #[inline(always)] unsafe fn add(self, o: Self) -> Self { Self(unsafe { [_mm256_add_ps(self.0[0], o.0[0]), _mm256_add_ps(self.0[1], o.0[1])] }) }
    #[inline(always)] unsafe fn sub(self, o: Self) -> Self { Self(unsafe { [_mm256_sub_ps(self.0[0], o.0[0]), _mm256_sub_ps(self.0[1], o.0[1])] }) }
    #[inline(always)] unsafe fn mul(self, o: Self) -> Self { Self(unsafe { [_mm256_mul_ps(self.0[0], o.0[0]), _mm256_mul_ps(self.0[1], o.0[1])] }) }
    #[inline(always)] unsafe fn div(self, o: Self) -> Self { Self(unsafe { [_mm256_div_ps(self.0[0], o.0[0]), _mm256_div_ps(self.0[1], o.0[1])] }) }
    #[inline(always)] unsafe fn mul_add(self, a: Self, b: Self) -> Self { Self(unsafe { [_mm256_fmadd_ps(self.0[0], a.0[0], b.0[0]), _mm256_fmadd_ps(self.0[1], a.0[1], b.0[1])] }) }
    #[inline(always)] unsafe fn max(self, o: Self) -> Self { Self(unsafe { [_mm256_max_ps(self.0[0], o.0[0]), _mm256_max_ps(self.0[1], o.0[1])] }) }
    #[inline(always)] unsafe fn min(self, o: Self) -> Self { Self(unsafe { [_mm256_min_ps(self.0[0], o.0[0]), _mm256_min_ps(self.0[1], o.0[1])] }) }
    #[inline(always)] unsafe fn reduce_sum(self) -> f32 { unsafe { reduce_sum_x8(_mm256_add_ps(self.0[0], self.0[1])) } }
    #[inline(always)] unsafe fn reduce_max(self) -> f32 { unsafe { reduce_max_x8(_mm256_max_ps(self.0[0], self.0[1])) } }
    #[inline(always)] unsafe fn mul_pow2(self, shifted: Self) -> Self { Self(unsafe { [mul_pow2_x8(self.0[0], shifted.0[0]), mul_pow2_x8(self.0[1], shifted.0[1])] }) }
    #[inline(always)] unsafe fn store_u8(self, p: *mut u8) { unsafe {
        let words = to_words(self.0);
        _mm_storeu_si128(p.cast(), _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words)));
    } }
    #[inline(always)] unsafe fn store_i8(self, p: *mut i8) { unsafe {
        let words = to_words(self.0);
        _mm_storeu_si128(p.cast(), _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words)));
    } }
    #[inline(always)] unsafe fn store_i8x4(v: [Self; 4], p: *mut i8) { unsafe {
        _mm256_storeu_si256(p.cast(), pack_i8x4_x8([v[0].0[0], v[1].0[0], v[2].0[0], v[3].0[0]]));
        _mm256_storeu_si256(p.add(32).cast(), pack_i8x4_x8([v[0].0[1], v[1].0[1], v[2].0[1], v[3].0[1]]));
    } }

    #[inline(always)] unsafe fn int_load(p: *const i32) -> Self::Int { unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(8).cast())] } }
    #[inline(always)] unsafe fn int_splat(v: i32) -> Self::Int { [unsafe { _mm256_set1_epi32(v) }; 2] }
    #[inline(always)] unsafe fn int_store(v: Self::Int, p: *mut i32) { unsafe { _mm256_storeu_si256(p.cast(), v[0]); _mm256_storeu_si256(p.add(8).cast(), v[1]) } }
    #[inline(always)] unsafe fn int_sub(a: Self::Int, b: Self::Int) -> Self::Int { unsafe { [_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])] } }
    #[inline(always)] unsafe fn max_abs_bits(self, bits: Self::Int) -> Self::Int { unsafe { [max_abs_bits_x8(self.0[0], bits[0]), max_abs_bits_x8(self.0[1], bits[1])] } }
    #[inline(always)] unsafe fn int_reduce_max(v: Self::Int) -> i32 { unsafe { int_reduce_max_x8(_mm256_max_epi32(v[0], v[1])) } }
    #[inline(always)] unsafe fn to_float(v: Self::Int) -> Self { Self(unsafe { [_mm256_cvtepi32_ps(v[0]), _mm256_cvtepi32_ps(v[1])] }) }
    #[inline(always)] unsafe fn to_int(self) -> Self::Int { unsafe { [_mm256_cvtps_epi32(self.0[0]), _mm256_cvtps_epi32(self.0[1])] } }
    #[inline(always)] unsafe fn load_i8x4(p: *const i8) -> Self::Int { unsafe { [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())] } }
    #[inline(always)] unsafe fn prefetch(p: *const u8) { unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) } }
    #[inline(always)] unsafe fn splat_u8x4(p: *const u8) -> Self::Int { [unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }; 2] }
    #[inline(always)] unsafe fn split_nibbles(v: Self::Int) -> [Self::Int; 2] { unsafe {
        let low = _mm256_set1_epi8(15);
        [
            [_mm256_and_si256(v[0], low), _mm256_and_si256(v[1], low)],
            [_mm256_and_si256(_mm256_srli_epi16::<4>(v[0]), low), _mm256_and_si256(_mm256_srli_epi16::<4>(v[1]), low)],
        ]
    } }
    #[inline(always)] unsafe fn dot_u8i8(sum: Self::Int, a: Self::Int, b: Self::Int) -> Self::Int { unsafe {
        [dot_bytes::<VNNI>(sum[0], a[0], b[0]), dot_bytes::<VNNI>(sum[1], a[1], b[1])]
    } }
    #[inline(always)] unsafe fn dot_u4i8(sum: Self::Int, a: Self::Int, b: Self::Int) -> Self::Int { unsafe {
        [dot_bytes::<VNNI>(sum[0], a[0], b[0]), dot_bytes::<VNNI>(sum[1], a[1], b[1])]
    } }

    #[inline(always)] unsafe fn lut_zero() -> [__m256i; 2] { unsafe { [_mm256_setzero_si256(); 2] } }
    #[inline(always)] unsafe fn lut_add(sums: [__m256i; 2], tables: *const u8, bytes: *const u8) -> [__m256i; 2] { unsafe {
        let sums = lut_add_32_bytes(sums, tables, tables.add(64), bytes);
        lut_add_32_bytes(sums, tables.add(32), tables.add(96), bytes.add(32))
    } }
    #[inline(always)] unsafe fn lut_lanes(sums: [__m256i; 2]) -> Self::Int { unsafe {
        let [low, high] = lut_lanes_x16(sums);
        [_mm256_cvtepu16_epi32(low), _mm256_cvtepu16_epi32(high)]
    } }
}

/// AVX-512 with VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

// SAFETY of every block: the caller guarantees the instruction set and the pointers, as the trait says.
#[rustfmt::skip]
#[allow(clippy::undocumented_unsafe_blocks)] // One reason for all, above.
impl Simd for Avx512 {
    const QMAX: i32 = 255;
    const STORAGE_OFFSET: u8 = 0;
    const TILE: Tile = Tile::R4x3;
    type Int = __m512i;
    type LutSums = [__m512i; 2];

    #[inline(always)] unsafe fn splat(v: f32) -> Self { Self(unsafe { _mm512_set1_ps(v) }) }
    #[inline(always)] unsafe fn load(p: *const f32) -> Self { Self(unsafe { _mm512_loadu_ps(p) }) }
    #[inline(always)] unsafe fn load_f16(p: *const u16) -> Self { Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }) }
    #[inline(always)] unsafe fn store(self, p: *mut f32) { unsafe { _mm512_storeu_ps(p, self.0) } }
    #[inline(always)] unsafe fn add(self, o: Self) -> Self { Self(unsafe { _mm512_add_ps(self.0, o.0) }) }
    #[inline(always)] unsafe fn sub(self, o: Self) -> Self { Self(unsafe { _mm512_sub_ps(self.0, o.0) }) }
    #[inline(always)] unsafe fn mul(self, o: Self) -> Self { Self(unsafe { _mm512_mul_ps(self.0, o.0) }) }
    #[inline(always)] unsafe fn div(self, o: Self) -> Self { Self(unsafe { _mm512_div_ps(self.0, o.0) }) }
    #[inline(always)] unsafe fn mul_add(self, a: Self, b: Self) -> Self { Self(unsafe { _mm512_fmadd_ps(self.0, a.0, b.0) }) }
    #[inline(always)] unsafe fn max(self, o: Self) -> Self { Self(unsafe { _mm512_max_ps(self.0, o.0) }) }
    #[inline(always)] unsafe fn min(self, o: Self) -> Self { Self(unsafe { _mm512_min_ps(self.0, o.0) }) }
    #[inline(always)] unsafe fn reduce_sum(self) -> f32 { unsafe { reduce_sum_x8(_mm256_add_ps(_mm512_castps512_ps256(self.0), upper(self.0))) } }
    #[inline(always)] unsafe fn reduce_max(self) -> f32 { unsafe { reduce_max_x8(_mm256_max_ps(_mm512_castps512_ps256(self.0), upper(self.0))) } }
    #[inline(always)] unsafe fn mul_pow2(self, shifted: Self) -> Self { unsafe {
        let exponents = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted.0));
        Self(_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(self.0), exponents)))
    } }
    #[inline(always)] unsafe fn store_u8(self, p: *mut u8) { unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0))) } }
    #[inline(always)] unsafe fn store_i8(self, p: *mut i8) { unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0))) } }
    #[inline(always)] unsafe fn store_i8x4(v: [Self; 4], p: *mut i8) { unsafe {
        let byte = _mm512_set1_epi32(255);
        let first = _mm512_and_si512(_mm512_cvtps_epi32(v[0].0), byte);
        let second = _mm512_slli_epi32::<8>(_mm512_and_si512(_mm512_cvtps_epi32(v[1].0), byte));
        let third = _mm512_slli_epi32::<16>(_mm512_and_si512(_mm512_cvtps_epi32(v[2].0), byte));
        let fourth = _mm512_slli_epi32::<24>(_mm512_cvtps_epi32(v[3].0));
        _mm512_storeu_si512(p.cast(), _mm512_or_si512(_mm512_or_si512(first, second), _mm512_or_si512(third, fourth)));
    } }

    #[inline(always)] unsafe fn int_load(p: *const i32) -> __m512i { unsafe { _mm512_loadu_si512(p.cast()) } }
    #[inline(always)] unsafe fn int_splat(v: i32) -> __m512i { unsafe { _mm512_set1_epi32(v) } }
    #[inline(always)] unsafe fn int_store(v: __m512i, p: *mut i32) { unsafe { _mm512_storeu_si512(p.cast(), v) } }
    #[inline(always)] unsafe fn int_sub(a: __m512i, b: __m512i) -> __m512i { unsafe { _mm512_sub_epi32(a, b) } }
    #[inline(always)] unsafe fn max_abs_bits(self, bits: __m512i) -> __m512i { unsafe { _mm512_max_epi32(bits, _mm512_and_si512(_mm512_castps_si512(self.0), _mm512_set1_epi32(i32::MAX))) } }
    #[inline(always)] unsafe fn int_reduce_max(v: __m512i) -> i32 { unsafe { int_reduce_max_x8(_mm256_max_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v))) } }
    #[inline(always)] unsafe fn to_float(v: __m512i) -> Self { Self(unsafe { _mm512_cvtepi32_ps(v) }) }
    #[inline(always)] unsafe fn to_int(self) -> __m512i { unsafe { _mm512_cvtps_epi32(self.0) } }
    #[inline(always)] unsafe fn load_i8x4(p: *const i8) -> __m512i { unsafe { _mm512_loadu_si512(p.cast()) } }
    #[inline(always)] unsafe fn prefetch(p: *const u8) { unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) } }
    #[inline(always)] unsafe fn splat_u8x4(p: *const u8) -> __m512i { unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) } }
    #[inline(always)] unsafe fn split_nibbles(v: __m512i) -> [__m512i; 2] { unsafe {
        let low = _mm512_set1_epi8(15);
        [_mm512_and_si512(v, low), _mm512_and_si512(_mm512_srli_epi16::<4>(v), low)]
    } }
    #[inline(always)] unsafe fn dot_u8i8(sum: __m512i, a: __m512i, b: __m512i) -> __m512i { unsafe { _mm512_dpbusd_epi32(sum, a, b) } }
    #[inline(always)] unsafe fn dot_u4i8(sum: __m512i, a: __m512i, b: __m512i) -> __m512i { unsafe { _mm512_dpbusd_epi32(sum, a, b) } }

    #[inline(always)] unsafe fn lut_zero() -> [__m512i; 2] { unsafe { [_mm512_setzero_si512(); 2] } }
    #[inline(always)] unsafe fn lut_add(sums: [__m512i; 2], tables: *const u8, bytes: *const u8) -> [__m512i; 2] { unsafe {
        let (bytes, nibble_mask) = (_mm512_loadu_si512(bytes.cast()), _mm512_set1_epi8(15));
        let low = _mm512_shuffle_epi8(_mm512_loadu_si512(tables.cast()), _mm512_and_si512(bytes, nibble_mask));
        let bytes = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble_mask);
        let sum = _mm512_add_epi8(low, _mm512_shuffle_epi8(_mm512_loadu_si512(tables.add(64).cast()), bytes));
        [_mm512_add_epi16(sums[0], sum), _mm512_add_epi16(sums[1], _mm512_srli_epi16::<8>(sum))]
    } }
    #[inline(always)] unsafe fn lut_lanes(sums: [__m512i; 2]) -> __m512i { unsafe {
        let even = _mm256_add_epi16(_mm512_castsi512_si256(sums[0]), _mm512_extracti64x4_epi64::<1>(sums[0]));
        let odd = _mm256_add_epi16(_mm512_castsi512_si256(sums[1]), _mm512_extracti64x4_epi64::<1>(sums[1]));
        let [low, high] = lut_lanes_x16([even, odd]);
        _mm512_cvtepu16_epi32(_mm256_set_m128i(high, low))
    } }
}

/// The upper eight lanes.
#[inline(always)]
unsafe fn upper(v: __m512) -> __m256 {
    // SAFETY: the caller guarantees AVX-512.
    unsafe { _mm256_castsi256_ps(_mm512_extracti64x4_epi64::<1>(_mm512_castps_si512(v))) }
}

const _: () = assert!(LANES == 16);
