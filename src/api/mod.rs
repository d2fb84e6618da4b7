//! The HTTP interface without sockets: the function and `tealight serve` hand their requests to it.
//!
//! [`routes`] looks up the route of a request, once. [`Api::handle`] authorizes it, runs the route's handler, and counts and logs
//! the outcome. The handler parses the body, runs a job on the engine, and serializes the response.

#[cfg(feature = "speech")]
pub mod audio;
mod auth;
pub mod context;
pub mod documents;
pub mod errors;
mod json;
mod metrics;
pub mod openai;
pub mod openapi;
mod prometheus;
pub mod request;
pub mod response_sender;
pub mod route;
pub mod routes;
#[cfg(feature = "index")]
pub mod search;
#[cfg(any(feature = "speech", feature = "text"))]
mod sse;
pub mod status;
pub mod tei;
#[cfg(feature = "text")]
pub mod text;
#[cfg(feature = "ui")]
mod ui;

use crate::engine::{Engine, JobContext, LoadTimer, ModelTask};
use crate::telemetry::log;
use auth::Auth;
use bytes::Bytes;
use context::{ApiResponse, RequestContext};
use errors::{body_too_large, error_response};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use metrics::Metrics;
use request::{ApiRequest, RequestInfo};
use response_sender::{EVENT_STREAM, ResponseSender};
use route::{Access, ApiStyle, Route};
use routes::RouteMatch;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tealight_core::{Deadline, Error, ErrorKind, Result, Usage, truncate_for_display};

/// The interface to an engine.
#[derive(Debug)]
pub struct Api {
    /// Runs the models.
    pub engine: Arc<Engine>,
    auth: Auth,
    metrics: Metrics,
    started: u64,
}

/// How a request is authorized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// The API key is checked, if one is configured.
    ApiKey,
    /// AWS IAM has authorized the request before it arrived: a direct invocation.
    Iam,
}

impl Api {
    /// An interface to this engine.
    pub fn new(engine: Arc<Engine>) -> Self {
        let started = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs());
        let auth = Auth::new(&engine.config);
        Self { engine, auth, metrics: Metrics::default(), started }
    }

    /// Runs a request; counts and logs the outcome, except that of a CORS preflight. If the response is streamed, it goes to
    /// `sender`, and the returned response has nothing more for the client. A panic of a handler is returned as an error.
    ///
    /// # Errors
    /// The request has no route, is not authorized, is invalid, or fails.
    pub fn handle(
        &self,
        request: &ApiRequest,
        auth: AuthMethod,
        deadline: Deadline,
        sender: Option<&ResponseSender>,
    ) -> Result<ApiResponse> {
        request.info.trace.clone().in_scope(|| self.dispatch(request, auth, deadline, sender))
    }

    /// As [`Api::handle`], for a request and a response of HTTP.
    pub fn handle_http(
        &self,
        request: &ApiRequest,
        deadline: Deadline,
        sender: Option<&ResponseSender>,
    ) -> Response<Bytes> {
        let outcome = self.handle(request, AuthMethod::ApiKey, deadline, sender);
        self.with_cors(match outcome {
            Ok(response) => self.http_response(response),
            Err(error) => {
                let mut response = error_response(request.info.style, &error);
                if let RouteMatch::MethodNotAllowed { allowed, .. } = &request.route_match {
                    insert(response.headers_mut(), [("allow", allowed.join(", "))]);
                }
                response
            }
        })
    }

    /// The status and headers of a response that is streamed as server-sent events.
    pub fn stream_head(&self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        self.with_cors(response)
    }

    /// Counts and logs an error that occurred outside [`Api::handle`], and converts it to a response.
    pub fn reject(&self, info: &RequestInfo, error: &Error) -> Response<Bytes> {
        self.record_error(info, error);
        info.trace.clone().in_scope(|| log_internal(error));
        self.with_cors(error_response(info.style, error))
    }

    /// Counts and logs an error that occurred outside [`Api::handle`].
    pub fn record_error(&self, info: &RequestInfo, error: &Error) {
        let (outcome, total) = (Err(error.clone()), info.received_at.elapsed());
        info.trace.clone().in_scope(|| self.record(info, None, &outcome, total, Duration::ZERO));
    }

    /// Rejects a wrong API key before the body has arrived, if checking it needs no request to Secrets Manager.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidApiKey`].
    pub fn check_key_early(&self, headers: &HeaderMap) -> Result<()> {
        self.auth.check_early(headers)
    }

    /// The largest body of a route of this style, in bytes.
    pub fn payload_limit(&self, style: ApiStyle) -> usize {
        self.engine.config.payload_limit.unwrap_or(style.payload_limit())
    }

    fn dispatch(
        &self,
        request: &ApiRequest,
        auth: AuthMethod,
        deadline: Deadline,
        sender: Option<&ResponseSender>,
    ) -> Result<ApiResponse> {
        if request.http.method() == Method::OPTIONS && self.engine.config.cors_allow_origin.is_some() {
            return Ok(ApiResponse { status: StatusCode::NO_CONTENT, ..ApiResponse::default() });
        }
        let (start, load_timer) = (Instant::now(), LoadTimer::default());
        let job_context = JobContext { engine: &self.engine, deadline, load_timer: &load_timer };
        let outcome = self.run_route(request, auth, job_context, sender);
        let (total, loading) = (start.elapsed(), load_timer.total());
        self.record(&request.info, request.route_match.route(), &outcome, total, loading);
        match outcome {
            Ok(response) => Ok(ApiResponse { total, ..response }),
            Err(error) => {
                log_internal(&error);
                Err(error)
            }
        }
    }

    fn run_route(
        &self,
        request: &ApiRequest,
        auth: AuthMethod,
        job_context: JobContext,
        sender: Option<&ResponseSender>,
    ) -> Result<ApiResponse> {
        let http = &request.http;
        let (route, path_param) = match &request.route_match {
            RouteMatch::Found { route, path_param } => (route, path_param.as_deref()),
            RouteMatch::MethodNotAllowed { allowed, .. } => return Err(method_not_allowed(http.method(), allowed)),
            RouteMatch::NotFound => return Err(not_found(http.uri().path())),
        };
        self.check(request, route, auth)?;
        let header = |name| http.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        let context = RequestContext {
            job_context,
            metrics: &self.metrics,
            body: http.body(),
            content_type: header(CONTENT_TYPE),
            accept: header(ACCEPT),
            path_param,
            sender,
            started: self.started,
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| (route.handler)(&context)));
        outcome.unwrap_or_else(|_| Err(Error::internal("internal error; see the log")))
    }

    fn check(&self, request: &ApiRequest, route: &Route, auth: AuthMethod) -> Result<()> {
        let (headers, length) = (request.http.headers(), request.http.body().len());
        if route.access == Access::ApiKey && auth == AuthMethod::ApiKey {
            self.auth.check(headers)?;
        }
        let limit = self.payload_limit(route.style);
        if length > limit {
            return Err(body_too_large(length, limit));
        }
        if route.method == route::Method::Post { check_content_type(headers, route.style) } else { Ok(()) }
    }

    /// Counts a request, and logs it unless it is a successful request to a public route, which is mostly a health check.
    fn record(
        &self,
        info: &RequestInfo,
        route: Option<&Route>,
        outcome: &Result<ApiResponse>,
        total: Duration,
        loading: Duration,
    ) {
        let counted = outcome.as_ref().map(|response| response.usage).map_err(|error| error.kind);
        self.metrics.count(info.route_label, total, counted);
        let (response, error) = (outcome.as_ref().ok(), counted.err());
        if error.is_none() && route.is_some_and(|route| route.access == Access::Public) {
            return;
        }
        #[cfg(feature = "otel")]
        if let Some(route) = route {
            crate::telemetry::otel::rename_span(route.method.as_str(), route.path);
        }
        let usage = response.and_then(|response| response.usage);
        let response_model = response.and_then(|response| response.model.clone()).filter(|name| !name.is_empty());
        let model = response_model.or_else(|| usage.map(|_| self.engine.registry.default_name(ModelTask::Embedding)));
        let status = error.map_or(200, |kind| info.style.status(kind).as_u16());
        let (isa, threads) = (self.engine.cpu.isa.as_str(), self.engine.cpu.threads());
        let (route, model) = (info.route_label, model.as_deref());
        log::RequestSummary { route, status, error, model, usage, total, loading, isa, threads }.emit();
    }

    fn http_response(&self, response: ApiResponse) -> Response<Bytes> {
        let mut http = Response::new(response.body.into_bytes());
        *http.status_mut() = response.status;
        let headers = http.headers_mut();
        if let Some(content_type) = response.content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        insert(headers, response.headers);
        if let Some(usage) = response.usage {
            insert(headers, self.timing_headers(&usage, response.total));
        }
        http
    }

    /// The headers of text-embeddings-inference; times in whole milliseconds.
    fn timing_headers(&self, usage: &Usage, total: Duration) -> [(&'static str, String); 8] {
        let compute = usage.tokenization_time + usage.inference_time;
        let ms = |d: Duration| d.as_millis().to_string();
        [
            ("x-compute-type", format!("cpu+{}", self.engine.cpu.isa.as_str())),
            ("x-compute-time", ms(compute)),
            ("x-compute-characters", usage.characters.to_string()),
            ("x-compute-tokens", usage.tokens.to_string()),
            ("x-total-time", ms(total)),
            ("x-tokenization-time", ms(usage.tokenization_time)),
            ("x-queue-time", ms(total.saturating_sub(compute))),
            ("x-inference-time", ms(usage.inference_time)),
        ]
    }

    /// Allows scripts of the configured origin to read a response.
    fn with_cors(&self, mut response: Response<Bytes>) -> Response<Bytes> {
        if let Some(origin) = &self.engine.config.cors_allow_origin {
            let headers = [
                ("access-control-allow-origin", origin.clone()),
                ("access-control-allow-methods", "GET, POST, OPTIONS".into()),
                ("access-control-allow-headers", "authorization, content-type".into()),
            ];
            insert(response.headers_mut(), headers);
        }
        response
    }
}

/// Sets headers, except values that HTTP does not allow.
fn insert(headers: &mut HeaderMap, values: impl IntoIterator<Item = (&'static str, String)>) {
    for (name, value) in values {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// Accepts JSON, and requests whose content type was not chosen: none at all, or the default of curl.
fn check_content_type(headers: &HeaderMap, style: ApiStyle) -> Result<()> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
    let accepts_forms = style == ApiStyle::Audio;
    let is_form = accepts_forms && value.starts_with("multipart/form-data");
    if is_form || value.contains("json") || value.starts_with("application/x-www-form-urlencoded") {
        return Ok(());
    }
    let expected = if accepts_forms { "multipart/form-data or application/json" } else { "application/json" };
    let message = format!("the content type is {value:?}; expected {expected}");
    Err(Error::new(ErrorKind::UnsupportedMediaType, message))
}

fn method_not_allowed(method: &Method, allowed: &[&str]) -> Error {
    let message = format!("method {method} is not allowed; allowed: {}", allowed.join(", "));
    Error::new(ErrorKind::MethodNotAllowed, message)
}

fn not_found(path: &str) -> Error {
    if let Some(feature) = routes::disabled_feature(path) {
        return Error::feature_disabled(ErrorKind::NotFound, path, feature);
    }
    let message = format!("no route has the path {:?}; see /openapi.json", truncate_for_display(path));
    Error::new(ErrorKind::NotFound, message)
}

/// Errors that only an operator can fix are logged with their message.
fn log_internal(error: &Error) {
    if !error.kind.is_retryable() && error.kind.status() >= 500 {
        tracing::error!(code = error.kind.code(), "{error}");
    }
}
