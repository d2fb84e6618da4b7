//! Reads the weights of a layer: four matrix products and two norms.

use super::config::Config;
use crate::formats::weights::Weights;
use crate::layers::LayerNorm;
use tealight_core::{Error, Result};
use tealight_kernels::int8::PackedRhs;

/// Weights along K that share a scale if a matrix is packed while the model is loaded. Groups are small because SmoothQuant
/// ([`smooth_quant`](super::smooth_quant)) scales the channels only when a file is packed.
const LOAD_GROUP: usize = 64;

/// A matrix product of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinearKind {
    /// Queries, keys and values.
    Qkv,
    /// The output projection of attention.
    AttentionOutput,
    /// The first matrix of the feed-forward network.
    Up,
    /// The second matrix of the feed-forward network.
    Down,
}

impl LinearKind {
    /// In the order of computation.
    pub(super) const ALL: [LinearKind; 4] =
        [LinearKind::Qkv, LinearKind::AttentionOutput, LinearKind::Up, LinearKind::Down];

    /// The tensor of a packed file, in layer `layer`.
    pub(super) fn tensor_name(self, layer: usize) -> String {
        let name = match self {
            LinearKind::Qkv => "attn_qkv",
            LinearKind::AttentionOutput => "attn_output",
            LinearKind::Up => "ffn_up",
            LinearKind::Down => "ffn_down",
        };
        format!("blk.{layer}.{name}")
    }

    /// The tensors of files that are not packed; the packed matrix has the rows of the first, then those of the next.
    fn parts(self) -> &'static [&'static str] {
        match self {
            LinearKind::Qkv => &["attn_q", "attn_k", "attn_v"],
            LinearKind::AttentionOutput => &["attn_output"],
            LinearKind::Up => &["ffn_up"],
            LinearKind::Down => &["ffn_down"],
        }
    }

    /// (outputs, inputs) of one part.
    pub(super) fn part_shape(self, config: &Config) -> (usize, usize) {
        match self {
            LinearKind::Qkv | LinearKind::AttentionOutput => (config.hidden_size, config.hidden_size),
            LinearKind::Up => (config.intermediate_size, config.hidden_size),
            LinearKind::Down => (config.hidden_size, config.intermediate_size),
        }
    }

    /// Weights `[N, K]` and bias `[N]` of a layer, in f32.
    pub(super) fn dequantized(self, layer: usize, config: &Config, weights: &Weights) -> Result<(Vec<f32>, Vec<f32>)> {
        if weights.packed(&self.tensor_name(layer)).is_some() {
            return Ok(self.packed(layer, config, weights)?.dequantize());
        }
        let (n, k) = self.part_shape(config);
        let (mut matrix, mut bias) = (vec![], vec![]);
        for part in self.parts() {
            matrix.extend(weights.floats(&format!("blk.{layer}.{part}.weight"), &[n, k])?);
            bias.extend(weights.floats(&format!("blk.{layer}.{part}.bias"), &[n])?);
        }
        Ok((matrix, bias))
    }

    /// Weights and bias of a layer for the int8 kernels: used in place if the file is packed, otherwise packed while
    /// loading.
    pub(super) fn packed(self, layer: usize, config: &Config, weights: &Weights) -> Result<PackedRhs> {
        let (n, k) = self.part_shape(config);
        match weights.packed(&self.tensor_name(layer)) {
            Some(bytes) => PackedRhs::from_bytes(bytes.clone(), self.parts().len() * n, k)
                .map_err(|e| Error::from(e).with_context(format_args!("tensor {:?}", self.tensor_name(layer)))),
            None => {
                let (matrix, bias) = self.dequantized(layer, config, weights)?;
                Ok(PackedRhs::pack(&matrix, &bias, &vec![1.0; k], LOAD_GROUP)?)
            }
        }
    }
}

pub(super) fn layer_norm(weights: &Weights, name: &str, config: &Config) -> Result<LayerNorm> {
    let d = config.hidden_size;
    Ok(LayerNorm {
        weight: weights.floats(&format!("{name}.weight"), &[d])?,
        bias: weights.floats(&format!("{name}.bias"), &[d])?,
        eps: config.layer_norm_eps,
    })
}
