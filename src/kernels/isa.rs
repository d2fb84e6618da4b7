//! Which instruction set the kernels use: found once, at run time, never by build flags.

use crate::error::{Error, Result};

/// Proof that the CPU reported the features of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof(());

/// An instruction set that this CPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// What every CPU of the target has (SSE2 on x86-64, NEON on arm64).
    Scalar,
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(Proof),
    /// AVX-512 F, BW and VL with VNNI, and what AVX2 has.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Proof),
}

impl Isa {
    /// The fastest set that this CPU has.
    pub fn best() -> Self {
        Self::available().last().copied().unwrap_or(Isa::Scalar)
    }

    /// The set that a user forces by name (`TEALIGHT_ISA`): one that this CPU has, or an error that lists those.
    pub fn named(name: &str) -> Result<Self> {
        let available = Self::available();
        available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
            let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
            let message = format!("TEALIGHT_ISA is {name:?}; this CPU has: {}", names.join(", "));
            Error::value("TEALIGHT_ISA", message)
        })
    }

    /// Every set that this CPU has, slowest first.
    #[allow(unused_mut)] // On other targets nothing is added.
    pub fn available() -> Vec<Self> {
        let mut sets = vec![Isa::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            use std::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("f16c");
            if avx2 {
                sets.push(Isa::Avx2(Proof(())));
            }
            if avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni") {
                sets.push(Isa::Avx512Vnni(Proof(())));
            }
        }
        sets
    }

    /// Its name: `scalar`, `avx2` or `avx512vnni`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(_) => "avx512vnni",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forced_set_is_one_the_cpu_has_or_an_error() {
        assert_eq!(Isa::named("scalar").unwrap(), Isa::Scalar);
        let error = Isa::named("mmx").unwrap_err();
        assert!(error.message.contains("\"mmx\""), "{error}");
        assert!(error.message.contains("scalar"), "{error}");
    }
}
