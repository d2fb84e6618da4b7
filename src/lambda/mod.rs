//! The AWS Lambda function: one handler for direct invocations, for HTTP events, and for events with documents.
//!
//! HTTP events and direct invocations are converted to the request type that the local server uses; the response is converted back
//! to the event's format. Documents come in SQS messages, as S3 objects, or in batches of a distributed map; they are embedded, and
//! the points are written to the sink.

mod direct_invoke;
#[cfg(feature = "sinks")]
mod documents;
mod event;
#[cfg(feature = "sinks")]
#[doc(hidden)]
pub mod fuzzing;
mod http_event;
mod init;
mod invocation;

use crate::api::request::{ApiRequest, RequestInfo};
use crate::api::response_sender::ResponseSender;
use crate::api::routes::RouteMatch;
use crate::api::{Api, AuthMethod};
use crate::config::{Config, INITIALIZATION_TYPE, SNAP_START};
use crate::engine::Engine;
use bytes::Bytes;
use event::{EventFields, EventKind, EventSource};
use http::{HeaderMap, Request, Response};
use http_event::HttpEvent;
use invocation::{Invocation, LambdaResponse, check_response_size, stream_body, stream_response};
use lambda_runtime::streaming::Body;
use lambda_runtime::{Diagnostic, FunctionResponse, LambdaEvent, Runtime, service_fn};
use serde_json::value::RawValue;
use std::sync::Arc;
use tealight_core::Error;
use tokio::sync::mpsc::Receiver;
use tokio::task::spawn_blocking;

/// Handles invocations until the environment is shut down.
///
/// # Errors
/// The configuration is invalid, or the Runtime API fails.
pub fn run() -> Result<(), lambda_runtime::Error> {
    crate::telemetry::log::init(std::io::stdout);
    let config = Config::from_env().inspect_err(|e| tracing::error!("{e}"))?;
    let api = Arc::new(Api::new(Arc::new(Engine::new(config)?)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        if std::env::var(INITIALIZATION_TYPE).is_ok_and(|kind| kind == SNAP_START) {
            init::prime_for_snapshot(&api.engine).await?;
        } else {
            init::preload(&api.engine).await;
        }
        Runtime::new(service_fn(move |event| handle(api.clone(), event))).run().await
    })
}

async fn handle(api: Arc<Api>, event: LambdaEvent<Box<RawValue>>) -> Result<LambdaResponse, Diagnostic> {
    let LambdaEvent { payload, context, .. } = event;
    let invocation = Invocation::new(context);
    let outcome = handle_event(api, payload, &invocation).await;
    outcome.map_err(|error| {
        // Neither message nor field name is logged: both may quote the request.
        tracing::warn!(function_request_id = invocation.request_id(), code = error.kind.code(), "invocation failed");
        Diagnostic { error_type: error.kind.code().into(), error_message: error.message }
    })
}

/// Parses the event once. Its kind and its route are passed on.
async fn handle_event(api: Arc<Api>, payload: Box<RawValue>, invocation: &Invocation) -> Result<LambdaResponse, Error> {
    let trace = invocation.trace(&HeaderMap::new());
    let info = RequestInfo::without_route(trace);
    let record_error = |error: &Error| api.record_error(&info, error);
    let event = EventFields::parse(payload.get()).inspect_err(record_error)?;
    match event.kind() {
        EventKind::Http => {
            let event = HttpEvent::parse(&event).inspect_err(record_error)?;
            drop(payload);
            http(api, event, invocation).await
        }
        EventKind::Direct => {
            let (head, route_match) = direct_invoke::parse(&event).inspect_err(record_error)?;
            let info = RequestInfo::new(&route_match, info.trace);
            let body = Box::<str>::from(payload).into_string().into();
            direct(api, ApiRequest { http: head.map(|()| body), route_match, info }, invocation).await
        }
        EventKind::S3Test => Ok(FunctionResponse::BufferedResponse(RawValue::NULL.to_owned())),
        EventKind::Documents(source) => {
            let info = RequestInfo { route_label: "event", ..info };
            write_documents(api, source, payload, info, invocation).await
        }
    }
}

/// Runs a direct invocation. Its response is the body; an error fails the invocation.
async fn direct(api: Arc<Api>, request: ApiRequest, invocation: &Invocation) -> Result<LambdaResponse, Error> {
    let (info, deadline, task_api) = (request.info.clone(), invocation.deadline(), api.clone());
    let work = spawn_blocking(move || task_api.handle(&request, AuthMethod::Iam, deadline, None));
    let outcome = invocation.wait(work).await.inspect_err(|error| drop(api.reject(&info, error)))?;
    outcome?.body.into_json().and_then(check_response_size).map(FunctionResponse::BufferedResponse)
}

/// Runs the request of an HTTP event. Errors are also returned as responses.
async fn http(api: Arc<Api>, event: HttpEvent, invocation: &Invocation) -> Result<LambdaResponse, Error> {
    let (format, can_stream) = (event.format, event.is_function_url && api.engine.config.response_stream);
    let without_route = || RequestInfo::without_route(invocation.trace(&HeaderMap::new()));
    let response = match event.into_request() {
        Ok((request, route_match)) => run_http(api.clone(), request, route_match, invocation, can_stream).await,
        Err(error) => HttpResponse::Buffered(api.reject(&without_route(), &error)),
    };
    let response = match response {
        HttpResponse::Streaming(first, chunks) => {
            return Ok(stream_response(api.stream_head().map(drop), stream_body(first, chunks)));
        }
        HttpResponse::Buffered(response) if can_stream => {
            let (parts, body) = response.into_parts();
            return Ok(stream_response(Response::from_parts(parts, ()), Body::from(body)));
        }
        HttpResponse::Buffered(response) => response,
    };
    let converted = format.response(&response).and_then(check_response_size);
    converted
        .or_else(|error| format.response(&api.reject(&without_route(), &error)))
        .map(FunctionResponse::BufferedResponse)
}

enum HttpResponse {
    Buffered(Response<Bytes>),
    /// The first chunk, and the channel for the following ones.
    Streaming(Bytes, Receiver<Bytes>),
}

/// Runs a request on another thread. At the time limit, the response is an error, and the result of the work is discarded.
async fn run_http(
    api: Arc<Api>,
    request: Request<Bytes>,
    route_match: RouteMatch,
    invocation: &Invocation,
    can_stream: bool,
) -> HttpResponse {
    let info = RequestInfo::new(&route_match, invocation.trace(request.headers()));
    let request = ApiRequest { http: request, route_match, info: info.clone() };
    let (deadline, task_api) = (invocation.deadline(), api.clone());
    let (sender, mut chunks) = ResponseSender::channel();
    let sender = can_stream.then_some(sender);
    let work = spawn_blocking(move || task_api.handle_http(&request, deadline, sender.as_ref()));
    let response = async {
        match chunks.recv().await {
            Some(first) => Ok(HttpResponse::Streaming(first, chunks)),
            // The sender was dropped without a chunk: the response is not streamed.
            None => work.await.map(HttpResponse::Buffered),
        }
    };
    invocation.wait(response).await.unwrap_or_else(|error| HttpResponse::Buffered(api.reject(&info, &error)))
}

/// Embeds the documents of an event and writes their points. An error keeps messages in their queue.
async fn write_documents(
    api: Arc<Api>,
    source: EventSource,
    payload: Box<RawValue>,
    info: RequestInfo,
    invocation: &Invocation,
) -> Result<LambdaResponse, Error> {
    let (deadline, task_api, trace) = (invocation.documents_deadline(), api.clone(), info.trace.clone());
    let process = move || documents::process(&task_api.engine, source, payload.get(), deadline);
    let work = spawn_blocking(move || trace.in_scope(process));
    let outcome = invocation.wait(work).await.flatten().and_then(check_response_size);
    outcome.inspect_err(|error| api.record_error(&info, error)).map(FunctionResponse::BufferedResponse)
}

#[cfg(not(feature = "sinks"))]
mod documents {
    use super::event::EventSource;
    use crate::engine::Engine;
    use serde_json::value::RawValue;
    use tealight_core::{Deadline, Error, ErrorKind, Result};

    /// Fails: without sinks, the points of documents have no destination.
    pub fn process(_: &Engine, _: EventSource, _: &str, _: Deadline) -> Result<Box<RawValue>> {
        Err(Error::feature_disabled(ErrorKind::UnsupportedEvent, "events with documents", "sinks"))
    }
}
