//! `tealight bench`: speed of this machine. Scripts read the fields of `--json`, so their names do not change.

mod embed;
#[cfg(feature = "text")]
mod generate;
#[cfg(feature = "index")]
mod index;
mod support;
#[cfg(feature = "speech")]
mod transcribe;

use clap::Subcommand;
use tealight_core::Result;

#[derive(Debug, Subcommand)]
pub(super) enum Bench {
    /// Measure embedding throughput
    Embed(embed::EmbedBenchArgs),
    /// Measure transcription speed
    #[cfg(feature = "speech")]
    Transcribe(transcribe::TranscribeBenchArgs),
    /// Measure prefill and decode speed
    #[cfg(feature = "text")]
    Generate(generate::GenerateBenchArgs),
    /// Measure search latency and recall
    #[cfg(feature = "index")]
    Index(index::IndexBenchArgs),
}

pub(super) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Embed(args) => embed::run(args),
        #[cfg(feature = "speech")]
        Bench::Transcribe(args) => transcribe::run(args),
        #[cfg(feature = "text")]
        Bench::Generate(args) => generate::run(args),
        #[cfg(feature = "index")]
        Bench::Index(args) => index::run(args),
    }
}
