//! `tealight generate`: a completion of a prompt, or a chat.

use super::output::print;
use crate::config::Config;
use crate::engine::Engine;
use crate::engine::generate::{Completion, Generate, Prompt};
use clap::Args;
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result};
use tealight_models::tasks::generate::SamplingParams;

/// Options of the commands that generate text.
#[derive(Debug, Args)]
pub(super) struct GeneratorArgs {
    /// GGUF file, model folder or name [default: $TEALIGHT_TEXT_MODEL or smollm2-135m-instruct]
    #[arg(long, short, value_name = "MODEL")]
    model: Option<String>,
    /// Number of threads [default: $TEALIGHT_THREADS or one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl GeneratorArgs {
    pub(super) fn engine(&self) -> Result<Engine> {
        let mut config = Config::from_env()?;
        config.threads = self.threads.map_or(config.threads, usize::from);
        config.text_model = self.model.clone().unwrap_or(config.text_model);
        Engine::new(config)
    }
}

#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    /// Text to continue, or the first message with --chat [default: stdin]
    prompt: Option<String>,
    #[command(flatten)]
    model: GeneratorArgs,
    /// Chat, with the model's chat template; on a terminal, further messages are read from it
    #[arg(long)]
    chat: bool,
    /// System prompt, with --chat
    #[arg(long, requires = "chat")]
    system: Option<String>,
    /// Maximum number of tokens to generate [default: as many as fit]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Sampling temperature; 0 is greedy
    #[arg(long, default_value_t = 0.8, value_name = "T")]
    temperature: f32,
    /// Sample from the K most likely tokens; 0 is all
    #[arg(long, default_value_t = 40, value_name = "K")]
    top_k: usize,
    /// Sample from the most likely tokens with a total probability of P
    #[arg(long, default_value_t = 0.95, value_name = "P")]
    top_p: f32,
    /// Sample from tokens with at least P times the highest probability
    #[arg(long, default_value_t = 0.05, value_name = "P")]
    min_p: f32,
    /// Above 1, makes tokens of the text so far less likely
    #[arg(long, default_value_t = 1.0, value_name = "R")]
    repetition_penalty: f32,
    /// Makes generated tokens less likely, from -2 to 2
    #[arg(long, default_value_t = 0.0, value_name = "P", allow_hyphen_values = true)]
    presence_penalty: f32,
    /// Makes generated tokens less likely for each occurrence, from -2 to 2
    #[arg(long, default_value_t = 0.0, value_name = "P", allow_hyphen_values = true)]
    frequency_penalty: f32,
    /// Random seed [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Constrain output to the JSON schema in FILE
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Stop sequence (repeatable)
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

pub(super) fn run(args: &GenerateArgs) -> Result<()> {
    let engine = args.model.engine()?;
    if args.chat {
        return chat(&engine, args);
    }
    let prompt = args.prompt.clone().map_or_else(read_stdin, Ok)?;
    complete(&engine, args, Prompt::Text(prompt.clone()), prompt)?;
    print(|out| writeln!(out))
}

/// Alternates messages of the user and of the model until the end of stdin. A prompt as an argument is the only message if stdin
/// is not a terminal.
fn chat(engine: &Engine, args: &GenerateArgs) -> Result<()> {
    let mut messages: Vec<Value> = vec![];
    messages.extend(args.system.as_ref().map(|text| json!({"role": "system", "content": text})));
    let mut first_message = args.prompt.clone();
    while let Some(text) = first_message.take().map_or_else(read_message, |text| Ok(Some(text)))? {
        messages.push(json!({"role": "user", "content": text}));
        let completion = complete_chat(engine, args, &mut messages)?;
        print(|out| writeln!(out))?;
        messages.push(json!({"role": "assistant", "content": completion.text}));
        if !std::io::stdin().is_terminal() && args.prompt.is_some() {
            break;
        }
    }
    Ok(())
}

/// Completes a chat; drops the oldest messages if it exceeds the context length.
fn complete_chat(engine: &Engine, args: &GenerateArgs, messages: &mut Vec<Value>) -> Result<Completion> {
    let first = usize::from(args.system.is_some());
    loop {
        let completion = complete(engine, args, Prompt::Chat(messages.clone(), None), String::new());
        match completion {
            Err(error) if error.kind == ErrorKind::TooLong && messages.len() > first + 2 => {
                messages.drain(first..first + 2);
            }
            completion => return completion,
        }
    }
}

fn read_stdin() -> Result<String> {
    let text = std::io::read_to_string(std::io::stdin()).map_err(stdin_error)?;
    Ok(text.trim_end().to_string())
}

fn stdin_error(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("cannot read stdin: {error}"))
}

/// The next line of stdin, or `None` at its end.
fn read_message() -> Result<Option<String>> {
    if std::io::stdin().is_terminal() {
        print(|out| write!(out, "> "))?;
    }
    let mut line = String::new();
    let count = std::io::stdin().lock().read_line(&mut line).map_err(stdin_error)?;
    Ok((count > 0).then(|| line.trim_end().to_string()))
}

/// Prints a completion while it is generated, and `prefix` before its first part.
fn complete(engine: &Engine, args: &GenerateArgs, prompt: Prompt, mut prefix: String) -> Result<Completion> {
    let random_seed = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos() as u64);
    let sampling = SamplingParams {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty,
        presence_penalty: args.presence_penalty,
        frequency_penalty: args.frequency_penalty,
        seed: args.seed.unwrap_or_else(random_seed),
        ..SamplingParams::default()
    };
    let job = Generate {
        model: None,
        prompt,
        sampling,
        max_tokens: args.max_tokens,
        stop: args.stop.clone(),
        top_logprobs: None,
        echo: false,
        schema: args.schema.as_deref().map(read_schema).transpose()?,
        check_cancelled: &|| Ok(()),
        on_delta: &mut |delta, _| print(|out| write!(out, "{}{}", std::mem::take(&mut prefix), delta.text)),
    };
    engine.run(job, Deadline::NONE)
}

fn read_schema(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    serde_json::from_slice(&text)
        .map_err(|e| Error::invalid_value("schema", format!("{} is not JSON: {e}", path.display())))
}
