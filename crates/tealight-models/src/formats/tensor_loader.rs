//! Reads the tensors of a network: used in place if the file is packed, otherwise converted.

use super::tensor::TensorData;
use super::weights::{Weights, packed_name};
use bytes::Bytes;
use std::sync::{Mutex, PoisonError};
use tealight_core::Result;

/// The weights of a file. If a packed file is to be written, records the tensors that a network is built from, in the order of use.
/// The families add methods for the names and the matrix formats of their files.
#[derive(Debug)]
pub(crate) struct TensorLoader {
    pub(crate) weights: Weights,
    recorded: Option<Mutex<Vec<(String, TensorData)>>>,
}

impl TensorLoader {
    /// `record_tensors` records what is read, for [`TensorLoader::into_tensors`].
    pub(crate) fn new(weights: Weights, record_tensors: bool) -> Self {
        Self { weights, recorded: record_tensors.then(Mutex::default) }
    }

    /// The recorded tensors as a packed file stores them, in the order in which they were read.
    pub(crate) fn into_tensors(self) -> Vec<(String, TensorData)> {
        self.recorded.map_or_else(Vec::new, |tensors| tensors.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// The values of a tensor in f32.
    ///
    /// # Errors
    /// As [`Weights::floats`].
    pub(crate) fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let values = self.weights.floats(name, shape)?;
        self.record(name.into(), || TensorData::f32(shape.to_vec(), &values));
        Ok(values)
    }

    /// The matrix that `from_bytes` makes of a packed tensor, or that `pack` makes of other tensors. `bytes` returns its packed form.
    ///
    /// # Errors
    /// That of `from_bytes` or `pack`, with the name of the matrix.
    pub(crate) fn packed_matrix<T>(
        &self,
        name: &str,
        from_bytes: impl FnOnce(Bytes) -> Result<T>,
        pack: impl FnOnce(&Weights) -> Result<T>,
        bytes: impl FnOnce(&T) -> &Bytes,
    ) -> Result<T> {
        let matrix = match self.weights.packed(name) {
            Some(packed) => from_bytes(packed.clone()),
            None => pack(&self.weights),
        };
        let matrix = matrix.map_err(|e| e.with_context(format_args!("tensor {name:?}")))?;
        self.record(packed_name(name), || TensorData::from_bytes(bytes(&matrix).clone()));
        Ok(matrix)
    }

    fn record(&self, name: String, tensor: impl FnOnce() -> TensorData) {
        if let Some(tensors) = &self.recorded {
            tensors.lock().unwrap_or_else(PoisonError::into_inner).push((name, tensor()));
        }
    }
}
