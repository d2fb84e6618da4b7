//! The tensors of a Whisper as the kernels read them: out of a packed file, or packed here.

use crate::formats::packed_file::TensorRecorder;
use crate::formats::tensor::TensorData;
use crate::formats::weights::{Weights, packed_name};
use crate::int8::LayerNorm;
use tealight_core::{Error, Result};
use tealight_kernels::int8::PackedRhs;

/// Values along K that share a scale.
const GROUP: usize = 64;
/// Of every layer norm.
const EPS: f32 = 1e-5;

/// The tensors of a file, by Hugging Face's names for them.
#[derive(Debug)]
pub(super) struct Tensors {
    weights: Weights,
    made: TensorRecorder,
}

impl Tensors {
    /// `keep` keeps what is made of them for [`Tensors::made`].
    pub(super) fn new(weights: Weights, keep: bool) -> Self {
        Self { weights, made: TensorRecorder::new(keep) }
    }

    /// What was made of them.
    pub(super) fn made(self) -> Vec<(String, TensorData)> {
        self.made.into_tensors()
    }

    /// Whether they are a packed file's.
    pub(super) fn are_packed(&self) -> bool {
        self.weights.packed("decoder.embed_tokens").is_some()
    }

    /// Values in f32.
    pub(super) fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let values = self.weights.floats(name, shape)?;
        self.made.record(name.into(), || TensorData::f32(shape.to_vec(), &values));
        Ok(values)
    }

    /// The matrix `[n, k]` of a packed file, or of weights and bias that `read` gives.
    pub(super) fn packed(
        &self,
        name: &str,
        (n, k): (usize, usize),
        read: impl FnOnce(&Weights) -> Result<(Vec<f32>, Vec<f32>)>,
    ) -> Result<PackedRhs> {
        let packed = match self.weights.packed(name) {
            Some(bytes) => PackedRhs::from_bytes(bytes.clone(), n, k).map_err(Error::from),
            None => read(&self.weights)
                .and_then(|(matrix, bias)| Ok(PackedRhs::pack(&matrix, &bias, &vec![1.0; k], GROUP)?)),
        };
        let packed = packed.map_err(|e| e.with_context(format_args!("tensor {name:?}")))?;
        self.made.record(packed_name(name), || TensorData::from_bytes(packed.bytes().clone()));
        Ok(packed)
    }

    /// Matrices `[n, k]` one above another, with zeros where a bias is missing; they go by the name of the first.
    pub(super) fn matrix(&self, parts: &[&str], n: usize, k: usize) -> Result<PackedRhs> {
        self.packed(parts[0], (parts.len() * n, k), |weights| {
            let (mut matrix, mut bias) = (vec![], vec![]);
            for part in parts {
                let name = format!("{part}.bias");
                matrix.extend(weights.floats(&format!("{part}.weight"), &[n, k])?);
                match weights.contains(&name) {
                    true => bias.extend(weights.floats(&name, &[n])?),
                    false => bias.resize(bias.len() + n, 0.0),
                }
            }
            Ok((matrix, bias))
        })
    }

    pub(super) fn norm(&self, name: &str, d: usize) -> Result<LayerNorm> {
        Ok(LayerNorm {
            weight: self.floats(&format!("{name}.weight"), &[d])?,
            bias: self.floats(&format!("{name}.bias"), &[d])?,
            eps: EPS,
        })
    }
}
