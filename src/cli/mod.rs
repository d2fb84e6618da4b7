//! The command line. Results go to stdout, everything else to stderr. Exit codes: 0 success, 1 failure, 2 usage error.

mod args;
mod bench;
mod cold_start;
mod cost;
mod embed;
#[cfg(feature = "text")]
mod generate;
#[cfg(feature = "index")]
mod index;
mod input;
mod models;
mod output;
mod pack;
mod pull;
mod serve;
#[cfg(feature = "speech")]
mod transcribe;

use args::EmbeddingModelArgs;
use clap::{CommandFactory, Parser, Subcommand};
use output::print;
use std::io::Write;
use std::process::ExitCode;
use std::time::SystemTime;
use tealight_core::Result;

/// Embeddings, speech-to-text and text generation: CLI, local server, AWS Lambda
///
/// The default embedding model, all-MiniLM-L6-v2, is included. Environment variables (TEALIGHT_MODEL, TEALIGHT_THREADS,
/// TEALIGHT_MODEL_DIR, HF_HOME, ...) are listed in docs/configuration.md of the repository. Exit codes: 0 success, 1 failure, 2 usage error.
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
    #[cfg(feature = "speech")]
    Transcribe(transcribe::TranscribeArgs),
    /// Generate text from a prompt, or chat
    #[cfg(feature = "text")]
    Generate(generate::GenerateArgs),
    /// Build and search an index in a file (vectors and BM25)
    #[cfg(feature = "index")]
    Index {
        #[command(subcommand)]
        command: index::IndexCommand,
    },
    /// Start a local HTTP server (OpenAI- and TEI-compatible)
    Serve(serve::ServeArgs),
    /// Quantize a model and save it as one memory-mapped file
    Pack(pack::PackArgs),
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
        model: EmbeddingModelArgs,
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
        command: bench::Bench,
    },
    /// Estimate AWS Lambda costs from this machine's speed
    Cost(cost::CostArgs),
    /// Print a completion script: tealight completions bash > /etc/bash_completion.d/tealight
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let main_time = SystemTime::now();
    match execute(Cli::parse().command, main_time) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "tealight: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command, main_time: SystemTime) -> Result<()> {
    match command {
        Command::Embed(args) => embed::run(&args),
        #[cfg(feature = "speech")]
        Command::Transcribe(args) => transcribe::run(&args),
        #[cfg(feature = "text")]
        Command::Generate(args) => generate::run(&args),
        #[cfg(feature = "index")]
        Command::Index { command } => index::run(&command),
        Command::Serve(args) => serve::run(&args),
        Command::Pack(args) => pack::run(&args),
        Command::Pull { model } => pull::run(&model),
        Command::Models { json } => models::models(json),
        Command::Info { model, timing: true, json } => match cold_start::start_time() {
            Some(exec_time) => cold_start::measure(&model, exec_time, main_time),
            None => cold_start::run(&model, json),
        },
        Command::Info { model, json, .. } => models::info(&model.engine()?, json),
        Command::Bench { command } => bench::run(&command),
        Command::Cost(args) => cost::run(&args),
        Command::Completions { shell } => completions(shell),
    }
}

/// Reports arguments of a subcommand that clap cannot reject by itself, and exits as clap does.
fn exit_with_usage_error(subcommand: &str, message: &str) -> ! {
    let mut command = Cli::command();
    command.build();
    let kind = clap::error::ErrorKind::ArgumentConflict;
    match command.find_subcommand_mut(subcommand) {
        Some(subcommand) => subcommand.error(kind, message).exit(),
        None => command.error(kind, message).exit(),
    }
}

fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = vec![];
    clap_complete::generate(shell, &mut Cli::command(), "tealight", &mut script);
    print(|out| out.write_all(&script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }
}
