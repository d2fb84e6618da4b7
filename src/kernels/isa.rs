//! Which instruction set the kernels use: found once, at run time, never by build flags.

use crate::error::{Error, Result};

/// Proof that the CPU has AVX2 and F16C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx2Proof(());

/// An instruction set that this CPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// What every CPU of the target has (SSE2 on x86-64, NEON on arm64).
    Scalar,
    /// AVX2 with F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2Proof),
}

impl Isa {
    /// The fastest set that this CPU has.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("f16c") {
            return Isa::Avx2(Avx2Proof(()));
        }
        Isa::Scalar
    }

    /// The set that a user forces by name (`TEALIGHT_ISA`): one that this CPU has, or an error that lists those.
    pub fn named(name: &str) -> Result<Self> {
        let available = Self::available();
        available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
            let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
            Error::value("TEALIGHT_ISA", format!("TEALIGHT_ISA is {name:?}; this CPU has: {}", names.join(", ")))
        })
    }

    /// Every set that this CPU has, slowest first.
    pub fn available() -> Vec<Self> {
        let mut sets = vec![Isa::Scalar];
        if Self::best() != Isa::Scalar {
            sets.push(Self::best());
        }
        sets
    }

    /// Its name: `scalar` or `avx2`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
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
