//! Scores of one query against the rows of a vector index.
//!
//! The first pass scores compressed rows with [`int8`], [`int4`] or [`binary`]; the best rows are then scored again in float16 with
//! [`dot_f16`]. Compressed rows are stored in blocks of [`BLOCK_ROWS`], interleaved so that the lanes of a vector are rows and no
//! sum crosses lanes. The loop over a block is compiled for each common dimension, so that the compiler knows its trip count;
//! other dimensions share one loop.

pub mod binary;
mod f16;
pub mod int4;
pub mod int8;

pub use f16::{F16_ALIGN, dot_f16, prefetch_f16};

use crate::simd::LANES;

/// Rows of a block.
pub const BLOCK_ROWS: usize = LANES;
/// Prefetch distance, in bytes: one page ahead, because the hardware prefetcher does not cross the boundaries of 4 KiB pages (Intel
/// 64 and IA-32 Architectures Optimization Reference Manual).
const PREFETCH_BYTES: usize = 4096;
/// Independent sums, so that no instruction waits for the previous one.
const SUMS: usize = 4;
