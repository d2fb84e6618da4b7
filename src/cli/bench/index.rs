//! `tealight bench index`: search latency and recall, on vectors from files or random ones.

use super::super::args::EmbeddingModelArgs;
use super::super::index::ScanEncodingArg;
use super::super::output::{json_line, print};
use clap::Args;
use serde::Serialize;
use serde_json::Map;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tealight_core::mmap::map_file;
use tealight_core::{Error, Result};
use tealight_index::{Index, IndexBuilder, IndexDocument, Metric, SearchQuery};
use tealight_kernels::{CpuContext, roofline};

/// Results per search.
const TOP_K: usize = 10;

#[derive(Debug, Args)]
pub struct IndexBenchArgs {
    /// Number of random rows
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    rows: usize,
    /// Dimension of the vectors
    #[arg(long, default_value_t = 384, value_name = "D")]
    dim: usize,
    /// Read vectors instead: a file of float32 values, row by row, without a header
    #[arg(long, value_name = "FILE", requires = "queries")]
    vectors: Option<PathBuf>,
    /// Queries, in the same format
    #[arg(long, value_name = "FILE", requires = "vectors")]
    queries: Option<PathBuf>,
    /// Compression of the vectors that each search scans: int8; int4, half the size; binary, an eighth
    #[arg(long, value_enum, default_value = "int8")]
    precision: ScanEncodingArg,
    /// Search with an HNSW graph
    #[arg(long)]
    graph: bool,
    /// Number of measured searches
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    #[command(flatten)]
    model: EmbeddingModelArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The fields are a stable interface for scripts.
#[derive(Debug, Serialize)]
struct IndexBenchResult {
    rows: usize,
    dim: usize,
    precision: &'static str,
    graph: bool,
    /// Seconds to build the graph.
    graph_s: f64,
    threads: usize,
    isa: &'static str,
    ms_median: f64,
    recall_at_10: f64,
    /// Compressed bytes of all rows divided by the median time. A graph search does not read all rows.
    gb_s: f64,
    memory_gb_s: f64,
}

/// Numbers with an approximately normal distribution: sums of twelve uniform ones.
fn random(count: usize, mut state: u64) -> Vec<f32> {
    (0..count).map(|_| (0..12).map(|_| tealight_core::random(&mut state)).sum::<f32>() - 6.0).collect()
}

fn read_vectors(path: &Path, dim: usize) -> Result<Vec<f32>> {
    let bytes = map_file(path)?;
    if bytes.len() % (4 * dim) != 0 {
        let message =
            format!("{} is {} bytes; expected a multiple of {dim} float32 values", path.display(), bytes.len());
        return Err(Error::invalid_value("vectors", message));
    }
    Ok(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

/// Measures searches and compares their results with an exact search in float64.
pub(super) fn run(args: &IndexBenchArgs) -> Result<()> {
    let (engine, d) = (args.model.engine()?, args.dim.max(1));
    let (vectors, queries) = match (&args.vectors, &args.queries) {
        (Some(vectors), Some(queries)) => (read_vectors(vectors, d)?, read_vectors(queries, d)?),
        _ => (random(args.rows * d, 1), random(usize::from(args.runs) * d, 2)),
    };
    let (index, graph_s) = build(args, &engine.cpu, &vectors, d)?;
    let queries: Vec<&[f32]> = queries.chunks_exact(d).take(args.runs.into()).collect();
    let (ms_median, recall_at_10) = measure(&index, &engine.cpu, &vectors, &queries, d)?;
    let (precision, row_bytes) = match args.precision {
        ScanEncodingArg::Int8 => ("int8", d.next_multiple_of(4)),
        ScanEncodingArg::Int4 => ("int4", d.next_multiple_of(8) / 2),
        ScanEncodingArg::Binary => ("binary", d.next_multiple_of(32) / 8),
    };
    let rows = index.rows();
    let result = IndexBenchResult {
        rows,
        dim: d,
        precision,
        graph: args.graph,
        graph_s,
        threads: engine.cpu.threads(),
        isa: engine.cpu.isa.as_str(),
        ms_median,
        recall_at_10,
        gb_s: (rows * row_bytes) as f64 / ms_median / 1e6,
        memory_gb_s: roofline::read_gb_per_second(engine.cpu.threads()),
    };
    let line = if args.json { json_line(&result)? } else { describe(&result) };
    print(|out| writeln!(out, "{line}"))
}

/// Builds the index in a temporary file that is deleted at once, so that nothing is left behind. Returns the index and the seconds
/// to build its graph.
fn build(args: &IndexBenchArgs, cpu: &CpuContext, vectors: &[f32], d: usize) -> Result<(Index, f64)> {
    let path = std::env::temp_dir().join(format!("tealight-bench-{}.tlx", std::process::id()));
    let mut builder = IndexBuilder::new(None, d, Metric::Cosine, args.precision.encoding())?;
    for (i, row) in vectors.chunks_exact(d).enumerate() {
        builder.add(&IndexDocument { id: i.to_string(), text: String::new(), metadata: Map::new() }, row)?;
    }
    let start = Instant::now();
    if args.graph {
        builder.build_hnsw(cpu)?;
    }
    let graph_s = start.elapsed().as_secs_f64();
    builder.write(&path)?;
    let index = Index::open(&path);
    let _ = std::fs::remove_file(&path);
    Ok((index?, graph_s))
}

/// The median time of a search in milliseconds, and recall@10.
fn measure(index: &Index, cpu: &CpuContext, vectors: &[f32], queries: &[&[f32]], d: usize) -> Result<(f64, f64)> {
    let (mut times, mut found, mut total) = (vec![], 0, 0);
    for (i, query) in queries.iter().chain(queries).enumerate() {
        let start = Instant::now();
        let search = SearchQuery { vector: Some(query), top_k: TOP_K, ..SearchQuery::default() };
        let hits = index.search(cpu, &search)?;
        // The first round reads the file and verifies its checksums.
        if i >= queries.len() {
            times.push(1e3 * start.elapsed().as_secs_f64());
            let expected = exact_top_k(vectors, query, d);
            found += hits.iter().filter(|hit| expected.contains(&hit.row)).count();
            total += expected.len();
        }
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], found as f64 / total.max(1) as f64))
}

fn describe(result: &IndexBenchResult) -> String {
    let IndexBenchResult { rows, dim, precision, graph_s, threads, isa, ms_median, recall_at_10, .. } = result;
    let (gb_s, memory_gb_s) = (result.gb_s, result.memory_gb_s);
    if result.graph {
        return format!(
            "{rows} x {dim}, graph: {ms_median:.3} ms median, recall {recall_at_10:.4}, {graph_s:.0} s to build ({isa}, threads: {threads})"
        );
    }
    format!(
        "{rows} x {dim}, {precision}: {ms_median:.3} ms median, recall {recall_at_10:.4}, {gb_s:.1} GB/s, {:.0}% of the memory \
         bandwidth of {memory_gb_s:.1} GB/s ({isa}, threads: {threads})",
        100.0 * gb_s / memory_gb_s
    )
}

/// The best rows by cosine similarity, in float64.
fn exact_top_k(vectors: &[f32], query: &[f32], d: usize) -> Vec<usize> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let mut all: Vec<(f64, usize)> = vectors
        .chunks_exact(d)
        .enumerate()
        .map(|(i, row)| (dot(row, query) / dot(row, row).sqrt().max(f64::MIN_POSITIVE), i))
        .collect();
    let count = TOP_K.min(all.len());
    if count < all.len() {
        all.select_nth_unstable_by(count, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    }
    all.truncate(count);
    all.into_iter().map(|(_, i)| i).collect()
}
