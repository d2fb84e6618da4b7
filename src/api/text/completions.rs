//! `/v1/completions`: <https://platform.openai.com/docs/api-reference/completions>.

use super::{Options, Part, TextUsage, Texts, finite, now, number, shown_token, top};
use crate::api::context::{ApiResponse, RequestContext};
use crate::api::json::{Inputs, parse};
use crate::engine::Input;
use crate::engine::generate::{Completion, Prompt, TokenLogprob};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tealight_core::{Error, ErrorKind, Result};
use tealight_models::tokenizer::LlamaTokenizer;

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
    /// As many as `n`: nothing is written only to be thrown away.
    pub best_of: Option<usize>,
    /// Of conversations only.
    pub response_format: Option<Value>,
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
pub fn completions(context: &RequestContext) -> Result<ApiResponse> {
    let request: CompletionRequest = parse(context.body)?;
    if request.suffix.as_deref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(Error::invalid_value("suffix", "suffix is given; these models write at the end of a text only"));
    }
    let n = request.options.texts()?;
    if let Some(best) = request.best_of.filter(|best| *best != n) {
        return Err(Error::invalid_value("best_of", format!("best_of is {best}, it must be n, which is {n}")));
    }
    if request.response_format.is_some_and(|format| format["type"] != "text") {
        let message = "response_format is given; /v1/chat/completions keeps to it";
        return Err(Error::invalid_value("response_format", message));
    }
    let prompts: Vec<Prompt> = request.prompt.0.into_iter().map(prompt).collect();
    if prompts.is_empty() {
        return Err(Error::new(ErrorKind::Empty, "prompt has 0 texts").with_param("prompt"));
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
    let id = format!("cmpl-{:016x}", number());
    if request.options.is_stream() {
        let mut characters = vec![0; texts.prompts.len() * request.options.texts()?];
        return texts.stream(context, &id, "text_completion", &mut |index, part| {
            let before = characters.get(index).copied().unwrap_or_default();
            if let (Part::Piece(piece, tokens), Some(count)) = (&part, characters.get_mut(index)) {
                *count += piece.logprobs.iter().map(|c| shown_token(tokens, c.id).chars().count()).sum::<usize>();
            }
            vec![chunk(&texts, index, part, before)]
        });
    }
    let created = now();
    let (answers, usage, work) = texts.answers(context)?;
    let loaded = texts.loaded(context)?;
    let choice = |(index, answer): (usize, Completion)| CompletionChoice {
        index,
        logprobs: texts.top_logprobs.map(|_| logprobs(&loaded.model.llama.tokenizer, &answer.logprobs, 0)),
        text: answer.text,
        finish_reason: answer.finish_reason.as_str(),
    };
    let choices = answers.into_iter().enumerate().map(choice).collect();
    let (object, model) = ("text_completion", loaded.name.clone());
    Ok(ApiResponse::json(&CompletionResponse { id, object, created, model, choices, usage })?
        .with_usage(work)
        .with_model(&loaded.name))
}

/// A part of a text in a stream, behind so many characters.
fn chunk(texts: &Texts, index: usize, part: Part, before: usize) -> Value {
    let choice = |text: &str, logprobs: Value, finish: Option<&str>| json!({"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish});
    match part {
        Part::Piece(piece, tokens) => {
            let told = texts.top_logprobs.map_or(Value::Null, |_| logprobs(tokens, &piece.logprobs, before));
            choice(&piece.text, told, None)
        }
        Part::End(answer) => choice("", Value::Null, Some(answer.finish_reason.as_str())),
    }
}

fn prompt(input: Input) -> Prompt {
    match input {
        Input::Text(text) => Prompt::Text(text),
        Input::Ids(ids) => Prompt::Tokens(ids),
    }
}

/// A token as the key of a map: bytes that are no whole characters are written as such, as OpenAI does, since many would look the
/// same.
fn key(tokens: &LlamaTokenizer, id: u32) -> String {
    let bytes = tokens.token_bytes(id);
    match std::str::from_utf8(bytes) {
        Ok(_) => shown_token(tokens, id),
        Err(_) => bytes.iter().fold("bytes:".into(), |key, byte| format!("{key}\\x{byte:02x}")),
    }
}

/// OpenAI's `logprobs` of completions.
#[derive(Debug, Default, Serialize)]
struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Map<String, Value>>>,
    text_offset: Vec<usize>,
}

fn logprobs(tokens: &LlamaTokenizer, logprobs: &[TokenLogprob], mut characters: usize) -> Value {
    let mut all = Logprobs::default();
    for chance in logprobs {
        let text = shown_token(tokens, chance.id);
        all.text_offset.push(characters);
        characters += text.chars().count();
        all.tokens.push(key(tokens, chance.id));
        all.token_logprobs.push(chance.logprob.map(finite));
        let top = chance.top.iter().map(|(id, log)| (key(tokens, *id), finite(*log).into()));
        all.top_logprobs.push(chance.logprob.map(|_| top.collect()));
    }
    serde_json::to_value(all).unwrap_or_default()
}
