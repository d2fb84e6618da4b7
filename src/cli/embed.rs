//! `tealight embed`: texts or documents in, vectors out.

use super::{ModelArgs, json_line, print};
use crate::engine::{Embed, EmbedInputs, Engine, Input, Truncation, ValidateOptions};
use crate::pipeline::chunk::Chunking;
use crate::pipeline::format::records::{Record, RecordWriter, write_line};
use crate::pipeline::format::{Encoding, Format, encode};
use crate::pipeline::input::Document;
use clap::{Args, ValueEnum};
use serde_json::value::to_raw_value;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use tealight_core::Deadline;
use tealight_core::files::write_atomic;
use tealight_core::{Error, ErrorKind, Result};
use tealight_models::tokenizer::TruncationDirection;

/// Some editors put it before a text.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// Documents of one call of the engine.
const CHUNK: usize = 256;

#[derive(Debug, Args)]
pub(super) struct EmbedArgs {
    /// Texts; without any, each line of the input is a text or a document: {"id": ..., "text": "...", "metadata": {...}}
    pub(super) texts: Vec<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// Where to read from, instead of stdin; - is stdin. Lines, or by its ending .jsonl, .csv, .tsv, .parquet, .txt, .md or a recording
    #[arg(long, short, value_name = "FILE", conflicts_with = "texts")]
    pub(super) input: Option<PathBuf>,
    /// json: a list (of TEXTs the vectors alone, of one TEXT its vector); jsonl: a record a line; npy: a NumPy matrix; others: what that
    /// index takes, long documents in chunks
    #[arg(long, short, default_value = "json", value_parser = Format::ALL.map(Format::as_str))]
    format: String,
    /// Where to write, instead of stdout; with {} in the name, a file for each body of a request
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Where points go, instead of stdout: qdrant+https://HOST/COLLECTION, opensearch+https://HOST/INDEX, s3vectors://BUCKET/INDEX,
    /// postgres://USER@HOST/DATABASE?table=documents, s3://BUCKET/PREFIX; a key is given by TEALIGHT_SINK_KEY
    #[arg(long, value_name = "URL", conflicts_with_all = ["collection", "encoding", "format", "no_normalize", "output", "truncate"])]
    sink: Option<String>,
    /// Keep only the first N values of each vector
    #[arg(long, value_name = "N")]
    pub(super) dimensions: Option<usize>,
    /// How vectors are written
    #[arg(long, value_enum, default_value_t = EncodingArg(Encoding::Float))]
    pub(super) encoding: EncodingArg,
    /// Tokens of a chunk at most [default: what the model reads]; with json and jsonl, documents are cut only where this is given
    #[arg(long, value_name = "N")]
    chunk_tokens: Option<usize>,
    /// Tokens that a chunk may have in common with the one before it
    #[arg(long, value_name = "N", default_value_t = 0)]
    chunk_overlap: usize,
    /// What the index calls a collection, class or table [default: documents]
    #[arg(long, value_name = "NAME")]
    pub(super) collection: Option<String>,
    /// Leave out documents that cannot be embedded or written, and tell of them at the end
    #[arg(long)]
    pub(super) keep_going: bool,
    /// The name of a prompt of the model to put before each text
    #[arg(long, value_name = "NAME")]
    pub(super) prompt: Option<String>,
    /// Leave vectors as long as they come
    #[arg(long)]
    no_normalize: bool,
    /// Cut texts that are too long for the model instead of stopping
    #[arg(long)]
    truncate: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct EncodingArg(pub Encoding);

impl ValueEnum for EncodingArg {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [EncodingArg; 6] = {
            let [a, b, c, d, e, f] = Encoding::ALL;
            [EncodingArg(a), EncodingArg(b), EncodingArg(c), EncodingArg(d), EncodingArg(e), EncodingArg(f)]
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.0.as_str()))
    }
}

impl EmbedArgs {
    pub(super) fn chunking(&self) -> Chunking {
        Chunking { tokens: self.chunk_tokens, overlap: self.chunk_overlap }
    }

    /// Whether points are written, and not documents as they are.
    pub(super) fn are_points(&self) -> bool {
        !format(self).is_record() || self.chunk_tokens.is_some()
    }
}

pub(super) fn run(args: &EmbedArgs) -> Result<()> {
    format(args).check_encoding(args.encoding.0)?;
    let engine = args.model.engine()?;
    // What is wrong is said before the first line comes, if one comes.
    engine.run(
        ValidateOptions { model: None, dimensions: args.dimensions, prompt: args.prompt.clone() },
        Deadline::NONE,
    )?;
    if let Some(url) = &args.sink {
        return super::sink::run(args, &engine, url);
    }
    if args.are_points() {
        return super::points::run(args, &engine, format(args));
    }
    output(args.output.as_deref(), |out| convert(args, &engine, out))
}

fn format(args: &EmbedArgs) -> Format {
    Format::from_name(&args.format).unwrap_or(Format::Json)
}

/// Writes to a file, or to stdout; what fails in other ways than writing leaves no file.
pub(super) fn output(path: Option<&Path>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut outcome = Ok(());
    let written = match path {
        None => print(|out| {
            outcome = write(out);
            Ok(())
        }),
        Some(path) => write_atomic(path, |out| {
            outcome = write(out);
            // An error of ours must not look like one of the file's.
            if outcome.is_ok() { Ok(()) } else { Err(std::io::Error::other("not written")) }
        }),
    };
    outcome.and(written)
}

fn convert(args: &EmbedArgs, engine: &Engine, out: &mut dyn Write) -> Result<()> {
    let format = format(args);
    if !args.texts.is_empty() && format == Format::Json {
        return vectors(args, engine, out);
    }
    let mut writer = RecordWriter::new(out, format);
    let mut documents = documents(args, engine)?.peekable();
    let mut next = 0;
    while documents.peek().is_some() {
        let chunk = documents.by_ref().take(CHUNK).collect::<Result<Vec<_>>>()?;
        let count = chunk.len();
        if !writer.push(embed(args, engine, chunk, next)?)? {
            return Ok(());
        }
        next += count;
    }
    let dimension = match (format, args.dimensions) {
        (Format::Npy, None) => engine.preload()?.model.dimension(),
        (_, dimensions) => dimensions.unwrap_or(0),
    };
    writer.finish(dimension, args.encoding.0)
}

/// Of texts on the command line the vectors alone, of one text its vector.
fn vectors(args: &EmbedArgs, engine: &Engine, out: &mut dyn Write) -> Result<()> {
    let documents = documents(args, engine)?.collect::<Result<Vec<_>>>()?;
    let records = embed(args, engine, documents, 0)?;
    let text = match &records[..] {
        [record] => json_line(&record.embedding)?,
        records => json_line(&records.iter().map(|r| &r.embedding).collect::<Vec<_>>())?,
    };
    write_line(out, &text).map(drop)
}

fn documents<'a>(args: &'a EmbedArgs, engine: &'a Engine) -> Result<Box<dyn Iterator<Item = Result<Document>> + 'a>> {
    let of = if args.texts.is_empty() { "line" } else { "text" };
    let documents = super::points::documents(args, engine)?;
    Ok(Box::new(documents.map(move |entry| {
        let entry = entry?;
        entry.document.map_err(|e| e.with_context(format_args!("{of} {}", entry.number)))
    })))
}

/// The lines of a file, or of stdin.
pub(super) fn lines(path: Option<&Path>) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    let reader: Box<dyn BufRead> = match path {
        Some(path) if path != Path::new("-") => {
            let file = std::fs::File::open(path).map_err(|e| Error::io("open", path, e))?;
            Box::new(std::io::BufReader::new(file))
        }
        _ => Box::new(std::io::stdin().lock()),
    };
    Ok(reader.lines().enumerate().map(|(i, line)| {
        let mut line = line.map_err(|e| Error::new(ErrorKind::Io, format!("line {}: {e}", i + 1)))?;
        if i == 0 && line.starts_with(BYTE_ORDER_MARK) {
            line.remove(0);
        }
        Ok(line)
    }))
}

/// Says that a line begins like a document and is none.
pub(super) fn told(error: &serde_json::Error) {
    let _ = writeln!(std::io::stderr(), "tealight: a line that looks like a document is taken as a text: {error}");
}

fn embed(args: &EmbedArgs, engine: &Engine, chunk: Vec<Document>, first: usize) -> Result<Vec<Record>> {
    if let Some(i) = chunk.iter().position(|d| d.text.is_empty()) {
        return Err(Error::new(ErrorKind::Empty, format!("text[{}] is empty", first + i + 1)));
    }
    let job = Embed {
        texts: EmbedInputs {
            model: None,
            inputs: chunk.iter().map(|d| Input::Text(d.text.clone())).collect(),
            prompt: args.prompt.clone(),
            truncation: if args.truncate {
                Truncation::Truncate(TruncationDirection::Right)
            } else {
                Truncation::Error
            },
            // Counted as lines are: from 1, through all chunks.
            field: "text",
            first_index: first + 1,
        },
        normalize: !args.no_normalize,
        dimensions: args.dimensions,
    };
    let vectors = engine.run(job, Deadline::NONE)?.vectors;
    let row = |(i, (document, vector)): (usize, (Document, Vec<f32>))| {
        let (embedding, scale) = encode(vector, args.encoding.0);
        let number = || to_raw_value(&(first + i)).unwrap_or_default();
        let Document { id, text, metadata } = document;
        Record { id: id.unwrap_or_else(number), text, metadata, embedding, scale }
    };
    Ok(chunk.into_iter().zip(vectors).enumerate().map(row).collect())
}
