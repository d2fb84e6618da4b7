//! `tealight transcribe`: audio files to text, JSON, subtitles or embedded segments.

use super::args::VectorEncodingArg;
use super::output::write_output;
use crate::config::Config;
use crate::engine::speech::{Transcribe, Transcription, embed_segments};
use crate::engine::{Engine, ValidateOptions};
use crate::pipeline::format::Format;
use crate::pipeline::format::output::{flush, write_line};
use crate::pipeline::format::records::{Record, RecordWriter};
use crate::pipeline::format::transcript::{Granularities, TranscriptFormat, render, round_to_hundredths};
use crate::pipeline::format::{VectorEncoding, encode};
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
use tealight_models::tasks::transcribe::{Segment, Task, TranscribeOptions};

/// Options of commands that run a speech-to-text model.
#[derive(Debug, Args)]
pub(super) struct SpeechModelArgs {
    /// Speech-to-text model: a file, a folder or a name [default: $TEALIGHT_SPEECH_MODEL or whisper-base]
    #[arg(long, short, value_name = "MODEL")]
    model: Option<String>,
    /// Number of threads [default: $TEALIGHT_THREADS or one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Spoken language, such as en or german [default: detect]
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

impl SpeechModelArgs {
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
    /// Audio files: WAV, AIFF, MP3, MP2, AAC, FLAC, Ogg, M4A, MP4, Matroska, WebM; - is stdin
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    model: SpeechModelArgs,
    /// Translate to English
    #[arg(long)]
    translate: bool,
    /// text; json: {"text": ...}; verbose_json: with segments; srt, vtt: subtitles. With --embed: jsonl, one document per line;
    /// json, a list of documents; npy, a NumPy matrix of embeddings [default: text, or jsonl]
    #[arg(long, short, value_parser = ["text", "json", "verbose_json", "srt", "vtt", "jsonl", "npy"])]
    format: Option<String>,
    /// Context or vocabulary to guide transcription
    #[arg(long)]
    prompt: Option<String>,
    /// Beam size; 1 is greedy
    #[arg(long, alias = "beams", default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    beam_size: u8,
    /// Embed segments and write them as documents: {"id", "text", "metadata", "embedding"}
    #[arg(long)]
    embed: bool,
    /// Embedding model: a GGUF file, a folder or a name [default: $TEALIGHT_MODEL or all-MiniLM-L6-v2]
    #[arg(long, value_name = "MODEL", requires = "embed")]
    embedding_model: Option<String>,
    /// Truncate embeddings to N dimensions
    #[arg(long, value_name = "N", requires = "embed")]
    dimensions: Option<usize>,
    /// Encoding of embeddings, the API's encoding_format
    #[arg(long, value_enum, default_value_t = VectorEncodingArg(VectorEncoding::Float), requires = "embed")]
    encoding: VectorEncodingArg,
    /// Output file [default: stdout]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Add word timestamps to verbose_json
    #[arg(long)]
    word_timestamps: bool,
    /// Skip non-speech (voice activity detection)
    #[arg(long)]
    vad: bool,
    /// Do not retry improbable segments at higher temperatures
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
            .ok_or_else(|| format_error(name, "expected jsonl, json or npy with --embed"))?;
        format.check_encoding(args.encoding.0)?;
        engine.run(ValidateOptions { model: None, dimensions: args.dimensions, prompt: None }, Deadline::NONE)?;
        write_output(args.output.as_deref(), |out| {
            failed = write_documents(&engine, args, RecordWriter::new(out, format))?;
            Ok(())
        })?;
    } else {
        let name = args.format.as_deref().unwrap_or("text");
        let format =
            TranscriptFormat::from_name(name).ok_or_else(|| format_error(name, "this format needs --embed"))?;
        if args.word_timestamps && matches!(format, TranscriptFormat::Json | TranscriptFormat::Text) {
            return Err(format_error(name, "word timestamps need verbose_json"));
        }
        write_output(args.output.as_deref(), |out| {
            failed = write_transcripts(&engine, args, format, out)?;
            Ok(())
        })?;
    }
    if failed == 0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Io, format!("{failed} of {} files could not be transcribed", args.files.len())))
}

/// Transcribes the files in order and passes each result to `write`, until it returns false. Reports failed files on stderr and
/// skips them; returns their number.
///
/// # Errors
/// All files failed, or `write` did.
fn transcribe_files(
    engine: &Engine,
    args: &TranscribeArgs,
    mut write: impl FnMut(&Transcription, &Path) -> Result<bool>,
) -> Result<usize> {
    let mut failed = 0;
    for file in &args.files {
        match transcribe(engine, args, file) {
            Ok(transcription) => {
                if !write(&transcription, file)? {
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

fn format_error(format: &str, expected: &str) -> Error {
    Error::invalid_value("format", format!("format is {format}; {expected}"))
}

fn write_transcripts(
    engine: &Engine,
    args: &TranscribeArgs,
    format: TranscriptFormat,
    out: &mut dyn Write,
) -> Result<usize> {
    let granularities = Granularities { segments: true, words: args.word_timestamps };
    transcribe_files(engine, args, |transcription, _| {
        let text = render(&transcription.transcript, task(args), format, granularities)
            .map_err(|e| Error::internal(format!("cannot serialize the transcript: {e}")))?;
        Ok(write_line(out, text.trim_end())? && flush(out)?)
    })
}

/// Metadata of a document that is a segment of a recording.
#[derive(Debug, Serialize)]
struct SegmentMetadata<'a> {
    source: String,
    start: f32,
    end: f32,
    language: &'a str,
}

fn write_documents(engine: &Engine, args: &TranscribeArgs, mut writer: RecordWriter) -> Result<usize> {
    let mut is_reader_open = true;
    let failed = transcribe_files(engine, args, |transcription, file| {
        is_reader_open = writer.push(embed_documents(engine, args, transcription, file)?)?;
        Ok(is_reader_open)
    })?;
    if is_reader_open {
        let dimension = args.dimensions.map_or_else(|| Ok::<_, Error>(engine.preload()?.model.dimension()), Ok)?;
        writer.finish(dimension, args.encoding.0)?;
    }
    Ok(failed)
}

/// The segments of a recording as documents with embeddings.
fn embed_documents(
    engine: &Engine,
    args: &TranscribeArgs,
    transcription: &Transcription,
    file: &Path,
) -> Result<Vec<Record>> {
    let transcript = &transcription.transcript;
    let vectors = engine.run(embed_segments(transcript, None, args.dimensions), Deadline::NONE)?.vectors;
    let raw = |value: serde_json::Result<Box<RawValue>>| {
        value.map_err(|e| Error::internal(format!("cannot serialize a document: {e}")))
    };
    let record = |(i, (segment, vector)): (usize, (&Segment, Vec<f32>))| {
        let (source, language) = (file.display().to_string(), transcript.language.as_str());
        let (start, end) = (round_to_hundredths(segment.start), round_to_hundredths(segment.end));
        let id = raw(to_raw_value(&format!("{source}#{i}")))?;
        let metadata = Some(raw(to_raw_value(&SegmentMetadata { source, start, end, language }))?);
        let (embedding, scale) = encode(vector, args.encoding.0);
        Ok(Record { id, text: segment.text.trim().to_string(), metadata, embedding, scale })
    };
    transcript.segments.iter().zip(vectors).enumerate().map(record).collect()
}

fn task(args: &TranscribeArgs) -> Task {
    if args.translate { Task::Translate } else { Task::Transcribe }
}

fn transcribe(engine: &Engine, args: &TranscribeArgs, file: &Path) -> Result<Transcription> {
    let mut options = TranscribeOptions {
        language: args.model.language(),
        task: task(args),
        beam_size: args.beam_size.into(),
        word_timestamps: args.word_timestamps,
        vad: args.vad.then(VadOptions::default),
        ..TranscribeOptions::default()
    };
    if args.no_fallback {
        options.temperatures.truncate(1);
    }
    // indicatif draws it on terminals only.
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} s, {eta} left") {
        bar.set_style(style);
    }
    bar.set_message(file.display().to_string());
    let job = Transcribe {
        model: None,
        audio: read_file_or_stdin(file)?,
        prompt: args.prompt.clone(),
        options,
        on_progress: &mut |_, done, duration| {
            bar.set_length(duration as u64);
            bar.set_position(done as u64);
            Ok(())
        },
    };
    let result = engine.run(job, Deadline::NONE);
    bar.finish_and_clear();
    result.map_err(|e| e.with_context(file.display()))
}

fn read_file_or_stdin(file: &Path) -> Result<Bytes> {
    if file != Path::new("-") {
        return map_file(file);
    }
    let mut bytes = vec![];
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|e| Error::new(ErrorKind::Io, format!("cannot read stdin: {e}")))?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: TranscribeArgs,
    }

    #[test]
    fn beam_size_option_has_its_former_name() {
        for arguments in [["transcribe", "a.wav", "--beam-size", "5"], ["transcribe", "a.wav", "--beams", "5"]] {
            assert_eq!(Cli::try_parse_from(arguments).unwrap().args.beam_size, 5, "{arguments:?}");
        }
    }
}
