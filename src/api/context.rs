//! What a handler gets and returns.

use super::metrics::Metrics;
use super::response_sender::ResponseSender;
use crate::engine::Engine;
use bytes::Bytes;
use tealight_core::Usage;
use tealight_core::{Deadline, Error, Result};

/// A request on its way to a handler.
#[derive(Debug)]
pub struct RequestContext<'a> {
    /// The models.
    pub engine: &'a Engine,
    /// Counters.
    pub metrics: &'a Metrics,
    /// The body.
    pub body: &'a Bytes,
    /// Its type.
    pub content_type: Option<&'a str>,
    /// The types that the caller takes.
    pub accept: Option<&'a str>,
    /// What the path has in place of `{model}`, decoded.
    pub path_param: Option<String>,
    /// When the reply must be ready.
    pub deadline: Deadline,
    /// Where the reply goes while it is made, where the transport can do that.
    pub sender: Option<&'a ResponseSender>,
    /// When this process started, in seconds since 1970.
    pub started: u64,
}

/// A reply on its way out.
#[derive(Debug, Default)]
pub struct ApiResponse {
    /// The body.
    pub body: Bytes,
    /// Its type; none for an empty body.
    pub content_type: Option<&'static str>,
    /// Headers besides the type.
    pub headers: Vec<(&'static str, String)>,
    /// What the models did for it.
    pub usage: Option<Usage>,
    /// The model that did most of it.
    pub model: Option<String>,
}

impl ApiResponse {
    /// A JSON body.
    pub fn json(value: &impl serde::Serialize) -> Result<Self> {
        let body = serde_json::to_vec(value).map_err(|e| Error::internal(format!("a reply is not JSON: {e}")))?;
        Ok(Self { body: body.into(), content_type: Some("application/json"), ..Self::default() })
    }

    /// A text body.
    pub fn text(body: String, content_type: &'static str) -> Self {
        Self { body: body.into(), content_type: Some(content_type), ..Self::default() }
    }

    /// No body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Says what the models did for it.
    pub fn with_usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Names the model that did it.
    pub fn with_model(mut self, name: impl Into<String>) -> Self {
        self.model = Some(name.into());
        self
    }
}
