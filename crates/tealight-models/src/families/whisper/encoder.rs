//! The encoder: two convolutions and pre-norm blocks over a window of 30 s.

use super::config::{Config, FRAMES};
use super::tensors::Tensors;
use crate::int8::{self, Activation, LayerNorm};
use tealight_core::Result;
use tealight_kernels::CpuContext;
use tealight_kernels::int8::{Epilogue, PackedRhs, gemm};
use tealight_kernels::quantize::QuantizedRows;
use tealight_kernels::rowwise;

/// Samples of a kernel of both convolutions.
const TAPS: usize = 3;
/// Rows of a convolution that are computed together.
const ROWS: usize = 64;

/// The weights.
#[derive(Debug)]
pub(crate) struct Encoder {
    first: PackedRhs,
    second: PackedRhs,
    /// `[audio_rows, D]`.
    positions: Vec<f32>,
    blocks: Vec<int8::EncoderLayer>,
    norm: LayerNorm,
    heads: usize,
    arenas: int8::ScratchPool,
}

impl Encoder {
    pub(super) fn new(cpu: &CpuContext, config: &Config, tensors: &Tensors) -> Result<Self> {
        let d = config.width;
        let blocks = cpu.par_map(&(0..config.encoder_layers).collect::<Vec<_>>(), |i| block(*i, config, tensors));
        Ok(Self {
            first: convolution(tensors, "encoder.conv1", d, config.bands)?,
            second: convolution(tensors, "encoder.conv2", d, d)?,
            positions: tensors.floats("encoder.embed_positions.weight", &[config.audio_rows, d])?,
            blocks: blocks.into_iter().collect::<Result<_>>()?,
            norm: tensors.norm("encoder.layer_norm", d)?,
            heads: config.heads,
            arenas: int8::ScratchPool::default(),
        })
    }

    /// `frames [FRAMES, bands]`, normalised, to `[audio_rows, D]`.
    pub(crate) fn encode(&self, cpu: &CpuContext, frames: &[f32]) -> Vec<f32> {
        let bands = frames.len() / FRAMES;
        let hidden = convolve(cpu, &self.first, frames, bands, 1);
        let mut x = convolve(cpu, &self.second, &hidden, self.first.n(), 2);
        rowwise::add(&mut x, &self.positions);
        int8::encode(cpu, &self.blocks, self.heads, &mut x, &[0, FRAMES / 2], &self.arenas);
        self.norm.apply(cpu.isa, &mut x);
        x
    }
}

fn block(index: usize, config: &Config, tensors: &Tensors) -> Result<int8::EncoderLayer> {
    let (d, inner) = (config.width, config.inner);
    let name = |part: &str| format!("encoder.layers.{index}.{part}");
    let attention = |part: &str| name(&format!("self_attn.{part}_proj"));
    Ok(int8::EncoderLayer {
        norm_placement: int8::NormPlacement::PreNorm,
        qkv_proj: tensors.matrix(&[&attention("q"), &attention("k"), &attention("v")], d, d)?,
        o_proj: tensors.matrix(&[&attention("out")], d, d)?,
        attention_norm: tensors.norm(&name("self_attn_layer_norm"), d)?,
        up_proj: tensors.matrix(&[&name("fc1")], inner, d)?,
        activation: Activation::Gelu,
        down_proj: tensors.matrix(&[&name("fc2")], d, inner)?,
        ffn_norm: tensors.norm(&name("final_layer_norm"), d)?,
    })
}

/// `weight [outputs, inputs, TAPS]` as a matrix `[outputs, TAPS x inputs]`: its rows then read neighbouring rows of the input.
fn convolution(tensors: &Tensors, name: &str, outputs: usize, inputs: usize) -> Result<PackedRhs> {
    tensors.packed(name, (outputs, TAPS * inputs), |weights| {
        let weight = weights.floats(&format!("{name}.weight"), &[outputs, inputs, TAPS])?;
        let mut matrix = Vec::with_capacity(weight.len());
        for row in weight.chunks_exact(inputs * TAPS) {
            (0..TAPS).for_each(|tap| matrix.extend(row.iter().skip(tap).step_by(TAPS)));
        }
        Ok((matrix, weights.floats(&format!("{name}.bias"), &[outputs])?))
    })
}

/// `x [T, inputs]`, with a row of zeros at both ends, to `[T / stride, outputs]`, through GELU.
fn convolve(cpu: &CpuContext, layer: &PackedRhs, x: &[f32], inputs: usize, stride: usize) -> Vec<f32> {
    let edge = vec![0.0; inputs];
    let padded = [&edge, x, &edge].concat();
    let outputs = layer.n();
    let mut out = vec![0.0; x.len() / inputs / stride * outputs];
    let parts: Vec<_> = out.chunks_mut(ROWS * outputs).enumerate().collect();
    cpu.par_for_each(parts, |(part, out)| {
        let (mut codes, mut rows) = (QuantizedRows::default(), vec![]);
        for row in 0..out.len() / outputs {
            let first = (part * ROWS + row) * stride * inputs;
            rows.extend_from_slice(&padded[first..first + TAPS * inputs]);
        }
        codes.quantize(cpu.isa, &rows, &layer.layout());
        gemm(cpu.isa, &codes, layer, 0..outputs, Epilogue::Gelu, out);
    });
    out
}
