//! `tealight embed`: texts or documents in, vectors out.

use super::{ModelArgs, json_line, print};
use crate::engine::{Check, Deadline, Embed, Engine, Input, Long, Texts};
use crate::error::{Error, Kind, Result};
use crate::format::document::{Format, Point, Writer, line};
use crate::format::{Encoding, encode};
use crate::models::pack::replace;
use crate::models::tokenizer::Direction;
use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

/// Some editors put it before a text.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// Documents of one call of the engine.
const CHUNK: usize = 256;

#[derive(Debug, Args)]
pub(super) struct EmbedArgs {
    /// Texts; without any, each line of the input is a text or a document: {"id": ..., "text": "...", "metadata": {...}}
    texts: Vec<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// Where to read lines from, instead of stdin; - is stdin
    #[arg(long, short, value_name = "FILE", conflicts_with = "texts")]
    input: Option<PathBuf>,
    /// json: a list (of TEXTs the vectors alone, of one TEXT its vector); jsonl: a record a line; npy: a NumPy matrix
    #[arg(long, short, default_value = "json", value_parser = Format::ALL.map(Format::name))]
    format: String,
    /// Where to write, instead of stdout
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Keep only the first N values of each vector
    #[arg(long, value_name = "N")]
    dimensions: Option<usize>,
    /// How vectors are written
    #[arg(long, value_enum, default_value_t = EncodingArg(Encoding::Float))]
    encoding: EncodingArg,
    /// The name of a prompt of the model to put before each text
    #[arg(long, value_name = "NAME")]
    prompt: Option<String>,
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
        Some(clap::builder::PossibleValue::new(self.0.name()))
    }
}

/// A document of the input.
#[derive(Debug, Clone, Deserialize)]
struct Document {
    /// As it stands in the input: numbers keep their digits.
    id: Option<Box<RawValue>>,
    text: String,
    metadata: Option<Box<RawValue>>,
}

pub(super) fn run(args: &EmbedArgs) -> Result<()> {
    format(args).check(args.encoding.0)?;
    let engine = args.model.engine()?;
    // What is wrong is said before the first line comes, if one comes.
    engine.run(Check { model: None, dimensions: args.dimensions, prompt: args.prompt.clone() }, Deadline::NONE)?;
    output(args.output.as_deref(), |out| convert(args, &engine, out))
}

fn format(args: &EmbedArgs) -> Format {
    Format::named(&args.format).unwrap_or(Format::Json)
}

/// Writes to a file, or to stdout; what fails in other ways than writing leaves no file.
pub(super) fn output(path: Option<&Path>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut outcome = Ok(());
    let written = match path {
        None => print(|out| {
            outcome = write(out);
            Ok(())
        }),
        Some(path) => replace(path, |out| {
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
    let mut writer = Writer::new(out, format);
    let mut documents = documents(args)?.peekable();
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
    let documents = documents(args)?.collect::<Result<Vec<_>>>()?;
    let points = embed(args, engine, documents, 0)?;
    let text = match &points[..] {
        [point] => json_line(&point.embedding)?,
        points => json_line(&points.iter().map(|p| &p.embedding).collect::<Vec<_>>())?,
    };
    line(out, &text).map(drop)
}

fn documents(args: &EmbedArgs) -> Result<Box<dyn Iterator<Item = Result<Document>> + '_>> {
    if !args.texts.is_empty() {
        let document = |text: &String| Ok(Document { id: None, text: text.clone(), metadata: None });
        return Ok(Box::new(args.texts.iter().map(document)));
    }
    let lines = lines(args.input.as_deref())?;
    Ok(Box::new(
        lines.enumerate().map(|(i, line)| document(line?).map_err(|e| e.context(format_args!("line {}", i + 1)))),
    ))
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
        let mut line = line.map_err(|e| Error::new(Kind::Io, format!("line {}: {e}", i + 1)))?;
        if i == 0 && line.starts_with(BYTE_ORDER_MARK) {
            line.remove(0);
        }
        Ok(line)
    }))
}

fn document(line: String) -> Result<Document> {
    if !line.trim_start().starts_with('{') {
        return Ok(Document { id: None, text: line, metadata: None });
    }
    // A line that begins like an object and is none is a text, for instance of code.
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&line) {
        if line.trim_start().starts_with("{\"") {
            let _ =
                writeln!(std::io::stderr(), "tealight: a line that looks like a document is taken as a text: {error}");
        }
        return Ok(Document { id: None, text: line, metadata: None });
    }
    serde_json::from_str(&line).map_err(|e| Error::new(Kind::InvalidShape, format!("not a document with a text: {e}")))
}

fn embed(args: &EmbedArgs, engine: &Engine, chunk: Vec<Document>, first: usize) -> Result<Vec<Point>> {
    if let Some(i) = chunk.iter().position(|d| d.text.is_empty()) {
        return Err(Error::new(Kind::Empty, format!("text[{}] is empty", first + i + 1)));
    }
    let job = Embed {
        texts: Texts {
            model: None,
            inputs: chunk.iter().map(|d| Input::Text(d.text.clone())).collect(),
            prompt: args.prompt.clone(),
            long: if args.truncate { Long::Cut(Direction::Right) } else { Long::Refuse },
            // Counted as lines are: from 1, through all chunks.
            field: "text",
            first: first + 1,
        },
        normalize: !args.no_normalize,
        dimensions: args.dimensions,
    };
    let vectors = engine.run(job, Deadline::NONE)?.vectors;
    let row = |(i, (document, vector)): (usize, (Document, Vec<f32>))| {
        let (embedding, scale) = encode(vector, args.encoding.0);
        let number = || to_raw_value(&(first + i)).unwrap_or_default();
        let Document { id, text, metadata } = document;
        Point { id: id.unwrap_or_else(number), text, metadata, embedding, scale }
    };
    Ok(chunk.into_iter().zip(vectors).enumerate().map(row).collect())
}
