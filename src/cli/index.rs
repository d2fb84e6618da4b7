//! `tealight index`: documents to an index in a file, and searches in it.

use super::embed::lines;
use super::{ModelArgs, json_line, print};
use crate::engine::registry::Loaded;
use crate::engine::search::{Find, Mode, passage};
use crate::engine::{Deadline, Embed, Engine, Input, Long, Texts};
use crate::error::{Error, Kind, Result};
use crate::index::{Builder, Document, Filter, Found, Index, Metric, Precision};
use crate::models::tokenizer::Direction;
use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Documents of one call of the engine.
const CHUNK: usize = 1024;

#[derive(Debug, Subcommand)]
pub(super) enum IndexCommand {
    /// Build an index from documents: a line each, {"id": ..., "text": "...", "metadata": {...}}, "embedding" where a vector is there
    /// already; --model then says what has made it
    Build(BuildArgs),
    /// Add documents to an index; of an id that is there the document is replaced
    Add {
        /// The index
        file: PathBuf,
        #[command(flatten)]
        documents: DocumentArgs,
        #[command(flatten)]
        model: ModelArgs,
    },
    /// Take documents out of an index
    Delete {
        /// The index
        file: PathBuf,
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        model: ModelArgs,
    },
    /// Search an index for what a text says
    Search(SearchArgs),
    /// Show what an index says about itself, and check it
    Info {
        /// The index
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct DocumentArgs {
    /// Where documents are read from; - is stdin
    input: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MetricArg {
    Cosine,
    Dot,
    L2,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum PrecisionArg {
    Int8,
    Int4,
    Binary,
}

impl PrecisionArg {
    pub(super) fn precision(self) -> Precision {
        match self {
            PrecisionArg::Int8 => Precision::Int8,
            PrecisionArg::Int4 => Precision::Int4,
            PrecisionArg::Binary => Precision::Binary,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct BuildArgs {
    #[command(flatten)]
    documents: DocumentArgs,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// How rows are scored
    #[arg(long, value_enum, default_value = "cosine")]
    metric: MetricArg,
    /// What a search goes through first: int8 codes; codes of 4 bits, in half the time; or signs, an eighth of them
    #[arg(long, value_enum, default_value = "int8")]
    precision: PrecisionArg,
    /// Keep only the first N values of each vector
    #[arg(long, value_name = "N")]
    dimensions: Option<usize>,
    /// Add a graph of neighbours, for millions of documents: searches look at few of them, and miss some of the best
    #[arg(long)]
    graph: bool,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Debug, Args)]
pub(super) struct SearchArgs {
    /// The index
    file: PathBuf,
    /// The text to search for
    query: String,
    /// Documents at most
    #[arg(short, long, default_value_t = 10, value_name = "N")]
    k: usize,
    /// Documents that are looked at, by their metadata: {"year": {"$gte": 1960}}
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// What scores below is left out
    #[arg(long, value_name = "SCORE")]
    min_score: Option<f32>,
    /// By its vector, by its words, or by both
    #[arg(long, default_value = "vector", value_parser = Mode::ALL.map(Mode::name))]
    mode: String,
    /// Go through all documents, though the index has a graph
    #[arg(long)]
    exact: bool,
    /// text: scores and texts; json: a document a line
    #[arg(long, short, default_value = "text", value_parser = ["text", "json"])]
    format: String,
    #[command(flatten)]
    model: ModelArgs,
}

pub(super) fn run(command: &IndexCommand) -> Result<()> {
    match command {
        IndexCommand::Build(args) => build(args),
        IndexCommand::Add { file, documents, model } => add(file, documents, model),
        IndexCommand::Delete { file, ids, model } => delete(file, ids, model),
        IndexCommand::Search(args) => search(args),
        IndexCommand::Info { file } => info(file),
    }
}

/// A line of the input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<Value>,
    #[serde(default)]
    text: String,
    #[serde(default)]
    metadata: Map<String, Value>,
    embedding: Option<Vec<f32>>,
}

/// A document, and its vector where the input has one.
type Given = (Document, Option<Vec<f32>>);

fn read(args: &DocumentArgs) -> Result<impl Iterator<Item = Result<Given>>> {
    let document = |(number, line): (usize, Result<String>)| {
        let line: Line = serde_json::from_str(&line?)
            .map_err(|e| Error::new(Kind::InvalidShape, format!("line {}: not a document: {e}", number + 1)))?;
        let id = match line.id {
            None => (number + 1).to_string(),
            Some(Value::String(id)) => id,
            Some(Value::Number(id)) => id.to_string(),
            Some(other) => {
                let message = format!("line {}: id is {other}, it must be a text or a number", number + 1);
                return Err(Error::value("id", message));
            }
        };
        if line.text.is_empty() && line.embedding.is_none() {
            return Err(Error::new(Kind::Empty, format!("line {}: the document has no text", number + 1)));
        }
        Ok((Document { id, text: line.text, metadata: line.metadata }, line.embedding))
    };
    let is_some = |line: &Result<String>| !line.as_ref().is_ok_and(|line| line.trim().is_empty());
    Ok(lines(Some(&args.input))?.filter(is_some).enumerate().map(document))
}

fn build(args: &BuildArgs) -> Result<()> {
    let engine = args.model.engine()?;
    let metric = match args.metric {
        MetricArg::Cosine => Metric::Cosine,
        MetricArg::Dot => Metric::Dot,
        MetricArg::L2 => Metric::L2,
    };
    let mut documents = read(&args.documents)?.peekable();
    let outside = matches!(documents.peek(), Some(Ok((_, Some(_)))));
    let (model, dimension) = match documents.peek() {
        // Who names a model says that it has made the vectors, so that texts can be searched for.
        Some(Ok((_, Some(vector)))) if args.model.model.is_some() => {
            let loaded = engine.preload()?;
            (Some(loaded.name.clone()), made_by(&loaded, vector.len(), args.dimensions)?)
        }
        Some(Ok((_, Some(vector)))) => (None, args.dimensions.unwrap_or(vector.len())),
        _ => {
            let loaded = engine.preload()?;
            let dimension = args.dimensions.unwrap_or(loaded.model.dimension());
            (Some(loaded.name.clone()), dimension)
        }
    };
    let mut builder = Builder::new(model, dimension, metric, args.precision.precision())?;
    // Vectors of one length are as long as they should be, unless they are to be cut.
    let cut = |given: Result<Given>| {
        let (document, mut vector) = given?;
        if let (Some(vector), Some(n)) = (&mut vector, args.dimensions) {
            vector.truncate(n);
        }
        Ok((document, vector))
    };
    fill(&engine, &mut builder, documents.map(cut), outside, dimension)?;
    finish(&engine, builder, args.graph, &args.output)
}

/// The values of a row, of vectors that a model is said to have made.
fn made_by(loaded: &Loaded, length: usize, dimensions: Option<usize>) -> Result<usize> {
    match loaded.model.dimension() {
        most if length <= most => Ok(dimensions.unwrap_or(length)),
        most => {
            let message = format!("the first embedding has {length} values, {:?} makes {most}", loaded.name);
            Err(Error::value("embedding", message))
        }
    }
}

/// Adds documents, with their own vectors or with those that the engine's model makes.
fn fill(
    engine: &Engine,
    builder: &mut Builder,
    mut documents: impl Iterator<Item = Result<Given>>,
    outside: bool,
    dimension: usize,
) -> Result<()> {
    let prompt = if outside { None } else { passage(&engine.preload()?.model) };
    loop {
        let chunk = documents.by_ref().take(CHUNK).collect::<Result<Vec<_>>>()?;
        if chunk.is_empty() {
            return Ok(());
        }
        let one_kind = |(document, vector): &Given| match vector.is_some() == outside {
            true => Ok(()),
            false => {
                let message = "some documents have an embedding and others have none";
                Err(Error::value("embedding", message).context(format_args!("document {:?}", document.id)))
            }
        };
        chunk.iter().try_for_each(one_kind)?;
        let vectors = match outside {
            true => chunk.iter().map(|(_, vector)| vector.clone().unwrap_or_default()).collect(),
            false => {
                let inputs = chunk.iter().map(|(document, _)| Input::Text(document.text.clone())).collect();
                let (model, long, prompt) = (None, Long::Cut(Direction::Right), prompt.clone());
                let texts = Texts { model, inputs, prompt, long, field: "text", first: builder.rows() + 1 };
                engine.run(Embed { texts, normalize: true, dimensions: Some(dimension) }, Deadline::NONE)?.vectors
            }
        };
        for ((document, _), vector) in chunk.iter().zip(vectors) {
            builder.add(document, &vector)?;
        }
    }
}

fn finish(engine: &Engine, mut builder: Builder, graph: bool, path: &Path) -> Result<()> {
    let rows = builder.rows();
    if graph {
        builder.link(&engine.cpu)?;
    }
    builder.write(path)?;
    print(|out| writeln!(out, "{}: {rows} documents", path.display()))
}

/// A builder with the rows of an index whose ids are not among `without`.
fn rebuilt(index: &Index, without: &HashSet<&str>) -> Result<(Builder, usize)> {
    index.check()?;
    let model = index.model().map(String::from);
    let mut builder = Builder::new(model, index.dimension(), index.metric(), index.precision())?;
    let mut left_out = 0;
    for row in 0..index.rows() {
        let document = index.document(row)?;
        if without.contains(document.id.as_str()) {
            left_out += 1;
        } else {
            builder.copy(index, row)?;
        }
    }
    Ok((builder, left_out))
}

fn add(file: &Path, documents: &DocumentArgs, model: &ModelArgs) -> Result<()> {
    let index = Index::open(file)?;
    let documents = read(documents)?.collect::<Result<Vec<_>>>()?;
    let engine = match index.model() {
        Some(name) => model.with_model(name)?,
        None => model.engine()?,
    };
    let ids: HashSet<&str> = documents.iter().map(|(document, _)| document.id.as_str()).collect();
    let (mut builder, _) = rebuilt(&index, &ids)?;
    let (outside, dimension) = (index.model().is_none(), index.dimension());
    fill(&engine, &mut builder, documents.iter().cloned().map(Ok), outside, dimension)?;
    finish(&engine, builder, index.has_graph(), file)
}

fn delete(file: &Path, ids: &[String], model: &ModelArgs) -> Result<()> {
    let index = Index::open(file)?;
    let wanted: HashSet<&str> = ids.iter().map(String::as_str).collect();
    let (builder, found) = rebuilt(&index, &wanted)?;
    if found < wanted.len() {
        let message = format!("{found} of {} ids are in the index; nothing was changed", wanted.len());
        return Err(Error::value("id", message));
    }
    finish(&model.engine()?, builder, index.has_graph(), file)
}

fn search(args: &SearchArgs) -> Result<()> {
    let index = Index::open(&args.file)?;
    let filter = args.filter.as_deref().map(|text| {
        let value =
            serde_json::from_str(text).map_err(|e| Error::value("filter", format!("filter is not JSON: {e}")))?;
        Filter::of(&value)
    });
    let engine = match index.model() {
        Some(name) => args.model.with_model(name)?,
        None => args.model.engine()?,
    };
    let job = Find {
        text: Some(args.query.clone()),
        vector: None,
        mode: Mode::named(&args.mode).unwrap_or_default(),
        count: args.k,
        filter: filter.transpose()?,
        min_score: args.min_score,
        exact: args.exact,
        index: Some(Arc::new(index)),
    };
    let found = engine.run(job, Deadline::NONE)?.found;
    let line = |Found { score, document, .. }: &Found| match args.format.as_str() {
        "json" => {
            let Document { id, text, metadata } = document;
            json_line(&json!({"id": id, "score": score, "text": text, "metadata": metadata}))
        }
        _ => Ok(format!("{score:.4}  {}  {}", document.id, document.text.replace('\n', " "))),
    };
    let lines = found.iter().map(line).collect::<Result<Vec<_>>>()?;
    print(|out| lines.iter().try_for_each(|line| writeln!(out, "{line}")))
}

fn info(file: &Path) -> Result<()> {
    let index = Index::open(file)?;
    index.check().map_err(|e| e.context(file.display()))?;
    let line = json_line(&json!({
        "model": index.model(),
        "documents": index.rows(),
        "dimension": index.dimension(),
        "metric": index.metric(),
        "precision": index.precision(),
        "graph": index.has_graph(),
    }))?;
    print(|out| writeln!(out, "{line}"))
}
