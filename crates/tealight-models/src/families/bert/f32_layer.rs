//! An encoder layer in f32, as operations on candle tensors: the reference for int8, and the source of calibration data.

use super::config::Config;
use super::layer_weights::{LinearKind, layer_norm};
use crate::formats::weights::Weights;
use crate::layers::{Activation, LayerNorm, Linear, attention};
use candle_core::Tensor;
use tealight_core::Result;
use tealight_kernels::CpuContext;

/// The weights of a layer.
#[derive(Debug)]
pub(super) struct F32Layer {
    qkv: [Linear; 3],
    output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    ffn_norm: LayerNorm,
}

impl F32Layer {
    pub(super) fn new(index: usize, config: &Config, weights: &Weights) -> Result<Self> {
        let d = config.hidden_size;
        let linear = |kind: LinearKind| {
            let (weight, bias) = kind.dequantized(index, config, weights)?;
            Linear::new(weight, bias)
        };
        let (qkv, bias) = LinearKind::Qkv.dequantized(index, config, weights)?;
        let part = |i: usize| Linear::new(qkv[i * d * d..(i + 1) * d * d].to_vec(), bias[i * d..(i + 1) * d].to_vec());
        let norm = |name: &str| layer_norm(weights, &format!("blk.{index}.{name}"), config);
        Ok(Self {
            qkv: [part(0)?, part(1)?, part(2)?],
            output: linear(LinearKind::AttentionOutput)?,
            attention_norm: norm("attn_output_norm")?,
            up: linear(LinearKind::Up)?,
            down: linear(LinearKind::Down)?,
            ffn_norm: norm("layer_output_norm")?,
        })
    }

    /// `x [T, D]` to `[T, D]`; `observe` is called with the input of each matrix product.
    pub(super) fn forward(
        &self,
        cpu: &CpuContext,
        x: &Tensor,
        cu_seqlens: &[usize],
        config: &Config,
        observe: &mut dyn FnMut(LinearKind, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let linear = |layer: &Linear, x: &Tensor| layer.forward(cpu, x, Activation::Identity);
        observe(LinearKind::Qkv, x)?;
        let [q, k, v] = &self.qkv;
        let (q, k, v) = (linear(q, x)?, linear(k, x)?, linear(v, x)?);
        let attended = attention(cpu, &q, &k, &v, cu_seqlens, config.num_attention_heads)?;
        observe(LinearKind::AttentionOutput, &attended)?;
        let x = self.attention_norm.forward_residual(cpu, &linear(&self.output, &attended)?, x)?;
        observe(LinearKind::Up, &x)?;
        let inner = self.up.forward(cpu, &x, config.hidden_act)?;
        observe(LinearKind::Down, &inner)?;
        self.ffn_norm.forward_residual(cpu, &linear(&self.down, &inner)?, &x)
    }
}
