//! `/v1/completions`: <https://platform.openai.com/docs/api-reference/completions>.

use super::generation::{CompletionUsage, GenerationEvent, GenerationRequest, unix_time};
use super::sampling_options::{check_top_logprobs, generation_request, unique_number};
use super::token_text::{finite, token_text};
use crate::api::context::{ApiResponse, RequestContext};
use crate::api::json::{Inputs, parse};
use crate::engine::Input;
use crate::engine::generate::{Completion, Prompt, TokenLogprob};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tealight_core::{Error, ErrorKind, Result};
use tealight_models::tokenizer::LlamaTokenizer;

/// OpenAI's default.
const DEFAULT_MAX_TOKENS: usize = 16;

generation_request! {
    /// The body of `POST /v1/completions`.
    pub struct CompletionRequest {
        /// A model's name; default: the default text-generation model.
        pub model: Option<String>,
        /// What to complete: a text, a list of texts, token ids, or a list of lists of token ids.
        pub prompt: Inputs,
        /// Maximum tokens of the completion; default 16.
        pub max_tokens: Option<usize>,
        /// Whether the completion starts with the prompt.
        pub echo: Option<bool>,
        /// Whether to report log probabilities, and how many of the most likely tokens per token; at most 20.
        pub logprobs: Option<usize>,
        /// Not supported.
        pub suffix: Option<String>,
        /// Must equal `n`: no completion is generated only to be discarded.
        pub best_of: Option<usize>,
        /// Only supported on `/v1/chat/completions`.
        pub response_format: Option<Value>,
    }
}

/// The response to a `CompletionRequest`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CompletionResponse {
    /// Identifies this response.
    pub id: String,
    /// `text_completion`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The name of the model.
    pub model: String,
    /// One completion per prompt and `n`.
    pub choices: Vec<CompletionChoice>,
    /// Token counts.
    pub usage: CompletionUsage,
}

/// One completion of a response.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CompletionChoice {
    /// The generated text, without the stop sequence.
    pub text: String,
    /// Position in `choices`, from 0.
    pub index: usize,
    /// Log probabilities of its tokens, if requested.
    pub logprobs: Option<Value>,
    /// `stop` or `length`.
    pub finish_reason: &'static str,
}

/// Handles `POST /v1/completions`.
pub fn completions(context: &RequestContext) -> Result<ApiResponse> {
    let request: CompletionRequest = parse(context.body)?;
    let request = validate(request)?;
    let id = format!("cmpl-{:016x}", unique_number());
    if request.options.stream {
        return stream(&request, context, &id);
    }
    let created = unix_time();
    let generated = request.run(context)?;
    let loaded = request.loaded_model(context)?;
    let choice = |(index, completion): (usize, Completion)| CompletionChoice {
        index,
        logprobs: request.top_logprobs.map(|_| logprobs(&loaded.model.llama.tokenizer, &completion.logprobs, 0)),
        text: completion.text,
        finish_reason: completion.finish_reason.as_str(),
    };
    let response = CompletionResponse {
        id,
        object: "text_completion",
        created,
        model: loaded.name.clone(),
        choices: generated.completions.into_iter().enumerate().map(choice).collect(),
        usage: generated.usage,
    };
    Ok(ApiResponse::json(&response)?.with_usage(generated.engine_usage).with_model(&loaded.name))
}

fn validate(request: CompletionRequest) -> Result<GenerationRequest> {
    let options = request.sampling_options();
    if request.suffix.as_deref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(Error::invalid_value("suffix", "suffix is not supported; completions follow their prompt"));
    }
    let n = options.completions_per_prompt()?;
    if let Some(best_of) = request.best_of.filter(|best_of| *best_of != n) {
        return Err(Error::invalid_value("best_of", format!("best_of is {best_of}; expected n, which is {n}")));
    }
    if request.response_format.is_some_and(|format| format["type"] != "text") {
        let message = "response_format is not supported here; use /v1/chat/completions";
        return Err(Error::invalid_value("response_format", message));
    }
    let prompts: Vec<Prompt> = request.prompt.0.into_iter().map(to_prompt).collect();
    if prompts.is_empty() {
        return Err(Error::new(ErrorKind::Empty, "prompt is an empty list").with_param("prompt"));
    }
    Ok(GenerationRequest {
        model: request.model,
        prompts,
        options,
        max_tokens: Some(request.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS)),
        top_logprobs: request.logprobs.map(|count| check_top_logprobs("logprobs", count)).transpose()?,
        echo: request.echo.unwrap_or(false),
        schema: None,
    })
}

fn to_prompt(input: Input) -> Prompt {
    match input {
        Input::Text(text) => Prompt::Text(text),
        Input::Ids(ids) => Prompt::Tokens(ids),
    }
}

/// Streams the completions. Log probabilities have offsets into the whole text of a completion.
fn stream(request: &GenerationRequest, context: &RequestContext, id: &str) -> Result<ApiResponse> {
    let mut text_lengths = vec![0; request.prompts.len() * request.options.completions_per_prompt()?];
    request.stream(context, id, "text_completion", &mut |index, event| {
        let offset = text_lengths.get(index).copied().unwrap_or_default();
        if let (GenerationEvent::Delta(delta, tokenizer), Some(length)) = (&event, text_lengths.get_mut(index)) {
            let characters = |logprob: &TokenLogprob| token_text(tokenizer, logprob.id).chars().count();
            *length += delta.logprobs.iter().map(characters).sum::<usize>();
        }
        vec![event_choice(request, index, event, offset)]
    })
}

/// The choice of a chunk. `offset` is the position of its text in the completion, in characters.
fn event_choice(request: &GenerationRequest, index: usize, event: GenerationEvent, offset: usize) -> Value {
    let (text, logprobs, finish_reason) = match event {
        GenerationEvent::Delta(delta, tokenizer) => {
            let logprobs = request.top_logprobs.map_or(Value::Null, |_| logprobs(tokenizer, &delta.logprobs, offset));
            (delta.text.as_str(), logprobs, None)
        }
        GenerationEvent::Done(completion) => ("", Value::Null, Some(completion.finish_reason.as_str())),
    };
    json!({"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish_reason})
}

/// A token as the key of a map. Bytes that are not whole characters are written as bytes, as OpenAI does: as U+FFFD, different
/// tokens would have the same key.
fn token_key(tokenizer: &LlamaTokenizer, id: u32) -> String {
    let bytes = tokenizer.token_bytes(id);
    match std::str::from_utf8(bytes) {
        Ok(_) => token_text(tokenizer, id),
        Err(_) => bytes.iter().fold("bytes:".into(), |key, byte| format!("{key}\\x{byte:02x}")),
    }
}

/// The `logprobs` of OpenAI's completions: lists with one element per token.
#[derive(Debug, Default, Serialize)]
struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Map<String, Value>>>,
    /// Start of each token in the text, in characters.
    text_offset: Vec<usize>,
}

fn logprobs(tokenizer: &LlamaTokenizer, logprobs: &[TokenLogprob], mut offset: usize) -> Value {
    let mut lists = CompletionLogprobs::default();
    for logprob in logprobs {
        lists.text_offset.push(offset);
        offset += token_text(tokenizer, logprob.id).chars().count();
        lists.tokens.push(token_key(tokenizer, logprob.id));
        lists.token_logprobs.push(logprob.logprob.map(finite));
        let top = logprob.top.iter().map(|(id, logprob)| (token_key(tokenizer, *id), finite(*logprob).into()));
        lists.top_logprobs.push(logprob.logprob.map(|_| top.collect()));
    }
    serde_json::to_value(lists).unwrap_or_default()
}
