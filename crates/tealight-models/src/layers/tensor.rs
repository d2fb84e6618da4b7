//! f32 values of candle tensors.

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

/// A tensor `[rows, row_len]`.
pub(crate) fn from_rows(values: Vec<f32>, row_len: usize) -> Result<Tensor> {
    let rows = values.len() / row_len;
    Ok(Tensor::from_vec(values, (rows, row_len), &Device::Cpu)?)
}

/// The values of an operand of a custom operation, which must be contiguous f32.
pub(super) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => candle_core::bail!("expected a contiguous f32 tensor"),
    }
}

/// The result of a custom operation: `[rows, row_len]`.
pub(super) fn output(values: Vec<f32>, row_len: usize) -> candle_core::Result<(CpuStorage, Shape)> {
    let shape = (values.len() / row_len, row_len).into();
    Ok((CpuStorage::F32(values), shape))
}
