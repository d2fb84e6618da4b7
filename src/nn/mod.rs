//! Operations of a network on candle tensors, by the kernels.
//!
//! Activations are `[T, width]`: the tokens of all texts of a batch, one after another, with no padding. Every
//! operation computes a row from that row alone, or from the rows of its text alone, in one fixed order; so a text's
//! result depends neither on its batch nor on the number of threads.

mod attention;
mod block;
mod cpu;
mod linear;
mod matrix;
mod norm;
mod pool;

pub use attention::attention;
pub use block::{Arena, Block, encode};
pub use cpu::Cpu;
pub use linear::{Activation, Dense, Linear};
pub use matrix::Matrix;
pub use norm::LayerNorm;
pub use pool::{Pooling, pool};

use crate::error::{Error, Result};
use candle_core::{CpuStorage, Device, Storage, Tensor};

/// Calls `f` with the values of a contiguous f32 tensor in memory.
pub(crate) fn with_values<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let (storage, layout) = x.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => f(&values[start..end]),
        _ => Err(Error::internal("expected a contiguous f32 tensor in memory")),
    }
}

/// A tensor `[rows, width]` of values.
pub(crate) fn rows(values: Vec<f32>, width: usize) -> Result<Tensor> {
    let count = values.len() / width;
    Ok(Tensor::from_vec(values, (count, width), &Device::Cpu)?)
}
