//! `tealight bench`: speed of this machine. Scripts read the fields of `--json`, so their names do not change.

mod embed;
mod generate;
mod transcribe;

use super::bench_index;
use super::{json_line, print};
use clap::Subcommand;
use serde::Serialize;
use std::fmt::Display;
use tealight_core::Result;

#[derive(Debug, Subcommand)]
pub(super) enum Bench {
    /// Embedding throughput
    Embed(embed::BenchArgs),
    /// Transcription speed
    Transcribe(transcribe::BenchArgs),
    /// Prefill and decode speed
    Generate(generate::BenchArgs),
    /// Search latency and recall
    Index(bench_index::IndexBenchArgs),
}

pub(super) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Embed(args) => embed::run(args),
        Bench::Transcribe(args) => transcribe::run(args),
        Bench::Generate(args) => generate::run(args),
        Bench::Index(args) => bench_index::run(args),
    }
}

/// Prints a result as a line of JSON or text.
fn print_row(row: &(impl Serialize + Display), as_json: bool) -> Result<()> {
    let line = if as_json { json_line(row)? } else { row.to_string() };
    print(|out| writeln!(out, "{line}"))
}

/// A linear congruential generator (Knuth, MMIX) with a fixed seed, so that every run measures the same.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(1)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}
