//! Options of `tealight embed`.

use super::super::args::{EmbeddingModelArgs, VectorEncodingArg};
use crate::pipeline::chunk::Chunking;
use crate::pipeline::format::{Format, VectorEncoding};
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// Texts; without any, each line of the input is a text or a document {"id": ..., "text": "...", "metadata": {...}}
    pub(super) texts: Vec<String>,
    #[command(flatten)]
    pub(super) model: EmbeddingModelArgs,
    /// Input file; - is stdin [default: stdin]. The extension selects the format: .jsonl, .csv, .tsv, .parquet, .txt, .md or
    /// audio; others are read line by line, and so are .jsonl, .txt and .md if the output is json, jsonl or npy without
    /// --chunk-tokens
    #[arg(long, short, value_name = "FILE", conflicts_with = "texts")]
    pub(super) input: Option<PathBuf>,
    /// Output format. json: a list of records; for TEXT arguments, only the embedding (of one) or a list of embeddings; jsonl: one
    /// record per line; npy: a NumPy matrix; others: the request format of that vector database, with long documents split into
    /// chunks
    #[arg(long, short, default_value = "json", value_parser = Format::ALL.map(Format::as_str))]
    pub(super) format: String,
    /// Output file [default: stdout]; with {} in the name, one numbered file per request body
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Write points to a vector database: qdrant+https://HOST/COLLECTION, opensearch+https://HOST/INDEX, s3vectors://BUCKET/INDEX,
    /// postgres://USER@HOST/DATABASE?table=documents, s3://BUCKET/PREFIX; TEALIGHT_SINK_KEY is the API key or password
    #[arg(long, value_name = "URL", conflicts_with_all = ["collection", "encoding", "format", "no_normalize", "output", "truncate"])]
    pub(super) sink: Option<String>,
    /// Truncate embeddings to N dimensions
    #[arg(long, value_name = "N")]
    pub(super) dimensions: Option<usize>,
    /// Encoding of embeddings, the API's encoding_format
    #[arg(long, value_enum, default_value_t = VectorEncodingArg(VectorEncoding::Float))]
    pub(super) encoding: VectorEncodingArg,
    /// Maximum tokens per chunk, without special tokens and the prompt [default: as many as the model accepts]; json and jsonl split
    /// documents only if this is set, npy never
    #[arg(long, value_name = "N")]
    chunk_tokens: Option<usize>,
    /// Maximum tokens that adjacent chunks share; whole sentences if they fit
    #[arg(long, value_name = "N", default_value_t = 0)]
    chunk_overlap: usize,
    /// Name of the collection, class or table [default: documents]
    #[arg(long, value_name = "NAME")]
    pub(super) collection: Option<String>,
    /// Skip documents that fail; list them at the end
    #[arg(long)]
    pub(super) keep_going: bool,
    /// Name of the model's prompt to prepend, such as query
    #[arg(long, alias = "prompt", value_name = "NAME")]
    pub(super) prompt_name: Option<String>,
    /// Do not scale embeddings to unit length
    #[arg(long)]
    pub(super) no_normalize: bool,
    /// Truncate texts that are too long for the model instead of failing
    #[arg(long)]
    pub(super) truncate: bool,
}

impl EmbedArgs {
    /// Rejects combinations of options that clap's attributes cannot express.
    pub(super) fn check_combinations(&self) -> Result<(), &'static str> {
        if self.format() == Format::Npy && self.chunk_tokens.is_some() {
            return Err(
                "--chunk-tokens cannot be used with --format npy, which has one vector per document and no other field",
            );
        }
        Ok(())
    }

    pub(super) fn chunking(&self) -> Chunking {
        Chunking { tokens: self.chunk_tokens, overlap: self.chunk_overlap }
    }

    /// Whether documents are split into chunks and written as points, instead of one record per document.
    pub(super) fn writes_points(&self) -> bool {
        self.sink.is_some() || !self.format().is_record() || self.chunk_tokens.is_some()
    }

    /// The input file; `None` for stdin.
    pub(super) fn input_file(&self) -> Option<&Path> {
        self.input.as_deref().filter(|path| *path != Path::new("-"))
    }

    pub(super) fn format(&self) -> Format {
        Format::from_name(&self.format).unwrap_or(Format::Json)
    }
}
