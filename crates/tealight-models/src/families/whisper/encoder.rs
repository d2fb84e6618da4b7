//! The encoder: two convolutions and pre-norm layers over a window of 30 s.

use super::config::{N_FRAMES, WhisperConfig};
use crate::formats::tensor_loader::TensorLoader;
use crate::int8::{
    self, Attention, AttentionPattern, BlockNorms, EncoderLayer, FeedForward, FeedForwardBlock, PositionBiasWeights,
    RowNorm,
};
use crate::layers::{Activation, LayerNorm};
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;
use tealight_kernels::int8::{Epilogue, PackedRhs, gemm};
use tealight_kernels::quantize::QuantizedRows;
use tealight_kernels::rowwise;

/// Kernel size of both convolutions.
const KERNEL_SIZE: usize = 3;
/// Output positions of a convolution that one parallel task computes.
const ROWS_PER_TASK: usize = 64;

/// Weights and scratch memory of the encoder.
#[derive(Debug)]
pub(crate) struct Encoder {
    conv1: PackedRhs,
    conv2: PackedRhs,
    /// `[max_source_positions, D]`.
    embed_positions: Vec<f32>,
    layers: Vec<EncoderLayer>,
    layer_norm: LayerNorm,
    scratch: int8::ScratchPool,
}

impl Encoder {
    pub(super) fn new(cpu: &CpuContext, config: &WhisperConfig, loader: &TensorLoader) -> Result<Self> {
        let d = config.d_model;
        let layers = cpu.par_map(&(0..config.encoder_layers).collect::<Vec<_>>(), |i| layer(*i, config, loader));
        Ok(Self {
            conv1: convolution(loader, "encoder.conv1", d, config.num_mel_bins)?,
            conv2: convolution(loader, "encoder.conv2", d, d)?,
            embed_positions: loader.floats("encoder.embed_positions.weight", &[config.max_source_positions, d])?,
            layers: layers.into_iter().collect::<Result<_>>()?,
            layer_norm: loader.layer_norm("encoder.layer_norm", d)?,
            scratch: int8::ScratchPool::default(),
        })
    }

    /// Normalized log-mel frames `[N_FRAMES, n_mels]` to audio features `[max_source_positions, D]`.
    pub(crate) fn encode(&self, cpu: &CpuContext, mel: &[f32]) -> Vec<f32> {
        let n_mels = mel.len() / N_FRAMES;
        let hidden = convolve(cpu, &self.conv1, mel, n_mels, 1);
        let mut x = convolve(cpu, &self.conv2, &hidden, self.conv1.n(), 2);
        rowwise::add(&mut x, &self.embed_positions);
        int8::encode(cpu, &self.layers, &mut x, &[0, N_FRAMES / 2], &self.scratch, None);
        self.layer_norm.apply(cpu.isa, &mut x);
        x
    }
}

fn layer(index: usize, config: &WhisperConfig, loader: &TensorLoader) -> Result<EncoderLayer> {
    let (d, ffn_dim, heads) = (config.d_model, config.ffn_dim, config.num_attention_heads);
    let name = |part: &str| format!("encoder.layers.{index}.{part}");
    let attention = |part: &str| name(&format!("self_attn.{part}_proj"));
    let norm = |part: &str| {
        let norm = loader.layer_norm(&name(part), d)?;
        Ok::<_, Error>(BlockNorms { before: Some(RowNorm::LayerNorm(norm)), ..BlockNorms::default() })
    };
    Ok(EncoderLayer {
        attention: Attention {
            qkv_proj: loader.stacked_linear(&[&attention("q"), &attention("k"), &attention("v")], d, d)?,
            o_proj: loader.stacked_linear(&[&attention("out")], d, d)?,
            heads,
            kv_heads: heads,
            head_dim: d / heads,
            divisor: ((d / heads) as f32).sqrt(),
            qk_norms: None,
            rope: None,
            pattern: AttentionPattern { causal: false, window: None, bias: PositionBiasWeights::None },
        },
        attention_norms: norm("self_attn_layer_norm")?,
        feed_forward: FeedForwardBlock::Dense(FeedForward {
            up_proj: loader.stacked_linear(&[&name("fc1")], ffn_dim, d)?,
            gated: false,
            activation: Activation::Gelu,
            down_proj: loader.stacked_linear(&[&name("fc2")], d, ffn_dim)?,
        }),
        feed_forward_norms: norm("final_layer_norm")?,
    })
}

/// A convolution weight `[out_channels, in_channels, KERNEL_SIZE]` as a matrix `[out_channels, KERNEL_SIZE x in_channels]`, which
/// is multiplied with consecutive rows of the input.
fn convolution(loader: &TensorLoader, name: &str, out_channels: usize, in_channels: usize) -> Result<PackedRhs> {
    loader.packed(name, (out_channels, KERNEL_SIZE * in_channels), |weights| {
        let weight = weights.floats(&format!("{name}.weight"), &[out_channels, in_channels, KERNEL_SIZE])?;
        let mut matrix = Vec::with_capacity(weight.len());
        for row in weight.chunks_exact(in_channels * KERNEL_SIZE) {
            (0..KERNEL_SIZE).for_each(|tap| matrix.extend(row.iter().skip(tap).step_by(KERNEL_SIZE)));
        }
        Ok((matrix, weights.floats(&format!("{name}.bias"), &[out_channels])?))
    })
}

/// Convolves `x [T, in_channels]`, padded with a row of zeros at both ends, to `[T / stride, out_channels]`, and applies GELU.
fn convolve(cpu: &CpuContext, weight: &PackedRhs, x: &[f32], in_channels: usize, stride: usize) -> Vec<f32> {
    let padding = vec![0.0; in_channels];
    let padded = [&padding, x, &padding].concat();
    let out_channels = weight.n();
    let mut out = vec![0.0; x.len() / in_channels / stride * out_channels];
    let tiles: Vec<_> = out.chunks_mut(ROWS_PER_TASK * out_channels).enumerate().collect();
    cpu.par_for_each(tiles, |(tile, out)| {
        let (mut quantized, mut rows) = (QuantizedRows::default(), vec![]);
        for row in 0..out.len() / out_channels {
            let start = (tile * ROWS_PER_TASK + row) * stride * in_channels;
            rows.extend_from_slice(&padded[start..start + KERNEL_SIZE * in_channels]);
        }
        quantized.quantize(cpu.isa, &rows, &weight.layout());
        gemm(cpu.isa, &quantized, weight, 0..out_channels, Epilogue::Gelu, out);
    });
    out
}
