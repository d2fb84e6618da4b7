//! The decoder: tokens so far to the logits of the next, with everything cached that does not change.

use super::config::Config;
use super::tensors::Tensors;
use crate::int8::LayerNorm;
use std::ops::Range;
use tealight_core::Result;
use tealight_kernels::CpuContext;
use tealight_kernels::attention::cached::{self, KvView};
use tealight_kernels::attention::int8::{QuantizedKv, QueryScratch, StridedRows, sdpa_quantized_kv};
use tealight_kernels::attention::{HeadSlice, Qkv};
use tealight_kernels::int8::{Epilogue, PackedRhs, gemm};
use tealight_kernels::quantize::QuantizedRows;
use tealight_kernels::rowwise;

/// The weights.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// `[V padded, D]`: rows of tokens, and the last product.
    tokens: PackedRhs,
    /// `[text_tokens, D]`.
    positions: Vec<f32>,
    layers: Vec<Layer>,
    norm: LayerNorm,
    heads: usize,
}

#[derive(Debug)]
struct Layer {
    attention_norm: LayerNorm,
    qkv: PackedRhs,
    output: PackedRhs,
    cross_norm: LayerNorm,
    cross_query: PackedRhs,
    /// Key and value of the encoder's rows.
    cross_rows: PackedRhs,
    cross_output: PackedRhs,
    inner_norm: LayerNorm,
    up: PackedRhs,
    down: PackedRhs,
}

/// What the encoder heard in a window, as each layer and head reads it.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// `[layers][heads]`.
    sequences: Vec<Vec<QuantizedKv>>,
    /// `[audio_rows, D]`, for the times of words.
    rows: Vec<f32>,
}

/// Keys and values of the tokens of one hypothesis.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cache {
    /// `[layers]` of keys and values, each `[tokens, D]`.
    layers: Vec<(Vec<f32>, Vec<f32>)>,
    tokens: usize,
}

impl Cache {
    /// How many tokens it holds.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }
}

/// Memory that steps share.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    x: Vec<f32>,
    normed: Vec<f32>,
    wide: Vec<f32>,
    attended: Vec<f32>,
    codes: QuantizedRows,
    queries: Vec<QueryScratch>,
    scores: Vec<f32>,
    /// `[layers]` of queries to the audio, `[rows, D]`, where they are asked for.
    asked: Option<Vec<Vec<f32>>>,
    /// Logits of some columns, a list a thread.
    parts: Vec<Vec<f32>>,
}

impl Decoder {
    pub(super) fn new(cpu: &CpuContext, config: &Config, tensors: &Tensors) -> Result<Self> {
        let d = config.width;
        let layers = cpu.par_map(&(0..config.decoder_layers).collect::<Vec<_>>(), |i| Layer::new(*i, config, tensors));
        let (vocabulary, padded) = (config.vocabulary, config.vocabulary.next_multiple_of(16));
        let tokens = tensors.packed("decoder.embed_tokens", (padded, d), |weights| {
            let mut tokens = weights.floats("decoder.embed_tokens.weight", &[vocabulary, d])?;
            tokens.resize(padded * d, 0.0);
            Ok((tokens, vec![0.0; padded]))
        })?;
        Ok(Self {
            tokens,
            positions: tensors.floats("decoder.embed_positions.weight", &[config.text_tokens, d])?,
            layers: layers.into_iter().collect::<Result<_>>()?,
            norm: tensors.norm("decoder.layer_norm", d)?,
            heads: config.heads,
        })
    }

    fn width(&self) -> usize {
        self.norm.weight.len()
    }

    /// Keys and values of `rows [T, D]` of the encoder.
    pub(crate) fn hear(&self, cpu: &CpuContext, rows: &[f32], heard: &mut Heard) {
        let d = self.width();
        let (tokens, width) = (rows.len() / d, d / self.heads);
        heard.rows.clear();
        heard.rows.extend_from_slice(rows);
        heard.sequences.resize_with(self.layers.len(), || vec![QuantizedKv::default(); self.heads]);
        let mut both = vec![0.0; tokens * 2 * d];
        for (layer, sequences) in self.layers.iter().zip(&mut heard.sequences) {
            let share = tokens.div_ceil(cpu.threads()).next_multiple_of(8);
            let parts: Vec<_> = rows.chunks(share * d).zip(both.chunks_mut(share * 2 * d)).collect();
            cpu.par_for_each(parts, |(rows, both)| {
                let mut codes = QuantizedRows::default();
                codes.quantize(cpu.isa, rows, &layer.cross_rows.layout());
                gemm(cpu.isa, &codes, &layer.cross_rows, 0..2 * d, Epilogue::Store, both);
            });
            let x = Qkv { q: &both, k: &both, v: &both[d..], stride: 2 * d };
            cpu.par_for_each(sequences.iter_mut().enumerate().collect(), |(h, sequence)| {
                let head = HeadSlice { sequence: 0..tokens, queries: 0..tokens, offset: h * width, head_dim: width };
                sequence.quantize(cpu.isa, x, &head);
            });
        }
    }

    /// An empty cache.
    pub(crate) fn cache(&self) -> Cache {
        Cache { layers: vec![Default::default(); self.layers.len()], tokens: 0 }
    }

    /// Runs `tokens`, each behind those of its cache, and adds them to it: several of one hypothesis, or one each of
    /// several. Returns the rows `[tokens, D]` before the last product.
    pub(crate) fn step(
        &self,
        cpu: &CpuContext,
        heard: &Heard,
        caches: &mut [Cache],
        tokens: &[u32],
        scratch: &mut Scratch,
    ) {
        let d = self.width();
        let each = tokens.len() / caches.len();
        scratch.x.resize(tokens.len() * d, 0.0);
        for (i, (token, x)) in tokens.iter().zip(scratch.x.chunks_exact_mut(d)).enumerate() {
            let position = caches[i / each].tokens + i % each;
            self.tokens.dequantize_row(*token as usize, x);
            rowwise::add(x, &self.positions[position * d..][..d]);
        }
        for (l, layer) in self.layers.iter().enumerate() {
            layer.attend_to_text(cpu, l, caches, self.heads, scratch);
            layer.attend_to_audio(cpu, &heard.sequences[l], scratch);
            layer.feed_forward(cpu, scratch);
        }
        caches.iter_mut().for_each(|cache| cache.tokens += each);
        self.norm.apply(cpu.isa, &mut scratch.x);
    }

    /// What `tokens` ask of the audio: `[layers]` of `[tokens, D]`.
    pub(crate) fn queries(
        &self,
        cpu: &CpuContext,
        heard: &Heard,
        tokens: &[u32],
        scratch: &mut Scratch,
    ) -> Vec<Vec<f32>> {
        scratch.asked = Some(vec![]);
        self.step(cpu, heard, &mut [self.cache()], tokens, scratch);
        scratch.asked.take().unwrap_or_default()
    }

    /// The keys `[rows, width]` of a head for the first rows of the audio.
    pub(crate) fn keys(&self, cpu: &CpuContext, heard: &Heard, layer: usize, head: usize, rows: usize) -> Vec<f32> {
        let (d, product) = (self.width(), &self.layers[layer].cross_rows);
        let (mut codes, mut keys) = (QuantizedRows::default(), vec![0.0; rows * d]);
        codes.quantize(cpu.isa, &heard.rows[..rows * d], &product.layout());
        gemm(cpu.isa, &codes, product, 0..d, Epilogue::Store, &mut keys);
        let width = d / self.heads;
        keys.chunks_exact(d).flat_map(|row| &row[head * width..(head + 1) * width]).copied().collect()
    }

    /// The logits of some rows of the last step, `[rows, V padded]`.
    pub(crate) fn logits(&self, cpu: &CpuContext, rows: Range<usize>, scratch: &mut Scratch, out: &mut Vec<f32>) {
        let (d, n) = (self.width(), self.tokens.n());
        out.resize(rows.len() * n, 0.0);
        scratch.codes.quantize(cpu.isa, &scratch.x[rows.start * d..rows.end * d], &self.tokens.layout());
        let (codes, share) = (&scratch.codes, n.div_ceil(cpu.threads()).next_multiple_of(16));
        let parts: Vec<Range<usize>> = (0..n).step_by(share).map(|first| first..(first + share).min(n)).collect();
        let product = |columns: &Range<usize>, out: &mut [f32]| {
            gemm(cpu.isa, codes, &self.tokens, columns.clone(), Epilogue::Store, out);
        };
        if rows.len() == 1 {
            cpu.par_for_each(parts.iter().zip(out.chunks_mut(share)).collect(), |(columns, out)| product(columns, out));
            return;
        }
        scratch.parts.resize_with(parts.len(), Vec::new);
        cpu.par_for_each(parts.iter().zip(&mut scratch.parts).collect(), |(columns, out)| {
            out.resize(rows.len() * columns.len(), 0.0);
            product(columns, out);
        });
        for (columns, part) in parts.iter().zip(&scratch.parts) {
            for (row, part) in out.chunks_exact_mut(n).zip(part.chunks_exact(columns.len())) {
                row[columns.clone()].copy_from_slice(part);
            }
        }
    }
}

impl Layer {
    fn new(index: usize, config: &Config, tensors: &Tensors) -> Result<Self> {
        let (d, inner) = (config.width, config.inner);
        let name = |part: &str| format!("decoder.layers.{index}.{part}");
        let own = |part: &str| name(&format!("self_attn.{part}_proj"));
        let cross = |part: &str| name(&format!("encoder_attn.{part}_proj"));
        Ok(Self {
            attention_norm: tensors.norm(&name("self_attn_layer_norm"), d)?,
            qkv: tensors.matrix(&[&own("q"), &own("k"), &own("v")], d, d)?,
            output: tensors.matrix(&[&own("out")], d, d)?,
            cross_norm: tensors.norm(&name("encoder_attn_layer_norm"), d)?,
            cross_query: tensors.matrix(&[&cross("q")], d, d)?,
            cross_rows: tensors.matrix(&[&cross("k"), &cross("v")], d, d)?,
            cross_output: tensors.matrix(&[&cross("out")], d, d)?,
            inner_norm: tensors.norm(&name("final_layer_norm"), d)?,
            up: tensors.matrix(&[&name("fc1")], inner, d)?,
            down: tensors.matrix(&[&name("fc2")], d, inner)?,
        })
    }

    /// Quantises the normalised rows for a product.
    fn read(cpu: &CpuContext, norm: &LayerNorm, product: &PackedRhs, scratch: &mut Scratch) {
        scratch.normed.clear();
        scratch.normed.extend_from_slice(&scratch.x);
        norm.apply(cpu.isa, &mut scratch.normed);
        scratch.codes.quantize(cpu.isa, &scratch.normed, &product.layout());
    }

    fn attend_to_text(
        &self,
        cpu: &CpuContext,
        layer: usize,
        caches: &mut [Cache],
        heads: usize,
        scratch: &mut Scratch,
    ) {
        let (isa, d) = (cpu.isa, self.output.n());
        Self::read(cpu, &self.attention_norm, &self.qkv, scratch);
        let rows = scratch.codes.rows();
        scratch.wide.resize(rows * 3 * d, 0.0);
        gemm(isa, &scratch.codes, &self.qkv, 0..3 * d, Epilogue::Store, &mut scratch.wide);
        scratch.attended.resize(rows * d, 0.0);
        let each = rows / caches.len();
        let qkv = scratch.wide.chunks_exact(3 * d).zip(scratch.attended.chunks_exact_mut(d));
        for (i, (qkv, attended)) in qkv.enumerate() {
            let (keys, values) = &mut caches[i / each].layers[layer];
            keys.extend_from_slice(&qkv[d..2 * d]);
            values.extend_from_slice(&qkv[2 * d..]);
            let cache = KvView { keys, values, stride: d };
            cached::sdpa(isa, &qkv[..d], cache, d / heads, &mut scratch.scores, attended);
        }
        scratch.codes.quantize(isa, &scratch.attended, &self.output.layout());
        gemm(isa, &scratch.codes, &self.output, 0..d, Epilogue::Add, &mut scratch.x);
    }

    fn attend_to_audio(&self, cpu: &CpuContext, sequences: &[QuantizedKv], scratch: &mut Scratch) {
        let (isa, d) = (cpu.isa, self.cross_output.n());
        Self::read(cpu, &self.cross_norm, &self.cross_query, scratch);
        let (rows, width) = (scratch.codes.rows(), d / sequences.len());
        scratch.wide.resize(rows * d, 0.0);
        gemm(isa, &scratch.codes, &self.cross_query, 0..d, Epilogue::Store, &mut scratch.wide);
        if let Some(asked) = &mut scratch.asked {
            asked.push(scratch.wide.clone());
        }
        scratch.attended.resize(rows * d, 0.0);
        scratch.queries.resize_with(1, QueryScratch::default);
        for (h, sequence) in sequences.iter().enumerate() {
            let q = StridedRows { data: &scratch.wide[h * width..], stride: d };
            sdpa_quantized_kv(isa, sequence, q, rows, &mut scratch.queries[0], &mut scratch.attended[h * width..], d);
        }
        scratch.codes.quantize(isa, &scratch.attended, &self.cross_output.layout());
        gemm(isa, &scratch.codes, &self.cross_output, 0..d, Epilogue::Add, &mut scratch.x);
    }

    fn feed_forward(&self, cpu: &CpuContext, scratch: &mut Scratch) {
        let (isa, d, inner) = (cpu.isa, self.down.n(), self.up.n());
        Self::read(cpu, &self.inner_norm, &self.up, scratch);
        scratch.wide.resize(scratch.codes.rows() * inner, 0.0);
        gemm(isa, &scratch.codes, &self.up, 0..inner, Epilogue::Gelu, &mut scratch.wide);
        scratch.codes.quantize(isa, &scratch.wide, &self.down.layout());
        gemm(isa, &scratch.codes, &self.down, 0..d, Epilogue::Add, &mut scratch.x);
    }
}
