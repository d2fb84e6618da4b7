//! Reads weights for the kernels. Tensors have Hugging Face's names, without `model.`.

use crate::formats::tensor_loader::TensorLoader;
use crate::formats::weights::Weights;
use crate::layers::LayerNorm;
use tealight_core::{Error, Result};
use tealight_kernels::int8::PackedRhs;

/// Values along K that share a scale.
const GROUP_SIZE: usize = 64;
/// Epsilon of all layer norms.
const LAYER_NORM_EPS: f32 = 1e-5;

impl TensorLoader {
    /// The matrix `[n, k]` of a packed file, or the matrix and bias that `read` returns.
    pub(super) fn packed(
        &self,
        name: &str,
        (n, k): (usize, usize),
        read: impl FnOnce(&Weights) -> Result<(Vec<f32>, Vec<f32>)>,
    ) -> Result<PackedRhs> {
        self.packed_matrix(
            name,
            |bytes| PackedRhs::from_bytes(bytes, n, k).map_err(Error::from),
            |weights| {
                let (matrix, bias) = read(weights)?;
                Ok(PackedRhs::pack(&matrix, &bias, &vec![1.0; k], GROUP_SIZE)?)
            },
            PackedRhs::bytes,
        )
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
