//! `/v1/chat/completions`: <https://platform.openai.com/docs/api-reference/chat>.

use super::{Options, TextUsage, Texts, chat_logprobs, now, number, top};
use crate::api::routes::{Call, Reply};
use crate::api::stream::Events;
use crate::api::wire::parse;
use crate::engine::generate::{Answer, Piece, Prompt};
use crate::error::{Error, Kind, Result, shown};
use crate::models::llama::Llama;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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
            ("json_schema", _) => Err(Error::value("response_format", "response_format has no json_schema.schema")),
            (other, _) => {
                let message = format!("response_format is {:?}; known: text, json_object, json_schema", shown(other));
                Err(Error::value("response_format", message))
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
pub fn chat(call: &Call) -> Result<Reply> {
    let request: ChatRequest = parse(call.body)?;
    if request.messages.is_empty() {
        return Err(Error::new(Kind::Empty, "messages has 0 messages").param("messages"));
    }
    let messages = request.messages.iter().enumerate().map(|(i, m)| message(i, m)).collect::<Result<_>>()?;
    let count = top("top_logprobs", request.top_logprobs)?;
    let texts = Texts {
        model: request.model,
        prompts: vec![Prompt::Chat(messages, request.tools)],
        options: &request.options,
        max_tokens: request.max_completion_tokens.or(request.max_tokens),
        top_logprobs: request.logprobs.unwrap_or(false).then_some(count),
        echo: false,
        schema: request.response_format.as_ref().map_or(Ok(None), ResponseFormat::schema)?,
    };
    let (id, created) = (format!("chatcmpl-{:016x}", number()), now());
    if request.options.is_stream() {
        return stream(call, &texts, &id, created);
    }
    let (mut logprobs, mut choices, mut name) = (vec![vec![]], vec![], String::new());
    let collect = &mut |index: usize, piece: &Piece, model: &Llama| {
        logprobs.resize(index + 1, vec![]);
        logprobs[index].extend(chat_logprobs(&model.tokens, &piece.chances));
        Ok(())
    };
    let usage = texts.write(call, collect, &mut |_, answer| {
        name.clone_from(&answer.model);
        choices.push((answer.text.clone(), answer.finish.name()));
        Ok(())
    })?;
    logprobs.resize(choices.len(), vec![]);
    let choice = |(index, ((content, finish_reason), logprobs)): (usize, ((String, _), Vec<Value>))| ChatChoice {
        index,
        message: ChatMessage { role: "assistant", content, refusal: None },
        logprobs: texts.top_logprobs.map(|_| json!({"content": logprobs, "refusal": null})),
        finish_reason,
    };
    let choices = choices.into_iter().zip(logprobs).enumerate().map(choice).collect();
    Reply::json(&ChatResponse { id, object: "chat.completion", created, model: name, choices, usage })
}

/// A message as templates read it: parts of content become one text.
fn message(index: usize, message: &Value) -> Result<Value> {
    let field = format!("messages[{index}]");
    let wrong = |what: &str| Error::new(Kind::InvalidShape, format!("{field}{what}")).param("messages");
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

fn stream(call: &Call, texts: &Texts, id: &str, created: u64) -> Result<Reply> {
    let model = call.engine.registry.text(texts.model.as_deref())?.name.clone();
    let mut events = Events::new(call.sink);
    let outcome = send(call, texts, &mut events, &|choices: Value, usage: Value| {
        let mut chunk = json!({"id": id, "object": "chat.completion.chunk", "created": created, "model": model, "choices": choices});
        if texts.options.counts_tokens() {
            chunk["usage"] = usage;
        }
        chunk
    });
    let outcome = outcome.and_then(|()| events.done());
    events.end(outcome)
}

fn send(call: &Call, texts: &Texts, events: &mut Events, chunk: &dyn Fn(Value, Value) -> Value) -> Result<()> {
    let events = std::cell::RefCell::new(events);
    let choice = |index: usize, delta: Value, logprobs: Value, finish: Option<&str>| {
        let choice = json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish});
        events.borrow_mut().send(&chunk(json!([choice]), Value::Null))
    };
    let mut begun = None;
    let begin = |index: usize, begun: &mut Option<usize>| {
        if *begun == Some(index) {
            return Ok(());
        }
        *begun = Some(index);
        choice(index, json!({"role": "assistant", "content": "", "refusal": null}), Value::Null, None)
    };
    let begun = std::cell::RefCell::new(&mut begun);
    let on_piece = &mut |index: usize, piece: &Piece, model: &Llama| {
        begin(index, &mut begun.borrow_mut())?;
        let told = || json!({"content": chat_logprobs(&model.tokens, &piece.chances), "refusal": null});
        let logprobs = texts.top_logprobs.map_or(Value::Null, |_| told());
        choice(index, json!({"content": piece.text}), logprobs, None)
    };
    let on_end = &mut |index: usize, answer: &Answer| {
        begin(index, &mut begun.borrow_mut())?;
        choice(index, json!({}), Value::Null, Some(answer.finish.name()))
    };
    let usage = texts.write(call, on_piece, on_end)?;
    if texts.options.counts_tokens() {
        let usage = serde_json::to_value(usage).unwrap_or_default();
        events.borrow_mut().send(&chunk(json!([]), usage))?;
    }
    Ok(())
}
