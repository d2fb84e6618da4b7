//! The encoder: two convolutions and pre-norm blocks over a window of 30 s.

use super::config::{Config, FRAMES};
use super::{matrix, norm};
use crate::error::Result;
use crate::kernels::codes::Codes;
use crate::kernels::int8::{Packed, Then, gemm};
use crate::kernels::rowwise;
use crate::models::weights::Weights;
use crate::nn::{self, Activation, Cpu, LayerNorm};

/// Samples of a kernel of both convolutions.
const TAPS: usize = 3;
/// Rows of a convolution that are computed together.
const ROWS: usize = 64;

/// The weights.
#[derive(Debug)]
pub(super) struct Encoder {
    first: Packed,
    second: Packed,
    /// `[audio_rows, D]`.
    positions: Vec<f32>,
    blocks: Vec<nn::Block>,
    norm: LayerNorm,
    heads: usize,
    arenas: nn::Arenas,
}

impl Encoder {
    pub(super) fn new(cpu: &Cpu, config: &Config, weights: &Weights) -> Result<Self> {
        let d = config.width;
        let blocks = cpu.map(&(0..config.encoder_layers).collect::<Vec<_>>(), |i| block(*i, config, weights));
        Ok(Self {
            first: convolution(weights, "encoder.conv1", d, config.bands)?,
            second: convolution(weights, "encoder.conv2", d, d)?,
            positions: weights.floats("encoder.embed_positions.weight", &[config.audio_rows, d])?,
            blocks: blocks.into_iter().collect::<Result<_>>()?,
            norm: norm(weights, "encoder.layer_norm", d)?,
            heads: config.heads,
            arenas: nn::Arenas::default(),
        })
    }

    /// `frames [FRAMES, bands]`, normalised, to `[audio_rows, D]`.
    pub(super) fn encode(&self, cpu: &Cpu, frames: &[f32]) -> Vec<f32> {
        let bands = frames.len() / FRAMES;
        let hidden = convolve(cpu, &self.first, frames, bands, 1);
        let mut x = convolve(cpu, &self.second, &hidden, self.first.rows(), 2);
        rowwise::add(&mut x, &self.positions);
        nn::encode(cpu, &self.blocks, self.heads, &mut x, &[0, FRAMES / 2], &self.arenas);
        self.norm.apply(cpu.isa, &mut x);
        x
    }
}

fn block(index: usize, config: &Config, weights: &Weights) -> Result<nn::Block> {
    let (d, inner) = (config.width, config.inner);
    let name = |part: &str| format!("encoder.layers.{index}.{part}");
    let attention = |part: &str| name(&format!("self_attn.{part}_proj"));
    Ok(nn::Block {
        norms: nn::Norms::Before,
        qkv: matrix(weights, &[&attention("q"), &attention("k"), &attention("v")], d, d)?,
        output: matrix(weights, &[&attention("out")], d, d)?,
        attention_norm: norm(weights, &name("self_attn_layer_norm"), d)?,
        up: matrix(weights, &[&name("fc1")], inner, d)?,
        activation: Activation::Gelu,
        down: matrix(weights, &[&name("fc2")], d, inner)?,
        output_norm: norm(weights, &name("final_layer_norm"), d)?,
    })
}

/// `weight [outputs, inputs, TAPS]` as a matrix `[outputs, TAPS x inputs]`: its rows then read neighbouring rows of the input.
fn convolution(weights: &Weights, name: &str, outputs: usize, inputs: usize) -> Result<Packed> {
    let weight = weights.floats(&format!("{name}.weight"), &[outputs, inputs, TAPS])?;
    let bias = weights.floats(&format!("{name}.bias"), &[outputs])?;
    let mut matrix = Vec::with_capacity(weight.len());
    for row in weight.chunks_exact(inputs * TAPS) {
        (0..TAPS).for_each(|tap| matrix.extend(row.iter().skip(tap).step_by(TAPS)));
    }
    Packed::of(&matrix, &bias, &vec![1.0; inputs * TAPS], super::GROUP)
}

/// `x [T, inputs]`, with a row of zeros at both ends, to `[T / stride, outputs]`, through GELU.
fn convolve(cpu: &Cpu, layer: &Packed, x: &[f32], inputs: usize, stride: usize) -> Vec<f32> {
    let edge = vec![0.0; inputs];
    let padded = [&edge, x, &edge].concat();
    let outputs = layer.rows();
    let mut out = vec![0.0; x.len() / inputs / stride * outputs];
    let parts: Vec<_> = out.chunks_mut(ROWS * outputs).enumerate().collect();
    cpu.each(parts, |(part, out)| {
        let (mut codes, mut rows) = (Codes::default(), vec![]);
        for row in 0..out.len() / outputs {
            let first = (part * ROWS + row) * stride * inputs;
            rows.extend_from_slice(&padded[first..first + TAPS * inputs]);
        }
        codes.of(cpu.isa, &rows, layer);
        gemm(cpu.isa, &codes, layer, 0..outputs, Then::Gelu, out);
    });
    out
}
