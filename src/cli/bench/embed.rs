//! `tealight bench embed`: random token ids to normalized embeddings.

use super::super::args::EmbeddingModelArgs;
use super::support::{Random, print_row};
use crate::engine::Engine;
use clap::Args;
use serde::Serialize;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Instant;
use tealight_core::{Error, Result};
use tealight_kernels::roofline;
use tealight_models::{Embedder, TokenBatch, truncate_and_normalize};

/// Runs before the first timed one.
const WARM_UP_RUNS: usize = 3;
/// Maximum tokens per forward pass, so that the activations fit in memory.
const MAX_TOKENS: usize = 1 << 16;

#[derive(Debug, Args)]
pub struct EmbedBenchArgs {
    #[command(flatten)]
    model: EmbeddingModelArgs,
    /// Texts x tokens per text, such as 32x128, or 64x8-256 for texts of different lengths; repeatable
    #[arg(long = "shape", value_name = "BxT", default_values = ["1x16", "1x128", "32x128"])]
    shapes: Vec<Shape>,
    /// Print one JSON object per shape
    #[arg(long)]
    json: bool,
}

/// Number of texts, and tokens per text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    batch: usize,
    tokens: RangeInclusive<usize>,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |t: &str| t.parse().ok().filter(|n| (1..=1 << 16).contains(n));
        let range = |t: &str| match t.split_once('-') {
            Some((min, max)) => Some(number(min)?..=number(max)?),
            None => number(t).map(|n| n..=n),
        };
        let shape = text.split_once('x').and_then(|(b, t)| Some(Shape { batch: number(b)?, tokens: range(t)? }));
        let bounded = |s: &Shape| !s.tokens.is_empty() && s.batch * s.tokens.end() <= MAX_TOKENS;
        shape.filter(bounded).ok_or_else(|| {
            format!("expected texts x tokens, such as 32x128 or 64x8-256, of at most {MAX_TOKENS} tokens")
        })
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.tokens.start(), self.tokens.end()) {
            (min, max) if min == max => write!(f, "{}x{min}", self.batch),
            (min, max) => write!(f, "{}x{min}-{max}", self.batch),
        }
    }
}

#[derive(Debug, Serialize)]
struct EmbedRow {
    shape: String,
    batch: usize,
    /// Tokens of the longest text.
    tokens: usize,
    threads: usize,
    isa: &'static str,
    ms_median: f64,
    ms_min: f64,
    tokens_per_s: f64,
    gops: f64,
    /// Peak int8 GOP/s of these threads, measured with register operands.
    peak_gops: f64,
    #[serde(rename = "of_peak")]
    peak_fraction: f64,
}

impl std::fmt::Display for EmbedRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { shape, ms_median, ms_min, tokens_per_s, gops, peak_gops, isa, threads, .. } = self;
        let percent = 100.0 * self.peak_fraction;
        write!(
            f,
            "{shape}: {ms_median:.3} ms median, {ms_min:.3} ms minimum, {tokens_per_s:.0} tokens/s, {gops:.1} GOP/s, {percent:.0}% of \
             this machine's peak of {peak_gops:.0} GOP/s ({isa}, threads: {threads})"
        )
    }
}

pub(super) fn run(args: &EmbedBenchArgs) -> Result<()> {
    let engine = args.model.engine()?;
    let loaded = engine.preload()?;
    let threads = vec![(); engine.cpu.threads()];
    for shape in &args.shapes {
        // Measured again for each shape, because other processes may use the machine.
        let peak_gops = engine.cpu.par_map(&threads, |()| roofline::int8_gops(engine.cpu.isa)).into_iter().sum();
        let row = measure(&engine, &loaded.model, shape, peak_gops)?;
        print_row(&row, args.json)?;
    }
    Ok(())
}

fn measure(engine: &Engine, model: &Embedder, shape: &Shape, peak_gops: f64) -> Result<EmbedRow> {
    if *shape.tokens.end() > model.max_tokens() {
        let message =
            format!("shape has {} tokens; the limit of the model is {}", shape.tokens.end(), model.max_tokens());
        return Err(Error::invalid_value("shape", message));
    }
    let texts = random_texts(model, shape);
    let batch = TokenBatch::new(texts.iter().map(Vec::as_slice));
    let run = |batch: &TokenBatch| -> Result<Vec<Vec<f32>>> {
        let mut vectors = model.sentence_embeddings(&engine.cpu, batch)?;
        vectors.iter_mut().for_each(|v| truncate_and_normalize(v, None, true));
        Ok(vectors)
    };
    let expected = run(&batch)?;
    check(&expected, &run(&TokenBatch::new([&texts[texts.len() - 1][..]]))?)?;
    for _ in 1..WARM_UP_RUNS {
        run(&batch)?;
    }
    let tokens: usize = texts.iter().map(Vec::len).sum();
    let mut times = vec![];
    for _ in 0..(20_000 / tokens).clamp(5, 100) {
        let start = Instant::now();
        let vectors = run(&batch)?;
        times.push(start.elapsed().as_secs_f64());
        if vectors != expected {
            return Err(Error::internal("two equal runs returned different embeddings"));
        }
    }
    times.sort_by(f64::total_cmp);
    let operations: u64 = texts.iter().map(|t| model.matmul_ops(t.len())).sum();
    let (median, min) = (times[times.len() / 2], times[0]);
    let gops = operations as f64 / median / 1e9;
    Ok(EmbedRow {
        shape: shape.to_string(),
        batch: shape.batch,
        tokens: *shape.tokens.end(),
        threads: engine.cpu.threads(),
        isa: engine.cpu.isa.as_str(),
        ms_median: median * 1e3,
        ms_min: min * 1e3,
        tokens_per_s: tokens as f64 / median,
        gops,
        peak_gops,
        peak_fraction: gops / peak_gops,
    })
}

/// Checks that all embeddings have unit length, and that the last one is bit-identical to that of its text without a batch.
fn check(vectors: &[Vec<f32>], last_alone: &[Vec<f32>]) -> Result<()> {
    let norm = |v: &Vec<f32>| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    if let Some(v) = vectors.iter().find(|v| (norm(v) - 1.0).abs() > 1e-4) {
        return Err(Error::internal(format!("an embedding has norm {}; expected 1", norm(v))));
    }
    if vectors.last() != last_alone.last() {
        return Err(Error::internal("an embedding depends on the batch"));
    }
    Ok(())
}

fn random_texts(model: &Embedder, shape: &Shape) -> Vec<Vec<u32>> {
    let mut random = Random::new();
    let span = shape.tokens.end() - shape.tokens.start() + 1;
    let lengths: Vec<usize> = (0..shape.batch).map(|_| shape.tokens.start() + random.below(span)).collect();
    let mut text = |n: usize| (0..n).map(|_| random.below(model.vocab_size()) as u32).collect();
    lengths.into_iter().map(&mut text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_is_parsed_as_texts_by_tokens() {
        assert_eq!("32x128".parse(), Ok(Shape { batch: 32, tokens: 128..=128 }));
        let ragged: Shape = "64x8-256".parse().unwrap();
        assert_eq!((ragged.batch, ragged.tokens.clone(), ragged.to_string().as_str()), (64, 8..=256, "64x8-256"));
        for invalid in ["", "1", "x", "1x", "0x1", "1x0", "2x9-8", "1x2-", "1x-2", "65536x2", "1x70000", "ax1", "1x1x1"]
        {
            assert!(invalid.parse::<Shape>().unwrap_err().contains("32x128"), "{invalid}");
        }
    }
}
