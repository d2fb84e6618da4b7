//! `tealight bench`: speed of this machine. Scripts read the fields of `--json`, so their names do not change.

mod embed;
mod generate;
mod support;
mod transcribe;

use super::bench_index;
use clap::Subcommand;
use tealight_core::Result;

#[derive(Debug, Subcommand)]
pub(super) enum Bench {
    /// Measure embedding throughput
    Embed(embed::EmbedBenchArgs),
    /// Measure transcription speed
    Transcribe(transcribe::TranscribeBenchArgs),
    /// Measure prefill and decode speed
    Generate(generate::GenerateBenchArgs),
    /// Measure search latency and recall
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
