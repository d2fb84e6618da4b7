//! `tealight embed`: embeddings of texts and documents as records.

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

/// Some editors put it at the start of a file.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// Documents per embedding job.
const DOCUMENTS_PER_JOB: usize = 256;

#[derive(Debug, Args)]
pub(super) struct EmbedArgs {
    /// Texts; without any, each line of the input is a text or a document {"id": ..., "text": "...", "metadata": {...}}
    pub(super) texts: Vec<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// Input file; - is stdin [default: stdin]. The extension selects the format: .jsonl, .csv, .tsv, .parquet, .txt, .md or audio; others
    /// are read line by line
    #[arg(long, short, value_name = "FILE", conflicts_with = "texts")]
    pub(super) input: Option<PathBuf>,
    /// Output format. json: a list of records (of TEXTs: their embeddings; of one TEXT: its embedding); jsonl: one record per line; npy: a
    /// NumPy matrix; others: the request format of that vector database, with long documents split into chunks
    #[arg(long, short, default_value = "json", value_parser = Format::ALL.map(Format::as_str))]
    format: String,
    /// Output file [default: stdout]; with {} in the name, one numbered file per request body
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Write points to a vector database: qdrant+https://HOST/COLLECTION, opensearch+https://HOST/INDEX, s3vectors://BUCKET/INDEX,
    /// postgres://USER@HOST/DATABASE?table=documents, s3://BUCKET/PREFIX; TEALIGHT_SINK_KEY is its key
    #[arg(long, value_name = "URL", conflicts_with_all = ["collection", "encoding", "format", "no_normalize", "output", "truncate"])]
    sink: Option<String>,
    /// Keep only the first N dimensions of each embedding
    #[arg(long, value_name = "N")]
    pub(super) dimensions: Option<usize>,
    /// Encoding of embeddings
    #[arg(long, value_enum, default_value_t = EncodingArg(Encoding::Float))]
    pub(super) encoding: EncodingArg,
    /// Maximum tokens per chunk [default: the model's limit]; json and jsonl split documents only if this is set
    #[arg(long, value_name = "N")]
    chunk_tokens: Option<usize>,
    /// Overlap of adjacent chunks, in tokens
    #[arg(long, value_name = "N", default_value_t = 0)]
    chunk_overlap: usize,
    /// Name of the collection, class or table [default: documents]
    #[arg(long, value_name = "NAME")]
    pub(super) collection: Option<String>,
    /// Skip documents that fail; list them at the end
    #[arg(long)]
    pub(super) keep_going: bool,
    /// Name of the model's prompt to prepend, such as query
    #[arg(long, value_name = "NAME")]
    pub(super) prompt: Option<String>,
    /// Do not scale embeddings to unit length
    #[arg(long)]
    no_normalize: bool,
    /// Truncate texts that are too long for the model instead of failing
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

    /// Whether documents are split into chunks and written as points, instead of one record per document.
    pub(super) fn writes_points(&self) -> bool {
        !format(self).is_record() || self.chunk_tokens.is_some()
    }
}

pub(super) fn run(args: &EmbedArgs) -> Result<()> {
    format(args).check_encoding(args.encoding.0)?;
    let engine = args.model.engine()?;
    // Reports invalid options before waiting for input.
    engine.run(
        ValidateOptions { model: None, dimensions: args.dimensions, prompt: args.prompt.clone() },
        Deadline::NONE,
    )?;
    if let Some(url) = &args.sink {
        return super::sink::run(args, &engine, url);
    }
    if args.writes_points() {
        return super::points::run(args, &engine, format(args));
    }
    output(args.output.as_deref(), |out| convert(args, &engine, out))
}

fn format(args: &EmbedArgs) -> Format {
    Format::from_name(&args.format).unwrap_or(Format::Json)
}

/// Calls `write` with a file or stdout. If it fails, no file is left.
pub(super) fn output(path: Option<&Path>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut outcome = Ok(());
    let written = match path {
        None => print(|out| {
            outcome = write(out);
            Ok(())
        }),
        Some(path) => write_atomic(path, |out| {
            outcome = write(out);
            // Reported as `outcome`, not as a failure to write the file.
            if outcome.is_ok() { Ok(()) } else { Err(std::io::Error::other("aborted")) }
        }),
    };
    outcome.and(written)
}

fn convert(args: &EmbedArgs, engine: &Engine, out: &mut dyn Write) -> Result<()> {
    let format = format(args);
    if !args.texts.is_empty() && format == Format::Json {
        return write_embeddings(args, engine, out);
    }
    let mut writer = RecordWriter::new(out, format);
    let mut documents = documents(args, engine)?.peekable();
    let mut next = 0;
    while documents.peek().is_some() {
        let batch = documents.by_ref().take(DOCUMENTS_PER_JOB).collect::<Result<Vec<_>>>()?;
        let count = batch.len();
        if !writer.push(embed(args, engine, batch, next)?)? {
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

/// Writes the embeddings of the texts on the command line as a JSON list; of one text, its embedding.
fn write_embeddings(args: &EmbedArgs, engine: &Engine, out: &mut dyn Write) -> Result<()> {
    let documents = documents(args, engine)?.collect::<Result<Vec<_>>>()?;
    let records = embed(args, engine, documents, 0)?;
    let text = match &records[..] {
        [record] => json_line(&record.embedding)?,
        records => json_line(&records.iter().map(|r| &r.embedding).collect::<Vec<_>>())?,
    };
    write_line(out, &text).map(drop)
}

fn documents<'a>(args: &'a EmbedArgs, engine: &'a Engine) -> Result<Box<dyn Iterator<Item = Result<Document>> + 'a>> {
    let unit = if args.texts.is_empty() { "line" } else { "text" };
    let documents = super::points::documents(args, engine)?;
    Ok(Box::new(documents.map(move |entry| {
        let entry = entry?;
        entry.document.map_err(|e| e.with_context(format_args!("{unit} {}", entry.number)))
    })))
}

/// The lines of a file or of stdin, without a byte order mark.
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

/// Warns that a line starts like a document but is not one.
pub(super) fn warn_not_a_document(error: &serde_json::Error) {
    let _ = writeln!(
        std::io::stderr(),
        "tealight: warning: a line starts like a JSON document but is read as text: {error}"
    );
}

fn embed(args: &EmbedArgs, engine: &Engine, documents: Vec<Document>, first: usize) -> Result<Vec<Record>> {
    if let Some(i) = documents.iter().position(|d| d.text.is_empty()) {
        return Err(Error::new(ErrorKind::Empty, format!("text[{}] is empty", first + i + 1)));
    }
    let job = Embed {
        texts: EmbedInputs {
            model: None,
            inputs: documents.iter().map(|d| Input::Text(d.text.clone())).collect(),
            prompt: args.prompt.clone(),
            truncation: if args.truncate {
                Truncation::Truncate(TruncationDirection::Right)
            } else {
                Truncation::Error
            },
            // Errors count texts from 1, over all jobs.
            field: "text",
            first_index: first + 1,
        },
        normalize: !args.no_normalize,
        dimensions: args.dimensions,
    };
    let vectors = engine.run(job, Deadline::NONE)?.vectors;
    let record = |(i, (document, vector)): (usize, (Document, Vec<f32>))| {
        let (embedding, scale) = encode(vector, args.encoding.0);
        let number = || to_raw_value(&(first + i)).unwrap_or_default();
        let Document { id, text, metadata } = document;
        Record { id: id.unwrap_or_else(number), text, metadata, embedding, scale }
    };
    Ok(documents.into_iter().zip(vectors).enumerate().map(record).collect())
}
