//! One vector type for every instruction set, so that each kernel is written once.
//!
//! A type that implements [`Simd`] is a vector of f32 together with the integer vector of the same lanes. Its methods are
//! `unsafe`, since they may only run on a CPU that has the instructions; kernels are generic over it, inlined always, and
//! called from one function for each set that enables its features ([`dispatch`](super::dispatch)).

/// A vector of [`Simd::LANES`] floats.
///
/// # Safety
/// Every method needs the CPU to have the instruction set of the type. `load` and `store` touch [`Simd::LANES`] values
/// from the pointer on, `load_weights` four times as many bytes, `broadcast4` four bytes; none needs an alignment.
pub(crate) trait Simd: Copy {
    /// Lanes of a vector.
    const LANES: usize;
    /// The highest code of an activation: sums of products of two such codes with weights must be exact.
    const LEVELS: i32;
    /// As many i32.
    type Int: Copy;

    unsafe fn splat(v: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    unsafe fn add(self, o: Self) -> Self;
    unsafe fn sub(self, o: Self) -> Self;
    unsafe fn mul(self, o: Self) -> Self;
    unsafe fn div(self, o: Self) -> Self;
    /// `self * a + b`, rounded once where the set can.
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    unsafe fn max(self, o: Self) -> Self;
    unsafe fn min(self, o: Self) -> Self;
    /// The sum of the lanes, in a fixed order.
    unsafe fn sum(self) -> f32;
    /// The largest lane.
    unsafe fn largest(self) -> f32;
    /// `2^n` for whole `n` from -126 to 127.
    unsafe fn power_of_two(n: Self) -> Self;

    unsafe fn int_zero() -> Self::Int;
    unsafe fn int_load(p: *const i32) -> Self::Int;
    unsafe fn int_splat(v: i32) -> Self::Int;
    unsafe fn int_sub(a: Self::Int, b: Self::Int) -> Self::Int;
    unsafe fn int_mul(a: Self::Int, b: Self::Int) -> Self::Int;
    unsafe fn to_float(v: Self::Int) -> Self;
    /// Writes the nearest whole numbers of lanes in 0..=255 as bytes.
    unsafe fn store_codes(self, p: *mut u8);
    /// Four weights a lane.
    unsafe fn load_weights(p: *const i8) -> Self::Int;
    /// The same four codes in every lane.
    unsafe fn broadcast4(p: *const u8) -> Self::Int;
    /// `sum + codes . weights`, four products a lane, exactly.
    unsafe fn dot4(sum: Self::Int, codes: Self::Int, weights: Self::Int) -> Self::Int;
}

/// The portable vector: the specification.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 8]);

#[inline(always)]
fn map2(a: [f32; 8], b: [f32; 8], f: impl Fn(f32, f32) -> f32) -> Portable {
    Portable(std::array::from_fn(|i| f(a[i], b[i])))
}

// SAFETY of every block: the caller vouches for the pointers, as the trait says.
#[rustfmt::skip]
#[allow(clippy::undocumented_unsafe_blocks)] // One reason for all, above.
impl Simd for Portable {
    const LANES: usize = 8;
    const LEVELS: i32 = 255;
    type Int = [i32; 8];

    #[inline(always)] unsafe fn splat(v: f32) -> Self { Self([v; 8]) }
    #[inline(always)] unsafe fn load(p: *const f32) -> Self { Self(unsafe { p.cast::<[f32; 8]>().read_unaligned() }) }
    #[inline(always)] unsafe fn store(self, p: *mut f32) { unsafe { p.cast::<[f32; 8]>().write_unaligned(self.0) } }
    #[inline(always)] unsafe fn add(self, o: Self) -> Self { map2(self.0, o.0, |a, b| a + b) }
    #[inline(always)] unsafe fn sub(self, o: Self) -> Self { map2(self.0, o.0, |a, b| a - b) }
    #[inline(always)] unsafe fn mul(self, o: Self) -> Self { map2(self.0, o.0, |a, b| a * b) }
    #[inline(always)] unsafe fn div(self, o: Self) -> Self { map2(self.0, o.0, |a, b| a / b) }
    #[inline(always)] unsafe fn mul_add(self, a: Self, b: Self) -> Self { unsafe { self.mul(a).add(b) } }
    // As the instructions of x86: the second operand where either is NaN.
    #[inline(always)] unsafe fn max(self, o: Self) -> Self { map2(self.0, o.0, |a, b| if a > b { a } else { b }) }
    #[inline(always)] unsafe fn min(self, o: Self) -> Self { map2(self.0, o.0, |a, b| if a < b { a } else { b }) }
    #[inline(always)] unsafe fn sum(self) -> f32 { super::sum_lanes(self.0) }
    #[inline(always)] unsafe fn largest(self) -> f32 { self.0.into_iter().fold(f32::NEG_INFINITY, f32::max) }
    #[inline(always)] unsafe fn power_of_two(n: Self) -> Self { Self(n.0.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))) }

    #[inline(always)] unsafe fn int_zero() -> [i32; 8] { [0; 8] }
    #[inline(always)] unsafe fn int_load(p: *const i32) -> [i32; 8] { unsafe { p.cast::<[i32; 8]>().read_unaligned() } }
    #[inline(always)] unsafe fn int_splat(v: i32) -> [i32; 8] { [v; 8] }
    #[inline(always)] unsafe fn int_sub(a: [i32; 8], b: [i32; 8]) -> [i32; 8] { std::array::from_fn(|i| a[i] - b[i]) }
    #[inline(always)] unsafe fn int_mul(a: [i32; 8], b: [i32; 8]) -> [i32; 8] { std::array::from_fn(|i| a[i] * b[i]) }
    #[inline(always)] unsafe fn to_float(v: [i32; 8]) -> Self { Self(v.map(|v| v as f32)) }
    #[inline(always)] unsafe fn store_codes(self, p: *mut u8) { unsafe { p.cast::<[u8; 8]>().write_unaligned(self.0.map(|v| v.round_ties_even() as u8)) } }
    #[inline(always)] unsafe fn load_weights(p: *const i8) -> [i32; 8] { unsafe { p.cast::<[i32; 8]>().read_unaligned() } }
    #[inline(always)] unsafe fn broadcast4(p: *const u8) -> [i32; 8] { [unsafe { p.cast::<i32>().read_unaligned() }; 8] }
    #[inline(always)] unsafe fn dot4(sum: [i32; 8], codes: [i32; 8], weights: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| {
            let (c, w) = (codes[i].to_le_bytes(), weights[i].to_le_bytes());
            (0..4).fold(sum[i], |sum, b| sum + c[b] as i32 * (w[b] as i8) as i32)
        })
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Simd;
    use std::arch::x86_64::*;

    /// AVX2 and FMA. `vpmaddubsw` adds two products in 16 bits, so codes have 7 bits: 2 * 127 * 127 < 32768.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256);

    // SAFETY of every block: the caller vouches for the instruction set and the pointers, as the trait says.
    #[rustfmt::skip]
    #[allow(clippy::undocumented_unsafe_blocks)] // One reason for all, above.
    impl Simd for Avx2 {
        const LANES: usize = 8;
        const LEVELS: i32 = 127;
        type Int = __m256i;

        #[inline(always)] unsafe fn splat(v: f32) -> Self { Self(unsafe { _mm256_set1_ps(v) }) }
        #[inline(always)] unsafe fn load(p: *const f32) -> Self { Self(unsafe { _mm256_loadu_ps(p) }) }
        #[inline(always)] unsafe fn store(self, p: *mut f32) { unsafe { _mm256_storeu_ps(p, self.0) } }
        #[inline(always)] unsafe fn add(self, o: Self) -> Self { Self(unsafe { _mm256_add_ps(self.0, o.0) }) }
        #[inline(always)] unsafe fn sub(self, o: Self) -> Self { Self(unsafe { _mm256_sub_ps(self.0, o.0) }) }
        #[inline(always)] unsafe fn mul(self, o: Self) -> Self { Self(unsafe { _mm256_mul_ps(self.0, o.0) }) }
        #[inline(always)] unsafe fn div(self, o: Self) -> Self { Self(unsafe { _mm256_div_ps(self.0, o.0) }) }
        #[inline(always)] unsafe fn mul_add(self, a: Self, b: Self) -> Self { Self(unsafe { _mm256_fmadd_ps(self.0, a.0, b.0) }) }
        #[inline(always)] unsafe fn max(self, o: Self) -> Self { Self(unsafe { _mm256_max_ps(self.0, o.0) }) }
        #[inline(always)] unsafe fn min(self, o: Self) -> Self { Self(unsafe { _mm256_min_ps(self.0, o.0) }) }
        #[inline(always)] unsafe fn sum(self) -> f32 { let mut a = [0.0; 8]; unsafe { self.store(a.as_mut_ptr()) }; crate::kernels::sum_lanes(a) }
        #[inline(always)] unsafe fn largest(self) -> f32 { let mut a = [0.0; 8]; unsafe { self.store(a.as_mut_ptr()) }; a.into_iter().fold(f32::NEG_INFINITY, f32::max) }
        #[inline(always)] unsafe fn power_of_two(n: Self) -> Self { unsafe {
            let n = _mm256_cvtps_epi32(n.0);
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)))))
        } }

        #[inline(always)] unsafe fn int_zero() -> __m256i { unsafe { _mm256_setzero_si256() } }
        #[inline(always)] unsafe fn int_load(p: *const i32) -> __m256i { unsafe { _mm256_loadu_si256(p.cast()) } }
        #[inline(always)] unsafe fn int_splat(v: i32) -> __m256i { unsafe { _mm256_set1_epi32(v) } }
        #[inline(always)] unsafe fn int_sub(a: __m256i, b: __m256i) -> __m256i { unsafe { _mm256_sub_epi32(a, b) } }
        #[inline(always)] unsafe fn int_mul(a: __m256i, b: __m256i) -> __m256i { unsafe { _mm256_mullo_epi32(a, b) } }
        #[inline(always)] unsafe fn to_float(v: __m256i) -> Self { Self(unsafe { _mm256_cvtepi32_ps(v) }) }
        #[inline(always)] unsafe fn store_codes(self, p: *mut u8) { unsafe {
            let v = _mm256_cvtps_epi32(self.0);
            let v = _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            _mm_storel_epi64(p.cast(), _mm_packus_epi16(v, v));
        } }
        #[inline(always)] unsafe fn load_weights(p: *const i8) -> __m256i { unsafe { _mm256_loadu_si256(p.cast()) } }
        #[inline(always)] unsafe fn broadcast4(p: *const u8) -> __m256i { unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) } }
        #[inline(always)] unsafe fn dot4(sum: __m256i, codes: __m256i, weights: __m256i) -> __m256i { unsafe {
            let pairs = _mm256_maddubs_epi16(codes, weights);
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        } }
    }

    /// AVX-512 with VNNI.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    // SAFETY of every block: the caller vouches for the instruction set and the pointers, as the trait says.
    #[rustfmt::skip]
    #[allow(clippy::undocumented_unsafe_blocks)] // One reason for all, above.
    impl Simd for Avx512 {
        const LANES: usize = 16;
        const LEVELS: i32 = 255;
        type Int = __m512i;

        #[inline(always)] unsafe fn splat(v: f32) -> Self { Self(unsafe { _mm512_set1_ps(v) }) }
        #[inline(always)] unsafe fn load(p: *const f32) -> Self { Self(unsafe { _mm512_loadu_ps(p) }) }
        #[inline(always)] unsafe fn store(self, p: *mut f32) { unsafe { _mm512_storeu_ps(p, self.0) } }
        #[inline(always)] unsafe fn add(self, o: Self) -> Self { Self(unsafe { _mm512_add_ps(self.0, o.0) }) }
        #[inline(always)] unsafe fn sub(self, o: Self) -> Self { Self(unsafe { _mm512_sub_ps(self.0, o.0) }) }
        #[inline(always)] unsafe fn mul(self, o: Self) -> Self { Self(unsafe { _mm512_mul_ps(self.0, o.0) }) }
        #[inline(always)] unsafe fn div(self, o: Self) -> Self { Self(unsafe { _mm512_div_ps(self.0, o.0) }) }
        #[inline(always)] unsafe fn mul_add(self, a: Self, b: Self) -> Self { Self(unsafe { _mm512_fmadd_ps(self.0, a.0, b.0) }) }
        #[inline(always)] unsafe fn max(self, o: Self) -> Self { Self(unsafe { _mm512_max_ps(self.0, o.0) }) }
        #[inline(always)] unsafe fn min(self, o: Self) -> Self { Self(unsafe { _mm512_min_ps(self.0, o.0) }) }
        #[inline(always)] unsafe fn sum(self) -> f32 { unsafe { _mm512_reduce_add_ps(self.0) } }
        #[inline(always)] unsafe fn largest(self) -> f32 { unsafe { _mm512_reduce_max_ps(self.0) } }
        #[inline(always)] unsafe fn power_of_two(n: Self) -> Self { unsafe { Self(_mm512_scalef_ps(_mm512_set1_ps(1.0), n.0)) } }

        #[inline(always)] unsafe fn int_zero() -> __m512i { unsafe { _mm512_setzero_si512() } }
        #[inline(always)] unsafe fn int_load(p: *const i32) -> __m512i { unsafe { _mm512_loadu_si512(p.cast()) } }
        #[inline(always)] unsafe fn int_splat(v: i32) -> __m512i { unsafe { _mm512_set1_epi32(v) } }
        #[inline(always)] unsafe fn int_sub(a: __m512i, b: __m512i) -> __m512i { unsafe { _mm512_sub_epi32(a, b) } }
        #[inline(always)] unsafe fn int_mul(a: __m512i, b: __m512i) -> __m512i { unsafe { _mm512_mullo_epi32(a, b) } }
        #[inline(always)] unsafe fn to_float(v: __m512i) -> Self { Self(unsafe { _mm512_cvtepi32_ps(v) }) }
        #[inline(always)] unsafe fn store_codes(self, p: *mut u8) { unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(self.0))) } }
        #[inline(always)] unsafe fn load_weights(p: *const i8) -> __m512i { unsafe { _mm512_loadu_si512(p.cast()) } }
        #[inline(always)] unsafe fn broadcast4(p: *const u8) -> __m512i { unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) } }
        #[inline(always)] unsafe fn dot4(sum: __m512i, codes: __m512i, weights: __m512i) -> __m512i { unsafe { _mm512_dpbusd_epi32(sum, codes, weights) } }
    }
}
