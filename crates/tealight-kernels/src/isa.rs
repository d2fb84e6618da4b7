//! Which instruction set the kernels use: found once, at run time, never by build flags.

use crate::{Error, Result};

/// FeatureToken that the CPU reported the features of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureToken(());

/// An instruction set that this CPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// What every CPU of the target has (SSE2 on x86-64, NEON without dot products on arm64).
    Scalar,
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(FeatureToken),
    /// AVX-VNNI, and what AVX2 has.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(FeatureToken),
    /// AVX-512 F, BW and VL with VNNI, and what AVX2 has.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(FeatureToken),
    /// AMX with int8 tiles, by the kernel's permission, and AVX-512 VNNI.
    #[cfg(target_arch = "x86_64")]
    Amx(FeatureToken),
    /// NEON with dot products.
    #[cfg(target_arch = "aarch64")]
    Neon(FeatureToken),
}

impl Isa {
    /// The fastest set that this CPU has.
    pub fn detect() -> Self {
        Self::available().last().copied().unwrap_or(Isa::Scalar)
    }

    /// The fastest set that every CPU of AWS Lambda has, as far as this one has it: AVX2 is what is documented for x86-64.
    /// <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-avx2.html>
    pub fn lambda_baseline() -> Self {
        let is_baseline = |isa: &&Isa| ["avx2", "neon", "scalar"].contains(&isa.as_str());
        Self::available().iter().rev().find(is_baseline).copied().unwrap_or(Isa::Scalar)
    }

    /// The set that a user forces by name (`TEALIGHT_ISA`): one that this CPU has, or an error that lists those.
    pub fn from_name(name: &str) -> Result<Self> {
        let available = Self::available();
        available.iter().copied().find(|isa| isa.as_str() == name).ok_or_else(|| {
            let names: Vec<_> = available.iter().map(|isa| isa.as_str()).collect();
            let message = format!("TEALIGHT_ISA is {name:?}; this CPU has: {}", names.join(", "));
            Error::UnsupportedIsa(message)
        })
    }

    /// Every set that this CPU has, slowest first.
    #[cfg(target_arch = "x86_64")]
    pub fn available() -> Vec<Self> {
        use std::is_x86_feature_detected as has;
        let token = FeatureToken(());
        let avx2 = has!("avx2") && has!("fma") && has!("f16c");
        let avx512 = avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni");
        let sets = [
            (true, Isa::Scalar),
            (avx2, Isa::Avx2(token)),
            (avx2 && has!("avxvnni"), Isa::AvxVnni(token)),
            (avx512, Isa::Avx512Vnni(token)),
            (avx512 && super::amx::permitted(), Isa::Amx(token)),
        ];
        sets.into_iter().filter(|(has, _)| *has).map(|(_, isa)| isa).collect()
    }

    /// Every set that this CPU has, slowest first.
    #[cfg(target_arch = "aarch64")]
    pub fn available() -> Vec<Self> {
        match std::arch::is_aarch64_feature_detected!("dotprod") {
            true => vec![Isa::Scalar, Isa::Neon(FeatureToken(()))],
            false => vec![Isa::Scalar],
        }
    }

    /// Every set that this CPU has.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub fn available() -> Vec<Self> {
        vec![Isa::Scalar]
    }

    /// AMX on a CPU that does not report it: for tests that emulate its instructions.
    ///
    /// # Safety
    /// The CPU has what [`Isa::Avx512Vnni`] needs, and the instructions of AMX are emulated where it has not those.
    #[cfg(target_arch = "x86_64")]
    #[doc(hidden)]
    pub unsafe fn emulated_amx() -> Self {
        Isa::Amx(FeatureToken(()))
    }

    /// Its name: `scalar`, `avx2`, `avxvnni`, `avx512vnni`, `amx` or `neon`.
    pub fn as_str(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(_) => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(_) => "avx512vnni",
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(_) => "amx",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => "neon",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forced_set_is_one_the_cpu_has_or_an_error() {
        assert_eq!(Isa::from_name("scalar").unwrap(), Isa::Scalar);
        let error = Isa::from_name("mmx").unwrap_err();
        assert!(error.to_string().contains("\"mmx\""), "{error}");
        assert!(error.to_string().contains("scalar"), "{error}");
    }
}
