//! `/v1/completions`: <https://platform.openai.com/docs/api-reference/completions>.

use super::{Options, TextUsage, Texts, finite, now, number, shown_token, top};
use crate::api::routes::{Call, Reply};
use crate::api::stream::Events;
use crate::api::wire::{Inputs, parse};
use crate::engine::Input;
use crate::engine::generate::{Answer, Chance, Piece, Prompt};
use crate::error::{Error, Kind, Result};
use crate::models::llama::{Llama, Tokens};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// As OpenAI has it.
const MAX_TOKENS: usize = 16;

/// `POST /v1/completions`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct CompletionRequest {
    /// A model's name; the default one where it is missing.
    pub model: Option<String>,
    /// What the text begins with: a text, texts, token ids, or lists of them.
    pub prompt: Inputs,
    /// Tokens to write at most; 16 where it is missing.
    pub max_tokens: Option<usize>,
    /// Whether the prompt is part of the text.
    pub echo: Option<bool>,
    /// Of how many of the likeliest tokens logarithms of probabilities are told.
    pub logprobs: Option<usize>,
    /// Not done here.
    pub suffix: Option<String>,
    /// How tokens are chosen, and when a text ends.
    #[serde(flatten)]
    pub options: Options,
}

/// The reply.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CompletionResponse {
    /// Of this reply.
    pub id: String,
    /// `text_completion`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model that wrote.
    pub model: String,
    /// The texts.
    pub choices: Vec<CompletionChoice>,
    /// What it cost.
    pub usage: TextUsage,
}

/// A text.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CompletionChoice {
    /// The text.
    pub text: String,
    /// Which.
    pub index: usize,
    /// Of its tokens, where they are asked for.
    pub logprobs: Option<Value>,
    /// `stop` or `length`.
    pub finish_reason: &'static str,
}

/// Answers `POST /v1/completions`.
pub fn completions(call: &Call) -> Result<Reply> {
    let request: CompletionRequest = parse(call.body)?;
    if request.suffix.as_deref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(Error::value("suffix", "suffix is given; these models write at the end of a text only"));
    }
    let prompts: Vec<Prompt> = request.prompt.0.into_iter().map(prompt).collect();
    if prompts.is_empty() {
        return Err(Error::new(Kind::Empty, "prompt has 0 texts").param("prompt"));
    }
    let texts = Texts {
        model: request.model,
        prompts,
        options: &request.options,
        max_tokens: Some(request.max_tokens.unwrap_or(MAX_TOKENS)),
        top_logprobs: request.logprobs.map(|count| top("logprobs", Some(count))).transpose()?,
        echo: request.echo.unwrap_or(false),
        schema: None,
    };
    let (id, created) = (format!("cmpl-{:016x}", number()), now());
    if request.options.is_stream() {
        return stream(call, &texts, &id, created);
    }
    let (mut logprobs, mut choices, mut name) = (vec![], vec![], String::new());
    let collect = &mut |index: usize, piece: &Piece, model: &Llama| {
        logprobs.resize_with(index + 1, Logprobs::default);
        logprobs[index].add(&model.tokens, &piece.chances);
        Ok(())
    };
    let usage = texts.write(call, collect, &mut |_, answer| {
        name.clone_from(&answer.model);
        choices.push((answer.text.clone(), answer.finish.name()));
        Ok(())
    })?;
    logprobs.resize_with(choices.len(), Logprobs::default);
    let choice = |(index, ((text, finish_reason), logprobs)): (usize, ((String, _), Logprobs))| CompletionChoice {
        text,
        index,
        logprobs: texts.top_logprobs.map(|_| serde_json::to_value(logprobs).unwrap_or_default()),
        finish_reason,
    };
    let choices = choices.into_iter().zip(logprobs).enumerate().map(choice).collect();
    Reply::json(&CompletionResponse { id, object: "text_completion", created, model: name, choices, usage })
}

fn prompt(input: Input) -> Prompt {
    match input {
        Input::Text(text) => Prompt::Text(text),
        Input::Ids(ids) => Prompt::Tokens(ids),
    }
}

/// OpenAI's `logprobs` of completions.
#[derive(Debug, Default, Serialize)]
struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Map<String, Value>>>,
    text_offset: Vec<usize>,
    /// Characters so far.
    #[serde(skip)]
    characters: usize,
}

impl Logprobs {
    fn add(&mut self, tokens: &Tokens, chances: &[Chance]) {
        for chance in chances {
            let text = shown_token(tokens, chance.id);
            self.text_offset.push(self.characters);
            self.characters += text.chars().count();
            self.tokens.push(text);
            self.token_logprobs.push(chance.log.map(finite));
            let top = chance.top.iter().map(|(id, log)| (shown_token(tokens, *id), finite(*log).into()));
            self.top_logprobs.push(chance.log.map(|_| top.collect()));
        }
    }
}

fn stream(call: &Call, texts: &Texts, id: &str, created: u64) -> Result<Reply> {
    let model = call.engine.registry.text(texts.model.as_deref())?.name.clone();
    let mut events = Events::new(call.sink);
    let chunk = |choices: Value, usage: Value| {
        let mut chunk =
            json!({"id": id, "object": "text_completion", "created": created, "model": model, "choices": choices});
        if texts.options.counts_tokens() {
            chunk["usage"] = usage;
        }
        chunk
    };
    let outcome = send(call, texts, &mut events, &chunk).and_then(|()| events.done());
    events.end(outcome)
}

fn send(call: &Call, texts: &Texts, events: &mut Events, chunk: &dyn Fn(Value, Value) -> Value) -> Result<()> {
    let events = std::cell::RefCell::new(events);
    let choice = |index: usize, text: &str, logprobs: Value, finish: Option<&str>| {
        let choice = json!({"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish});
        events.borrow_mut().send(&chunk(json!([choice]), Value::Null))
    };
    let on_piece = &mut |index: usize, piece: &Piece, model: &Llama| {
        let told = || {
            let mut logprobs = Logprobs::default();
            logprobs.add(&model.tokens, &piece.chances);
            serde_json::to_value(logprobs).unwrap_or_default()
        };
        choice(index, &piece.text, texts.top_logprobs.map_or(Value::Null, |_| told()), None)
    };
    let on_end = &mut |index: usize, answer: &Answer| choice(index, "", Value::Null, Some(answer.finish.name()));
    let usage = texts.write(call, on_piece, on_end)?;
    if texts.options.counts_tokens() {
        let usage = serde_json::to_value(usage).unwrap_or_default();
        events.borrow_mut().send(&chunk(json!([]), usage))?;
    }
    Ok(())
}
