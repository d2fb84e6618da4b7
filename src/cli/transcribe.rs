//! `tealight transcribe`: audio files to text, JSON, subtitles or embedded segments.

use super::args::VectorEncodingArg;
use super::output::write_output;
use crate::config::Config;
use crate::engine::speech::{Transcribe, Transcription, embed_segments};
use crate::engine::{Engine, ValidateOptions};
use crate::pipeline::document::Document;
use crate::pipeline::format::Format;
use crate::pipeline::format::output::{flush, write_line};
use crate::pipeline::format::records::{Record, RecordWriter};
use crate::pipeline::format::transcript::{Granularities, TranscriptFormat, render};
use crate::pipeline::format::{VectorEncoding, encode};
use crate::pipeline::input::segment_document;
use bytes::Bytes;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use tealight_audio::VadOptions;
use tealight_core::Deadline;
use tealight_core::mmap::map_file;
use tealight_core::{Error, ErrorKind, Result};
use tealight_models::families::whisper::language_code;
use tealight_models::tasks::transcribe::{Segment, Task, TranscribeOptions, Transcript};

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
    segment_records(&file.display().to_string(), transcript, vectors, args.encoding.0)
}

fn segment_records(
    source: &str,
    transcript: &Transcript,
    vectors: Vec<Vec<f32>>,
    encoding: VectorEncoding,
) -> Result<Vec<Record>> {
    let other_fields = [("source", source), ("language", transcript.language.as_str())];
    let record = |(segment, vector): (&Segment, Vec<f32>)| {
        let Some(Document { id, text, metadata }) = segment_document(source, segment, &other_fields)? else {
            return Ok(None);
        };
        let (embedding, scale) = encode(vector, encoding);
        Ok(Some(Record { id: id.unwrap_or_default(), text, metadata, embedding, scale }))
    };
    transcript.segments.iter().zip(vectors).filter_map(|pair| record(pair).transpose()).collect()
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
    use crate::pipeline::point::DocumentFields;
    use clap::Parser;
    use serde_json::Value;

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

    fn segment(start: f32, end: f32, text: &str) -> Segment {
        let (seek, tokens, words) = (0, vec![], vec![]);
        let (temperature, avg_logprob, compression_ratio, no_speech_prob) = (0.0, -0.1, 1.0, 0.0);
        let text = text.to_string();
        Segment { seek, start, end, text, tokens, temperature, avg_logprob, compression_ratio, no_speech_prob, words }
    }

    #[test]
    fn segments_can_be_embedded_for_a_vector_database() {
        let segments = vec![segment(0.0, 3.316, " One."), segment(3.32, 4.0, " "), segment(4.0, 7.5, " Two.")];
        let transcript = Transcript { language: "en".into(), duration: 8.0, segments };
        let records = segment_records("a/b.mp3", &transcript, vec![vec![1.0]; 3], VectorEncoding::Float).unwrap();
        let mut out = vec![];
        let mut writer = RecordWriter::new(&mut out, Format::Jsonl);
        writer.push(records).unwrap();
        drop(writer);
        let points = String::from_utf8(out)
            .unwrap()
            .lines()
            .map(|line| {
                let mut record: Value = serde_json::from_str(line).unwrap();
                record.as_object_mut().unwrap().remove("embedding").unwrap();
                let document = Document::parse(record.to_string().as_bytes()).unwrap();
                let fields = DocumentFields::new(&document, "all-MiniLM-L6-v2").unwrap();
                (fields.document_id, document.text, record["metadata"].clone())
            })
            .collect::<Vec<_>>();
        let metadata = |start: f64, end: f64| serde_json::json!({"start_seconds": start, "end_seconds": end, "source": "a/b.mp3", "language": "en"});
        assert_eq!(
            points,
            [
                ("a/b.mp3#t=0.00,3.32".into(), "One.".into(), metadata(0.0, 3.32)),
                ("a/b.mp3#t=4.00,7.50".into(), "Two.".into(), metadata(4.0, 7.5)),
            ]
        );
    }
}
