//! One vector type per instruction set, so that each kernel is written once.
//!
//! A [`Simd`] is a vector of 16 floats, and [`Simd::Int`] holds 16 integers in the same lanes, in as many registers as the
//! instruction set needs: one of AVX-512, two of AVX2, four of NEON. All instruction sets have the same number of lanes, add
//! them in the same order and round in the same way (each operation once, as IEEE 754 defines, with fused multiply-add), so a
//! kernel gives the same bits on all of them. [`Scalar`] is the specification.
//!
//! Methods are `unsafe` because they may only run on a CPU that has the instructions. Kernels are generic over the vector type,
//! always inlined, and called from one function per instruction set that enables its features ([`dispatch!`](crate::dispatch)).

mod scalar;
mod vector;

pub(crate) use scalar::Scalar;
#[cfg(test)]
pub(crate) use vector::sum_lanes;
pub(crate) use vector::{LANES, MAX_LUT_ADDS, ROUND_MAGIC, Simd, Tile};

#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
