//! The command line. Results go to stdout, everything else to stderr. Exit codes: 0 success, 1 failure, 2 wrong usage.

mod bench;
mod bench_index;
mod cold_start;
mod cost;
mod embed;
mod generate;
mod index;
mod index_input;
mod models;
mod points;
mod pull;
mod sink;
mod transcribe;

use crate::api::Api;
use crate::config::Config;
use crate::engine::{Engine, ModelTask};
use crate::server;
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;
use tealight_core::{Error, ErrorKind, Result};
use tealight_kernels::CpuContext;
use tealight_models::pack::{PackMetadata, pack};

/// Embeddings, speech-to-text and text generation: CLI, local server, AWS Lambda
///
/// The default embedding model, all-MiniLM-L6-v2, is included. Environment variables (TEALIGHT_MODEL, TEALIGHT_THREADS,
/// TEALIGHT_MODEL_DIR, HF_HOME, ...) are listed in docs/configuration.md. Exit codes: 0 success, 1 failure, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "tealight", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compute embeddings of texts or documents
    Embed(embed::EmbedArgs),
    /// Transcribe audio to text, JSON or subtitles
    Transcribe(transcribe::TranscribeArgs),
    /// Generate text from a prompt, or chat
    Generate(generate::GenerateArgs),
    /// Build and search a local vector index
    Index {
        #[command(subcommand)]
        what: index::IndexCommand,
    },
    /// Start a local HTTP server (OpenAI- and TEI-compatible)
    Serve(ServeArgs),
    /// Quantize a model and save it as one memory-mapped file
    Pack(PackArgs),
    /// Download a model from the Hugging Face hub into its cache
    Pull {
        /// A catalog name, ORG/NAME or ORG/NAME:FILE.gguf
        model: String,
    },
    /// List models of the catalog and installed models
    Models {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show version, instruction set, threads and default model
    Info {
        #[command(flatten)]
        model: ModelArgs,
        /// Start 21 processes and show the median time of each phase of a cold start, in milliseconds
        #[arg(long)]
        timing: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Measure speed on this machine
    Bench {
        #[command(subcommand)]
        what: bench::Bench,
    },
    /// Estimate AWS Lambda costs from this machine's speed
    Cost(cost::CostArgs),
    /// Print a completion script: tealight completions bash > /etc/bash_completion.d/tealight
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Options of all commands that compute embeddings.
#[derive(Debug, Args)]
struct ModelArgs {
    /// Embedding model: a GGUF file, a folder or a name [default: $TEALIGHT_MODEL or all-MiniLM-L6-v2]
    #[arg(long, short, value_name = "MODEL")]
    model: Option<String>,
    /// Number of threads [default: $TEALIGHT_THREADS or one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl ModelArgs {
    fn engine(&self) -> Result<Engine> {
        let mut config = Config::from_env()?;
        if let Some(model) = &self.model {
            config.model = model.clone();
        }
        if let Some(threads) = self.threads {
            config.threads = threads.into();
        }
        Engine::new(config)
    }

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
struct ServeArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 chooses a free one
    #[arg(long, short, default_value_t = 9000)]
    port: u16,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Debug, Args)]
struct PackArgs {
    /// Folder with config.json, model.safetensors and tokenizer.json, or a GGUF file
    source: PathBuf,
    /// GGUF file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Name of the model to store in the file
    #[arg(long)]
    name: Option<String>,
    /// SPDX identifier of the license to store in the file
    #[arg(long)]
    license: Option<String>,
    /// URL of the original model to store in the file
    #[arg(long, value_name = "URL")]
    source_url: Option<String>,
    /// Sample texts for SmoothQuant calibration, one per line [default: built-in English texts]
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let main = SystemTime::now();
    match execute(Cli::parse().command, main) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "tealight: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command, main: SystemTime) -> Result<()> {
    match command {
        Command::Embed(args) => embed::run(&args),
        Command::Transcribe(args) => transcribe::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Index { what } => index::run(&what),
        Command::Serve(args) => serve(&args),
        Command::Pack(args) => pack_model(&args),
        Command::Pull { model } => pull::run(&model),
        Command::Models { json } => models::models(json),
        Command::Info { model, timing: true, json } => match cold_start::start_time() {
            Some(start) => cold_start::measure(&model, start, main),
            None => cold_start::run(&model, json),
        },
        Command::Info { model, json, .. } => models::info(&model.engine()?, json),
        Command::Bench { what } => bench::run(&what),
        Command::Cost(args) => cost::run(&args),
        Command::Completions { shell } => completions(shell),
    }
}

fn serve(args: &ServeArgs) -> Result<()> {
    crate::telemetry::log::init(std::io::stderr);
    let engine = Arc::new(args.model.engine()?);
    let api = Arc::new(Api::new(engine));
    server::run(api, SocketAddr::new(args.host, args.port), |address| {
        let _ = writeln!(std::io::stderr(), "tealight: listening on http://{address}");
    })
}

fn pack_model(args: &PackArgs) -> Result<()> {
    let metadata =
        PackMetadata { name: args.name.clone(), license: args.license.clone(), source: args.source_url.clone() };
    let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e));
    let calibration = args.calibration.as_ref().map(read).transpose()?;
    let config = Config::from_env()?;
    let cpu = CpuContext::new(config.isa, config.threads);
    pack(&cpu, &args.source, &metadata, calibration.as_deref(), &args.output)?;
    print(|out| writeln!(out, "{}", args.output.display()))
}

fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = vec![];
    clap_complete::generate(shell, &mut Cli::command(), "tealight", &mut script);
    print(|out| out.write_all(&script))
}

/// Writes to stdout. A closed pipe, as with `| head`, is not an error.
fn print(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(ErrorKind::Io, format!("cannot write to stdout: {e}")))
        }
        _ => Ok(()),
    }
}

fn json_line(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::internal(format!("result cannot be serialized: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }
}
