//! The AWS Lambda function: one handler for direct invocations, for every HTTP front door, and for what brings documents.
//!
//! A request becomes the same one that the local server would get; the reply goes back in the event's own form. Documents come in
//! messages of a queue, as objects of S3 that were created, or in batches of a distributed map; their points go to the sink.

mod batch;
mod direct_invoke;
mod distributed_map;
#[doc(hidden)]
pub mod fuzzing;
mod http_event;
mod records;

use crate::api::response_sender::ResponseSender;
use crate::api::{Api, AuthMethod, routes::RequestInfo};
use crate::config::{Config, INITIALIZATION, SNAP_START};
use crate::engine::{Embed, EmbedInputs, Engine, Input, Truncation};
use crate::pipeline::sink;
use crate::telemetry::trace::TraceContext;
use batch::{Bringer, Worker};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_event::HttpEvent;
use lambda_runtime::streaming::Body;
use lambda_runtime::{
    Context, Diagnostic, FunctionResponse, LambdaEvent, MetadataPrelude, Runtime, StreamResponse, service_fn,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind};
use tokio::sync::mpsc::Receiver;

/// Lambda stops an Init after 10 seconds and begins it again: a load that takes longer goes on while the first request
/// waits for it.
const INIT_LIMIT: Duration = Duration::from_secs(9);
/// What is left of an invocation's time for sending the reply: a tenth, but no more than this.
const MAX_MARGIN: Duration = Duration::from_millis(500);

type Outcome = FunctionResponse<Box<RawValue>, Body>;

/// Serves invocations until the environment ends.
///
/// # Errors
/// The configuration is wrong, or the Runtime API fails.
pub fn run() -> Result<(), lambda_runtime::Error> {
    crate::telemetry::log::init(std::io::stdout);
    let config = Config::from_env().inspect_err(|e| tracing::error!("{e}"))?;
    let api = Arc::new(Api::new(Arc::new(Engine::new(config)?)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        match std::env::var(INITIALIZATION).is_ok_and(|kind| kind == SNAP_START) {
            true => warm(&api.engine).await?,
            false => preload(&api.engine).await,
        }
        Runtime::new(service_fn(move |event| handle(api.clone(), event))).run().await
    })
}

/// Loads the default model during Init. A failure is no end: the first request tries again and reports it.
async fn preload(engine: &Arc<Engine>) {
    let engine = engine.clone();
    let load = move || {
        if let Err(error) = engine.preload() {
            tracing::error!(code = error.kind.code(), "{error}");
        }
    };
    begin(load, INIT_LIMIT).await;
}

/// Embeds a text before SnapStart's snapshot is taken, so that all environments begin with what that takes. A failure is one of the
/// version that is published.
async fn warm(engine: &Arc<Engine>) -> Result<(), Error> {
    let engine = engine.clone();
    let texts = EmbedInputs {
        model: None,
        inputs: vec![Input::Text("hello world".into())],
        prompt: None,
        truncation: Truncation::Error,
        field: "input",
        first_index: 0,
    };
    let embed = Embed { texts, normalize: true, dimensions: None };
    let work = tokio::task::spawn_blocking(move || engine.run(embed, Deadline::NONE).map(drop));
    work.await.unwrap_or_else(|_| Err(Error::internal("the first text could not be embedded")))
}

/// Begins work beside the event loop and waits for it, but no longer than `limit`; the work goes on.
async fn begin(work: impl FnOnce() + Send + 'static, limit: Duration) {
    let _ = tokio::time::timeout(limit, tokio::task::spawn_blocking(work)).await;
}

/// What an event is, told by the fields that only its kind has.
#[derive(Deserialize)]
struct Marks<'a> {
    #[serde(borrow, rename = "requestContext")]
    request_context: Option<&'a RawValue>,
    #[serde(borrow, rename = "Records")]
    records: Option<&'a RawValue>,
    source: Option<serde_json::Value>,
    detail: Option<serde::de::IgnoredAny>,
    #[serde(borrow, rename = "Items")]
    items: Option<&'a RawValue>,
    #[serde(rename = "Event")]
    event: Option<serde_json::Value>,
}

enum Kinds {
    Http,
    Direct,
    S3Test,
    Work(Bringer),
}

fn kind_of(payload: &str) -> Kinds {
    // Fails for what is no JSON object; a direct invocation then says what is wrong with it.
    let Ok(marks) = serde_json::from_str::<Marks>(payload) else { return Kinds::Direct };
    if marks.request_context.is_some() {
        Kinds::Http
    } else if marks.records.is_some() {
        Kinds::Work(Bringer::Records)
    } else if marks.source.is_some() && marks.detail.is_some() {
        Kinds::Work(Bringer::Bridge)
    } else if marks.items.is_some() {
        Kinds::Work(Bringer::Map)
    } else if marks.event.is_some_and(|e| e == "s3:TestEvent") {
        Kinds::S3Test
    } else {
        Kinds::Direct
    }
}

async fn handle(api: Arc<Api>, event: LambdaEvent<Box<RawValue>>) -> Result<Outcome, Diagnostic> {
    let limit = time_limit(event.context.deadline(), SystemTime::now());
    let (payload, context) = (event.payload.get(), &event.context);
    let outcome = match kind_of(payload) {
        Kinds::Http => http(api, payload, context, limit).await,
        Kinds::Direct => direct(api, payload, context, limit).await,
        Kinds::S3Test => Ok(FunctionResponse::BufferedResponse(direct_invoke::null())),
        // An error keeps messages in their queue.
        Kinds::Work(bringer) => {
            let (info, trace) =
                (RequestInfo { route: "event", ..RequestInfo::unknown() }, trace(context, &HeaderMap::new()));
            let done = work(api.clone(), bringer, event.payload, trace.clone(), limit).await;
            done.inspect_err(|error| trace.in_scope(|| api.note(info, error)))
        }
    };
    outcome.map_err(|error| diagnostic(error, &event.context.request_id))
}

/// What an invocation is part of.
fn trace(context: &Context, headers: &HeaderMap) -> TraceContext {
    TraceContext::from_headers(headers, context.xray_trace_id.as_deref())
        .with_invocation(&context.request_id, &context.invoked_function_arn)
}

/// Embeds and writes what an event brings, beside the event loop.
async fn work(
    api: Arc<Api>,
    bringer: Bringer,
    payload: Box<RawValue>,
    trace: TraceContext,
    limit: Option<Duration>,
) -> Result<Outcome, Error> {
    // Sooner than it is given up here, for that gives up what is done too.
    let deadline = Deadline(limit.map(|l| Instant::now() + l - (l / 10).min(MAX_MARGIN)));
    let done = move || {
        let engine = &api.engine;
        let target = sink::configured(engine)?.ok_or_else(|| {
            let message = "the event brings documents, and TEALIGHT_SINK does not say where their vectors go";
            Error::new(ErrorKind::UnsupportedEvent, message)
        })?;
        Worker::new(engine, &target, deadline).work(bringer, payload.get())
    };
    let work = tokio::task::spawn_blocking(move || trace.in_scope(done));
    let done = match limit {
        Some(limit) => tokio::time::timeout(limit, work).await,
        None => Ok(work.await),
    };
    match done {
        Ok(Ok(reply)) => reply.and_then(bounded).map(FunctionResponse::BufferedResponse),
        Ok(Err(_)) => Err(Error::internal("the work ended early")),
        Err(_) => Err(Error::new(ErrorKind::Timeout, "the time for this invocation ran out before all was written")),
    }
}

fn diagnostic(error: Error, request_id: &str) -> Diagnostic {
    // What the text says may be the request's own words, and so may the name of a field.
    tracing::warn!(function_request_id = request_id, code = error.kind.code(), "invocation failed");
    Diagnostic { error_type: error.kind.code().into(), error_message: error.message }
}

/// The largest buffered reply that Lambda takes, in bytes.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
const MAX_REPLY: usize = 6_291_556;

/// A reply, or the error that Lambda would otherwise answer in words of its own.
fn bounded(reply: Box<RawValue>) -> Result<Box<RawValue>, Error> {
    match reply.get().len() {
        length if length <= MAX_REPLY => Ok(reply),
        length => Err(Error::new(
            ErrorKind::ResponseTooLarge,
            format!(
                "the reply has {length} bytes, Lambda takes {MAX_REPLY}: send fewer inputs, or encoding_format base64"
            ),
        )),
    }
}

/// How long an invocation may work. A deadline in the past is none: the emulator sends 1970.
fn time_limit(deadline: SystemTime, now: SystemTime) -> Option<Duration> {
    let left = deadline.duration_since(now).ok().filter(|left| !left.is_zero())?;
    Some(left - (left / 10).min(MAX_MARGIN))
}

async fn http(api: Arc<Api>, payload: &str, context: &Context, limit: Option<Duration>) -> Result<Outcome, Error> {
    let here = || trace(context, &HeaderMap::new());
    let event =
        HttpEvent::parse(payload).inspect_err(|error| here().in_scope(|| api.note(RequestInfo::unknown(), error)))?;
    let can_stream = api.engine.config.response_stream && event.is_function_url();
    let answer = match event.request() {
        Ok(request) => {
            let trace = trace(context, request.headers());
            answer(api.clone(), request, trace, AuthMethod::ApiKey, limit, can_stream).await
        }
        Err(error) => Answer::Whole(api.refuse(here(), RequestInfo::unknown(), &error)),
    };
    let response = match answer {
        Answer::Begun(first, pieces) => return Ok(stream(api.stream_head(), forward(first, pieces))),
        Answer::Whole(response) if can_stream => {
            let (parts, body) = response.into_parts();
            return Ok(stream(Response::from_parts(parts, Bytes::new()), Body::from(body)));
        }
        Answer::Whole(response) => response,
    };
    let reply = event.reply(&response).and_then(bounded);
    reply
        .or_else(|error| event.reply(&api.refuse(here(), RequestInfo::unknown(), &error)))
        .map(FunctionResponse::BufferedResponse)
}

/// A reply as the function URL wants it in RESPONSE_STREAM mode.
fn stream(head: Response<Bytes>, stream: Body) -> Outcome {
    let (parts, _) = head.into_parts();
    FunctionResponse::StreamingResponse(StreamResponse {
        metadata_prelude: MetadataPrelude { status_code: parts.status, headers: parts.headers, cookies: vec![] },
        stream,
    })
}

/// Pieces as the body of a reply, as they come. If nobody takes them any more, the work ends at its next one.
fn forward(first: Bytes, mut pieces: Receiver<Bytes>) -> Body {
    let (mut sender, body) = lambda_runtime::streaming::channel();
    tokio::spawn(async move {
        let mut next = Some(first);
        while let Some(piece) = next {
            if sender.send_data(piece).await.is_err() {
                break;
            }
            next = pieces.recv().await;
        }
    });
    body
}

async fn direct(api: Arc<Api>, payload: &str, context: &Context, limit: Option<Duration>) -> Result<Outcome, Error> {
    let trace = trace(context, &HeaderMap::new());
    let request = direct_invoke::request(payload)
        .inspect_err(|error| trace.clone().in_scope(|| api.note(RequestInfo::unknown(), error)))?;
    match answer(api, request, trace, AuthMethod::Iam, limit, false).await {
        Answer::Whole(response) => {
            direct_invoke::reply(&response).and_then(bounded).map(FunctionResponse::BufferedResponse)
        }
        Answer::Begun(..) => Err(Error::internal("a direct invocation was answered by a stream")),
    }
}

enum Answer {
    Whole(Response<Bytes>),
    /// A stream: its first piece, and where the others come.
    Begun(Bytes, Receiver<Bytes>),
}

/// Runs a request beside the event loop, and stops waiting for it when its time is over.
async fn answer(
    api: Arc<Api>,
    mut request: Request<Bytes>,
    trace: TraceContext,
    trust: AuthMethod,
    limit: Option<Duration>,
    can_stream: bool,
) -> Answer {
    let deadline = Deadline(limit.map(|l| Instant::now() + l));
    let info = RequestInfo::of(&request);
    request.extensions_mut().insert(trace.clone());
    let worker = api.clone();
    let (sink, mut pieces) = ResponseSender::channel();
    let sink = can_stream.then_some(sink);
    let work = tokio::task::spawn_blocking(move || worker.handle(&request, trust, deadline, sink.as_ref()));
    let answered = async {
        match pieces.recv().await {
            Some(first) => Ok(Answer::Begun(first, pieces)),
            // The sink is gone with the work, or there was none.
            None => work.await.map(Answer::Whole),
        }
    };
    let done = match limit {
        Some(limit) => tokio::time::timeout(limit, answered).await,
        None => Ok(answered.await),
    };
    let error = match done {
        Ok(Ok(answer)) => return answer,
        Ok(Err(_)) => Error::internal("the request's task ended early"),
        Err(_) => Error::new(ErrorKind::Timeout, "the time for this invocation ran out before the reply was ready"),
    };
    Answer::Whole(api.refuse(trace, info, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_outlasts_init_goes_on() {
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let (done, outcome) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let load = move || {
            gate.recv().unwrap();
            done.send("loaded").unwrap();
        };
        // Returns although the work waits for what only happens afterwards.
        runtime.block_on(begin(load, Duration::from_millis(1)));
        release.send(()).unwrap();
        assert_eq!(outcome.recv().unwrap(), "loaded");
    }

    #[test]
    fn a_deadline_in_the_past_is_none() {
        let now = SystemTime::now();
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!(time_limit(SystemTime::UNIX_EPOCH + Duration::from_secs(600), now), None);
        assert_eq!(time_limit(now, now), None);
        assert_eq!(time_limit(at(1000), now), Some(Duration::from_millis(900)));
        assert_eq!(time_limit(at(60_000), now), Some(Duration::from_millis(59_500)));
    }
}
