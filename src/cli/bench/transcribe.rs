//! `tealight bench transcribe`.

use super::super::transcribe::SpeechModelArgs;
use super::support::print_row;
use crate::engine::speech::Transcribe;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;
use tealight_core::mmap::map_file;
use tealight_core::{Deadline, Error, Result};
use tealight_models::tasks::transcribe::TranscribeOptions;

#[derive(Debug, Args)]
pub struct TranscribeBenchArgs {
    #[command(flatten)]
    model: SpeechModelArgs,
    /// Audio file
    #[arg(long, short, value_name = "FILE")]
    input: PathBuf,
    /// Timed runs, after one warm-up run
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct TranscribeRow {
    threads: usize,
    isa: &'static str,
    /// Length of the recording.
    seconds: f32,
    /// Median time of a transcription, in seconds.
    s_median: f64,
    text: String,
}

impl std::fmt::Display for TranscribeRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { threads, isa, seconds, s_median, text } = self;
        write!(f, "{s_median:.3} s median for {seconds:.1} s of audio ({isa}, threads: {threads}): {text}")
    }
}

/// Times greedy transcription, from the bytes of the file to the text.
pub(super) fn run(args: &TranscribeBenchArgs) -> Result<()> {
    let engine = args.model.engine()?;
    let audio = map_file(&args.input)?;
    let run = || {
        let options = TranscribeOptions { beam_size: 1, language: args.model.language(), ..Default::default() };
        let on_progress = &mut |_: &[_], _, _| Ok(());
        let job = Transcribe { model: None, audio: audio.clone(), prompt: None, options, on_progress };
        engine.run(job, Deadline::NONE)
    };
    let expected = run()?.transcript;
    let mut times = vec![];
    for _ in 0..args.runs {
        let start = Instant::now();
        let output = run()?;
        times.push(start.elapsed().as_secs_f64());
        if output.transcript != expected {
            return Err(Error::internal("two equal runs returned different transcripts"));
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
    print_row(&row, args.json)
}
