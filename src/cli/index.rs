//! `tealight index`: documents to an index in a file, and searches in it.

use super::args::ModelArgs;
use super::index_input::{Given, Row, document_of, embedded, read};
use super::output::{json_line, print};
use crate::engine::Engine;
use crate::engine::LoadedModel;
use crate::engine::search::{Find, Mode};
use crate::pipeline::chunk::Chunking;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tealight_core::Deadline;
use tealight_core::{Error, Result};
use tealight_index::{Builder, Document, Filter, Found, Index, Metric, Precision};

/// Documents of one call of the engine.
const GROUP: usize = 1024;
/// Bytes of their texts, beyond which no other is added.
const GROUP_BYTES: usize = 256 << 10;

#[derive(Debug, Subcommand)]
pub(super) enum IndexCommand {
    /// Build an index from documents. Lines of JSON are {"id": ..., "text": "...", "metadata": {...}}, and "embedding" where a vector is
    /// there already; --model then says what has made it. A document that is longer than a chunk becomes a row for each part, ID#0, ID#1
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
    /// Take documents out of an index, with all of their parts
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
    /// Files, by their endings .jsonl, .csv, .tsv, .parquet, .txt, .md or recordings; folders, of which all but recordings are read; - is
    /// lines of JSON from stdin
    #[arg(required = true)]
    input: Vec<PathBuf>,
    /// Tokens of a chunk at most [default: what the model reads]
    #[arg(long, value_name = "N")]
    chunk_tokens: Option<usize>,
    /// Tokens that a chunk may have in common with the one before it
    #[arg(long, value_name = "N", default_value_t = 0)]
    chunk_overlap: usize,
}

impl DocumentArgs {
    fn chunking(&self) -> Chunking {
        Chunking { tokens: self.chunk_tokens, overlap: self.chunk_overlap }
    }
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

fn build(args: &BuildArgs) -> Result<()> {
    let engine = args.model.engine()?;
    let metric = match args.metric {
        MetricArg::Cosine => Metric::Cosine,
        MetricArg::Dot => Metric::Dot,
        MetricArg::L2 => Metric::L2,
    };
    let mut documents = read(&args.documents.input, &engine)?.peekable();
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
    let filling = Filling { engine: &engine, outside, chunking: args.documents.chunking(), dimension };
    filling.fill(&mut builder, documents.map(cut))?;
    finish(&engine, builder, args.graph, &args.output)
}

/// The values of a row, of vectors that a model is said to have made.
fn made_by(loaded: &LoadedModel, length: usize, dimensions: Option<usize>) -> Result<usize> {
    match loaded.model.dimension() {
        most if length <= most => Ok(dimensions.unwrap_or(length)),
        most => {
            let message = format!("the first embedding has {length} values, {:?} makes {most}", loaded.name);
            Err(Error::invalid_value("embedding", message))
        }
    }
}

/// How documents get into an index: with their own vectors, or in chunks with those that the engine's model makes.
struct Filling<'a> {
    engine: &'a Engine,
    outside: bool,
    chunking: Chunking,
    dimension: usize,
}

impl Filling<'_> {
    fn fill(&self, builder: &mut Builder, mut documents: impl Iterator<Item = Result<Given>>) -> Result<()> {
        // Documents of several rows, whose ids no row has.
        let mut parted = HashSet::new();
        loop {
            let (mut group, mut bytes) = (vec![], 0);
            while group.len() < GROUP && bytes < GROUP_BYTES {
                let Some(given) = documents.next() else { break };
                let given = self.checked(given?)?;
                bytes += given.0.text.len();
                group.push(given);
            }
            if group.is_empty() {
                return Ok(());
            }
            for rows in self.rows(group)? {
                let of = rows.first().map_or("", |(row, _)| document_of(row)).to_string();
                let is_there = parted.contains(&of) || rows.len() > 1 && builder.has(&of);
                if is_there {
                    return Err(Error::invalid_value("id", format!("document {of:?}: the id is there twice")));
                }
                rows.iter().try_for_each(|(row, vector)| builder.add(row, vector))?;
                if rows.len() > 1 {
                    parted.insert(of);
                }
            }
        }
    }

    /// Refuses one of the other kind than the first.
    fn checked(&self, given: Given) -> Result<Given> {
        match given.1.is_some() == self.outside {
            true => Ok(given),
            false => {
                let message = "some documents have an embedding and others have none";
                Err(Error::invalid_value("embedding", message).with_context(format_args!("document {:?}", given.0.id)))
            }
        }
    }

    fn rows(&self, group: Vec<Given>) -> Result<Vec<Vec<Row>>> {
        let own = |(document, vector): Given| vec![(document, vector.unwrap_or_default())];
        match self.outside {
            true => Ok(group.into_iter().map(own).collect()),
            false => {
                let documents = group.into_iter().map(|(document, _)| document).collect();
                embedded(self.engine, documents, self.chunking, self.dimension)
            }
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

/// A builder with the rows of an index that are not of the documents `without`, and those of these that were there.
fn rebuilt<'a>(index: &Index, without: &HashSet<&'a str>) -> Result<(Builder, HashSet<&'a str>)> {
    index.check()?;
    let model = index.model().map(String::from);
    let mut builder = Builder::new(model, index.dimension(), index.metric(), index.precision())?;
    let mut found = HashSet::new();
    for row in 0..index.rows() {
        let document = index.document(row)?;
        // A part alone may be meant, too.
        let named = [document_of(&document), document.id.as_str()].into_iter().find_map(|id| without.get(id));
        match named {
            Some(id) => drop(found.insert(*id)),
            None => builder.copy(index, row)?,
        }
    }
    Ok((builder, found))
}

fn add(file: &Path, documents: &DocumentArgs, model: &ModelArgs) -> Result<()> {
    let index = Index::open(file)?;
    let engine = match index.model() {
        Some(name) => model.with_model(name)?,
        None => model.engine()?,
    };
    let given = read(&documents.input, &engine)?.collect::<Result<Vec<_>>>()?;
    let ids: HashSet<&str> = given.iter().map(|(document, _)| document.id.as_str()).collect();
    let (mut builder, _) = rebuilt(&index, &ids)?;
    let (outside, dimension) = (index.model().is_none(), index.dimension());
    let filling = Filling { engine: &engine, outside, chunking: documents.chunking(), dimension };
    filling.fill(&mut builder, given.iter().cloned().map(Ok))?;
    finish(&engine, builder, index.has_graph(), file)
}

fn delete(file: &Path, ids: &[String], model: &ModelArgs) -> Result<()> {
    let index = Index::open(file)?;
    let wanted: HashSet<&str> = ids.iter().map(String::as_str).collect();
    let (builder, found) = rebuilt(&index, &wanted)?;
    if found.len() < wanted.len() {
        let message = format!("{} of {} ids are in the index; nothing was changed", found.len(), wanted.len());
        return Err(Error::invalid_value("id", message));
    }
    finish(&model.engine()?, builder, index.has_graph(), file)
}

fn search(args: &SearchArgs) -> Result<()> {
    let index = Index::open(&args.file)?;
    let filter = args.filter.as_deref().map(|text| {
        let value = serde_json::from_str(text)
            .map_err(|e| Error::invalid_value("filter", format!("filter is not JSON: {e}")))?;
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
    index.check().map_err(|e| e.with_context(file.display()))?;
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
