//! Operations of a network: candle custom operations on tensors, and whole encoder blocks in one function, both by the kernels.
//!
//! Activations are `[T, width]`: the tokens of all texts of a batch, one after another, with no padding. Every
//! operation computes a row from that row alone, or from the rows of its text alone, in one fixed order; so a text's
//! result depends neither on its batch nor on the number of threads.

mod attention;
mod encoder_layer;
mod linear;
mod norm;

pub use attention::attention;
pub use encoder_layer::{Arenas, Block, Norms, encode};
pub use linear::{Activation, Dense, Linear};
pub use norm::LayerNorm;

use candle_core::{CpuStorage, Device, Layout, Shape, Storage, Tensor};
use tealight_core::{Error, Result};

/// Calls `f` with the values of a contiguous f32 tensor in memory.
pub(crate) fn with_values<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(values(storage, layout)?),
        _ => Err(Error::internal("expected a tensor in memory")),
    }
}

/// A tensor `[rows, width]` of values.
pub(crate) fn rows(values: Vec<f32>, width: usize) -> Result<Tensor> {
    let count = values.len() / width;
    Ok(Tensor::from_vec(values, (count, width), &Device::Cpu)?)
}

/// The values of an operand of a custom operation, which must be contiguous f32.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => candle_core::bail!("expected a contiguous f32 tensor"),
    }
}

/// What a custom operation returns: rows of `width` values.
fn output(values: Vec<f32>, width: usize) -> candle_core::Result<(CpuStorage, Shape)> {
    let shape = (values.len() / width, width).into();
    Ok((CpuStorage::F32(values), shape))
}
