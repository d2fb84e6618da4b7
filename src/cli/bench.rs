//! `tealight bench`: from token ids to normalised vectors, and from a recording to its text.

use super::{ModelArgs, json_line, print};
use crate::engine::Engine;
use crate::engine::speech::Transcribe;
use clap::Args;
use serde::Serialize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;
use tealight_core::Deadline;
use tealight_core::mmap::map_file;
use tealight_core::{Error, Result};
use tealight_kernels::roofline;
use tealight_models::tasks::transcribe::Options;
use tealight_models::{Embedder, TokenBatch, truncate_and_normalize};

const WARM_UPS: usize = 3;
/// Tokens of one forward pass, which memory has to hold.
const MAX_TOKENS: usize = 1 << 16;

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Texts by tokens of each, such as 32x128, or 64x8-256 for texts of different lengths; may be given several times
    #[arg(long = "shape", value_name = "BxT", default_values = ["1x16", "1x128", "32x128"])]
    shapes: Vec<Shape>,
    /// Print an object a shape
    #[arg(long)]
    json: bool,
}

/// So many texts of so many tokens each.
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
            Some((least, most)) => Some(number(least)?..=number(most)?),
            None => number(t).map(|n| n..=n),
        };
        let shape = text.split_once('x').and_then(|(b, t)| Some(Shape { batch: number(b)?, tokens: range(t)? }));
        let bounded = |s: &Shape| !s.tokens.is_empty() && s.batch * s.tokens.end() <= MAX_TOKENS;
        shape.filter(bounded).ok_or_else(|| {
            format!("a shape is texts by tokens, such as 32x128 or 64x8-256, of no more than {MAX_TOKENS} tokens")
        })
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.tokens.start(), self.tokens.end()) {
            (least, most) if least == most => write!(f, "{}x{least}", self.batch),
            (least, most) => write!(f, "{}x{least}-{most}", self.batch),
        }
    }
}

#[derive(Debug, Serialize)]
struct Row {
    shape: String,
    batch: usize,
    /// Of the longest text.
    tokens: usize,
    threads: usize,
    isa: &'static str,
    ms_median: f64,
    ms_min: f64,
    tokens_per_s: f64,
    gops: f64,
    /// What these threads can do in products of int8 registers.
    peak_gops: f64,
    of_peak: f64,
}

pub(super) fn embed(args: &BenchArgs) -> Result<()> {
    let engine = args.model.engine()?;
    let loaded = engine.preload()?;
    let threads = vec![(); engine.cpu.threads()];
    for shape in &args.shapes {
        // Before each shape: other users of the machine come and go.
        let peak_gops = engine.cpu.par_map(&threads, |()| roofline::gops(engine.cpu.isa)).into_iter().sum();
        let row = measure(&engine, &loaded.model, shape, peak_gops)?;
        let text = match args.json {
            true => json_line(&row)?,
            false => format!(
                "{}: {:.3} ms median, {:.3} ms minimum, {:.0} tokens/s, {:.1} GOP/s, {:.0} % of the {:.0} of this machine \
                 ({}, threads: {})",
                row.shape,
                row.ms_median,
                row.ms_min,
                row.tokens_per_s,
                row.gops,
                100.0 * row.of_peak,
                row.peak_gops,
                row.isa,
                row.threads
            ),
        };
        print(|out| writeln!(out, "{text}"))?;
    }
    Ok(())
}

fn measure(engine: &Engine, model: &Embedder, shape: &Shape, peak_gops: f64) -> Result<Row> {
    if *shape.tokens.end() > model.max_tokens() {
        let message = format!("{} tokens are more than the model's {}", shape.tokens.end(), model.max_tokens());
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
    for _ in 1..WARM_UPS {
        run(&batch)?;
    }
    let tokens: usize = texts.iter().map(Vec::len).sum();
    let mut times = vec![];
    for _ in 0..(20_000 / tokens).clamp(5, 100) {
        let start = Instant::now();
        let vectors = run(&batch)?;
        times.push(start.elapsed().as_secs_f64());
        if vectors != expected {
            return Err(Error::internal("two equal runs gave different vectors"));
        }
    }
    times.sort_by(f64::total_cmp);
    let operations: u64 = texts.iter().map(|t| model.matmul_ops(t.len())).sum();
    let (median, least) = (times[times.len() / 2], times[0]);
    let gops = operations as f64 / median / 1e9;
    Ok(Row {
        shape: shape.to_string(),
        batch: shape.batch,
        tokens: *shape.tokens.end(),
        threads: engine.cpu.threads(),
        isa: engine.cpu.isa.as_str(),
        ms_median: median * 1e3,
        ms_min: least * 1e3,
        tokens_per_s: tokens as f64 / median,
        gops,
        peak_gops,
        of_peak: gops / peak_gops,
    })
}

/// That every vector has length 1, and that the last is the one that its text has alone, bit for bit.
fn check(vectors: &[Vec<f32>], last_alone: &[Vec<f32>]) -> Result<()> {
    let norm = |v: &Vec<f32>| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    if let Some(v) = vectors.iter().find(|v| (norm(v) - 1.0).abs() > 1e-4) {
        return Err(Error::internal(format!("a vector has the length {}, not 1", norm(v))));
    }
    match vectors.last() == last_alone.last() {
        true => Ok(()),
        false => Err(Error::internal("a text has another vector alone than in its batch")),
    }
}

/// Lengths and ids by a fixed linear congruence (Knuth, MMIX), so that every run measures the same.
fn random_texts(model: &Embedder, shape: &Shape) -> Vec<Vec<u32>> {
    let mut state = 1u64;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    let span = shape.tokens.end() - shape.tokens.start() + 1;
    let lengths: Vec<usize> = (0..shape.batch).map(|_| shape.tokens.start() + below(span)).collect();
    lengths.into_iter().map(|n| (0..n).map(|_| below(model.vocab_size()) as u32).collect()).collect()
}

#[derive(Debug, Args)]
pub(super) struct TranscribeBenchArgs {
    #[command(flatten)]
    model: super::transcribe::SpeechArgs,
    /// The recording
    #[arg(long, short, value_name = "FILE")]
    input: PathBuf,
    /// Runs that are timed, after one that is not
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// Print an object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct TranscribeRow {
    threads: usize,
    isa: &'static str,
    seconds: f32,
    s_median: f64,
    text: String,
}

/// Times whole transcriptions, greedy, from the bytes of the file to the text.
pub(super) fn transcribe(args: &TranscribeBenchArgs) -> Result<()> {
    let engine = args.model.engine()?;
    let audio = map_file(&args.input)?;
    let run = || {
        let options = Options { beams: 1, language: args.model.language(), ..Options::default() };
        let progress = &mut |_: &[_], _, _| Ok(());
        let job = Transcribe { model: None, audio: audio.clone(), prompt: None, options, progress };
        engine.run(job, Deadline::NONE)
    };
    let expected = run()?.transcript;
    let mut times = vec![];
    for _ in 0..args.runs {
        let start = Instant::now();
        let said = run()?;
        times.push(start.elapsed().as_secs_f64());
        if said.transcript != expected {
            return Err(Error::internal("two equal runs gave different transcripts"));
        }
    }
    times.sort_by(f64::total_cmp);
    let row = TranscribeRow {
        threads: engine.cpu.threads(),
        isa: engine.cpu.isa.as_str(),
        seconds: expected.duration,
        s_median: times[times.len() / 2],
        text: expected.text().trim().into(),
    };
    let line = match args.json {
        true => json_line(&row)?,
        false => format!(
            "{:.3} s median for {:.1} s of audio ({}, threads: {}): {}",
            row.s_median, row.seconds, row.isa, row.threads, row.text
        ),
    };
    print(|out| writeln!(out, "{line}"))
}

#[derive(Debug, Args)]
pub(super) struct GenerateBenchArgs {
    #[command(flatten)]
    model: super::generate::TextArgs,
    /// Tokens that are read at once
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    prefill: u16,
    /// Tokens that are read one after another behind them, as they are when they are written
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    decode: u16,
    /// Runs that are timed, after one that is not
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// Print an object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct GenerateRow {
    threads: usize,
    isa: &'static str,
    prefill_tok_s: f64,
    decode_tok_s: f64,
    /// Bytes of weights that a token reads, times tokens a second.
    decode_gb_s: f64,
    /// What the same threads read from memory when they do nothing else.
    memory_gb_s: f64,
}

/// Times reading and writing, of random tokens.
pub(super) fn generate(args: &GenerateBenchArgs) -> Result<()> {
    let engine = args.model.engine()?;
    let (loaded, cpu) = (engine.registry.text_model(None)?.0, &engine.cpu);
    let model = &loaded.model.llama;
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32 % model.config.vocab_size as u32
    };
    let prompt: Vec<u32> = (0..args.prefill).map(|_| random()).collect();
    let more: Vec<u32> = (0..args.decode).map(|_| random()).collect();
    let (mut prefill, mut decode) = (vec![], vec![]);
    for _ in 0..=args.runs {
        let mut text = model.new_sequence(prompt.len() + more.len());
        let start = Instant::now();
        model.forward(cpu, &mut text, &prompt, 1, || Ok(()))?;
        prefill.push(prompt.len() as f64 / start.elapsed().as_secs_f64());
        let start = Instant::now();
        for id in &more {
            model.forward(cpu, &mut text, &[*id], 1, || Ok(()))?;
        }
        decode.push(more.len() as f64 / start.elapsed().as_secs_f64());
    }
    let median = |mut rates: Vec<f64>| {
        rates.remove(0);
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let (prefill_tok_s, decode_tok_s) = (median(prefill), median(decode));
    let decode_gb_s = model.weight_bytes() as f64 * decode_tok_s / 1e9;
    let (threads, isa, memory_gb_s) = (cpu.threads(), cpu.isa.as_str(), roofline::bandwidth(cpu.threads()));
    let row = GenerateRow { threads, isa, prefill_tok_s, decode_tok_s, decode_gb_s, memory_gb_s };
    let line = match args.json {
        true => json_line(&row)?,
        false => format!(
            "{prefill_tok_s:.0} tokens a second read, {decode_tok_s:.1} written: {decode_gb_s:.1} GB/s of weights, {:.0} % of the \
             {memory_gb_s:.1} GB/s of memory ({isa}, threads: {threads})",
            100.0 * decode_gb_s / memory_gb_s
        ),
    };
    print(|out| writeln!(out, "{line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_texts_by_tokens() {
        assert_eq!("32x128".parse(), Ok(Shape { batch: 32, tokens: 128..=128 }));
        let ragged: Shape = "64x8-256".parse().unwrap();
        assert_eq!((ragged.batch, ragged.tokens.clone(), ragged.to_string().as_str()), (64, 8..=256, "64x8-256"));
        for wrong in ["", "1", "x", "1x", "0x1", "1x0", "2x9-8", "1x2-", "1x-2", "65536x2", "1x70000", "ax1", "1x1x1"] {
            assert!(wrong.parse::<Shape>().unwrap_err().contains("32x128"), "{wrong}");
        }
    }
}
