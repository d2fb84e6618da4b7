//! The HTTP interface, without sockets: the same in Lambda and in `tealight serve`.

pub mod audio;
mod auth;
pub mod context;
pub mod documents;
mod errors;
mod json;
mod metrics;
mod multipart;
pub mod openai;
pub mod openapi;
mod prometheus;
pub mod response_sender;
pub mod route;
pub mod routes;
pub mod search;
pub mod sse;
pub mod status;
pub mod tei;
pub mod text;
mod ui;

use crate::engine::Engine;
use crate::telemetry::log;
use crate::telemetry::trace::TraceContext;
use auth::Auth;
use bytes::Bytes;
use context::{ApiResponse, RequestContext};
use errors::{OpenAiError, TeiError};
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response};
use metrics::Metrics;
use response_sender::ResponseSender;
use route::{Access, ApiStyle, Route};
use routes::{RequestInfo, RouteMatch};
use sse::EVENT_STREAM;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tealight_core::Deadline;
use tealight_core::Usage;
use tealight_core::{Error, ErrorKind, Result};

/// The interface over an engine.
#[derive(Debug)]
pub struct Api {
    /// The models.
    pub engine: Arc<Engine>,
    auth: Auth,
    metrics: Metrics,
    started: u64,
}

/// Who has seen to it that a caller may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// Nobody: the API key is checked, where one is configured.
    ApiKey,
    /// AWS, by IAM: a direct invocation.
    Iam,
}

impl Api {
    /// The interface over an engine.
    pub fn new(engine: Arc<Engine>) -> Self {
        let started = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs());
        let auth = Auth::new(&engine.config);
        Self { engine, auth, metrics: Metrics::default(), started }
    }

    /// Answers a request. Every reply, of an error too, is complete; a panic becomes an error. Where a reply is a stream, it goes to
    /// `sink`, if there is one, and what is returned has nothing for the client. A [`TraceContext`] among the request's extensions says
    /// what it is part of, and else its headers.
    pub fn handle(
        &self,
        request: &Request<Bytes>,
        trust: AuthMethod,
        deadline: Deadline,
        sink: Option<&ResponseSender>,
    ) -> Response<Bytes> {
        let trace = request.extensions().get::<TraceContext>().cloned();
        let trace = trace.unwrap_or_else(|| TraceContext::from_headers(request.headers(), None));
        self.shared(trace.in_scope(|| self.routed(request, trust, deadline, sink)))
    }

    /// The head of a reply whose body is a stream of events.
    pub fn stream_head(&self) -> Response<Bytes> {
        let mut response = respond(200, Bytes::new());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        self.shared(response)
    }

    fn routed(
        &self,
        request: &Request<Bytes>,
        trust: AuthMethod,
        deadline: Deadline,
        sink: Option<&ResponseSender>,
    ) -> Response<Bytes> {
        let info = RequestInfo::of(request);
        if request.method() == Method::OPTIONS && self.engine.config.cors_allow_origin.is_some() {
            return respond(204, Bytes::new());
        }
        let (route, path_param) = match routes::find(request.method(), request.uri().path()) {
            Err(error) => return self.turned_away(info, &error),
            Ok(RouteMatch::MethodNotAllowed(_, methods)) => return self.other_method(info, request.method(), &methods),
            Ok(RouteMatch::Route(route, path_param)) => (route, path_param),
        };
        log::take_loading();
        let text = |name| request.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        let outcome = self.checked(request, route, trust).and_then(|()| {
            let context = RequestContext {
                engine: &self.engine,
                metrics: &self.metrics,
                body: request.body(),
                content_type: text(CONTENT_TYPE),
                accept: text(ACCEPT),
                path_param,
                deadline,
                sender: sink,
                started: self.started,
            };
            catch_unwind(AssertUnwindSafe(|| (route.handler)(&context))).unwrap_or_else(|_| Err(panicked()))
        });
        let total = info.at.elapsed();
        let counted = outcome.as_ref().map(|reply| reply.usage).map_err(|error| error.kind);
        self.metrics.count(route.path, total, counted);
        self.report(route, &outcome, total);
        match outcome {
            Ok(reply) => self.accept(reply, total),
            Err(error) => refuse(route.style, &error),
        }
    }

    /// Logs a request, unless it asks for nothing but a sign of life.
    fn report(&self, route: &Route, outcome: &Result<ApiResponse>, total: Duration) {
        let (reply, error) = (outcome.as_ref().ok(), outcome.as_ref().err().map(|error| error.kind));
        if route.access == Access::Public && error.is_none() {
            return;
        }
        #[cfg(feature = "otel")]
        crate::telemetry::otel::name(route.method.name(), route.path);
        let usage = reply.and_then(|reply| reply.usage);
        let named = reply.and_then(|reply| reply.model.clone()).filter(|name| !name.is_empty());
        let model = named.or_else(|| usage.map(|_| self.engine.registry.default_name()));
        let loading = log::take_loading();
        let status = error.map_or(200, |kind| route.style.status(kind).as_u16());
        let (isa, threads) = (self.engine.cpu.isa.as_str(), self.engine.cpu.threads());
        let (route, model) = (route.path, model.as_deref());
        log::RequestSummary { route, status, error, model, usage, total, loading, isa, threads }.write();
    }

    /// Counts and logs what failed before it came to its route.
    pub fn note(&self, info: RequestInfo, error: &Error) {
        let (total, status) = (info.at.elapsed(), info.style.status(error.kind).as_u16());
        self.metrics.count(info.route, total, Err(error.kind));
        let (isa, threads) = (self.engine.cpu.isa.as_str(), self.engine.cpu.threads());
        let (route, error, loading) = (info.route, Some(error.kind), Duration::ZERO);
        log::RequestSummary { route, status, error, model: None, usage: None, total, loading, isa, threads }.write();
    }

    fn turned_away(&self, info: RequestInfo, error: &Error) -> Response<Bytes> {
        self.note(info, error);
        refuse(info.style, error)
    }

    fn other_method(&self, info: RequestInfo, method: &Method, allowed: &[&str]) -> Response<Bytes> {
        let allowed = allowed.join(", ");
        let message = format!("the method {method} is not allowed here; allowed: {allowed}");
        let mut response = self.turned_away(info, &Error::new(ErrorKind::MethodNotAllowed, message));
        if let Ok(value) = HeaderValue::from_str(&allowed) {
            response.headers_mut().insert(ALLOW, value);
        }
        response
    }

    fn checked(&self, request: &Request<Bytes>, route: &Route, trust: AuthMethod) -> Result<()> {
        if route.access == Access::ApiKey && trust == AuthMethod::ApiKey {
            self.auth.check(request.headers())?;
        }
        let limit = self.payload_limit(route.style);
        if request.body().len() > limit {
            return Err(too_large(request.body().len(), limit));
        }
        let takes_forms = route.style == ApiStyle::Audio;
        if route.request.is_some() { check_type(request.headers(), takes_forms) } else { Ok(()) }
    }

    /// An error outside [`Api::handle`] as a reply, counted and logged as one inside is.
    pub fn refuse(&self, trace: TraceContext, info: RequestInfo, error: &Error) -> Response<Bytes> {
        self.shared(trace.in_scope(|| self.turned_away(info, error)))
    }

    /// Lets browsers of the configured origin see a reply.
    fn shared(&self, mut response: Response<Bytes>) -> Response<Bytes> {
        if let Some(origin) = &self.engine.config.cors_allow_origin {
            allow_origin(response.headers_mut(), origin);
        }
        response
    }

    /// Refuses a wrong key as soon as the headers are there, where the right one is at hand.
    pub fn precheck(&self, headers: &HeaderMap) -> Result<()> {
        self.auth.precheck(headers)
    }

    /// The largest body of a route of this style, in bytes.
    pub fn payload_limit(&self, style: ApiStyle) -> usize {
        self.engine.config.payload_limit.unwrap_or(style.payload_limit())
    }

    fn accept(&self, reply: ApiResponse, total: Duration) -> Response<Bytes> {
        let mut response = respond(200, reply.body);
        if let Some(content_type) = reply.content_type {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        for (name, value) in reply.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        if let Some(usage) = reply.usage {
            self.timing(response.headers_mut(), &usage, total);
        }
        response
    }

    /// text-embeddings-inference's headers; times in whole milliseconds.
    fn timing(&self, headers: &mut HeaderMap, usage: &Usage, total: Duration) {
        let compute = usage.tokenization + usage.inference;
        let ms = |d: Duration| d.as_millis().to_string();
        let values = [
            ("x-compute-type", format!("cpu+{}", self.engine.cpu.isa.as_str())),
            ("x-compute-time", ms(compute)),
            ("x-compute-characters", usage.characters.to_string()),
            ("x-compute-tokens", usage.tokens.to_string()),
            ("x-total-time", ms(total)),
            ("x-tokenization-time", ms(usage.tokenization)),
            ("x-queue-time", ms(total.saturating_sub(compute))),
            ("x-inference-time", ms(usage.inference)),
        ];
        for (name, value) in values {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

/// The error of a body over its limit, for callers that see its length before its bytes.
pub fn too_large(length: usize, limit: usize) -> Error {
    Error::new(ErrorKind::BodyTooLarge, format!("the body has {length} bytes, the limit is {limit}"))
}

fn panicked() -> Error {
    Error::internal("a defect of tealight stopped this request; it is in the log")
}

/// JSON, or what clients send that do not think about it: nothing, or curl's default.
fn check_type(headers: &HeaderMap, forms_too: bool) -> Result<()> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
    let is_form = forms_too && value.starts_with("multipart/form-data");
    if is_form || value.contains("json") || value.starts_with("application/x-www-form-urlencoded") {
        return Ok(());
    }
    let wanted = if forms_too { "multipart/form-data or application/json" } else { "application/json" };
    Err(Error::new(ErrorKind::UnsupportedMediaType, format!("the content type is {value:?}, it must be {wanted}")))
}

/// An error as a reply, in the form of the route's style.
fn refuse(style: ApiStyle, error: &Error) -> Response<Bytes> {
    if !error.kind.is_retryable() && error.kind.status() >= 500 {
        tracing::error!(code = error.kind.code(), "{error}");
    }
    let body = match style {
        ApiStyle::OpenAi | ApiStyle::Audio => serde_json::to_vec(&OpenAiError::from(error)),
        ApiStyle::Tei => serde_json::to_vec(&TeiError::from(error)),
    };
    let mut response = respond(style.status(error.kind).as_u16(), body.unwrap_or_default().into());
    // For a direct invocation, whose errors are finer than the words of TEI's bodies.
    response.extensions_mut().insert(error.clone());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if error.kind == ErrorKind::InvalidApiKey {
        response.headers_mut().insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if error.kind == ErrorKind::Overloaded {
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn respond(status: u16, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response
}

fn allow_origin(headers: &mut HeaderMap, origin: &str) {
    let values = [
        ("access-control-allow-origin", origin),
        ("access-control-allow-methods", "GET, POST, OPTIONS"),
        ("access-control-allow-headers", "authorization, content-type"),
    ];
    for (name, value) in values {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}
