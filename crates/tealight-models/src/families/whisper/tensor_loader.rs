//! Tensors of a model file as the network uses them: read from a packed file, or converted.

use crate::formats::tensor::TensorData;
use crate::formats::tensor_recorder::TensorRecorder;
use crate::formats::weights::{Weights, packed_name};
use crate::layers::LayerNorm;
use tealight_core::{Error, Result};
use tealight_kernels::int8::PackedRhs;

/// Values along K that share a scale.
const GROUP_SIZE: usize = 64;
/// Epsilon of all layer norms.
const LAYER_NORM_EPS: f32 = 1e-5;

/// The tensors of a file by Hugging Face's names, without `model.`.
#[derive(Debug)]
pub(super) struct TensorLoader {
    weights: Weights,
    recorder: TensorRecorder,
}

impl TensorLoader {
    /// `record_tensors` keeps converted tensors for [`TensorLoader::into_tensors`].
    pub(super) fn new(weights: Weights, record_tensors: bool) -> Self {
        Self { weights, recorder: TensorRecorder::new(record_tensors) }
    }

    /// All tensors that were read, as a packed file stores them.
    pub(super) fn into_tensors(self) -> Vec<(String, TensorData)> {
        self.recorder.into_tensors()
    }

    /// Whether the file is packed.
    pub(super) fn is_packed(&self) -> bool {
        self.weights.packed("decoder.embed_tokens").is_some()
    }

    /// The values of a tensor as f32.
    pub(super) fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let values = self.weights.floats(name, shape)?;
        self.recorder.record(name.into(), || TensorData::f32(shape.to_vec(), &values));
        Ok(values)
    }

    /// The matrix `[n, k]` of a packed file, or the matrix and bias that `read` returns.
    pub(super) fn packed(
        &self,
        name: &str,
        (n, k): (usize, usize),
        read: impl FnOnce(&Weights) -> Result<(Vec<f32>, Vec<f32>)>,
    ) -> Result<PackedRhs> {
        let packed = match self.weights.packed(name) {
            Some(bytes) => PackedRhs::from_bytes(bytes.clone(), n, k).map_err(Error::from),
            None => read(&self.weights)
                .and_then(|(matrix, bias)| Ok(PackedRhs::pack(&matrix, &bias, &vec![1.0; k], GROUP_SIZE)?)),
        };
        let packed = packed.map_err(|e| e.with_context(format_args!("tensor {name:?}")))?;
        self.recorder.record(packed_name(name), || TensorData::from_bytes(packed.bytes().clone()));
        Ok(packed)
    }

    /// Linear layers `[n, k]` stacked along N, with a bias of 0 if a file has none. A packed file stores them under the first name.
    pub(super) fn stacked_linear(&self, names: &[&str], n: usize, k: usize) -> Result<PackedRhs> {
        self.packed(names[0], (names.len() * n, k), |weights| {
            let (mut matrix, mut bias) = (vec![], vec![]);
            for name in names {
                matrix.extend(weights.floats(&format!("{name}.weight"), &[n, k])?);
                let bias_name = format!("{name}.bias");
                if weights.contains(&bias_name) {
                    bias.extend(weights.floats(&bias_name, &[n])?);
                } else {
                    bias.resize(bias.len() + n, 0.0);
                }
            }
            Ok((matrix, bias))
        })
    }

    pub(super) fn layer_norm(&self, name: &str, d: usize) -> Result<LayerNorm> {
        Ok(LayerNorm {
            weight: self.floats(&format!("{name}.weight"), &[d])?,
            bias: self.floats(&format!("{name}.bias"), &[d])?,
            eps: LAYER_NORM_EPS,
        })
    }
}
