//! One row of the route table, and the API style that it follows.

use super::context::{ApiResponse, RequestContext};
use tealight_core::{ErrorKind, Result};

/// The API that a route is compatible with. It decides the format and the status of errors, and the size limit of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiStyle {
    /// OpenAI, and tealight's own routes.
    OpenAi,
    /// OpenAI's audio routes, whose bodies may be larger, or forms.
    Audio,
    /// text-embeddings-inference.
    Tei,
}

impl ApiStyle {
    /// The HTTP status of an error.
    pub fn status(self, kind: ErrorKind) -> http::StatusCode {
        let status = match self {
            ApiStyle::OpenAi | ApiStyle::Audio => kind.status(),
            ApiStyle::Tei => kind.tei_status(),
        };
        http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The largest body, in bytes: the default of text-embeddings-inference, Lambda's limit for the payload of an invocation, or
    /// OpenAI's limit for recordings.
    pub fn payload_limit(self) -> usize {
        match self {
            ApiStyle::Tei => 2_000_000,
            ApiStyle::OpenAi => 6_291_456,
            ApiStyle::Audio => 26_214_400,
        }
    }
}

/// The authorization that a route requires if an API key is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// None: health checks, metrics, the OpenAPI document and the page.
    Public,
    /// The API key.
    ApiKey,
}

/// Generates the JSON schema of a type.
#[cfg(test)]
pub(super) type SchemaOf = fn(&mut schemars::SchemaGenerator) -> schemars::Schema;

/// A type of a request or response body. In tests it has a JSON schema, which the committed OpenAPI document is compared with.
#[cfg(test)]
pub(super) trait BodyType: schemars::JsonSchema {}
#[cfg(test)]
impl<T: schemars::JsonSchema> BodyType for T {}
/// A type of a request or response body.
#[cfg(not(test))]
pub(super) trait BodyType {}
#[cfg(not(test))]
impl<T> BodyType for T {}

type Handler = fn(&RequestContext) -> Result<ApiResponse>;

/// A row of the route table.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The only method of the handler.
    pub method: Method,
    /// A final `{model}` matches the rest of the path.
    pub path: &'static str,
    /// The API that it is compatible with.
    pub style: ApiStyle,
    /// The authorization that it requires.
    pub access: Access,
    /// Whether a request may take minutes. The server runs such requests apart from short ones.
    pub is_long_running: bool,
    /// Whether it is tealight's own, not of the API whose style it follows. Only the OpenAPI document distinguishes them.
    #[cfg(test)]
    pub is_own: bool,
    /// One line for the OpenAPI document.
    pub summary: &'static str,
    /// The schema of the request body; none if there is no body.
    #[cfg(test)]
    pub request: Option<SchemaOf>,
    /// The schema of the response body; none if it is not JSON.
    #[cfg(test)]
    pub response: Option<SchemaOf>,
    /// Produces the response.
    pub handler: Handler,
}

impl Route {
    /// A route for GET requests.
    pub(super) const fn get(path: &'static str, style: ApiStyle, summary: &'static str, handler: Handler) -> Self {
        let (method, access, is_long_running) = (Method::Get, Access::ApiKey, false);
        Self {
            method,
            path,
            style,
            access,
            is_long_running,
            #[cfg(test)]
            is_own: false,
            summary,
            #[cfg(test)]
            request: None,
            #[cfg(test)]
            response: None,
            handler,
        }
    }

    /// A route for POST requests.
    pub(super) const fn post(path: &'static str, style: ApiStyle, summary: &'static str, handler: Handler) -> Self {
        Self { method: Method::Post, ..Self::get(path, style, summary, handler) }
    }

    /// Sets the type of the request body.
    pub(super) const fn accepts<T: BodyType>(self) -> Self {
        Self {
            #[cfg(test)]
            request: Some(schemars::SchemaGenerator::subschema_for::<T>),
            ..self
        }
    }

    /// Sets the type of the response body.
    pub(super) const fn returns<T: BodyType>(self) -> Self {
        Self {
            #[cfg(test)]
            response: Some(schemars::SchemaGenerator::subschema_for::<T>),
            ..self
        }
    }

    /// Marks the route as tealight's own.
    pub(super) const fn own(self) -> Self {
        Self {
            #[cfg(test)]
            is_own: true,
            ..self
        }
    }

    /// Makes the route public: it requires no API key.
    pub(super) const fn public(self) -> Self {
        Self { access: Access::Public, ..self }
    }

    /// Makes the route long-running: requests may take minutes.
    #[cfg(any(feature = "speech", feature = "text"))]
    pub(super) const fn long_running(self) -> Self {
        Self { is_long_running: true, ..self }
    }
}

/// The methods of the routes. [`http::Method`] has a destructor, which a constant table cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads; HEAD requests get the same response without its body.
    Get,
    /// Sends a body.
    Post,
}

impl Method {
    /// The name in an HTTP request.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
        }
    }
}
