//! NEON with dot products: ARMv8.4, and most ARMv8.2 CPUs.

use super::vector::{LANES, Simd, Tile};
use std::arch::aarch64::*;
use std::arch::asm;

/// Four registers of four floats.
///
/// `sdot` multiplies signed bytes, so unsigned values have 128 added in memory.
#[derive(Clone, Copy)]
pub(crate) struct Neon([float32x4_t; 4]);

type Int = [int32x4_t; 4];

/// `sum + a . b`, four products of signed bytes per lane. The intrinsic is not stable yet.
#[inline(always)]
unsafe fn sdot(mut sum: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    // SAFETY: the caller guarantees dot products.
    unsafe {
        asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

#[inline(always)]
fn each<A: Copy, B>(v: [A; 4], f: impl Fn(A) -> B) -> [B; 4] {
    v.map(f)
}

#[inline(always)]
fn both<A: Copy, B: Copy, C>(a: [A; 4], b: [B; 4], f: impl Fn(A, B) -> C) -> [C; 4] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

/// Rounds 16 lanes to integers and narrows them to bytes.
#[inline(always)]
unsafe fn to_bytes(v: [float32x4_t; 4]) -> int8x16_t {
    // SAFETY: NEON is part of arm64.
    unsafe {
        let words = each(v, |v| vmovn_s32(vcvtnq_s32_f32(v)));
        let halves = [vmovn_s16(vcombine_s16(words[0], words[1])), vmovn_s16(vcombine_s16(words[2], words[3]))];
        vcombine_s8(halves[0], halves[1])
    }
}

// SAFETY of every block: the caller guarantees the instruction set and the pointers, as the trait says.
#[rustfmt::skip]
#[allow(clippy::undocumented_unsafe_blocks)] // One reason for all, above.
impl Simd for Neon {
    const QMAX: i32 = 255;
    const STORAGE_OFFSET: u8 = 128;
    const TILE: Tile = Tile::R6x1;
    type Int = Int;
    type LutSums = [uint16x8_t; 2];

    #[inline(always)] unsafe fn splat(v: f32) -> Self { Self([unsafe { vdupq_n_f32(v) }; 4]) }
    #[inline(always)] unsafe fn load(p: *const f32) -> Self { Self(unsafe { [vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))] }) }
    #[inline(always)] unsafe fn load_f16(p: *const u16) -> Self {
        let widen = |p: *const u16| unsafe {
            let (half, wide): (uint16x4_t, float32x4_t) = (vld1_u16(p), vdupq_n_f32(0.0));
            let mut wide = wide;
            asm!("fcvtl {0:v}.4s, {1:v}.4h", inout(vreg) wide, in(vreg) half, options(pure, nomem, nostack, preserves_flags));
            wide
        };
        Self(unsafe { [widen(p), widen(p.add(4)), widen(p.add(8)), widen(p.add(12))] })
    }
    #[inline(always)] unsafe fn store(self, p: *mut f32) { unsafe { (0..4).for_each(|i| vst1q_f32(p.add(4 * i), self.0[i])) } }
    #[inline(always)] unsafe fn add(self, o: Self) -> Self { Self(both(self.0, o.0, |a, b| unsafe { vaddq_f32(a, b) })) }
    #[inline(always)] unsafe fn sub(self, o: Self) -> Self { Self(both(self.0, o.0, |a, b| unsafe { vsubq_f32(a, b) })) }
    #[inline(always)] unsafe fn mul(self, o: Self) -> Self { Self(both(self.0, o.0, |a, b| unsafe { vmulq_f32(a, b) })) }
    #[inline(always)] unsafe fn div(self, o: Self) -> Self { Self(both(self.0, o.0, |a, b| unsafe { vdivq_f32(a, b) })) }
    #[inline(always)] unsafe fn mul_add(self, a: Self, b: Self) -> Self { unsafe {
        Self([vfmaq_f32(b.0[0], self.0[0], a.0[0]), vfmaq_f32(b.0[1], self.0[1], a.0[1]), vfmaq_f32(b.0[2], self.0[2], a.0[2]), vfmaq_f32(b.0[3], self.0[3], a.0[3])])
    } }
    #[inline(always)] unsafe fn max(self, o: Self) -> Self { Self(both(self.0, o.0, |a, b| unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) })) }
    #[inline(always)] unsafe fn min(self, o: Self) -> Self { Self(both(self.0, o.0, |a, b| unsafe { vbslq_f32(vcltq_f32(a, b), a, b) })) }
    #[inline(always)] unsafe fn reduce_sum(self) -> f32 { unsafe {
        let four = vaddq_f32(vaddq_f32(self.0[0], self.0[2]), vaddq_f32(self.0[1], self.0[3]));
        let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
        vget_lane_f32::<0>(vpadd_f32(two, two))
    } }
    #[inline(always)] unsafe fn reduce_max(self) -> f32 { unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(self.0[0], self.0[1]), vmaxq_f32(self.0[2], self.0[3]))) } }
    #[inline(always)] unsafe fn mul_pow2(self, shifted: Self) -> Self {
        Self(both(self.0, shifted.0, |v, s| unsafe {
            vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(v), vshlq_n_s32::<23>(vreinterpretq_s32_f32(s))))
        }))
    }
    #[inline(always)] unsafe fn store_u8(self, p: *mut u8) { unsafe { vst1q_u8(p, veorq_u8(vreinterpretq_u8_s8(to_bytes(self.0)), vdupq_n_u8(Self::STORAGE_OFFSET))) } }
    #[inline(always)] unsafe fn store_i8(self, p: *mut i8) { unsafe { vst1q_s8(p, to_bytes(self.0)) } }
    #[inline(always)] unsafe fn store_i8x4(v: [Self; 4], p: *mut i8) {
        for i in 0..4 {
            unsafe {
                let byte = |j: usize| vandq_s32(vcvtnq_s32_f32(v[j].0[i]), vdupq_n_s32(255));
                let low = vorrq_s32(byte(0), vshlq_n_s32::<8>(byte(1)));
                let high = vorrq_s32(vshlq_n_s32::<16>(byte(2)), vshlq_n_s32::<24>(byte(3)));
                vst1q_s32(p.add(16 * i).cast(), vorrq_s32(low, high));
            }
        }
    }

    #[inline(always)] unsafe fn int_load(p: *const i32) -> Int { unsafe { [vld1q_s32(p), vld1q_s32(p.add(4)), vld1q_s32(p.add(8)), vld1q_s32(p.add(12))] } }
    #[inline(always)] unsafe fn int_splat(v: i32) -> Int { [unsafe { vdupq_n_s32(v) }; 4] }
    #[inline(always)] unsafe fn int_store(v: Int, p: *mut i32) { unsafe { (0..4).for_each(|i| vst1q_s32(p.add(4 * i), v[i])) } }
    #[inline(always)] unsafe fn int_sub(a: Int, b: Int) -> Int { both(a, b, |a, b| unsafe { vsubq_s32(a, b) }) }
    #[inline(always)] unsafe fn max_abs_bits(self, bits: Int) -> Int { both(self.0, bits, |v, l| unsafe { vmaxq_s32(l, vandq_s32(vreinterpretq_s32_f32(v), vdupq_n_s32(i32::MAX))) }) }
    #[inline(always)] unsafe fn int_reduce_max(v: Int) -> i32 { unsafe { vmaxvq_s32(vmaxq_s32(vmaxq_s32(v[0], v[1]), vmaxq_s32(v[2], v[3]))) } }
    #[inline(always)] unsafe fn to_float(v: Int) -> Self { Self(each(v, |v| unsafe { vcvtq_f32_s32(v) })) }
    #[inline(always)] unsafe fn to_int(self) -> Int { each(self.0, |v| unsafe { vcvtnq_s32_f32(v) }) }
    #[inline(always)] unsafe fn load_i8x4(p: *const i8) -> Int { unsafe { Self::int_load(p.cast()) } }
    #[inline(always)] unsafe fn splat_u8x4(p: *const u8) -> Int { [unsafe { vdupq_n_s32(p.cast::<i32>().read_unaligned()) }; 4] }
    #[inline(always)] unsafe fn split_nibbles(v: Int) -> [Int; 2] {
        [each(v, |v| unsafe { vandq_s32(v, vdupq_n_s32(0x0f0f_0f0f)) }), each(v, |v| unsafe { vandq_s32(vshrq_n_s32::<4>(v), vdupq_n_s32(0x0f0f_0f0f)) })]
    }
    #[inline(always)] unsafe fn dot_u8i8(sum: Int, a: Int, b: Int) -> Int { unsafe {
        [sdot(sum[0], a[0], b[0]), sdot(sum[1], a[1], b[1]), sdot(sum[2], a[2], b[2]), sdot(sum[3], a[3], b[3])]
    } }
    #[inline(always)] unsafe fn dot_u4i8(sum: Int, a: Int, b: Int) -> Int { unsafe { Self::dot_u8i8(sum, a, b) } }
    #[inline(always)] unsafe fn acc_init(weight_sums: Int) -> Int { each(weight_sums, |v| unsafe { vshlq_n_s32::<7>(v) }) }

    #[inline(always)] unsafe fn lut_zero() -> [uint16x8_t; 2] { [unsafe { vdupq_n_u16(0) }; 2] }
    #[inline(always)] unsafe fn lut_add(sums: [uint16x8_t; 2], tables: *const u8, bytes: *const u8) -> [uint16x8_t; 2] {
        let mut sums = sums;
        for j in 0..4 {
            unsafe {
                let (low, high, bytes) = (vld1q_u8(tables.add(16 * j)), vld1q_u8(tables.add(64 + 16 * j)), vld1q_u8(bytes.add(16 * j)));
                let sum = vaddq_u8(vqtbl1q_u8(low, vandq_u8(bytes, vdupq_n_u8(15))), vqtbl1q_u8(high, vshrq_n_u8::<4>(bytes)));
                sums = [vaddw_u8(sums[0], vget_low_u8(sum)), vaddw_high_u8(sums[1], sum)];
            }
        }
        sums
    }
    #[inline(always)] unsafe fn lut_lanes(sums: [uint16x8_t; 2]) -> Int { unsafe {
        let wide = [vmovl_u16(vget_low_u16(sums[0])), vmovl_high_u16(sums[0]), vmovl_u16(vget_low_u16(sums[1])), vmovl_high_u16(sums[1])];
        each(wide, |v| vreinterpretq_s32_u32(v))
    } }
    #[inline(always)] unsafe fn prefetch(p: *const u8) { unsafe { asm!("prfm pldl1keep, [{}]", in(reg) p, options(nostack, preserves_flags, readonly)) } }
}

const _: () = assert!(LANES == 16);
