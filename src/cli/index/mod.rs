//! `tealight index`: builds, changes and searches an index file.

mod input;

use super::args::EmbeddingModelArgs;
use super::output::{json_line, print};
use crate::config::Config;
use crate::engine::search::{Search, SearchMode};
use crate::engine::{Engine, LoadedModel, ModelTask};
use crate::pipeline::chunk::Chunking;
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, Subcommand, ValueEnum};
use input::{IndexRow, InputDocument, document_id, embed_documents, read_documents};
use serde_json::json;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tealight_core::Deadline;
use tealight_core::{Error, Result};
use tealight_index::{Filter, Index, IndexBuilder, IndexDocument, Metric, ScanEncoding, SearchHit};

/// Documents that are embedded together.
const MAX_BATCH_DOCUMENTS: usize = 1024;
/// A batch with this many bytes of text is full.
const MAX_BATCH_BYTES: usize = 256 << 10;

#[derive(Debug, Subcommand)]
pub(super) enum IndexCommand {
    /// Build an index from documents
    ///
    /// Lines of JSON are {"id": ..., "text": "...", "metadata": {...}}, with "embedding" if you have computed it; --model then
    /// names the model that computed it. A document that is longer than a chunk becomes one row per chunk: ID#0, ID#1, ...
    Build(BuildArgs),
    /// Add documents, replacing existing ids
    ///
    /// Lines of JSON may have "embedding", with the dimension of the index; they must if the index names no model.
    Add {
        /// Index file
        file: PathBuf,
        #[command(flatten)]
        documents: DocumentArgs,
        #[command(flatten)]
        model: EmbeddingModelArgs,
    },
    /// Delete documents and all their chunks
    Delete {
        /// Index file
        file: PathBuf,
        /// Ids of the documents
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        model: EmbeddingModelArgs,
    },
    /// Search by vector, keywords or both
    Search(SearchArgs),
    /// Show statistics and verify checksums
    Info {
        /// Index file
        file: PathBuf,
    },
}

impl EmbeddingModelArgs {
    /// An engine with the model `name` that an index was built with, unless --model names another one.
    fn with_model(&self, name: &str) -> Result<Engine> {
        let engine = self.engine()?;
        let requested = engine.registry.default_name(ModelTask::Embedding);
        if requested == name {
            return Ok(engine);
        }
        if self.model.is_some() {
            let message = format!("--model is {requested:?}; the index was built with {name:?}");
            return Err(Error::invalid_value("model", message));
        }
        Engine::new(Config { model: name.into(), ..(*engine.config).clone() })
    }
}

#[derive(Debug, Args)]
pub(super) struct DocumentArgs {
    /// Files (.jsonl, .csv, .tsv, .parquet, .txt, .md, audio), folders of such files without audio, or - for lines of JSON from
    /// stdin
    #[arg(required = true)]
    input: Vec<PathBuf>,
    /// Maximum tokens per chunk, without special tokens [default: as many as the model accepts]
    #[arg(long, value_name = "N")]
    chunk_tokens: Option<usize>,
    /// Maximum tokens that adjacent chunks share; whole sentences if they fit
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

impl MetricArg {
    fn metric(self) -> Metric {
        match self {
            MetricArg::Cosine => Metric::Cosine,
            MetricArg::Dot => Metric::Dot,
            MetricArg::L2 => Metric::L2,
        }
    }
}

/// The option `--precision`: a [`ScanEncoding`].
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum ScanEncodingArg {
    Int8,
    Int4,
    Binary,
}

impl ScanEncodingArg {
    pub(super) fn encoding(self) -> ScanEncoding {
        match self {
            ScanEncodingArg::Int8 => ScanEncoding::Int8,
            ScanEncodingArg::Int4 => ScanEncoding::Int4,
            ScanEncodingArg::Binary => ScanEncoding::Binary,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct BuildArgs {
    #[command(flatten)]
    documents: DocumentArgs,
    /// Index file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Similarity metric
    #[arg(long, value_enum, default_value = "cosine")]
    metric: MetricArg,
    /// Compression of the vectors that each search scans: int8; int4, half the size; binary, an eighth
    #[arg(long, value_enum, default_value = "int8")]
    precision: ScanEncodingArg,
    /// Truncate embeddings to N dimensions
    #[arg(long, value_name = "N")]
    dimensions: Option<usize>,
    /// Add an HNSW graph for approximate search of millions of rows
    #[arg(long)]
    graph: bool,
    #[command(flatten)]
    model: EmbeddingModelArgs,
}

#[derive(Debug, Args)]
pub(super) struct SearchArgs {
    /// Index file
    file: PathBuf,
    /// Query text
    query: String,
    /// Maximum number of results
    #[arg(short, long, default_value_t = 10, value_name = "N")]
    k: usize,
    /// Metadata filter: {"year": {"$gte": 1960}}
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// Minimum score of a result
    #[arg(long, value_name = "SCORE")]
    min_score: Option<f32>,
    /// vector: semantic search; lexical: keyword search (BM25); hybrid: both
    #[arg(long, default_value = "vector", value_parser = mode_parser())]
    mode: String,
    /// Scan all rows even if the index has an HNSW graph
    #[arg(long)]
    exact: bool,
    /// text: score, id and text; json: one object per line
    #[arg(long, short, default_value = "text", value_parser = ["text", "json"])]
    format: String,
    #[command(flatten)]
    model: EmbeddingModelArgs,
}

fn mode_parser() -> PossibleValuesParser {
    PossibleValuesParser::new(
        SearchMode::ALL.map(|mode| PossibleValue::new(mode.as_str()).aliases(mode.aliases().iter().copied())),
    )
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
    let mut documents = read_documents(&args.documents.input, &engine)?.peekable();
    // The first document decides whether embeddings come with the documents, and their dimension.
    let first_len = match documents.peek() {
        Some(Ok(InputDocument { vector: Some(vector), .. })) => Some(vector.len()),
        _ => None,
    };
    let (model, dimension) = match first_len {
        // --model declares which model computed the given embeddings, so that the index can be searched by text.
        Some(len) if args.model.model.is_some() => {
            let loaded = engine.preload()?;
            (Some(loaded.name.clone()), given_dimension(&loaded, len, args.dimensions)?)
        }
        Some(len) => (None, args.dimensions.unwrap_or(len)),
        None => {
            let loaded = engine.preload()?;
            (Some(loaded.name.clone()), args.dimensions.unwrap_or(loaded.model.dimension()))
        }
    };
    let mut builder = IndexBuilder::new(model, dimension, args.metric.metric(), args.precision.encoding())?;
    let truncate = |input: Result<InputDocument>| {
        let mut input = input?;
        if let (Some(vector), Some(n)) = (&mut input.vector, args.dimensions) {
            vector.truncate(n);
        }
        Ok(input)
    };
    let has_vectors = first_len.is_some();
    let indexer = Indexer { engine: &engine, has_vectors, chunking: args.documents.chunking(), dimension };
    indexer.add_all(&mut builder, documents.map(truncate))?;
    finish(&engine, builder, args.graph, &args.output)
}

/// The dimension of an index whose embeddings were computed by the model `loaded`, according to --model.
fn given_dimension(loaded: &LoadedModel, len: usize, dimensions: Option<usize>) -> Result<usize> {
    let max = loaded.model.dimension();
    if len <= max {
        return Ok(dimensions.unwrap_or(len));
    }
    let message = format!("the first embedding has {len} dimensions; model {:?} has {max}", loaded.name);
    Err(Error::invalid_value("embedding", message))
}

/// Adds documents to an index: with their own vectors, or in chunks that the engine embeds.
struct Indexer<'a> {
    engine: &'a Engine,
    has_vectors: bool,
    chunking: Chunking,
    dimension: usize,
}

impl Indexer<'_> {
    fn add_all(
        &self,
        builder: &mut IndexBuilder,
        mut documents: impl Iterator<Item = Result<InputDocument>>,
    ) -> Result<()> {
        // Ids of documents in several chunks; no row has such an id.
        let mut chunked = HashSet::new();
        loop {
            let batch = self.next_batch(&mut documents)?;
            if batch.is_empty() {
                return Ok(());
            }
            for rows in self.rows(batch)? {
                let id = rows.first().map_or("", |row| document_id(&row.document)).to_string();
                if chunked.contains(&id) || rows.len() > 1 && builder.contains_id(&id) {
                    return Err(Error::invalid_value("id", format!("document {id:?}: duplicate document id")));
                }
                rows.iter().try_for_each(|row| builder.add(&row.document, &row.vector))?;
                if rows.len() > 1 {
                    chunked.insert(id);
                }
            }
        }
    }

    fn next_batch(&self, documents: &mut impl Iterator<Item = Result<InputDocument>>) -> Result<Vec<InputDocument>> {
        let (mut batch, mut bytes) = (vec![], 0);
        while batch.len() < MAX_BATCH_DOCUMENTS && bytes < MAX_BATCH_BYTES {
            let Some(input) = documents.next() else { break };
            let input = input?;
            if input.vector.is_some() != self.has_vectors {
                let error = Error::invalid_value("embedding", "some documents have an embedding and others have none");
                return Err(error.with_context(format_args!("document {:?}", input.document.id)));
            }
            bytes += input.document.text.len();
            batch.push(input);
        }
        Ok(batch)
    }

    /// The rows of each document.
    fn rows(&self, batch: Vec<InputDocument>) -> Result<Vec<Vec<IndexRow>>> {
        if self.has_vectors {
            let row = |input: InputDocument| {
                vec![IndexRow { document: input.document, vector: input.vector.unwrap_or_default() }]
            };
            return Ok(batch.into_iter().map(row).collect());
        }
        let documents = batch.into_iter().map(|input| input.document).collect();
        embed_documents(self.engine, documents, self.chunking, self.dimension)
    }
}

fn finish(engine: &Engine, mut builder: IndexBuilder, graph: bool, path: &Path) -> Result<()> {
    let rows = builder.rows();
    if graph {
        builder.build_hnsw(&engine.cpu)?;
    }
    builder.write(path)?;
    print(|out| writeln!(out, "{}: {rows} rows", path.display()))
}

/// A builder with the rows of an index except those of the documents `ids`, and those of these ids that the index has.
fn copy_without<'a>(index: &Index, ids: &HashSet<&'a str>) -> Result<(IndexBuilder, HashSet<&'a str>)> {
    index.verify()?;
    let model = index.model().map(String::from);
    let mut builder = IndexBuilder::new(model, index.dimension(), index.metric(), index.encoding())?;
    let mut found = HashSet::new();
    for row in 0..index.rows() {
        let document = index.document(row)?;
        // The id of a single chunk is also accepted.
        let matched = [document_id(&document), document.id.as_str()].into_iter().find_map(|id| ids.get(id));
        match matched {
            Some(id) => drop(found.insert(*id)),
            None => builder.copy_row(index, row)?,
        }
    }
    Ok((builder, found))
}

fn add(file: &Path, documents: &DocumentArgs, model: &EmbeddingModelArgs) -> Result<()> {
    let index = Index::open(file)?;
    let engine = match index.model() {
        Some(name) => model.with_model(name)?,
        None => model.engine()?,
    };
    let inputs = read_documents(&documents.input, &engine)?.collect::<Result<Vec<_>>>()?;
    // The first document decides whether embeddings come with the documents.
    let has_vectors = inputs.first().is_some_and(|input| input.vector.is_some());
    inputs.iter().try_for_each(|input| check_vector(&index, input, has_vectors))?;
    let ids: HashSet<&str> = inputs.iter().map(|input| input.document.id.as_str()).collect();
    let (mut builder, _) = copy_without(&index, &ids)?;
    let dimension = index.dimension();
    let indexer = Indexer { engine: &engine, has_vectors, chunking: documents.chunking(), dimension };
    indexer.add_all(&mut builder, inputs.iter().cloned().map(Ok))?;
    finish(&engine, builder, index.has_graph(), file)
}

/// Fails if the vector of a document was computed by another model than the index names, or cannot be computed because the index
/// names none.
fn check_vector(index: &Index, input: &InputDocument, has_vectors: bool) -> Result<()> {
    let error = match (index.model(), &input.model) {
        (Some(expected), Some(model)) if input.vector.is_some() && model != expected => {
            let message = format!("the embedding is of model {model:?}; the index was built with {expected:?}");
            Error::invalid_value("model", message)
        }
        (None, _) if !has_vectors => {
            let message = "the document has no embedding, and the index names no model that could compute one";
            Error::invalid_value("embedding", message)
        }
        _ => return Ok(()),
    };
    Err(error.with_context(format_args!("document {:?}", input.document.id)))
}

fn delete(file: &Path, ids: &[String], model: &EmbeddingModelArgs) -> Result<()> {
    let index = Index::open(file)?;
    let requested_ids: HashSet<&str> = ids.iter().map(String::as_str).collect();
    let (builder, found) = copy_without(&index, &requested_ids)?;
    if let Some(first) = ids.iter().find(|id| !found.contains(id.as_str())) {
        let missing = requested_ids.len() - found.len();
        let message =
            format!("{missing} of {} ids not found (first: {first:?}); the index is unchanged", requested_ids.len());
        return Err(Error::invalid_value("id", message));
    }
    finish(&model.engine()?, builder, index.has_graph(), file)
}

fn search(args: &SearchArgs) -> Result<()> {
    let index = Index::open(&args.file)?;
    let filter = args.filter.as_deref().map(|text| {
        let value = serde_json::from_str(text)
            .map_err(|e| Error::invalid_value("filter", format!("filter is not JSON: {e}")))?;
        Filter::parse(&value)
    });
    let engine = match index.model() {
        Some(name) => args.model.with_model(name)?,
        None => args.model.engine()?,
    };
    let job = Search {
        text: Some(args.query.clone()),
        vector: None,
        mode: SearchMode::from_name(&args.mode).unwrap_or_default(),
        top_k: args.k,
        filter: filter.transpose()?,
        min_score: args.min_score,
        exact: args.exact,
        index: Some(Arc::new(index)),
    };
    let hits = engine.run(job, Deadline::NONE)?.hits;
    let line = |SearchHit { score, document, .. }: &SearchHit| match args.format.as_str() {
        "json" => {
            let IndexDocument { id, text, metadata } = document;
            json_line(&json!({"id": id, "score": score, "text": text, "metadata": metadata}))
        }
        _ => Ok(format!("{score:.4}  {}  {}", document.id, document.text.replace('\n', " "))),
    };
    let lines = hits.iter().map(line).collect::<Result<Vec<_>>>()?;
    print(|out| lines.iter().try_for_each(|line| writeln!(out, "{line}")))
}

fn info(file: &Path) -> Result<()> {
    let index = Index::open(file)?;
    index.verify().map_err(|e| e.with_context(file.display()))?;
    let line = json_line(&json!({
        "model": index.model(),
        "rows": index.rows(),
        // The former name of `rows`.
        "documents": index.rows(),
        "dimension": index.dimension(),
        "metric": index.metric(),
        "precision": index.encoding(),
        "graph": index.has_graph(),
    }))?;
    print(|out| writeln!(out, "{line}"))
}
