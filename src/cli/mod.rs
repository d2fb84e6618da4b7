//! The command line. Results go to stdout, everything else to stderr.

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

/// Text in, vectors out: a serverless inference function, a local server and a command line in one binary.
///
/// The default model, all-MiniLM-L6-v2, comes with it. Environment variables (TEALIGHT_MODEL, TEALIGHT_THREADS,
/// TEALIGHT_MODEL_DIR, HF_HOME, ...) are listed in the README. Exit codes: 0 done, 1 failed, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "tealight", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn texts into vectors
    Embed(embed::EmbedArgs),
    /// Turn recordings into text or subtitles
    Transcribe(transcribe::TranscribeArgs),
    /// Write text that goes on from a prompt, or answers in a conversation
    Generate(generate::GenerateArgs),
    /// Build an index of documents in a file, and search it
    Index {
        #[command(subcommand)]
        what: index::IndexCommand,
    },
    /// Serve the HTTP interface locally: OpenAI's /v1/embeddings, text-embeddings-inference's /embed, and others
    Serve(ServeArgs),
    /// Write a model folder (safetensors) or GGUF file as one file that is quantised and laid out for the kernels
    Pack(PackArgs),
    /// Download a model from the Hugging Face hub into its cache
    Pull {
        /// A model of the catalog, or a repository: ORGANISATION/NAME
        model: String,
    },
    /// List the models that are known or installed
    Models {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show version, instruction set, threads and the model that would be used
    Info {
        #[command(flatten)]
        model: ModelArgs,
        /// Start 21 processes and show what a cold start is made of, in milliseconds
        #[arg(long)]
        timing: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Measure speed on this machine
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Reckon what tokens and hours of audio cost on AWS Lambda, from the speed of this machine
    Cost(cost::CostArgs),
    /// Print a completion script: tealight completions bash > /etc/bash_completion.d/tealight
    Completions {
        /// The shell to print it for
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Token ids to normalised vectors: random ids, no padding
    Embed(bench::BenchArgs),
    /// A recording to its text
    Transcribe(bench::TranscribeBenchArgs),
    /// Tokens to tokens: random ids
    Generate(bench::GenerateBenchArgs),
    /// Queries to the best rows of an index
    Index(bench_index::IndexBenchArgs),
}

/// Which model, on how many threads.
#[derive(Debug, Args)]
struct ModelArgs {
    /// A GGUF file, a model folder, or a name [default: $TEALIGHT_MODEL or all-MiniLM-L6-v2]
    #[arg(long, short, value_name = "MODEL")]
    model: Option<String>,
    /// Threads of a forward pass [default: $TEALIGHT_THREADS or the cores]
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

    /// An engine for the model that an index was built with.
    fn with_model(&self, name: &str) -> Result<Engine> {
        let engine = self.engine()?;
        let asked = engine.registry.default_name(ModelTask::Embedding);
        match (self.model.is_some(), asked == name) {
            (_, true) => Ok(engine),
            (true, false) => {
                let message = format!("the index was built with {name:?}, and {asked:?} is asked for");
                Err(Error::invalid_value("model", message))
            }
            (false, false) => Engine::new(Config { model: name.into(), ..(*engine.config).clone() }),
        }
    }
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// The port to listen on; 0 takes a free one
    #[arg(long, short, default_value_t = 9000)]
    port: u16,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Debug, Args)]
struct PackArgs {
    /// A folder with config.json, model.safetensors and tokenizer.json, or a GGUF file
    source: PathBuf,
    /// The GGUF file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// The model's name
    #[arg(long)]
    name: Option<String>,
    /// Its licence, as an SPDX name
    #[arg(long)]
    license: Option<String>,
    /// Where it comes from: a URL
    #[arg(long, value_name = "URL")]
    source_url: Option<String>,
    /// Texts, one a line, that show which channels are large [default: built-in ones, in English]
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
        Command::Info { model, timing: true, json } => match cold_start::started() {
            Some(started) => cold_start::measure(&model, started, main),
            None => cold_start::run(&model, json),
        },
        Command::Info { model, json, .. } => models::info(&model.engine()?, json),
        Command::Bench { what: Bench::Embed(args) } => bench::embed(&args),
        Command::Bench { what: Bench::Transcribe(args) } => bench::transcribe(&args),
        Command::Bench { what: Bench::Generate(args) } => bench::generate(&args),
        Command::Bench { what: Bench::Index(args) } => bench_index::run(&args),
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

/// Writes to stdout; that nobody reads on (`| head`) is no error.
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
    serde_json::to_string(value).map_err(|e| Error::internal(format!("a result is not JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
