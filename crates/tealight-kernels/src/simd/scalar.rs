//! Plain Rust: the specification that the other instruction sets are tested against, and the fallback for every CPU.

use super::vector::{LANES, Simd, Tile, sum_lanes};
use half::f16;
use std::array::from_fn;

/// 16 floats. `QMAX` is 255, or 127 to specify AVX2.
#[derive(Clone, Copy)]
pub(crate) struct Scalar<const QMAX: i32>([f32; LANES]);

#[inline(always)]
fn map2<const L: i32>(a: Scalar<L>, b: Scalar<L>, f: impl Fn(f32, f32) -> f32) -> Scalar<L> {
    Scalar(from_fn(|i| f(a.0[i], b.0[i])))
}

#[inline(always)]
fn dot4(sums: [i32; LANES], product: impl Fn(usize, usize) -> i32) -> [i32; LANES] {
    from_fn(|i| (0..4).fold(sums[i], |sum, b| sum + product(i, b)))
}

// SAFETY of every block: the caller guarantees the pointers, as the trait says.
#[rustfmt::skip]
#[allow(clippy::undocumented_unsafe_blocks)] // One reason for all, above.
impl<const QMAX: i32> Simd for Scalar<QMAX> {
    const QMAX: i32 = QMAX;
    const STORAGE_OFFSET: u8 = 0;
    const TILE: Tile = Tile::R4x1;
    type Int = [i32; LANES];
    type LutSums = [i32; LANES];

    #[inline(always)] unsafe fn splat(v: f32) -> Self { Self([v; LANES]) }
    #[inline(always)] unsafe fn load(p: *const f32) -> Self { Self(unsafe { p.cast::<[f32; LANES]>().read_unaligned() }) }
    #[inline(always)] unsafe fn load_f16(p: *const u16) -> Self { Self(unsafe { p.cast::<[u16; LANES]>().read_unaligned() }.map(|v| f16::from_bits(v).to_f32())) }
    #[inline(always)] unsafe fn store(self, p: *mut f32) { unsafe { p.cast::<[f32; LANES]>().write_unaligned(self.0) } }
    #[inline(always)] unsafe fn add(self, o: Self) -> Self { map2(self, o, |a, b| a + b) }
    #[inline(always)] unsafe fn sub(self, o: Self) -> Self { map2(self, o, |a, b| a - b) }
    #[inline(always)] unsafe fn mul(self, o: Self) -> Self { map2(self, o, |a, b| a * b) }
    #[inline(always)] unsafe fn div(self, o: Self) -> Self { map2(self, o, |a, b| a / b) }
    #[inline(always)] unsafe fn mul_add(self, a: Self, b: Self) -> Self { Self(from_fn(|i| self.0[i].mul_add(a.0[i], b.0[i]))) }
    #[inline(always)] unsafe fn max(self, o: Self) -> Self { map2(self, o, |a, b| if a > b { a } else { b }) }
    #[inline(always)] unsafe fn min(self, o: Self) -> Self { map2(self, o, |a, b| if a < b { a } else { b }) }
    #[inline(always)] unsafe fn reduce_sum(self) -> f32 { sum_lanes(self.0) }
    #[inline(always)] unsafe fn reduce_max(self) -> f32 { self.0.into_iter().fold(f32::NEG_INFINITY, f32::max) }
    #[inline(always)] unsafe fn mul_pow2(self, shifted: Self) -> Self { map2(self, shifted, |v, s| f32::from_bits(v.to_bits().wrapping_add(s.to_bits() << 23))) }
    #[inline(always)] unsafe fn store_u8(self, p: *mut u8) { unsafe { p.cast::<[u8; LANES]>().write_unaligned(self.0.map(|v| v.round_ties_even() as u8)) } }
    #[inline(always)] unsafe fn store_i8(self, p: *mut i8) { unsafe { p.cast::<[i8; LANES]>().write_unaligned(self.0.map(|v| v.round_ties_even() as i8)) } }
    #[inline(always)] unsafe fn store_i8x4(v: [Self; 4], p: *mut i8) {
        let bytes: [[i8; 4]; LANES] = from_fn(|i| from_fn(|b| v[b].0[i].round_ties_even() as i8));
        unsafe { p.cast::<[[i8; 4]; LANES]>().write_unaligned(bytes) }
    }

    #[inline(always)] unsafe fn int_load(p: *const i32) -> [i32; LANES] { unsafe { p.cast::<[i32; LANES]>().read_unaligned() } }
    #[inline(always)] unsafe fn int_splat(v: i32) -> [i32; LANES] { [v; LANES] }
    #[inline(always)] unsafe fn int_store(v: [i32; LANES], p: *mut i32) { unsafe { p.cast::<[i32; LANES]>().write_unaligned(v) } }
    #[inline(always)] unsafe fn int_sub(a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] { from_fn(|i| a[i] - b[i]) }
    #[inline(always)] unsafe fn max_abs_bits(self, bits: [i32; LANES]) -> [i32; LANES] { from_fn(|i| bits[i].max(self.0[i].abs().to_bits() as i32)) }
    #[inline(always)] unsafe fn int_reduce_max(v: [i32; LANES]) -> i32 { v.into_iter().fold(i32::MIN, i32::max) }
    #[inline(always)] unsafe fn to_float(v: [i32; LANES]) -> Self { Self(v.map(|v| v as f32)) }
    #[inline(always)] unsafe fn to_int(self) -> [i32; LANES] { self.0.map(|v| v.round_ties_even() as i32) }
    #[inline(always)] unsafe fn load_i8x4(p: *const i8) -> [i32; LANES] { unsafe { p.cast::<[i32; LANES]>().read_unaligned() } }
    #[inline(always)] unsafe fn splat_u8x4(p: *const u8) -> [i32; LANES] { [unsafe { p.cast::<i32>().read_unaligned() }; LANES] }
    #[inline(always)] unsafe fn split_nibbles(v: [i32; LANES]) -> [[i32; LANES]; 2] { [v.map(|v| v & 0x0f0f_0f0f), v.map(|v| v >> 4 & 0x0f0f_0f0f)] }
    #[inline(always)] unsafe fn dot_u8i8(sum: [i32; LANES], a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        dot4(sum, |i, j| a[i].to_le_bytes()[j] as i32 * (b[i].to_le_bytes()[j] as i8) as i32)
    }
    #[inline(always)] unsafe fn dot_u4i8(sum: [i32; LANES], a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        dot4(sum, |i, j| a[i].to_le_bytes()[j] as i32 * (b[i].to_le_bytes()[j] as i8) as i32)
    }

    #[inline(always)] unsafe fn lut_zero() -> [i32; LANES] { [0; LANES] }
    #[inline(always)] unsafe fn lut_add(sums: [i32; LANES], tables: *const u8, bytes: *const u8) -> [i32; LANES] {
        let (tables, bytes) = unsafe { (&*tables.cast::<[[[u8; 16]; 4]; 2]>(), &*bytes.cast::<[[u8; LANES]; 4]>()) };
        let both = |byte: u8, j: usize| i32::from(tables[0][j][usize::from(byte & 15)]) + i32::from(tables[1][j][usize::from(byte >> 4)]);
        from_fn(|i| (0..4).fold(sums[i], |sum, j| sum + both(bytes[j][i], j)))
    }
    #[inline(always)] unsafe fn lut_lanes(sums: [i32; LANES]) -> [i32; LANES] { sums }
}
