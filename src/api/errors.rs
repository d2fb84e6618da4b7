//! Error responses, in the format of each API.

use super::route::ApiStyle;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response};
use serde::Serialize;
use tealight_core::{Error, ErrorKind};

/// The body of an error response on OpenAI's routes.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OpenAiError {
    error: ErrorDetail,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ErrorDetail {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<String>,
    code: &'static str,
}

impl From<&Error> for OpenAiError {
    fn from(error: &Error) -> Self {
        Self {
            error: ErrorDetail {
                message: error.message.clone(),
                kind: error.kind.openai_type(),
                param: error.param.clone(),
                code: error.kind.code(),
            },
        }
    }
}

/// The body of an error response on the routes of text-embeddings-inference.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TeiError {
    error: String,
    error_type: &'static str,
}

impl From<&Error> for TeiError {
    fn from(error: &Error) -> Self {
        Self { error: error.message.clone(), error_type: error.kind.tei_type() }
    }
}

/// The HTTP response for an error.
pub(super) fn error_response(style: ApiStyle, error: &Error) -> Response<Bytes> {
    let body = match style {
        ApiStyle::OpenAi | ApiStyle::Audio => serde_json::to_vec(&OpenAiError::from(error)),
        ApiStyle::Tei => serde_json::to_vec(&TeiError::from(error)),
    };
    let mut response = Response::new(body.unwrap_or_default().into());
    *response.status_mut() = style.status(error.kind);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if error.kind == ErrorKind::InvalidApiKey {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if error.kind == ErrorKind::Overloaded {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The error for a body over the limit, in bytes.
pub(crate) fn body_too_large(length: usize, limit: usize) -> Error {
    Error::new(ErrorKind::BodyTooLarge, format!("the body has {length} bytes; the limit is {limit}"))
}
