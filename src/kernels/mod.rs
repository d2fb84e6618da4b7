//! Arithmetic on slices: no tensors, no models, no threads.
//!
//! Each kernel but [`q8_0`] is written once, generic over the vector type of an instruction set (`simd.rs`), and compiled
//! for each of them; [`Isa`] chooses at run time. Integer sums are exact and so equal on every set, but for AVX2, whose activations
//! have 7 bits; floats are rounded differently by different sets, and always alike by one.
#![allow(unsafe_code)]

pub mod attention;
pub mod int8;
pub mod isa;
pub mod q8_0;
pub mod rowwise;
pub(crate) mod simd;

pub use isa::Isa;

/// Adds eight partial sums in a fixed order.
#[inline(always)]
pub(crate) fn sum_lanes(lanes: [f32; 8]) -> f32 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// Calls a kernel, generic over its vector type, with the features of an instruction set enabled.
///
/// `dispatch!(isa, kernel(a: A, b: B) -> R)`: the kernel must be `#[inline(always)] unsafe fn kernel<S: Simd>(a: A, b: B)`,
/// and need for safety nothing but the instruction set. Inside, loops take the place of iterators with closures: a closure
/// that is not inlined has no features, and calls a function for every instruction.
macro_rules! dispatch {
    ($isa:expr, $kernel:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn avx2($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: this function has the features of the type.
            unsafe { $kernel::<$crate::kernels::simd::Avx2>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn avx512($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: this function has the features of the type.
            unsafe { $kernel::<$crate::kernels::simd::Avx512>($($arg),*) }
        }
        match $isa {
            // SAFETY: the portable type needs nothing of the CPU.
            $crate::kernels::Isa::Scalar => unsafe { $kernel::<$crate::kernels::simd::Portable>($($arg),*) },
            // SAFETY: the proof is only made after the CPU reported these features.
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::Isa::Avx2(_) => unsafe { avx2($($arg),*) },
            // SAFETY: the proof is only made after the CPU reported these features.
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::Isa::Avx512Vnni(_) => unsafe { avx512($($arg),*) },
        }
    }};
}
pub(crate) use dispatch;
