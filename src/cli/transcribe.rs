//! `tealight transcribe`: recordings in, text or subtitles out.

use super::{json_line, print};
use crate::audio::Voices;
use crate::config::Config;
use crate::engine::speech::{self, Said, Transcribe};
use crate::engine::{Deadline, Engine};
use crate::error::{Error, Result};
use crate::format::Encoded;
use crate::format::transcript::{Form, Parts, render};
use crate::models::map::map;
use crate::models::whisper::{Options, Task, language_code};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Which speech model, on how many threads, and what it hears.
#[derive(Debug, Args)]
pub(super) struct SpeechArgs {
    /// A model folder or packed file, or a name [default: $TEALIGHT_SPEECH_MODEL or whisper-base]
    #[arg(long, short, value_name = "MODEL")]
    model: Option<String>,
    /// Threads [default: $TEALIGHT_THREADS or the cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// The language that is spoken, such as en or german [default: what is heard]
    #[arg(long, short)]
    language: Option<String>,
}

impl SpeechArgs {
    pub(super) fn engine(&self) -> Result<Engine> {
        let mut config = Config::from_env()?;
        config.threads = self.threads.map_or(config.threads, usize::from);
        config.speech_model = self.model.clone().unwrap_or(config.speech_model);
        Engine::new(config)
    }

    pub(super) fn language(&self) -> Option<String> {
        self.language.as_deref().map(language_code)
    }
}

#[derive(Debug, Args)]
pub(super) struct TranscribeArgs {
    /// Recordings: WAV, MP3, FLAC, Ogg, M4A, MP4, Matroska, WebM
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    model: SpeechArgs,
    /// Write in English what is spoken in another language
    #[arg(long)]
    translate: bool,
    /// json: {"text": ...}; verbose_json: segments and their figures; srt, vtt: subtitles
    #[arg(long, short, default_value = "text", value_parser = ["json", "text", "srt", "vtt", "verbose_json"])]
    format: String,
    /// What was said before, or words that are said
    #[arg(long)]
    prompt: Option<String>,
    /// Texts that are followed at once: 1 is fastest
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    beams: u8,
    /// Write segments as documents with their vectors, one a line: {"id", "text", "metadata", "embedding"}
    #[arg(long, conflicts_with = "format")]
    embed: bool,
    /// Give words times of their own, in verbose_json
    #[arg(long)]
    word_timestamps: bool,
    /// Pass over what is no voice
    #[arg(long)]
    vad: bool,
    /// Do without trying again at higher temperatures where a text is unlikely
    #[arg(long)]
    no_fallback: bool,
}

pub(super) fn run(args: &TranscribeArgs) -> Result<()> {
    let engine = args.model.engine()?;
    let form = Form::named(&args.format).unwrap_or_default();
    let parts = Parts { segments: true, words: args.word_timestamps };
    for file in &args.files {
        let said = transcribe(&engine, args, file).map_err(|e| e.context(file.display()))?;
        if args.embed {
            print_documents(&engine, &said, file)?;
            continue;
        }
        let text = render(&said.transcript, task(args), form, parts)
            .map_err(|e| Error::internal(format!("a transcript is not JSON: {e}")))?;
        print(|out| writeln!(out, "{}", text.trim_end()))?;
    }
    Ok(())
}

/// A segment that an index takes as it is.
#[derive(Debug, Serialize)]
struct Document<'a> {
    id: String,
    text: &'a str,
    metadata: Metadata<'a>,
    embedding: Encoded,
}

#[derive(Debug, Serialize)]
struct Metadata<'a> {
    source: String,
    start: f32,
    end: f32,
    language: &'a str,
}

fn print_documents(engine: &Engine, said: &Said, file: &Path) -> Result<()> {
    let vectors = speech::embed(engine, &said.transcript, None, None, Deadline::NONE)?.vectors;
    for (i, (segment, vector)) in said.transcript.segments.iter().zip(vectors).enumerate() {
        let source = file.display().to_string();
        let (start, end, language) = (segment.start, segment.end, said.transcript.language.as_str());
        let line = json_line(&Document {
            id: format!("{source}#{i}"),
            text: segment.text.trim(),
            metadata: Metadata { source, start, end, language },
            embedding: Encoded::Floats(vector),
        })?;
        print(|out| writeln!(out, "{line}"))?;
    }
    Ok(())
}

fn task(args: &TranscribeArgs) -> Task {
    if args.translate { Task::Translate } else { Task::Transcribe }
}

fn transcribe(engine: &Engine, args: &TranscribeArgs, file: &Path) -> Result<Said> {
    let mut options = Options {
        language: args.model.language(),
        task: task(args),
        beams: args.beams.into(),
        words: args.word_timestamps,
        voices: args.vad.then(Voices::default),
        ..Options::default()
    };
    if args.no_fallback {
        options.temperatures.truncate(1);
    }
    // Drawn on a terminal only.
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} s, {eta} left") {
        bar.set_style(style);
    }
    bar.set_message(file.display().to_string());
    let job = Transcribe {
        model: None,
        audio: map(file)?,
        prompt: args.prompt.clone(),
        options,
        progress: &mut |_, done, seconds| {
            bar.set_length(seconds as u64);
            bar.set_position(done as u64);
            Ok(())
        },
    };
    let said = engine.run(job, Deadline::NONE);
    bar.finish_and_clear();
    said
}
