//! A decoder layer: attention with rotary positions and grouped heads, then SwiGLU.

use super::config::Config;
use super::quantized_matrix::{MatrixSpec, NR, QuantizedMatrix};
use crate::formats::tensor_loader::TensorLoader;
use tealight_core::Result;
use tealight_kernels::attention::gqa::{self, GqaQueries, HeadKvCache};
use tealight_kernels::int8::Epilogue;
use tealight_kernels::quantize::QuantizedRows;
use tealight_kernels::{CpuContext, Isa, rowwise};

/// Context length from which the attention of a single token is split between threads. No comparison with other values is
/// recorded.
const MIN_SPLIT_CONTEXT: usize = 256;

/// The weights of a layer, with Hugging Face's names.
#[derive(Debug)]
pub(super) struct DecoderLayer {
    input_layernorm: Vec<f32>,
    /// Queries, keys and values.
    pub qkv_proj: QuantizedMatrix,
    pub o_proj: QuantizedMatrix,
    post_attention_layernorm: Vec<f32>,
    pub gate_up_proj: QuantizedMatrix,
    pub down_proj: QuantizedMatrix,
}

/// How the tokens of a step are divided between threads. The result of a token does not depend on it.
pub(super) struct Partition {
    /// Rows of a part.
    rows: usize,
    /// The threads that the parts are distributed over.
    cpu_between_parts: CpuContext,
    /// The threads that work on one part.
    cpu_inside_part: CpuContext,
}

impl Partition {
    /// Several tokens are divided by rows: each thread takes some tokens through everything but the KV cache. A single token is
    /// divided by columns: the threads share the outputs of each matrix product.
    pub(super) fn new(cpu: &CpuContext, tokens: usize) -> Self {
        if tokens == 1 {
            Self { rows: 1, cpu_between_parts: cpu.single_threaded(), cpu_inside_part: cpu.clone() }
        } else {
            Self {
                rows: tokens.div_ceil(cpu.threads()),
                cpu_between_parts: cpu.clone(),
                cpu_inside_part: cpu.single_threaded(),
            }
        }
    }
}

/// Buffers of a sequence.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// `[tokens, D]`: hidden states.
    pub x: Vec<f32>,
    /// `[tokens, rotary_dim / 2]`.
    pub cos_sin: Vec<(f32, f32)>,
    /// `[tokens, (num_attention_heads + 2 num_key_value_heads) head_dim]`: queries, keys and values.
    qkv: Vec<f32>,
    /// Buffers for each part of a [`Partition`].
    parts: Vec<PartScratch>,
}

#[derive(Debug, Default)]
struct PartScratch {
    normed: Vec<f32>,
    attended: Vec<f32>,
    gate_up: Vec<f32>,
    activations: Vec<f32>,
    quantized: QuantizedRows,
    /// Buffers for each thread that works on the part.
    scores: Vec<Vec<f32>>,
}

impl Scratch {
    pub(super) fn resize(&mut self, cpu: &CpuContext) {
        self.parts.resize_with(cpu.threads(), PartScratch::default);
    }
}

impl DecoderLayer {
    pub(super) fn new(index: usize, config: &Config, loader: &TensorLoader) -> Result<Self> {
        let d = config.hidden_size;
        let norm = |name: &str| loader.norm_weight(&format!("blk.{index}.{name}"), d);
        let [qkv_proj, o_proj, gate_up_proj, down_proj] = Self::matrix_specs(index, config);
        Ok(Self {
            input_layernorm: norm("attn_norm")?,
            qkv_proj: loader.matrix(&qkv_proj)?,
            o_proj: loader.matrix(&o_proj)?,
            post_attention_layernorm: norm("ffn_norm")?,
            gate_up_proj: loader.matrix(&gate_up_proj)?,
            down_proj: loader.matrix(&down_proj)?,
        })
    }

    /// `qkv_proj`, `o_proj`, `gate_up_proj` and `down_proj`.
    pub(super) fn matrix_specs(index: usize, config: &Config) -> [MatrixSpec; 4] {
        let (d, intermediate) = (config.hidden_size, config.intermediate_size);
        let q_dim = config.num_attention_heads * config.head_dim;
        let kv_dim = config.num_key_value_heads * config.head_dim;
        let prefix = format!("blk.{index}.");
        let spec = |name: &str, parts: &[(&str, usize)], k| MatrixSpec::new(&prefix, name, parts, k);
        let down_proj = spec("ffn_down", &[("ffn_down", d)], intermediate);
        [
            spec("attn_qkv", &[("attn_q", q_dim), ("attn_k", kv_dim), ("attn_v", kv_dim)], d),
            spec("attn_output", &[("attn_output", d)], q_dim),
            spec("ffn_gate_up", &[("ffn_gate", intermediate), ("ffn_up", intermediate)], d),
            MatrixSpec { padded_k: intermediate.next_multiple_of(NR), ..down_proj },
        ]
    }

    /// Runs the hidden states `scratch.x` through the layer in place, and appends their keys and values to `caches`, one per
    /// key-value head. `position` is that of the first token.
    pub(super) fn forward(
        &self,
        partition: &Partition,
        config: &Config,
        caches: &mut [HeadKvCache],
        position: usize,
        scratch: &mut Scratch,
    ) {
        let Scratch { x, qkv, cos_sin, parts } = scratch;
        let Partition { rows, cpu_between_parts, cpu_inside_part } = partition;
        let (d, qkv_dim, head_dim) = (config.hidden_size, self.qkv_proj.n(), config.head_dim);
        let pairs = config.rope.rotary_dim / 2;
        qkv.resize(x.len() / d * qkv_dim, 0.0);
        let inputs = x.chunks(rows * d).zip(qkv.chunks_mut(rows * qkv_dim)).zip(cos_sin.chunks(rows * pairs));
        cpu_between_parts.par_for_each(inputs.zip(&mut *parts).collect(), |(((x, qkv), cos_sin), part)| {
            part.norm_and_quantize(cpu_inside_part.isa, x, &self.input_layernorm, config.rms_norm_eps, &self.qkv_proj);
            par_gemm(cpu_inside_part, &part.quantized, &self.qkv_proj, Epilogue::Store, qkv);
            for (row, cos_sin) in qkv.chunks_exact_mut(qkv_dim).zip(cos_sin.chunks_exact(pairs)) {
                let queries_and_keys = (config.num_attention_heads + config.num_key_value_heads) * head_dim;
                config.rope.apply(&mut row[..queries_and_keys], head_dim, cos_sin);
            }
        });
        let qkv = &*qkv;
        let keys = config.num_attention_heads * head_dim;
        let values = keys + config.num_key_value_heads * head_dim;
        cpu_between_parts.par_for_each(caches.iter_mut().enumerate().collect(), |(h, cache)| {
            for row in qkv.chunks_exact(qkv_dim) {
                cache.push(&row[keys + h * head_dim..][..head_dim], &row[values + h * head_dim..][..head_dim]);
            }
        });
        let caches = &*caches;
        let inputs = x.chunks_mut(rows * d).zip(qkv.chunks(rows * qkv_dim)).zip(parts).enumerate();
        cpu_between_parts.par_for_each(inputs.collect(), |(i, ((x, qkv), part))| {
            part.attended.resize(qkv.len() / qkv_dim * keys, 0.0);
            let causal_len = position + i * rows + 1;
            attend(cpu_inside_part, config, caches, qkv, qkv_dim, causal_len, part);
            self.o_proj.quantize(cpu_inside_part.isa, &part.attended, &mut part.quantized);
            par_gemm(cpu_inside_part, &part.quantized, &self.o_proj, Epilogue::Add, x);
            self.feed_forward(cpu_inside_part, config, x, part);
        });
    }

    /// Adds the output of the feed-forward network to `x`.
    fn feed_forward(&self, cpu: &CpuContext, config: &Config, x: &mut [f32], part: &mut PartScratch) {
        let columns = self.gate_up_proj.n();
        part.norm_and_quantize(cpu.isa, x, &self.post_attention_layernorm, config.rms_norm_eps, &self.gate_up_proj);
        part.gate_up.resize(x.len() / config.hidden_size * columns, 0.0);
        par_gemm(cpu, &part.quantized, &self.gate_up_proj, Epilogue::Store, &mut part.gate_up);
        swiglu(cpu.isa, &mut part.gate_up, columns, &mut part.activations);
        self.down_proj.quantize(cpu.isa, &part.activations, &mut part.quantized);
        par_gemm(cpu, &part.quantized, &self.down_proj, Epilogue::Add, x);
    }
}

impl PartScratch {
    fn norm_and_quantize(&mut self, isa: Isa, x: &[f32], norm: &[f32], eps: f32, rhs: &QuantizedMatrix) {
        self.normed.clear();
        self.normed.extend_from_slice(x);
        rowwise::rms_norm(isa, &mut self.normed, norm.len(), norm, eps);
        rhs.quantize(isa, &self.normed, &mut self.quantized);
    }
}

/// Attention of the queries in `qkv [rows, qkv_dim]` to the caches, into `part.attended`; the first row sees `causal_len` tokens.
/// If several threads work on a part, which then has one row, they share the heads of long contexts.
fn attend(
    cpu: &CpuContext,
    config: &Config,
    caches: &[HeadKvCache],
    qkv: &[f32],
    qkv_dim: usize,
    causal_len: usize,
    part: &mut PartScratch,
) {
    let heads = config.num_attention_heads / config.num_key_value_heads;
    let group_dim = heads * config.head_dim;
    let threads = if causal_len < MIN_SPLIT_CONTEXT { 1 } else { cpu.threads() };
    let share = caches.len().div_ceil(threads);
    part.scores.resize_with(cpu.threads(), Vec::new);
    let outputs = part.attended.chunks_mut(qkv.len() / qkv_dim * share * group_dim);
    let inputs = caches.chunks(share).zip(outputs).zip(&mut part.scores).enumerate();
    cpu.par_for_each(inputs.collect(), |(i, ((caches, out), scores))| {
        for (h, cache) in caches.iter().enumerate() {
            let first_column = (i * share + h) * group_dim;
            let queries = GqaQueries { q: qkv, stride: qkv_dim, first_column, heads, causal_len };
            gqa::sdpa(cpu.isa, queries, cache, scores, out, h * group_dim);
        }
    });
}

/// `lhs rhs^T` into `out`. One thread computes any number of rows; several threads share the columns of a single row.
pub(super) fn par_gemm(
    cpu: &CpuContext,
    lhs: &QuantizedRows,
    rhs: &QuantizedMatrix,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    if cpu.threads() == 1 {
        return rhs.gemm(cpu.isa, lhs, 0..rhs.n(), epilogue, out);
    }
    let share = out.len().div_ceil(cpu.threads()).next_multiple_of(NR);
    let parts = out.chunks_mut(share).enumerate().collect();
    cpu.par_for_each(parts, |(i, out): (usize, &mut [f32])| {
        rhs.gemm(cpu.isa, lhs, i * share..i * share + out.len(), epilogue, out);
    });
}

/// SwiGLU (Shazeer 2020, arXiv 2002.05202): rows of gate and up values, side by side, to `silu(gate) up`.
fn swiglu(isa: Isa, gate_up: &mut [f32], columns: usize, out: &mut Vec<f32>) {
    out.clear();
    for row in gate_up.chunks_exact_mut(columns) {
        let (gate, up) = row.split_at_mut(columns / 2);
        rowwise::silu(isa, gate);
        out.extend(gate.iter().zip(up).map(|(gate, up)| *gate * *up));
    }
}
