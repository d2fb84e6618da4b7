//! Run-time dispatch of a kernel to the functions compiled for each instruction set.

/// Calls a kernel that is generic over its vector type with the features of an instruction set enabled.
///
/// `dispatch!(isa, kernel(a: A, b: B) -> R)`: the kernel must be `#[inline(always)] unsafe fn kernel<S: Simd>(a: A, b: B) -> R`,
/// and its only safety requirement must be the instruction set. Kernels use loops where other code uses iterators with closures: a
/// closure that is not inlined is compiled without the features, and calls a function for each instruction.
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
            // SAFETY: the scalar type needs no features.
            $crate::isa::Isa::Scalar => unsafe { $kernel::<$crate::simd::Scalar<255>>($($arg),*) },
            // SAFETY: the variant holds a `FeatureToken`, which is only created after the CPU reported these features.
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Isa::Avx2(_) => unsafe { avx2($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Isa::AvxVnni(_) => unsafe { avxvnni($($arg),*) },
            // SAFETY: as above; a CPU with AMX also has these features.
            #[cfg(target_arch = "x86_64")]
            $crate::isa::Isa::Avx512Vnni(_) | $crate::isa::Isa::Amx(_) => unsafe { avx512($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            $crate::isa::Isa::Neon(_) => unsafe { neon($($arg),*) },
        }
    }};
}
pub(crate) use dispatch;
