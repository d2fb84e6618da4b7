//! `tealight bench embed`: from token ids to normalised vectors.

use super::{ModelArgs, json_line, print};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::models::{Batch, Embedder, shorten};
use clap::Args;
use serde::Serialize;
use std::str::FromStr;
use std::time::Instant;

const WARM_UPS: usize = 3;
/// Tokens of one forward pass, which memory has to hold.
const MAX_TOKENS: usize = 1 << 16;

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Texts by tokens of each, such as 32x128; may be given several times
    #[arg(long = "shape", value_name = "BxT", default_values = ["1x16", "1x128", "32x128"])]
    shapes: Vec<Shape>,
    /// Print an object a shape
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    batch: usize,
    tokens: usize,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |t: &str| t.parse().ok().filter(|n| (1..=1 << 16).contains(n));
        let bounded = |s: &Shape| s.batch * s.tokens <= MAX_TOKENS;
        let shape = text.split_once('x').and_then(|(b, t)| Some(Shape { batch: number(b)?, tokens: number(t)? }));
        shape
            .filter(bounded)
            .ok_or_else(|| format!("a shape is two whole numbers, such as 32x128, of no more than {MAX_TOKENS} tokens"))
    }
}

#[derive(Debug, Serialize)]
struct Row {
    batch: usize,
    tokens: usize,
    threads: usize,
    isa: &'static str,
    ms_median: f64,
    ms_min: f64,
    tokens_per_s: f64,
    gops: f64,
}

pub(super) fn embed(args: &BenchArgs) -> Result<()> {
    let engine = args.model.engine()?;
    let loaded = engine.preload()?;
    for shape in &args.shapes {
        let row = measure(&engine, &loaded.model, *shape)?;
        let text = match args.json {
            true => json_line(&row)?,
            false => format!(
                "{}x{}: {:.3} ms median, {:.3} ms minimum, {:.0} tokens/s, {:.1} GOP/s ({}, {} threads)",
                row.batch, row.tokens, row.ms_median, row.ms_min, row.tokens_per_s, row.gops, row.isa, row.threads
            ),
        };
        print(|out| writeln!(out, "{text}"))?;
    }
    Ok(())
}

fn measure(engine: &Engine, model: &Embedder, shape: Shape) -> Result<Row> {
    let Shape { batch, tokens } = shape;
    if tokens > model.max_tokens() {
        return Err(Error::value("shape", format!("{tokens} tokens are more than the model's {}", model.max_tokens())));
    }
    let ids = random_ids(model, batch * tokens);
    let texts = Batch::new(ids.chunks(tokens));
    let run = || -> Result<Vec<Vec<f32>>> {
        let mut vectors = model.vectors(&engine.cpu, &texts)?;
        vectors.iter_mut().for_each(|v| shorten(v, None, true));
        Ok(vectors)
    };
    let expected = run()?;
    check(&expected)?;
    for _ in 1..WARM_UPS {
        run()?;
    }
    let mut times = vec![];
    for _ in 0..(20_000 / (batch * tokens)).clamp(5, 100) {
        let start = Instant::now();
        let vectors = run()?;
        times.push(start.elapsed().as_secs_f64());
        if vectors != expected {
            return Err(Error::internal("two equal runs gave different vectors"));
        }
    }
    times.sort_by(f64::total_cmp);
    let (median, operations) = (times[times.len() / 2], batch as f64 * model.operations(tokens) as f64);
    Ok(Row {
        batch,
        tokens,
        threads: engine.cpu.threads(),
        isa: engine.cpu.isa.name(),
        ms_median: median * 1e3,
        ms_min: times[0] * 1e3,
        tokens_per_s: (batch * tokens) as f64 / median,
        gops: operations / median / 1e9,
    })
}

fn check(vectors: &[Vec<f32>]) -> Result<()> {
    let norm = |v: &Vec<f32>| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    match vectors.iter().find(|v| (norm(v) - 1.0).abs() > 1e-4) {
        None => Ok(()),
        Some(v) => Err(Error::internal(format!("a vector has the length {}, not 1", norm(v)))),
    }
}

/// Ids by a fixed linear congruence (Knuth, MMIX), so that every run measures the same.
fn random_ids(model: &Embedder, count: usize) -> Vec<u32> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % model.vocabulary() as u64) as u32
    };
    (0..count).map(|_| next()).collect()
}
