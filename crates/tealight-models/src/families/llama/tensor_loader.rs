//! Reads weights for the kernels. Tensors have GGUF's names.

use super::quantized_matrix::{MatrixSpec, QuantizedMatrix};
use crate::formats::tensor_loader::TensorLoader;
use bytes::Bytes;
use tealight_core::Result;

impl TensorLoader {
    /// Whether the file has a tensor, packed or not.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.weights.contains(&format!("{name}.weight")) || self.weights.packed(name).is_some()
    }

    /// The weight of a norm, in f32.
    pub(super) fn norm_weight(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.floats(&format!("{name}.weight"), &[len])
    }

    /// A matrix, packed unless the file is.
    ///
    /// # Errors
    /// A tensor is missing, has another shape, or cannot be packed.
    pub(super) fn matrix(&self, spec: &MatrixSpec) -> Result<QuantizedMatrix> {
        self.packed_matrix(
            &spec.name,
            |bytes| QuantizedMatrix::from_bytes(bytes, spec.padded_n(), spec.padded_k),
            |weights| QuantizedMatrix::pack(weights, spec),
            QuantizedMatrix::bytes,
        )
    }

    /// Bytes of a matrix that [`TensorLoader::matrix`] returns; 0 if it fails.
    pub(super) fn matrix_bytes(&self, spec: &MatrixSpec) -> usize {
        let bytes = self.weights.packed(&spec.name).map(Bytes::len);
        bytes.or_else(|| QuantizedMatrix::packed_len(&self.weights, spec)).unwrap_or(0)
    }
}
