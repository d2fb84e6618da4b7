//! Direct invocations: the JSON body of an HTTP request, and nothing around it.
//!
//! The route follows from the fields: `input` is OpenAI's, `inputs` is text-embeddings-inference's `/embed` (or
//! `/similarity`, where it has a `source_sentence`), `ids` is `/decode`, `audio` (base64) and `uri` are
//! `/v1/audio/transcriptions`, `messages` is `/v1/chat/completions`, `prompt` `/v1/completions`, `query` and `vector` are
//! `/search`, `documents` is `/documents`. A field `path` names any other route, and `method` its method.

use crate::api::routes::{RouteMatch, find};
use bytes::Bytes;
use http::{Method, Request, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use tealight_core::{Error, ErrorKind, Result};

#[derive(Deserialize)]
struct Fields<'a> {
    path: Option<String>,
    method: Option<String>,
    input: Option<serde::de::IgnoredAny>,
    #[serde(borrow)]
    inputs: Option<&'a RawValue>,
    ids: Option<serde::de::IgnoredAny>,
    messages: Option<serde::de::IgnoredAny>,
    prompt: Option<serde::de::IgnoredAny>,
    audio: Option<serde::de::IgnoredAny>,
    uri: Option<serde::de::IgnoredAny>,
    query: Option<serde::de::IgnoredAny>,
    documents: Option<serde::de::IgnoredAny>,
    vector: Option<serde::de::IgnoredAny>,
}

/// The request of a payload.
pub fn request(payload: &str) -> Result<Request<Bytes>> {
    let mut deserializer = serde_json::Deserializer::from_str(payload);
    let fields: Fields = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|e| Error::new(ErrorKind::InvalidType, format!("the event is not a JSON object of a request: {e}")))?;
    let path = path_of(&fields)?;
    let method = method_of(&fields, &path)?;
    Request::builder()
        .method(method)
        .uri(&path)
        .body(Bytes::copy_from_slice(payload.as_bytes()))
        .map_err(|_| Error::invalid_value("path", format!("path is {path:?}, which is not the path of a URL")))
}

fn path_of(fields: &Fields) -> Result<String> {
    match &fields.path {
        Some(path) if path.starts_with('/') => return Ok(path.clone()),
        Some(path) => {
            return Err(Error::invalid_value("path", format!("path is {path:?}, it must begin with a slash")));
        }
        None => {}
    }
    let is_similarity = |inputs: &RawValue| inputs.get().starts_with('{');
    let path = match (&fields.input, fields.inputs, &fields.ids) {
        (Some(_), _, _) => "/v1/embeddings",
        (_, Some(inputs), _) if is_similarity(inputs) => "/similarity",
        (_, Some(_), _) => "/embed",
        (_, _, Some(_)) => "/decode",
        _ if fields.messages.is_some() => "/v1/chat/completions",
        _ if fields.audio.is_some() || fields.uri.is_some() => "/v1/audio/transcriptions",
        _ if fields.prompt.is_some() => "/v1/completions",
        _ if fields.documents.is_some() => "/documents",
        _ if fields.query.is_some() || fields.vector.is_some() => "/search",
        _ => {
            let message = "the event has neither input, inputs, ids, messages, prompt, audio, uri, documents, query, vector nor path, so that its route is not known";
            return Err(Error::new(ErrorKind::UnsupportedEvent, message));
        }
    };
    Ok(path.into())
}

fn method_of(fields: &Fields, path: &str) -> Result<Method> {
    if let Some(name) = &fields.method {
        return Method::from_bytes(name.to_ascii_uppercase().as_bytes())
            .map_err(|_| Error::invalid_value("method", format!("method is {name:?}, which is not a method of HTTP")));
    }
    match find(&Method::POST, path.split('?').next().unwrap_or_default()) {
        Ok(RouteMatch::Route(..)) => Ok(Method::POST),
        _ => Ok(Method::GET),
    }
}

/// The JSON value `null`.
pub fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

/// The reply of a direct invocation: the body of a reply, or an error that fails the invocation.
pub fn reply(response: &Response<Bytes>) -> Result<Box<RawValue>> {
    if let Some(error) = response.extensions().get::<Error>() {
        return Err(error.clone());
    }
    let text = String::from_utf8_lossy(response.body());
    if text.is_empty() {
        return Ok(null());
    }
    // What is not JSON, such as /metrics, goes as a string.
    RawValue::from_string(text.to_string())
        .or_else(|_| serde_json::value::to_raw_value(&text))
        .map_err(|e| Error::internal(format!("a reply is not JSON: {e}")))
}
