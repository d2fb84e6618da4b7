//! `tealight generate`: text that goes on, or a conversation.

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

/// Which model, on how many threads.
#[derive(Debug, Args)]
pub(super) struct TextArgs {
    /// A GGUF file, a model folder, or a name [default: $TEALIGHT_TEXT_MODEL or smollm2-135m-instruct]
    #[arg(long, short, value_name = "MODEL")]
    model: Option<String>,
    /// Threads [default: $TEALIGHT_THREADS or the cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl TextArgs {
    pub(super) fn engine(&self) -> Result<Engine> {
        let mut config = Config::from_env()?;
        config.threads = self.threads.map_or(config.threads, usize::from);
        config.text_model = self.model.clone().unwrap_or(config.text_model);
        Engine::new(config)
    }
}

#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    /// What the text begins with; with --chat the first question. Read from stdin where it is missing
    prompt: Option<String>,
    #[command(flatten)]
    model: TextArgs,
    /// Completion as in a conversation, by the model's template; on a terminal the conversation goes on
    #[arg(long)]
    chat: bool,
    /// What the model is to be, with --chat
    #[arg(long, requires = "chat")]
    system: Option<String>,
    /// Tokens to write at most [default: as many as fit]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// How freely: 0 takes the likeliest token
    #[arg(long, default_value_t = 0.8, value_name = "T")]
    temperature: f32,
    /// Only so many of the likeliest tokens; 0 takes all
    #[arg(long, default_value_t = 40, value_name = "K")]
    top_k: usize,
    /// Only the likeliest tokens whose probabilities add up to this
    #[arg(long, default_value_t = 0.95, value_name = "P")]
    top_p: f32,
    /// Only tokens at least so likely, as a part of the likeliest
    #[arg(long, default_value_t = 0.05, value_name = "P")]
    min_p: f32,
    /// Makes tokens that were there less likely, above 1
    #[arg(long, default_value_t = 1.0, value_name = "R")]
    repetition_penalty: f32,
    /// Makes tokens that were written less likely, from -2 to 2
    #[arg(long, default_value_t = 0.0, value_name = "P", allow_hyphen_values = true)]
    presence_penalty: f32,
    /// The same for each time that they were written
    #[arg(long, default_value_t = 0.0, value_name = "P", allow_hyphen_values = true)]
    frequency_penalty: f32,
    /// The same draws each time [default: another each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// A file with a JSON schema that the text keeps to
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// A text that ends it; may be given more than once
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

pub(super) fn run(args: &GenerateArgs) -> Result<()> {
    let engine = args.model.engine()?;
    if !args.chat {
        let prompt = args.prompt.clone().map_or_else(read_all, Ok)?;
        answer(&engine, args, Prompt::Text(prompt.clone()), prompt)?;
        return print(|out| writeln!(out));
    }
    let mut messages: Vec<Value> = vec![];
    messages.extend(args.system.as_ref().map(|text| json!({"role": "system", "content": text})));
    let mut question = args.prompt.clone();
    while let Some(text) = question.take().map_or_else(ask, |text| Ok(Some(text)))? {
        messages.push(json!({"role": "user", "content": text}));
        let answer = loop {
            let answer = answer(&engine, args, Prompt::Chat(messages.clone(), None), String::new());
            let first = usize::from(args.system.is_some());
            match answer {
                // What was said first is what is missed least.
                Err(error) if error.kind == ErrorKind::TooLong && messages.len() > first + 2 => {
                    messages.drain(first..first + 2);
                }
                answer => break answer?,
            }
        };
        print(|out| writeln!(out))?;
        messages.push(json!({"role": "assistant", "content": answer.text}));
        if !std::io::stdin().is_terminal() && args.prompt.is_some() {
            break;
        }
    }
    Ok(())
}

fn read_all() -> Result<String> {
    let text = std::io::read_to_string(std::io::stdin()).map_err(unread)?;
    Ok(text.trim_end().to_string())
}

fn unread(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("cannot read stdin: {error}"))
}

/// The next line, if there is one.
fn ask() -> Result<Option<String>> {
    if std::io::stdin().is_terminal() {
        print(|out| write!(out, "> "))?;
    }
    let mut line = String::new();
    let count = std::io::stdin().lock().read_line(&mut line).map_err(unread)?;
    Ok((count > 0).then(|| line.trim_end().to_string()))
}

/// Writes `before`, and then what comes after the prompt, once there is any of it.
fn answer(engine: &Engine, args: &GenerateArgs, prompt: Prompt, mut before: String) -> Result<Completion> {
    let now = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos() as u64);
    let sampling = SamplingParams {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty,
        presence_penalty: args.presence_penalty,
        frequency_penalty: args.frequency_penalty,
        seed: args.seed.unwrap_or_else(now),
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
        schema: args.schema.as_deref().map(schema).transpose()?,
        check_cancelled: &|| Ok(()),
        on_delta: &mut |piece, _| print(|out| write!(out, "{}{}", std::mem::take(&mut before), piece.text)),
    };
    engine.run(job, Deadline::NONE)
}

fn schema(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    serde_json::from_slice(&text)
        .map_err(|e| Error::invalid_value("schema", format!("{} is not JSON: {e}", path.display())))
}
