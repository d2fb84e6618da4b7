//! Instruction sets, detected at run time rather than chosen by build flags.

#[cfg(target_arch = "x86_64")]
mod amx;

use crate::error::{Error, Result};

/// Evidence that the CPU reported the features of an instruction set. Only this module creates it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureToken(());

/// An instruction set that this CPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// The baseline of the target: SSE2 on x86-64, NEON without dot products on arm64.
    Scalar,
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(FeatureToken),
    /// AVX-VNNI, and the features of `Avx2`.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(FeatureToken),
    /// AVX-512 F, BW, VL and VNNI, and the features of `Avx2`.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(FeatureToken),
    /// AMX with int8 tiles, which the operating system must permit, and the features of `Avx512Vnni`.
    #[cfg(target_arch = "x86_64")]
    Amx(FeatureToken),
    /// NEON with dot products.
    #[cfg(target_arch = "aarch64")]
    Neon(FeatureToken),
}

impl Isa {
    /// The fastest instruction set of this CPU.
    pub fn detect() -> Self {
        Self::available().last().copied().unwrap_or(Isa::Scalar)
    }

    /// The fastest instruction set of this CPU that all CPUs of AWS Lambda have. For x86-64, AWS documents AVX2.
    /// <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-avx2.html>
    pub fn lambda_baseline() -> Self {
        let is_baseline = |isa: &&Isa| ["avx2", "neon", "scalar"].contains(&isa.as_str());
        Self::available().iter().rev().find(is_baseline).copied().unwrap_or(Isa::Scalar)
    }

    /// The instruction set of this name, as a user gives it.
    ///
    /// # Errors
    /// This CPU does not have it; the error lists the instruction sets that it has.
    pub fn from_name(name: &str) -> Result<Self> {
        let available = Self::available();
        available.iter().copied().find(|isa| isa.as_str() == name).ok_or_else(|| {
            let names: Vec<_> = available.iter().map(|isa| isa.as_str()).collect();
            let message = format!("instruction set is {name:?}; expected one that this CPU has: {}", names.join(", "));
            Error::UnsupportedIsa(message)
        })
    }

    /// The instruction sets of this CPU, slowest first.
    #[cfg(target_arch = "x86_64")]
    pub fn available() -> Vec<Self> {
        use std::is_x86_feature_detected as has;
        let token = FeatureToken(());
        let avx2 = has!("avx2") && has!("fma") && has!("f16c");
        let avx512 = avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni");
        let isas = [
            (true, Isa::Scalar),
            (avx2, Isa::Avx2(token)),
            (avx2 && has!("avxvnni"), Isa::AvxVnni(token)),
            (avx512, Isa::Avx512Vnni(token)),
            (avx512 && amx::is_available(), Isa::Amx(token)),
        ];
        isas.into_iter().filter(|(has, _)| *has).map(|(_, isa)| isa).collect()
    }

    /// The instruction sets of this CPU, slowest first.
    #[cfg(target_arch = "aarch64")]
    pub fn available() -> Vec<Self> {
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            vec![Isa::Scalar, Isa::Neon(FeatureToken(()))]
        } else {
            vec![Isa::Scalar]
        }
    }

    /// The instruction sets of this CPU.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub fn available() -> Vec<Self> {
        vec![Isa::Scalar]
    }

    /// AMX on a CPU that does not report it, for tests that emulate its instructions.
    ///
    /// # Safety
    /// The CPU must have the features of [`Isa::Avx512Vnni`], and the instructions of AMX must be emulated if it lacks them.
    #[cfg(target_arch = "x86_64")]
    #[doc(hidden)]
    pub unsafe fn emulated_amx() -> Self {
        Isa::Amx(FeatureToken(()))
    }

    /// `scalar`, `avx2`, `avxvnni`, `avx512vnni`, `amx` or `neon`.
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
    fn requested_isa_is_available_or_an_error() {
        assert_eq!(Isa::from_name("scalar").unwrap(), Isa::Scalar);
        let error = Isa::from_name("mmx").unwrap_err();
        assert!(error.to_string().contains("\"mmx\""), "{error}");
        assert!(error.to_string().contains("scalar"), "{error}");
    }
}
