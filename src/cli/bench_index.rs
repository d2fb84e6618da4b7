//! `tealight bench index`: searches in an index of vectors from files, or of random ones.

use super::args::ModelArgs;
use super::index::PrecisionArg;
use super::output::{json_line, print};
use clap::Args;
use serde::Serialize;
use serde_json::Map;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tealight_core::mmap::map_file;
use tealight_core::{Error, Result};
use tealight_index::{Builder, Document, Index, Metric, Search};
use tealight_kernels::roofline;

/// Documents that are asked for.
const COUNT: usize = 10;

#[derive(Debug, Args)]
pub(super) struct IndexBenchArgs {
    /// Rows of random numbers
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    rows: usize,
    /// Values of a row
    #[arg(long, default_value_t = 384, value_name = "D")]
    dim: usize,
    /// Vectors instead: float32 values, row by row, and nothing else
    #[arg(long, value_name = "FILE", requires = "queries")]
    vectors: Option<PathBuf>,
    /// Queries to them, in the same form
    #[arg(long, value_name = "FILE", requires = "vectors")]
    queries: Option<PathBuf>,
    /// What a search goes through first
    #[arg(long, value_enum, default_value = "int8")]
    precision: PrecisionArg,
    /// Through a graph of neighbours
    #[arg(long)]
    graph: bool,
    /// Queries that are timed
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    #[command(flatten)]
    model: ModelArgs,
    /// Print an object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct IndexRow {
    rows: usize,
    dim: usize,
    precision: &'static str,
    graph: bool,
    /// To link the rows.
    graph_s: f64,
    threads: usize,
    isa: &'static str,
    ms_median: f64,
    recall_at_10: f64,
    /// Bytes of codes or signs, over the time: of all rows, which a graph does not go through.
    gb_s: f64,
    memory_gb_s: f64,
}

/// Numbers as a bell has them, by the sum of twelve.
fn random(count: usize, mut state: u64) -> Vec<f32> {
    (0..count).map(|_| (0..12).map(|_| tealight_core::random(&mut state)).sum::<f32>() - 6.0).collect()
}

fn values(path: &Path, dim: usize) -> Result<Vec<f32>> {
    let bytes = map_file(path)?;
    if bytes.len() % (4 * dim) != 0 {
        let message =
            format!("{} has {} bytes, which are no rows of {dim} float32 values", path.display(), bytes.len());
        return Err(Error::invalid_value("vectors", message));
    }
    Ok(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

/// Times searches, and compares what they find with what float64 finds.
pub(super) fn run(args: &IndexBenchArgs) -> Result<()> {
    let (engine, d) = (args.model.engine()?, args.dim.max(1));
    let (vectors, queries) = match (&args.vectors, &args.queries) {
        (Some(vectors), Some(queries)) => (values(vectors, d)?, values(queries, d)?),
        _ => (random(args.rows * d, 1), random(usize::from(args.runs) * d, 2)),
    };
    let path = std::env::temp_dir().join(format!("tealight-bench-{}.tlx", std::process::id()));
    let mut builder = Builder::new(None, d, Metric::Cosine, args.precision.precision())?;
    for (i, row) in vectors.chunks_exact(d).enumerate() {
        builder.add(&Document { id: i.to_string(), text: String::new(), metadata: Map::new() }, row)?;
    }
    let (rows, start) = (builder.rows(), Instant::now());
    if args.graph {
        builder.link(&engine.cpu)?;
    }
    let graph_s = start.elapsed().as_secs_f64();
    builder.write(&path)?;
    let index = Index::open(&path);
    // It stays mapped.
    let _ = std::fs::remove_file(&path);
    let (index, mut times, mut found, mut all) = (index?, vec![], 0, 0);
    let queries: Vec<&[f32]> = queries.chunks_exact(d).take(args.runs.into()).collect();
    for (i, query) in queries.iter().chain(&queries).enumerate() {
        let start = Instant::now();
        let search = Search { vector: Some(query), count: COUNT, ..Search::default() };
        let hits = index.search(&engine.cpu, &search)?;
        // The first time round pages of the file are read and checked.
        if i >= queries.len() {
            times.push(1e3 * start.elapsed().as_secs_f64());
            let expected = truth(&vectors, query, d);
            found += hits.iter().filter(|hit| expected.contains(&hit.row)).count();
            all += expected.len();
        }
    }
    times.sort_by(f64::total_cmp);
    let (ms_median, recall_at_10) = (times[times.len() / 2], found as f64 / all.max(1) as f64);
    let (precision, bytes) = match args.precision {
        PrecisionArg::Int8 => ("int8", d.next_multiple_of(4)),
        PrecisionArg::Int4 => ("int4", d.next_multiple_of(8) / 2),
        PrecisionArg::Binary => ("binary", d.next_multiple_of(32) / 8),
    };
    let (threads, isa, gb_s) = (engine.cpu.threads(), engine.cpu.isa.as_str(), (rows * bytes) as f64 / ms_median / 1e6);
    let memory_gb_s = roofline::bandwidth(threads);
    let row = IndexRow {
        rows,
        dim: d,
        precision,
        graph: args.graph,
        graph_s,
        threads,
        isa,
        ms_median,
        recall_at_10,
        gb_s,
        memory_gb_s,
    };
    let line = match args.json {
        true => json_line(&row)?,
        false if args.graph => format!(
            "{rows} x {d}, graph: {ms_median:.3} ms median, recall {recall_at_10:.4}, {graph_s:.0} s to link ({isa}, threads: {threads})"
        ),
        false => format!(
            "{rows} x {d}, {precision}: {ms_median:.3} ms median, recall {recall_at_10:.4}, {gb_s:.1} GB/s, {:.0} % of the \
             {memory_gb_s:.1} of memory ({isa}, threads: {threads})",
            100.0 * gb_s / memory_gb_s
        ),
    };
    print(|out| writeln!(out, "{line}"))
}

/// The best rows by cosine, in float64.
fn truth(vectors: &[f32], query: &[f32], d: usize) -> Vec<usize> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let mut all: Vec<(f64, usize)> = vectors
        .chunks_exact(d)
        .enumerate()
        .map(|(i, row)| (dot(row, query) / dot(row, row).sqrt().max(f64::MIN_POSITIVE), i))
        .collect();
    let count = COUNT.min(all.len());
    if count < all.len() {
        all.select_nth_unstable_by(count, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    }
    all.truncate(count);
    all.into_iter().map(|(_, i)| i).collect()
}
