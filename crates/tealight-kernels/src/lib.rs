//! Arithmetic on slices: no tensors, no models, no threads.
//!
//! Each kernel is written once, generic over the vector type of an instruction set (`simd`), and compiled for each of
//! them; [`Isa`] chooses at run time. A kernel gives the same bits on every set, with one exception: AVX2 without VNNI
//! quantises activations to 7 bits, since products of 8 would overflow there; the same codes give the same bits on it too.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod binary;
mod cpu_context;
mod error;
pub(crate) mod gemm;
#[cfg(feature = "graph")]
mod graph_validate;
#[cfg(feature = "graph")]
pub mod hnsw;
pub mod int4;
pub mod int8;
pub mod isa;
pub mod quantize;
pub mod roofline;
pub mod rowwise;
pub mod scoring;
pub(crate) mod simd;

pub use cpu_context::CpuContext;
pub use error::{Error, Result};
pub use isa::Isa;

/// Calls a kernel, generic over its vector type, with the features of an instruction set enabled.
///
/// `dispatch!(isa, kernel(a: A, b: B) -> R)`: the kernel must be `#[inline(always)] unsafe fn kernel<S: Simd>(a: A, b: B)`,
/// and need for safety nothing but the instruction set. Inside, loops take the place of iterators with closures: a closure
/// that is not inlined has no features, and calls a function for every instruction.
macro_rules! dispatch {
    ($isa:expr, $kernel:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: this function has the features of the type.
            unsafe { $kernel::<$crate::simd::Avx2<false>>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        fn avxvnni($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: this function has the features of the type.
            unsafe { $kernel::<$crate::simd::Avx2<true>>($($arg),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        fn avx512($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: this function has the features of the type.
            unsafe { $kernel::<$crate::simd::Avx512>($($arg),*) }
        }
        #[cfg(target_arch = "aarch64")]
        #[target_feature(enable = "neon,dotprod")]
        fn neon($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: this function has the features of the type.
            unsafe { $kernel::<$crate::simd::Neon>($($arg),*) }
        }
        match $isa {
            // SAFETY: the portable type needs nothing of the CPU.
            $crate::Isa::Scalar => unsafe { $kernel::<$crate::simd::Portable<255>>($($arg),*) },
            // SAFETY: the proof is only made after the CPU reported these features.
            #[cfg(target_arch = "x86_64")]
            $crate::Isa::Avx2(_) => unsafe { avx2($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            $crate::Isa::AvxVnni(_) => unsafe { avxvnni($($arg),*) },
            // SAFETY: as above; AMX includes them.
            #[cfg(target_arch = "x86_64")]
            $crate::Isa::Avx512Vnni(_) | $crate::Isa::Amx(_) => unsafe { avx512($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            $crate::Isa::Neon(_) => unsafe { neon($($arg),*) },
        }
    }};
}
pub(crate) use dispatch;
