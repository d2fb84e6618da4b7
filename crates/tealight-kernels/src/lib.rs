#![doc = include_str!("../README.md")]
//!
//! # Data flow
//!
//! A linear layer is [`quantize`] followed by a product: float32 rows `[M, K]` become [`quantize::QuantizedRows`] (the left-hand
//! side, lhs), which [`int8::gemm`] or [`int4::gemm`] multiplies by packed weights `[N, K]` (the right-hand side, rhs) to float32
//! rows `[M, N]`. Attention works on slices of such rows, one head at a time. A vector index scores a query against blocks of
//! compressed rows.
//!
//! ```
//! use tealight_kernels::int8::{Epilogue, PackedRhs, gemm};
//! use tealight_kernels::quantize::QuantizedRows;
//! use tealight_kernels::Isa;
//!
//! let (m, n, k) = (2, 16, 64);
//! let rhs = PackedRhs::pack(&vec![0.5; n * k], &vec![1.0; n], &vec![1.0; k], 64)?;
//! let isa = Isa::detect();
//! let mut lhs = QuantizedRows::default();
//! lhs.quantize(isa, &vec![1.0; m * k], &rhs.layout());
//! let mut out = vec![0.0; m * n];
//! gemm(isa, &lhs, &rhs, 0..n, Epilogue::Store, &mut out);
//! assert!((out[0] - 33.0).abs() < 1e-3);
//! # Ok::<(), tealight_kernels::Error>(())
//! ```
//!
//! # Modules
//!
//! | module | contents |
//! |---|---|
//! | [`isa`] | instruction sets, detected at run time |
//! | [`CpuContext`] | an instruction set and a pool of threads |
//! | [`quantize`] | activations in 8 bits |
//! | [`int8`], [`int4`] | packed weights and their products |
//! | [`attention`] | scaled dot-product attention in int8, and of new tokens to cached keys and values in float32 |
//! | [`rowwise`] | normalization, activation functions, softmax |
//! | [`scoring`] | scores of a query against rows of an index: int8, 4-bit, binary, float16 |
//! | [`fir`] | filters of audio |
//! | `hnsw` | HNSW graphs (feature `graph`) |
//! | [`roofline`] | peak rates of the machine |
//!
//! # Terms
//!
//! As in gemmlowp, **lhs** and **rhs** are the operands of a product; as in BLAS, `M`, `N` and `K` are its rows, columns and inner
//! dimension. As in BLIS, the rhs is **packed**: stored in **panels** of **nr** ([`int8::NR`]) outputs, in the order in which the
//! kernel reads them. A **tile** is mr rows by NV panels, whose sums are **accumulated** in registers; mr and NV depend on the
//! instruction set: 4 by 3 with AVX-512, 6 by 1 with NEON and AVX-VNNI, 4 by 1 with AVX2 and in scalar code. (AMX has tile
//! registers of its own, of 16 rows.) The **epilogue** writes the finished sums to the output. Values along K are quantized in
//! **groups** that share a scale.
//!
//! # Reproducibility
//!
//! Each kernel is written once, generic over the vector type of an instruction set, and compiled for each of them; [`Isa`] selects
//! one at run time. A kernel gives the same bits on all instruction sets, regardless of the number of rows and threads: integer
//! sums are exact, and float sums have one order. There is one exception. AVX2 without VNNI quantizes activations and the
//! queries of int8 indexes to 7 bits, because products of 8-bit values would overflow there; given the same quantized values, AVX2 is bit-identical as well.
//!
//! # Safety
//!
//! All unsafe code of tealight is in this crate, except for one memory mapping. Public functions check the sizes of their arguments
//! and panic if these do not match. Bytes of files are checked by the `from_bytes` functions: packed weights have the size that their
//! header states, and links of a graph lead to rows that exist.
#![allow(unsafe_code)]

pub mod attention;
mod cpu_context;
mod dispatch;
mod error;
pub mod fir;
mod gemm;
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
mod simd;

pub use cpu_context::CpuContext;
pub use error::{Error, Result};
pub use isa::Isa;
