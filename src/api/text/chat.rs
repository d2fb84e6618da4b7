//! `/v1/chat/completions`: <https://platform.openai.com/docs/api-reference/chat>.

use super::{Options, Part, TextUsage, Texts, finite, now, number, shown_token, top};
use crate::api::context::{ApiResponse, RequestContext};
use crate::api::json::parse;
use crate::engine::generate::{Completion, Prompt, TokenLogprob};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};
use tealight_models::tokenizer::LlamaTokenizer;

/// `POST /v1/chat/completions`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ChatRequest {
    /// A model's name; the default one where it is missing.
    pub model: Option<String>,
    /// `[{"role", "content"}]`; what roles there are is the model's to say.
    pub messages: Vec<Value>,
    /// Functions that may be called, for the model's template.
    pub tools: Option<Value>,
    /// Tokens to write at most; as many as fit where it is missing.
    pub max_completion_tokens: Option<usize>,
    /// The same by its old name.
    pub max_tokens: Option<usize>,
    /// Whether logarithms of probabilities are told.
    pub logprobs: Option<bool>,
    /// Of how many of the likeliest tokens.
    pub top_logprobs: Option<usize>,
    /// `{"type": "text"}`, `{"type": "json_object"}`, or `{"type": "json_schema", "json_schema": {"schema": ...}}`.
    pub response_format: Option<ResponseFormat>,
    /// How tokens are chosen, and when a text ends.
    #[serde(flatten)]
    pub options: Options,
}

/// What a text has to be.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct ResponseFormat {
    /// `text`, `json_object`, `json_schema`.
    #[serde(rename = "type")]
    pub kind: String,
    /// With a `schema`.
    pub json_schema: Option<Value>,
}

impl ResponseFormat {
    fn schema(&self) -> Result<Option<Value>> {
        match (self.kind.as_str(), &self.json_schema) {
            ("text", _) => Ok(None),
            ("json_object", _) => Ok(Some(json!({"type": "object"}))),
            ("json_schema", Some(about)) if about["schema"].is_object() || about["schema"].is_boolean() => {
                Ok(Some(about["schema"].clone()))
            }
            ("json_schema", _) => {
                Err(Error::invalid_value("response_format", "response_format has no json_schema.schema"))
            }
            (other, _) => {
                let message = format!(
                    "response_format is {:?}; known: text, json_object, json_schema",
                    truncate_for_display(other)
                );
                Err(Error::invalid_value("response_format", message))
            }
        }
    }
}

/// The reply.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChatResponse {
    /// Of this reply.
    pub id: String,
    /// `chat.completion`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model that wrote.
    pub model: String,
    /// The texts.
    pub choices: Vec<ChatChoice>,
    /// What it cost.
    pub usage: TextUsage,
}

/// A text.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChatChoice {
    /// Which.
    pub index: usize,
    /// What is answered.
    pub message: ChatMessage,
    /// Of its tokens, where they are asked for.
    pub logprobs: Option<Value>,
    /// `stop` or `length`.
    pub finish_reason: &'static str,
}

/// What is answered.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChatMessage {
    /// `assistant`.
    pub role: &'static str,
    /// The text.
    pub content: String,
    /// Never, of these models.
    pub refusal: Option<String>,
}

/// Answers `POST /v1/chat/completions`.
pub fn chat(context: &RequestContext) -> Result<ApiResponse> {
    let request: ChatRequest = parse(context.body)?;
    if request.messages.is_empty() {
        return Err(Error::new(ErrorKind::Empty, "messages has 0 messages").with_param("messages"));
    }
    let messages = request.messages.iter().enumerate().map(|(i, m)| message(i, m)).collect::<Result<_>>()?;
    let count = top("top_logprobs", request.top_logprobs)?;
    if request.tools.as_ref().is_some_and(|tools| !tools.is_array()) {
        return Err(Error::invalid_value("tools", "tools must be a list of functions"));
    }
    let texts = Texts {
        model: request.model,
        prompts: vec![Prompt::Chat(messages, request.tools)],
        options: &request.options,
        max_tokens: request.max_completion_tokens.or(request.max_tokens),
        top_logprobs: request.logprobs.unwrap_or(false).then_some(count),
        echo: false,
        schema: request.response_format.as_ref().map_or(Ok(None), ResponseFormat::schema)?,
    };
    let id = format!("chatcmpl-{:016x}", number());
    if request.options.is_stream() {
        let mut begun = None;
        return texts.stream(context, &id, "chat.completion.chunk", &mut |index, part| {
            let role =
                || choice(index, json!({"role": "assistant", "content": "", "refusal": null}), Value::Null, None);
            let first = (begun.replace(index) != Some(index)).then(role);
            first.into_iter().chain([chunk(&texts, index, part)]).collect()
        });
    }
    let created = now();
    let (answers, usage, work) = texts.answers(context)?;
    let loaded = texts.loaded(context)?;
    let choice = |(index, answer): (usize, Completion)| ChatChoice {
        index,
        logprobs: texts.top_logprobs.map(|_| logprobs(&loaded.model.llama.tokenizer, &answer.logprobs)),
        message: ChatMessage { role: "assistant", content: answer.text, refusal: None },
        finish_reason: answer.finish_reason.as_str(),
    };
    let choices = answers.into_iter().enumerate().map(choice).collect();
    let (object, model) = ("chat.completion", loaded.name.clone());
    Ok(ApiResponse::json(&ChatResponse { id, object, created, model, choices, usage })?
        .with_usage(work)
        .with_model(&loaded.name))
}

/// A part of a text in a stream.
fn chunk(texts: &Texts, index: usize, part: Part) -> Value {
    match part {
        Part::Piece(piece, tokens) => {
            let told = texts.top_logprobs.map_or(Value::Null, |_| logprobs(tokens, &piece.logprobs));
            choice(index, json!({"content": piece.text}), told, None)
        }
        Part::End(answer) => choice(index, json!({}), Value::Null, Some(answer.finish_reason.as_str())),
    }
}

fn choice(index: usize, delta: Value, logprobs: Value, finish: Option<&str>) -> Value {
    json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish})
}

/// OpenAI's `logprobs` of chat.
fn logprobs(tokens: &LlamaTokenizer, logprobs: &[TokenLogprob]) -> Value {
    let one = |id: u32, log: f32| {
        let bytes = tokens.special_token(id).map_or_else(|| tokens.token_bytes(id), str::as_bytes);
        json!({"token": shown_token(tokens, id), "logprob": finite(log), "bytes": bytes})
    };
    let whole = |chance: &TokenLogprob| {
        let mut value = one(chance.id, chance.logprob.unwrap_or(0.0));
        value["top_logprobs"] = chance.top.iter().map(|(id, log)| one(*id, *log)).collect();
        value
    };
    json!({"content": logprobs.iter().map(whole).collect::<Vec<_>>(), "refusal": null})
}

/// A message as templates read it: parts of content become one text.
fn message(index: usize, message: &Value) -> Result<Value> {
    let field = format!("messages[{index}]");
    let wrong = |what: &str| Error::new(ErrorKind::InvalidType, format!("{field}{what}")).with_param("messages");
    if !message["role"].is_string() {
        return Err(wrong(" has no role"));
    }
    let Value::Array(parts) = &message["content"] else {
        return match &message["content"] {
            Value::String(_) | Value::Null => Ok(message.clone()),
            _ => Err(wrong(".content is neither a text nor a list of parts")),
        };
    };
    let text = |part: &Value| match part["text"].as_str() {
        Some(text) if part["type"] == "text" => Ok(text.to_string()),
        _ => Err(wrong(".content has a part that is no text; only texts are read")),
    };
    let mut whole = message.clone();
    whole["content"] = parts.iter().map(text).collect::<Result<String>>()?.into();
    Ok(whole)
}
