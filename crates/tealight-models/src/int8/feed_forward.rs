//! The feed-forward block of a layer.

use super::encoder::{LayerRun, ThreadScratch};
use super::linear_kind::LinearKind;
use crate::layers::Activation;
use tealight_kernels::int8::{Epilogue, PackedRhs, gemm};
use tealight_kernels::rowwise;

/// `down(activation(up(x)))`, or gated `down(activation(gate(x)) * up(x))`.
#[derive(Debug)]
pub struct FeedForward {
    /// `[I, D]`, or `[2 I, D]` with the rows of the gate before those of the other projection.
    pub up_proj: PackedRhs,
    /// Whether `up_proj` has the rows of a gate.
    pub gated: bool,
    /// The activation.
    pub activation: Activation,
    /// `[D, I]`.
    pub down_proj: PackedRhs,
}

/// Feed-forward networks of which each token passes through a few.
#[derive(Debug)]
pub struct MixtureOfExperts {
    /// `[experts, D]` in f32, without padding.
    pub router: Vec<f32>,
    /// The networks; their `down_proj` has no bias.
    pub experts: Vec<FeedForward>,
    /// Added to the weighted sum of the experts, `[D]` without padding.
    pub bias: Vec<f32>,
    /// Experts that each token passes through.
    pub per_token: usize,
}

/// The feed-forward block of a layer.
#[derive(Debug)]
pub enum FeedForwardBlock {
    /// One network.
    Dense(FeedForward),
    /// A mixture of experts.
    Experts(MixtureOfExperts),
}

impl FeedForward {
    /// Computes the network for the quantized rows in `scratch.input` and combines it with `out [rows, D]`. One quantization group of
    /// the inner dimension is computed at a time and quantized while it is in the innermost cache.
    pub(super) fn forward(&self, run: &LayerRun, scratch: &mut ThreadScratch, epilogue: Epilogue, out: &mut [f32]) {
        let (isa, d) = (run.cpu.isa, self.down_proj.n());
        let (intermediate, group) = (self.down_proj.k(), self.down_proj.group_size());
        let ThreadScratch { input, activations, inner, .. } = scratch;
        let rows = out.len() / d;
        activations.resize(rows, &self.down_proj.layout());
        for (g, start) in (0..intermediate).step_by(group).enumerate() {
            let columns = start..(start + group).min(intermediate);
            let count = columns.len();
            inner.resize(rows * count, 0.0);
            if self.activation == Activation::Gelu {
                gemm(isa, input, &self.up_proj, columns.clone(), Epilogue::Gelu, inner);
            } else {
                gemm(isa, input, &self.up_proj, columns.clone(), Epilogue::Store, inner);
                self.activation.apply(isa, inner);
            }
            if self.gated {
                let columns = intermediate + columns.start..intermediate + columns.end;
                gemm(isa, input, &self.up_proj, columns, Epilogue::Mul, inner);
            }
            run.observe(LinearKind::Down, start, inner, count);
            activations.quantize_groups(isa, g, inner, &self.down_proj.layout());
        }
        gemm(isa, activations, &self.down_proj, 0..d, epilogue, out);
    }
}

impl MixtureOfExperts {
    /// Computes the experts of the rows `input` and combines their weighted sums with `out [rows, D]`.
    pub(super) fn forward(
        &self,
        run: &LayerRun,
        input: &[f32],
        scratch: &mut ThreadScratch,
        epilogue: Epilogue,
        out: &mut [f32],
    ) {
        let (isa, stride) = (run.cpu.isa, self.experts[0].down_proj.n());
        if epilogue == Epilogue::Store {
            out.fill(0.0);
        }
        for row in out.chunks_exact_mut(stride) {
            rowwise::add(&mut row[..self.bias.len()], &self.bias);
        }
        let choices: Vec<Vec<(usize, f32)>> = input.chunks_exact(stride).map(|row| self.route(run, row)).collect();
        // The expert of the smallest number first, so that sums have one order for each row.
        for (e, expert) in self.experts.iter().enumerate() {
            let chosen: Vec<(usize, f32)> = choices
                .iter()
                .enumerate()
                .filter_map(|(row, choice)| Some((row, choice.iter().find(|(expert, _)| *expert == e)?.1)))
                .collect();
            if chosen.is_empty() {
                continue;
            }
            let rows: Vec<f32> =
                chosen.iter().flat_map(|(row, _)| &input[row * stride..(row + 1) * stride]).copied().collect();
            scratch.input.quantize(isa, &rows, &expert.up_proj.layout());
            let mut outputs = vec![0.0; rows.len()];
            expert.forward(run, scratch, Epilogue::Store, &mut outputs);
            for ((row, weight), output) in chosen.iter().zip(outputs.chunks_exact(stride)) {
                let out = &mut out[row * stride..(row + 1) * stride];
                out.iter_mut().zip(output).for_each(|(out, v)| *out += weight * v);
            }
        }
    }

    /// The experts of a row with their weights: the softmax over all experts, of which the largest are kept.
    fn route(&self, run: &LayerRun, row: &[f32]) -> Vec<(usize, f32)> {
        let d = self.bias.len();
        let mut weights: Vec<f32> =
            self.router.chunks_exact(d).map(|expert| rowwise::dot(run.cpu.isa, expert, &row[..d])).collect();
        rowwise::softmax(run.cpu.isa, &mut weights);
        let mut ranked: Vec<(usize, f32)> = weights.into_iter().enumerate().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked.truncate(self.per_token);
        ranked
    }
}
