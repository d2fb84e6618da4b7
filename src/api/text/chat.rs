//! `/v1/chat/completions`: <https://platform.openai.com/docs/api-reference/chat>.

use super::generation::{CompletionUsage, GenerationEvent, GenerationRequest, unix_time};
use super::sampling_options::{check_top_logprobs, generation_request, unique_number};
use super::token_text::{finite, token_text};
use crate::api::context::{ApiResponse, RequestContext};
use crate::api::json::parse;
use crate::engine::generate::{Completion, Prompt, TokenLogprob};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};
use tealight_models::tokenizer::LlamaTokenizer;

generation_request! {
    /// The body of `POST /v1/chat/completions`.
    pub struct ChatRequest {
        /// A model's name; default: the default text-generation model.
        pub model: Option<String>,
        /// `[{"role", "content"}]`; the chat template of the model decides which roles exist.
        pub messages: Vec<Value>,
        /// Functions that the model may call, for its chat template.
        pub tools: Option<Value>,
        /// Maximum tokens of the completion; default: what the context has room for.
        pub max_completion_tokens: Option<usize>,
        /// The former name of `max_completion_tokens`.
        pub max_tokens: Option<usize>,
        /// Whether to report log probabilities.
        pub logprobs: Option<bool>,
        /// How many of the most likely tokens to report per token; at most 20.
        pub top_logprobs: Option<usize>,
        /// `{"type": "text"}`, `{"type": "json_object"}`, or `{"type": "json_schema", "json_schema": {"schema": ...}}`.
        pub response_format: Option<ResponseFormat>,
    }
}

/// The format that a completion must have.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ResponseFormat {
    /// `text`, `json_object` or `json_schema`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For `json_schema`: an object with a `schema`.
    pub json_schema: Option<Value>,
}

impl ResponseFormat {
    fn schema(&self) -> Result<Option<Value>> {
        match (self.kind.as_str(), &self.json_schema) {
            ("text", _) => Ok(None),
            ("json_object", _) => Ok(Some(json!({"type": "object"}))),
            ("json_schema", Some(format)) if format["schema"].is_object() || format["schema"].is_boolean() => {
                Ok(Some(format["schema"].clone()))
            }
            ("json_schema", _) => {
                Err(Error::invalid_value("response_format", "response_format has no json_schema.schema"))
            }
            (other, _) => {
                let other = truncate_for_display(other);
                let message = format!("response_format is {other:?}; expected text, json_object or json_schema");
                Err(Error::invalid_value("response_format", message))
            }
        }
    }
}

/// The response to a `ChatRequest`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChatResponse {
    /// Identifies this response.
    pub id: String,
    /// `chat.completion`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The name of the model.
    pub model: String,
    /// `n` completions.
    pub choices: Vec<ChatChoice>,
    /// Token counts.
    pub usage: CompletionUsage,
}

/// One completion of a response.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChatChoice {
    /// Position in `choices`, from 0.
    pub index: usize,
    /// The message of the assistant.
    pub message: ChatMessage,
    /// Log probabilities of its tokens, if requested.
    pub logprobs: Option<Value>,
    /// `stop` or `length`.
    pub finish_reason: &'static str,
}

/// A message of the assistant.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChatMessage {
    /// `assistant`.
    pub role: &'static str,
    /// The generated text, without the stop sequence.
    pub content: String,
    /// Always null: these models report no refusals.
    pub refusal: Option<String>,
}

/// Handles `POST /v1/chat/completions`.
pub fn chat(context: &RequestContext) -> Result<ApiResponse> {
    let request: ChatRequest = parse(context.body)?;
    let request = validate(request)?;
    let id = format!("chatcmpl-{:016x}", unique_number());
    if request.options.stream {
        return stream(&request, context, &id);
    }
    let created = unix_time();
    let generated = request.run(context)?;
    let loaded = request.loaded_model(context)?;
    let choice = |(index, completion): (usize, Completion)| ChatChoice {
        index,
        logprobs: request.top_logprobs.map(|_| logprobs(&loaded.model.llama.tokenizer, &completion.logprobs)),
        message: ChatMessage { role: "assistant", content: completion.text, refusal: None },
        finish_reason: completion.finish_reason.as_str(),
    };
    let response = ChatResponse {
        id,
        object: "chat.completion",
        created,
        model: loaded.name.clone(),
        choices: generated.completions.into_iter().enumerate().map(choice).collect(),
        usage: generated.usage,
    };
    Ok(ApiResponse::json(&response)?.with_usage(generated.engine_usage).with_model(&loaded.name))
}

fn validate(request: ChatRequest) -> Result<GenerationRequest> {
    if request.messages.is_empty() {
        return Err(Error::new(ErrorKind::Empty, "messages is an empty list").with_param("messages"));
    }
    let messages = request.messages.iter().enumerate().map(|(i, m)| flatten_content(i, m)).collect::<Result<_>>()?;
    let top_logprobs = check_top_logprobs("top_logprobs", request.top_logprobs.unwrap_or(0))?;
    if request.tools.as_ref().is_some_and(|tools| !tools.is_array()) {
        return Err(Error::invalid_value("tools", "tools is not a list; expected a list of functions"));
    }
    Ok(GenerationRequest {
        options: request.sampling_options(),
        model: request.model,
        prompts: vec![Prompt::Chat(messages, request.tools)],
        max_tokens: request.max_completion_tokens.or(request.max_tokens),
        top_logprobs: request.logprobs.unwrap_or(false).then_some(top_logprobs),
        echo: false,
        schema: request.response_format.as_ref().map_or(Ok(None), ResponseFormat::schema)?,
    })
}

/// Streams the completions. The first chunk of each has the role.
fn stream(request: &GenerationRequest, context: &RequestContext, id: &str) -> Result<ApiResponse> {
    let mut started = None;
    request.stream(context, id, "chat.completion.chunk", &mut |index, event| {
        let role = json!({"role": "assistant", "content": "", "refusal": null});
        let is_first = started.replace(index) != Some(index);
        let first = is_first.then(|| choice(index, role, Value::Null, None));
        first.into_iter().chain([event_choice(request, index, event)]).collect()
    })
}

fn event_choice(request: &GenerationRequest, index: usize, event: GenerationEvent) -> Value {
    match event {
        GenerationEvent::Delta(delta, tokenizer) => {
            let logprobs = request.top_logprobs.map_or(Value::Null, |_| logprobs(tokenizer, &delta.logprobs));
            choice(index, json!({"content": delta.text}), logprobs, None)
        }
        GenerationEvent::Done(completion) => {
            choice(index, json!({}), Value::Null, Some(completion.finish_reason.as_str()))
        }
    }
}

fn choice(index: usize, delta: Value, logprobs: Value, finish_reason: Option<&str>) -> Value {
    json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason})
}

/// The `logprobs` of OpenAI's chat completions.
fn logprobs(tokenizer: &LlamaTokenizer, logprobs: &[TokenLogprob]) -> Value {
    let token = |id: u32, logprob: f32| {
        let bytes = tokenizer.special_token(id).map_or_else(|| tokenizer.token_bytes(id), str::as_bytes);
        json!({"token": token_text(tokenizer, id), "logprob": finite(logprob), "bytes": bytes})
    };
    let with_alternatives = |logprob: &TokenLogprob| {
        let mut value = token(logprob.id, logprob.logprob.unwrap_or(0.0));
        value["top_logprobs"] = logprob.top.iter().map(|(id, logprob)| token(*id, *logprob)).collect();
        value
    };
    json!({"content": logprobs.iter().map(with_alternatives).collect::<Vec<_>>(), "refusal": null})
}

/// A message as chat templates expect it: the parts of its content joined to one text.
fn flatten_content(index: usize, message: &Value) -> Result<Value> {
    let invalid =
        |what: &str| Error::new(ErrorKind::InvalidType, format!("messages[{index}]{what}")).with_param("messages");
    if !message["role"].is_string() {
        return Err(invalid(" has no role"));
    }
    let Value::Array(parts) = &message["content"] else {
        return match &message["content"] {
            Value::String(_) | Value::Null => Ok(message.clone()),
            _ => Err(invalid(".content has the wrong type; expected a string or a list of parts")),
        };
    };
    let text = |part: &Value| match part["text"].as_str() {
        Some(text) if part["type"] == "text" => Ok(text.to_string()),
        _ => Err(invalid(".content has a part of an unsupported type; supported: text")),
    };
    let mut flattened = message.clone();
    flattened["content"] = parts.iter().map(text).collect::<Result<String>>()?.into();
    Ok(flattened)
}
