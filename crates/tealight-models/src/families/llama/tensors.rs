//! The tensors of a Llama as the kernels read them: out of a packed file, or packed here. They go by GGUF's names.

use super::matrix::Matrix;
use crate::formats::gguf::TensorData;
use crate::formats::weights::{Weights, packed_name};
use crate::pack::Made;
use tealight_core::Result;

/// The tensors of a file.
#[derive(Debug)]
pub(super) struct Tensors {
    weights: Weights,
    made: Made,
}

impl Tensors {
    /// `keep` keeps what is made of them for [`Tensors::made`].
    pub(super) fn new(weights: Weights, keep: bool) -> Self {
        Self { weights, made: Made::new(keep) }
    }

    /// What was made of them.
    pub(super) fn made(self) -> Vec<(String, TensorData)> {
        self.made.tensors()
    }

    /// Bytes of all of them in memory.
    pub(super) fn packed_bytes(&self) -> u64 {
        self.weights.packed_bytes()
    }

    /// Whether they are a packed file's.
    pub(super) fn are_packed(&self) -> bool {
        self.weights.packed("token_embd").is_some()
    }

    /// Whether there is a tensor of this name, in a layout of ours or another.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.weights.contains(&format!("{name}.weight")) || self.weights.packed(name).is_some()
    }

    /// Values in f32.
    pub(super) fn floats(&self, name: &str, length: usize) -> Result<Vec<f32>> {
        let name = format!("{name}.weight");
        let values = self.weights.floats(&name, &[length])?;
        self.made.keep(name, || TensorData::f32(vec![length], &values));
        Ok(values)
    }

    /// Matrices `[n, k]` one above another, whose K is filled up to `columns`; they go by `name`.
    pub(super) fn matrix(&self, name: &str, parts: &[(&str, usize)], k: usize, columns: usize) -> Result<Matrix> {
        let matrix = match self.weights.packed(name) {
            Some(bytes) => {
                let rows = parts.iter().map(|(_, n)| n.next_multiple_of(16)).sum();
                Matrix::from_bytes(bytes.clone(), rows, columns)
            }
            None => {
                let parts: Vec<_> = parts.iter().map(|(part, n)| (format!("{part}.weight"), *n)).collect();
                let parts: Vec<_> = parts.iter().map(|(part, n)| (part.as_str(), *n)).collect();
                Matrix::of(&self.weights, &parts, k, columns)
            }
        };
        let matrix = matrix.map_err(|e| e.with_context(format_args!("tensor {name:?}")))?;
        self.made.keep(packed_name(name), || TensorData::bytes(matrix.bytes().clone()));
        Ok(matrix)
    }
}
