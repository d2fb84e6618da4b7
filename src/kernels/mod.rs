//! Arithmetic on slices: no tensors, no models, no threads.
//!
//! Each kernel is written once, portably, with a fixed order of additions, and compiled again with AVX2
//! enabled. The two give the same bits, because Rust neither reorders nor contracts float operations; so the
//! portable build of a kernel is its specification, and [`Isa`] chooses speed only.
//!
//! `unsafe` is used for one thing here: to call the AVX2 build after the CPU was seen to have AVX2.
#![allow(unsafe_code)]

pub mod attention;
pub mod isa;
pub mod q8_0;
pub mod rowwise;

pub use isa::Isa;

/// Lanes of the partial sums that every float reduction keeps, whatever the instruction set.
pub const LANES: usize = 8;

/// Adds eight partial sums in a fixed order.
#[inline(always)]
pub(crate) fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// Dot product of two rows of equal length, in eight partial sums.
#[inline(always)]
pub(crate) fn dot_lanes(x: &[f32], y: &[f32]) -> f32 {
    let (x8, x_tail) = x.as_chunks::<LANES>();
    let (y8, y_tail) = y.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (a, b) in x8.iter().zip(y8) {
        for l in 0..LANES {
            lanes[l] += a[l] * b[l];
        }
    }
    for (l, (a, b)) in x_tail.iter().zip(y_tail).enumerate() {
        lanes[l] += a * b;
    }
    sum_lanes(lanes)
}

/// Defines a kernel once and compiles it for each instruction set; the public function takes the [`Isa`] first.
macro_rules! kernel {
    ($(#[$doc:meta])* pub fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        pub fn $name(isa: $crate::kernels::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn portable($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,f16c")]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                portable($($arg),*)
            }
            match isa {
                $crate::kernels::Isa::Scalar => portable($($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `Isa::Avx2` is only made by `Isa::best`, after the CPU reported AVX2 and F16C.
                $crate::kernels::Isa::Avx2(_) => unsafe { avx2($($arg),*) },
            }
        }
    };
}
pub(crate) use kernel;
