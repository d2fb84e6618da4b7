//! `tealight transcribe`: recordings in, text or subtitles out.

use super::args::EncodingArg;
use super::output::write_output;
use crate::config::Config;
use crate::engine::speech::{self, Said, Transcribe};
use crate::engine::{Engine, ValidateOptions};
use crate::pipeline::format::Format;
use crate::pipeline::format::records::{Record, RecordWriter, flush, write_line};
use crate::pipeline::format::transcript::{Form, Parts, render, rounded};
use crate::pipeline::format::{Encoding, encode};
use bytes::Bytes;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use tealight_audio::VadOptions;
use tealight_core::Deadline;
use tealight_core::mmap::map_file;
use tealight_core::{Error, ErrorKind, Result};
use tealight_models::families::whisper::language_code;
use tealight_models::tasks::transcribe::{Options, Segment, Task};

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

impl TranscribeArgs {
    fn engine(&self) -> Result<Engine> {
        let mut config = self.model.config()?;
        config.model = self.embedding_model.clone().unwrap_or(config.model);
        Engine::new(config)
    }
}

impl SpeechArgs {
    pub(super) fn engine(&self) -> Result<Engine> {
        Engine::new(self.config()?)
    }

    fn config(&self) -> Result<Config> {
        let mut config = Config::from_env()?;
        config.threads = self.threads.map_or(config.threads, usize::from);
        config.speech_model = self.model.clone().unwrap_or(config.speech_model);
        Ok(config)
    }

    pub(super) fn language(&self) -> Option<String> {
        self.language.as_deref().map(language_code)
    }
}

#[derive(Debug, Args)]
pub(super) struct TranscribeArgs {
    /// Recordings: WAV, AIFF, MP3, AAC, FLAC, Ogg, M4A, MP4, Matroska, WebM; - is stdin
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    model: SpeechArgs,
    /// Write in English what is spoken in another language
    #[arg(long)]
    translate: bool,
    /// text; json: {"text": ...}; verbose_json: segments and their figures; srt, vtt: subtitles. With --embed: jsonl, a document a
    /// line; json: a list of them; npy: their vectors, a NumPy matrix [default: text, or jsonl]
    #[arg(long, short, value_parser = ["text", "json", "verbose_json", "srt", "vtt", "jsonl", "npy"])]
    format: Option<String>,
    /// What was said before, or words that are said
    #[arg(long)]
    prompt: Option<String>,
    /// Texts that are followed at once: 1 is fastest
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    beams: u8,
    /// Write segments as documents with their vectors: {"id", "text", "metadata", "embedding"}
    #[arg(long)]
    embed: bool,
    /// The model that makes the vectors: a name or a path [default: $TEALIGHT_MODEL or all-MiniLM-L6-v2]
    #[arg(long, value_name = "MODEL", requires = "embed")]
    embedding_model: Option<String>,
    /// Keep only the first N values of each vector
    #[arg(long, value_name = "N", requires = "embed")]
    dimensions: Option<usize>,
    /// How vectors are written
    #[arg(long, value_enum, default_value_t = EncodingArg(Encoding::Float), requires = "embed")]
    encoding: EncodingArg,
    /// Where to write, instead of stdout
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
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
    let engine = args.engine()?;
    let mut failed = 0;
    if args.embed {
        let name = args.format.as_deref().unwrap_or("jsonl");
        let format = Format::from_name(name)
            .filter(|format| format.is_record())
            .ok_or_else(|| misfit(name, "does not fit with --embed; tealight embed --input FILE takes recordings"))?;
        format.check_encoding(args.encoding.0)?;
        engine.run(ValidateOptions { model: None, dimensions: args.dimensions, prompt: None }, Deadline::NONE)?;
        write_output(args.output.as_deref(), |out| {
            failed = documents(&engine, args, RecordWriter::new(out, format))?;
            Ok(())
        })?;
    } else {
        let name = args.format.as_deref().unwrap_or("text");
        let form = Form::named(name).ok_or_else(|| misfit(name, "needs --embed"))?;
        if args.word_timestamps && matches!(form, Form::Json | Form::Text) {
            return Err(misfit(name, "has no place for the times of words; verbose_json has"));
        }
        write_output(args.output.as_deref(), |out| {
            failed = transcripts(&engine, args, form, out)?;
            Ok(())
        })?;
    }
    match failed {
        0 => Ok(()),
        _ => Err(Error::new(ErrorKind::Io, format!("{failed} of {} files could not be transcribed", args.files.len()))),
    }
}

/// Transcribes one file after the other for `take`, until it returns false. One that fails is told of and passed over; returns how
/// many did.
///
/// # Errors
/// All failed, or `take` did.
fn each(engine: &Engine, args: &TranscribeArgs, mut take: impl FnMut(&Said, &Path) -> Result<bool>) -> Result<usize> {
    let mut failed = 0;
    for file in &args.files {
        match transcribe(engine, args, file) {
            Ok(said) => {
                if !take(&said, file)? {
                    break;
                }
            }
            Err(error) => {
                failed += 1;
                if failed == args.files.len() {
                    return Err(error);
                }
                let _ = writeln!(std::io::stderr(), "tealight: {error}");
            }
        }
    }
    Ok(failed)
}

fn misfit(format: &str, what: &str) -> Error {
    Error::invalid_value("format", format!("the format {format} {what}"))
}

fn transcripts(engine: &Engine, args: &TranscribeArgs, form: Form, out: &mut dyn Write) -> Result<usize> {
    let parts = Parts { segments: true, words: args.word_timestamps };
    each(engine, args, |said, _| {
        let text = render(&said.transcript, task(args), form, parts)
            .map_err(|e| Error::internal(format!("a transcript is not JSON: {e}")))?;
        Ok(write_line(out, text.trim_end())? && flush(out)?)
    })
}

/// What a document says of the recording that it is from.
#[derive(Debug, Serialize)]
struct Metadata<'a> {
    source: String,
    start: f32,
    end: f32,
    language: &'a str,
}

fn documents(engine: &Engine, args: &TranscribeArgs, mut writer: RecordWriter) -> Result<usize> {
    let mut read = true;
    let failed = each(engine, args, |said, file| {
        read = writer.push(points(engine, args, said, file)?)?;
        Ok(read)
    })?;
    if read {
        let dimension = args.dimensions.map_or_else(|| Ok::<_, Error>(engine.preload()?.model.dimension()), Ok)?;
        writer.finish(dimension, args.encoding.0)?;
    }
    Ok(failed)
}

/// The segments of a recording as documents.
fn points(engine: &Engine, args: &TranscribeArgs, said: &Said, file: &Path) -> Result<Vec<Record>> {
    let vectors = engine.run(speech::embed_segments(&said.transcript, None, args.dimensions), Deadline::NONE)?.vectors;
    let raw = |value: serde_json::Result<Box<RawValue>>| {
        value.map_err(|e| Error::internal(format!("a document is not JSON: {e}")))
    };
    let point = |(i, (segment, vector)): (usize, (&Segment, Vec<f32>))| {
        let (source, language) = (file.display().to_string(), said.transcript.language.as_str());
        let (start, end) = (rounded(segment.start), rounded(segment.end));
        let id = raw(to_raw_value(&format!("{source}#{i}")))?;
        let metadata = Some(raw(to_raw_value(&Metadata { source, start, end, language }))?);
        let (embedding, scale) = encode(vector, args.encoding.0);
        Ok(Record { id, text: segment.text.trim().to_string(), metadata, embedding, scale })
    };
    said.transcript.segments.iter().zip(vectors).enumerate().map(point).collect()
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
        voices: args.vad.then(VadOptions::default),
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
        audio: contents(file)?,
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
    said.map_err(|e| e.with_context(file.display()))
}

fn contents(file: &Path) -> Result<Bytes> {
    if file != Path::new("-") {
        return map_file(file);
    }
    let mut bytes = vec![];
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|e| Error::new(ErrorKind::Io, format!("cannot read stdin: {e}")))?;
    Ok(bytes.into())
}
