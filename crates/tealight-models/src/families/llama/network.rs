//! The network: tokens to rows, through blocks of attention and SwiGLU (Touvron et al. 2023, arXiv 2302.13971).
//!
//! Many tokens are shared out among threads by rows; of one token each matrix is shared out by its outputs. A row's result
//! depends on neither.

use super::config::Config;
use super::matrix::Matrix;
use super::tensors::Tensors;
use std::ops::Range;
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;
use tealight_kernels::attention::gqa::{self, GqaQueries};
use tealight_kernels::int8::Epilogue;
use tealight_kernels::quantize::QuantizedRows;
use tealight_kernels::{Isa, rowwise};

/// Tokens that go through the blocks together: enough for the kernels, few enough for the caches of a CPU.
const TOGETHER: usize = 128;
/// Outputs come in panels of so many.
const PANEL: usize = 16;
/// Tokens from which on the heads of one token are shared out among threads.
const LONG: usize = 256;

/// The weights.
#[derive(Debug)]
pub(super) struct Network {
    config: Config,
    tokens: Matrix,
    blocks: Vec<Block>,
    norm: Vec<f32>,
    /// `None`: the token table is the last product, too.
    head: Option<Matrix>,
}

#[derive(Debug)]
struct Block {
    attention_norm: Vec<f32>,
    qkv: Matrix,
    output: Matrix,
    inner_norm: Vec<f32>,
    gate_up: Matrix,
    down: Matrix,
}

/// Keys and values of the tokens so far, for each layer and head of keys.
#[derive(Debug, Clone, Default)]
pub(super) struct Cache {
    /// `[layers][kv_heads]`.
    layers: Vec<Vec<gqa::KvCache>>,
    tokens: usize,
}

impl Cache {
    pub(super) fn new(config: &Config) -> Self {
        let heads = vec![gqa::KvCache::new(config.head); config.kv_heads];
        Self { layers: vec![heads; config.layers], tokens: 0 }
    }

    /// Forgets all but the first tokens.
    pub(super) fn truncate(&mut self, tokens: usize) {
        self.tokens = tokens.min(self.tokens);
        self.layers.iter_mut().flatten().for_each(|head| head.truncate(tokens));
    }

    /// A copy of the first tokens.
    pub(super) fn beginning(&self, tokens: usize) -> Self {
        let layer = |heads: &Vec<gqa::KvCache>| heads.iter().map(|head| head.clone_prefix(tokens)).collect();
        Self { layers: self.layers.iter().map(layer).collect(), tokens: tokens.min(self.tokens) }
    }

    /// Gives back the memory of tokens that were forgotten.
    pub(super) fn shrink(&mut self) {
        self.layers.iter_mut().flatten().for_each(gqa::KvCache::shrink_to_fit);
    }

    /// Makes room for `tokens` in all.
    pub(super) fn reserve(&mut self, tokens: usize) {
        self.layers.iter_mut().flatten().for_each(|head| head.reserve(tokens));
    }
}

/// Memory that steps share.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// `[tokens, D]`.
    x: Vec<f32>,
    /// Queries, keys and values, `[tokens, (heads + 2 kv_heads) head]`.
    qkv: Vec<f32>,
    turns: Vec<(f32, f32)>,
    workers: Vec<Worker>,
}

/// Memory of one thread.
#[derive(Debug, Default)]
struct Worker {
    normed: Vec<f32>,
    attended: Vec<f32>,
    wide: Vec<f32>,
    inner: Vec<f32>,
    scores: Vec<f32>,
    codes: QuantizedRows,
}

impl Network {
    pub(super) fn new(cpu: &CpuContext, config: &Config, tensors: &Tensors) -> Result<Self> {
        let (d, vocabulary) = (config.width, config.vocabulary);
        let last = format!("blk.{}.attn_norm", config.layers - 1);
        if !tensors.contains(&last) {
            return Err(Error::invalid_model(format!(
                "tensor \"{last}.weight\" is missing, of {} blocks",
                config.layers
            )));
        }
        let table = |name: &'static str| tensors.matrix(name, &[(name, vocabulary)], d, d);
        let tokens = table("token_embd")?;
        let blocks = cpu.par_map(&(0..config.layers).collect::<Vec<_>>(), |i| Block::new(*i, config, tensors));
        Ok(Self {
            tokens,
            blocks: blocks.into_iter().collect::<Result<_>>()?,
            norm: tensors.floats("output_norm", d)?,
            head: tensors.contains("output").then(|| table("output")).transpose()?,
            config: config.clone(),
        })
    }

    /// Bytes of the weights that a token reads.
    pub(super) fn bytes(&self) -> usize {
        let blocks = self.blocks.iter().flat_map(|b| [&b.qkv, &b.output, &b.gate_up, &b.down]);
        blocks.chain([self.last()]).map(|matrix| matrix.bytes().len()).sum()
    }

    /// Weights that a row goes through, without those of the logits.
    pub(super) fn weights(&self) -> usize {
        let Config { width: d, heads, kv_heads, head, inner, layers, .. } = self.config;
        layers * d * (2 * heads * head + 2 * kv_heads * head + 3 * inner)
    }

    fn last(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.tokens)
    }

    /// Runs tokens behind those of the cache, and adds them to it. Calls `f(first, rows)` with their rows `[n, D]`, normalised, some
    /// at a time.
    pub(super) fn run(
        &self,
        cpu: &CpuContext,
        cache: &mut Cache,
        tokens: &[u32],
        scratch: &mut Scratch,
        mut f: impl FnMut(usize, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        let d = self.config.width;
        for (i, part) in tokens.chunks(TOGETHER).enumerate() {
            scratch.x.resize(part.len() * d, 0.0);
            for (id, x) in part.iter().zip(scratch.x.chunks_exact_mut(d)) {
                self.tokens.row(*id as usize, x);
            }
            let positions = cache.tokens..cache.tokens + part.len();
            self.config.rope.turns(positions.clone(), &mut scratch.turns);
            scratch.workers.resize_with(cpu.threads(), Worker::default);
            for (block, cache) in self.blocks.iter().zip(&mut cache.layers) {
                match part.len() {
                    1 => block.one(cpu, &self.config, cache, scratch),
                    _ => block.many(cpu, &self.config, cache, positions.start, scratch),
                }
            }
            cache.tokens += part.len();
            rowwise::rms_norm(cpu.isa, &mut scratch.x, &self.norm, self.config.eps);
            f(i * TOGETHER, &mut scratch.x)?;
        }
        Ok(())
    }

    /// The logits `[rows, V]` of rows that [`Network::run`] gave.
    pub(super) fn logits(&self, cpu: &CpuContext, rows: &[f32], out: &mut Vec<f32>) {
        let (matrix, vocabulary) = (self.last(), self.config.vocabulary);
        let mut codes = QuantizedRows::default();
        out.clear();
        for row in rows.chunks_exact(self.config.width) {
            let start = out.len();
            out.resize(start + matrix.rows(), 0.0);
            matrix.codes(cpu.isa, row, &mut codes);
            shared(cpu, matrix, &codes, Epilogue::Store, &mut out[start..]);
            out.truncate(start + vocabulary);
        }
    }
}

/// A product of one row, its outputs shared out among threads.
fn shared(cpu: &CpuContext, matrix: &Matrix, codes: &QuantizedRows, epilogue: Epilogue, out: &mut [f32]) {
    let share = out.len().div_ceil(cpu.threads()).next_multiple_of(PANEL);
    let parts = out.chunks_mut(share).enumerate().collect();
    cpu.par_for_each(parts, |(i, out): (usize, &mut [f32])| {
        matrix.product(cpu.isa, codes, i * share..i * share + out.len(), epilogue, out);
    });
}

impl Block {
    fn new(index: usize, config: &Config, tensors: &Tensors) -> Result<Self> {
        let Config { width: d, heads, kv_heads, head, inner, .. } = *config;
        let name = |part: &str| format!("blk.{index}.{part}");
        let (q, k, v) = (name("attn_q"), name("attn_k"), name("attn_v"));
        let (gate, up, kv) = (name("ffn_gate"), name("ffn_up"), kv_heads * head);
        let (output, down) = (name("attn_output"), name("ffn_down"));
        Ok(Self {
            attention_norm: tensors.floats(&name("attn_norm"), d)?,
            qkv: tensors.matrix(&name("attn_qkv"), &[(&q, heads * head), (&k, kv), (&v, kv)], d, d)?,
            output: tensors.matrix(&output, &[(&output, d)], heads * head, heads * head)?,
            inner_norm: tensors.floats(&name("ffn_norm"), d)?,
            gate_up: tensors.matrix(&name("ffn_gate_up"), &[(&gate, inner), (&up, inner)], d, d)?,
            down: tensors.matrix(&down, &[(&down, d)], inner, inner.next_multiple_of(PANEL))?,
        })
    }

    /// One token: each product is shared out by its outputs.
    fn one(&self, cpu: &CpuContext, config: &Config, cache: &mut [gqa::KvCache], scratch: &mut Scratch) {
        let Scratch { x, qkv, turns, workers } = scratch;
        let isa = cpu.isa;
        let Some((worker, others)) = workers.split_first_mut() else { return };
        worker.read(isa, x, &self.attention_norm, config.eps, &self.qkv);
        qkv.resize(self.qkv.rows(), 0.0);
        shared(cpu, &self.qkv, &worker.codes, Epilogue::Store, qkv);
        let (q, kv) = qkv.split_at_mut(config.heads * config.head);
        let (k, v) = kv.split_at_mut(config.kv_heads * config.head);
        config.rope.turn(q, config.head, turns);
        config.rope.turn(k, config.head, turns);
        for ((cache, k), v) in cache.iter_mut().zip(k.chunks_exact(config.head)).zip(v.chunks_exact(config.head)) {
            cache.push(k, v);
        }
        worker.attended.resize(q.len(), 0.0);
        let width = q.len() / cache.len();
        let visible = cache.first().map_or(0, gqa::KvCache::tokens);
        let heads = |cache: &[gqa::KvCache], q: &[f32], scores: &mut Vec<f32>, out: &mut [f32]| {
            for ((cache, q), out) in cache.iter().zip(q.chunks_exact(width)).zip(out.chunks_exact_mut(width)) {
                let x = GqaQueries {
                    q,
                    stride: width,
                    offset: 0,
                    heads: config.heads / config.kv_heads,
                    causal_len: visible,
                };
                gqa::sdpa(isa, x, cache, scores, out, 0);
            }
        };
        if visible < LONG || others.is_empty() {
            heads(cache, q, &mut worker.scores, &mut worker.attended);
        } else {
            let share = cache.len().div_ceil(cpu.threads());
            let scores = std::iter::once(&mut worker.scores).chain(others.iter_mut().map(|w| &mut w.scores));
            let parts = cache.chunks(share).zip(q.chunks(share * width)).zip(worker.attended.chunks_mut(share * width));
            cpu.par_for_each(parts.zip(scores).collect(), |(((cache, q), out), scores)| heads(cache, q, scores, out));
        }
        self.output.codes(isa, &worker.attended, &mut worker.codes);
        shared(cpu, &self.output, &worker.codes, Epilogue::Add, x);
        worker.read(isa, x, &self.inner_norm, config.eps, &self.gate_up);
        worker.wide.resize(self.gate_up.rows(), 0.0);
        shared(cpu, &self.gate_up, &worker.codes, Epilogue::Store, &mut worker.wide);
        gated(isa, &mut worker.wide, &mut worker.inner, self.gate_up.rows());
        self.down.codes(isa, &worker.inner, &mut worker.codes);
        shared(cpu, &self.down, &worker.codes, Epilogue::Add, x);
    }

    /// Many tokens: each thread takes some through everything but the caches.
    fn many(&self, cpu: &CpuContext, config: &Config, cache: &mut [gqa::KvCache], start: usize, scratch: &mut Scratch) {
        let Scratch { x, qkv, turns, workers } = scratch;
        let (d, wide, head) = (config.width, self.qkv.rows(), config.head);
        let tokens = x.len() / d;
        let (share, half) = (tokens.div_ceil(cpu.threads()), config.rope.width / 2);
        qkv.resize(tokens * wide, 0.0);
        let parts = x.chunks(share * d).zip(qkv.chunks_mut(share * wide)).zip(turns.chunks(share * half));
        cpu.par_for_each(parts.zip(&mut *workers).collect(), |(((x, qkv), turns), worker)| {
            worker.read(cpu.isa, x, &self.attention_norm, config.eps, &self.qkv);
            self.qkv.product(cpu.isa, &worker.codes, 0..wide, Epilogue::Store, qkv);
            for (row, turns) in qkv.chunks_exact_mut(wide).zip(turns.chunks_exact(half)) {
                config.rope.turn(&mut row[..(config.heads + config.kv_heads) * head], head, turns);
            }
        });
        let keys = config.heads * head;
        let values = keys + config.kv_heads * head;
        let rows = &*qkv;
        cpu.par_for_each(cache.iter_mut().enumerate().collect(), |(h, cache)| {
            for row in rows.chunks_exact(wide) {
                cache.push(&row[keys + h * head..][..head], &row[values + h * head..][..head]);
            }
        });
        let (cache, shared) = (&*cache, config.heads / config.kv_heads);
        let parts: Vec<_> = x.chunks_mut(share * d).zip(rows.chunks(share * wide)).zip(workers).enumerate().collect();
        cpu.par_for_each(parts, |(i, ((x, qkv), worker))| {
            worker.attended.resize(qkv.len() / wide * keys, 0.0);
            for (h, cache) in cache.iter().enumerate() {
                let at = h * shared * head;
                let x =
                    GqaQueries { q: qkv, stride: wide, offset: at, heads: shared, causal_len: start + i * share + 1 };
                gqa::sdpa(cpu.isa, x, cache, &mut worker.scores, &mut worker.attended, at);
            }
            self.output.codes(cpu.isa, &worker.attended, &mut worker.codes);
            self.output.product(cpu.isa, &worker.codes, 0..d, Epilogue::Add, x);
            self.feed_forward(cpu.isa, config, x, worker);
        });
    }

    fn feed_forward(&self, isa: Isa, config: &Config, x: &mut [f32], worker: &mut Worker) {
        let wide = self.gate_up.rows();
        worker.read(isa, x, &self.inner_norm, config.eps, &self.gate_up);
        worker.wide.resize(x.len() / config.width * wide, 0.0);
        self.gate_up.product(isa, &worker.codes, 0..wide, Epilogue::Store, &mut worker.wide);
        gated(isa, &mut worker.wide, &mut worker.inner, wide);
        self.down.codes(isa, &worker.inner, &mut worker.codes);
        self.down.product(isa, &worker.codes, 0..config.width, Epilogue::Add, x);
    }
}

impl Worker {
    /// Quantises the normalised rows for a product.
    fn read(&mut self, isa: Isa, x: &[f32], norm: &[f32], eps: f32, matrix: &Matrix) {
        self.normed.clear();
        self.normed.extend_from_slice(x);
        rowwise::rms_norm(isa, &mut self.normed, norm, eps);
        matrix.codes(isa, &self.normed, &mut self.codes);
    }
}

/// SwiGLU (Shazeer 2020, arXiv 2002.05202): rows of gate and up, next to each other, to `silu(gate) up`.
fn gated(isa: Isa, rows: &mut [f32], out: &mut Vec<f32>, wide: usize) {
    out.clear();
    for row in rows.chunks_exact_mut(wide) {
        let (gate, up) = row.split_at_mut(wide / 2);
        rowwise::silu(isa, gate);
        out.extend(gate.iter().zip(up).map(|(gate, up)| *gate * *up));
    }
}

/// Which of the rows that [`Network::run`] gives at once belong to `wanted` tokens.
pub(super) fn overlap(first: usize, count: usize, wanted: &Range<usize>) -> Range<usize> {
    let clamp = |at: usize| at.clamp(first, first + count) - first;
    clamp(wanted.start)..clamp(wanted.end)
}
