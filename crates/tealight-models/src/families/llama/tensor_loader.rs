//! Reads weights for the kernels: used in place if the file is packed, otherwise packed while loading. Tensors have GGUF's names.

use super::quantized_matrix::{MatrixSpec, QuantizedMatrix};
use crate::formats::tensor::TensorData;
use crate::formats::tensor_recorder::TensorRecorder;
use crate::formats::weights::{Weights, packed_name};
use bytes::Bytes;
use tealight_core::Result;

/// The weights of a file.
#[derive(Debug)]
pub(super) struct TensorLoader {
    weights: Weights,
    recorder: TensorRecorder,
}

impl TensorLoader {
    /// `record_tensors` records what is read, for [`TensorLoader::into_tensors`].
    pub(super) fn new(weights: Weights, record_tensors: bool) -> Self {
        Self { weights, recorder: TensorRecorder::new(record_tensors) }
    }

    /// The tensors of a packed file, in the order in which they were read.
    pub(super) fn into_tensors(self) -> Vec<(String, TensorData)> {
        self.recorder.into_tensors()
    }

    pub(super) fn is_packed(&self) -> bool {
        self.weights.packed("token_embd").is_some()
    }

    /// Whether the file has a tensor, packed or not.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.weights.contains(&format!("{name}.weight")) || self.weights.packed(name).is_some()
    }

    /// A vector in f32.
    pub(super) fn floats(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let name = format!("{name}.weight");
        let values = self.weights.floats(&name, &[len])?;
        self.recorder.record(name, || TensorData::f32(vec![len], &values));
        Ok(values)
    }

    /// A matrix, packed unless the file is.
    ///
    /// # Errors
    /// A tensor is missing, has another shape, or cannot be packed.
    pub(super) fn matrix(&self, spec: &MatrixSpec) -> Result<QuantizedMatrix> {
        let matrix = match self.weights.packed(&spec.name) {
            Some(bytes) => QuantizedMatrix::from_bytes(bytes.clone(), spec.padded_n(), spec.padded_k),
            None => QuantizedMatrix::pack(&self.weights, spec),
        };
        let matrix = matrix.map_err(|e| e.with_context(format_args!("tensor {:?}", spec.name)))?;
        self.recorder.record(packed_name(&spec.name), || TensorData::from_bytes(matrix.bytes().clone()));
        Ok(matrix)
    }

    /// Bytes of a matrix that [`TensorLoader::matrix`] returns; 0 if it fails.
    pub(super) fn matrix_bytes(&self, spec: &MatrixSpec) -> usize {
        let bytes = self.weights.packed(&spec.name).map(Bytes::len);
        bytes.or_else(|| QuantizedMatrix::packed_bytes(&self.weights, spec)).unwrap_or(0)
    }
}
