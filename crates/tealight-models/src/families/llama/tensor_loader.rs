//! Reads weights for the kernels: used in place if the file is packed, otherwise packed while loading. Tensors have GGUF's names.

use super::quantized_matrix::{NR, QuantizedMatrix};
use crate::formats::tensor::TensorData;
use crate::formats::tensor_recorder::TensorRecorder;
use crate::formats::weights::{Weights, packed_name};
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

    /// Memory that the weights need once they are packed, in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.weights.memory_bytes()
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

    /// The matrix `name`. In files that are not packed, it is the concatenation of `parts`, each `[n, k]`, along the rows. Rows are
    /// padded with zeros to `padded_k` values.
    ///
    /// # Errors
    /// A tensor is missing, has another shape, or cannot be packed.
    pub(super) fn matrix(
        &self,
        name: &str,
        parts: &[(&str, usize)],
        k: usize,
        padded_k: usize,
    ) -> Result<QuantizedMatrix> {
        let matrix = match self.weights.packed(name) {
            Some(bytes) => {
                let n = parts.iter().map(|(_, n)| n.next_multiple_of(NR)).sum();
                QuantizedMatrix::from_bytes(bytes.clone(), n, padded_k)
            }
            None => {
                let parts: Vec<_> = parts.iter().map(|(part, n)| (format!("{part}.weight"), *n)).collect();
                let parts: Vec<_> = parts.iter().map(|(part, n)| (part.as_str(), *n)).collect();
                QuantizedMatrix::pack(&self.weights, &parts, k, padded_k)
            }
        };
        let matrix = matrix.map_err(|e| e.with_context(format_args!("tensor {name:?}")))?;
        self.recorder.record(packed_name(name), || TensorData::from_bytes(matrix.bytes().clone()));
        Ok(matrix)
    }
}
