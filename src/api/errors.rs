//! Bodies of errors, in the shape of each API.

use schemars::JsonSchema;
use serde::Serialize;
use tealight_core::Error;

/// OpenAI's form of an error.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ErrorBody")]
pub struct OpenAiError {
    error: ErrorDetail,
}

#[derive(Debug, Serialize, JsonSchema)]
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

/// text-embeddings-inference's form of an error.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ErrorBody2")]
pub struct TeiError {
    error: String,
    error_type: &'static str,
}

impl From<&Error> for TeiError {
    fn from(error: &Error) -> Self {
        Self { error: error.message.clone(), error_type: error.kind.tei_type() }
    }
}
