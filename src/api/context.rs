//! The input and the output of handlers.

use super::metrics::Metrics;
use super::response_sender::ResponseSender;
use crate::engine::{Engine, Job, JobContext};
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use std::time::Duration;
use tealight_core::{Error, Result, Usage};

/// A request as its handler sees it: routed, authorized and within the size limit.
#[derive(Debug)]
pub struct RequestContext<'a> {
    /// The engine with the deadline of this request, to run jobs.
    pub job_context: JobContext<'a>,
    /// Counters of this process, which two routes report.
    pub metrics: &'a Metrics,
    /// The unparsed request body.
    pub body: &'a Bytes,
    /// The `Content-Type` header.
    pub content_type: Option<&'a str>,
    /// The `Accept` header.
    pub accept: Option<&'a str>,
    /// The part of the path that `{model}` stands for, percent-decoded.
    pub path_param: Option<&'a str>,
    /// Sends the response while it is produced; none if the transport cannot.
    pub sender: Option<&'a ResponseSender>,
    /// When this process started, in seconds since 1970.
    pub started: u64,
}

impl<'a> RequestContext<'a> {
    /// The engine, for its configuration and its list of models.
    pub fn engine(&self) -> &'a Engine {
        self.job_context.engine
    }

    /// Runs a job with the deadline of this request.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn run<J: Job>(&self, job: J) -> Result<J::Output> {
        self.job_context.run(job)
    }
}

/// A response that has been produced.
#[derive(Debug, Default)]
pub struct ApiResponse {
    /// 200, or 204 for a CORS preflight.
    pub status: StatusCode,
    /// Serialized once, by [`ApiResponse::json`].
    pub body: Body,
    /// The `Content-Type` header; none for an empty body.
    pub content_type: Option<&'static str>,
    /// Other headers.
    pub headers: Vec<(&'static str, String)>,
    /// Usage of the models by this request.
    pub usage: Option<Usage>,
    /// The model that did most of the work.
    pub model: Option<String>,
    /// Time from the request to this response.
    pub total: Duration,
}

/// The body of an [`ApiResponse`].
#[derive(Debug, Default)]
pub enum Body {
    /// No body.
    #[default]
    Empty,
    /// JSON. A direct invocation returns it as it is.
    Json(Box<RawValue>),
    /// Another format, or several lines of JSON.
    Text(String),
}

impl ApiResponse {
    /// A JSON body.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::Internal`]: `value` cannot be serialized.
    pub fn json(value: &impl Serialize) -> Result<Self> {
        let body = Body::Json(to_raw_value(value).map_err(not_json)?);
        Ok(Self { body, content_type: Some("application/json"), ..Self::default() })
    }

    /// A body in another format.
    pub fn text(body: String, content_type: &'static str) -> Self {
        Self { body: Body::Text(body), content_type: Some(content_type), ..Self::default() }
    }

    /// A 200 response without a body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Records the usage of the models, for metrics and headers.
    pub fn with_usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Records the name of the model that did most of the work, for the log.
    pub fn with_model(mut self, name: impl Into<String>) -> Self {
        self.model = Some(name.into());
        self
    }
}

impl Body {
    /// The body of an HTTP response, without a copy.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Body::Empty => Bytes::new(),
            Body::Json(json) => Box::<str>::from(json).into_string().into(),
            Body::Text(text) => text.into(),
        }
    }

    /// The result of a direct invocation: JSON as it is, other text as a JSON string, `null` for no body.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::Internal`]: the text cannot be serialized.
    pub fn into_json(self) -> Result<Box<RawValue>> {
        match self {
            Body::Empty => Ok(RawValue::NULL.to_owned()),
            Body::Json(json) => Ok(json),
            Body::Text(text) if text.is_empty() => Ok(RawValue::NULL.to_owned()),
            Body::Text(text) => serde_json::from_str(&text).or_else(|_| to_raw_value(&text)).map_err(not_json),
        }
    }
}

fn not_json(error: serde_json::Error) -> Error {
    Error::internal(format!("the response cannot be serialized: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_of_direct_invocation_is_json() {
        let json = |body: Body| body.into_json().unwrap().get().to_string();
        assert_eq!(json(ApiResponse::json(&[1.5, 2.0]).unwrap().body), "[1.5,2.0]");
        assert_eq!(json(Body::Empty), "null");
        assert_eq!(json(Body::Text(String::new())), "null");
        assert_eq!(json(Body::Text("{\"points\": []}\n".into())), "{\"points\": []}");
        assert_eq!(json(Body::Text("te_request_count 1\n".into())), "\"te_request_count 1\\n\"");
    }
}
