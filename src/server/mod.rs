//! The local server: HTTP/1.1 over the same interface that the function has.

use crate::api::response_sender::ResponseSender;
use crate::api::route::{Access, ApiStyle, Route};
use crate::api::routes::{RequestInfo, RouteMatch, find};
use crate::api::{Api, AuthMethod, too_large};
use crate::telemetry::trace::TraceContext;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

/// How long a client may take to send its headers.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// How long a client may take to send its body, beside the time at [`SLOWEST`].
const BODY_TIME: Duration = Duration::from_secs(30);
/// A body may come as slowly as this, in bytes a second: recordings come over telephones.
const SLOWEST: usize = 8 << 10;
/// Bytes of bodies that are in memory at once, whatever the places.
const BODIES: usize = 512 << 20;
/// What [`BODIES`] is counted in: semaphores count no further than 4 billion.
const BODY_UNIT: usize = 1 << 10;
/// How much of a body that is too long is discarded, in limits.
const DISCARD_FACTOR: usize = 8;
/// How long requests under way may go on after a signal to stop.
const SHUTDOWN_TIME: Duration = Duration::from_secs(10);
/// How long to wait before accepting again when the process is out of sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until SIGINT or SIGTERM; then finishes the requests under way. Calls `ready` with the bound address.
///
/// # Errors
/// The address cannot be bound.
pub fn run(api: Arc<Api>, address: SocketAddr, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2 * workers(&api))
        .build()
        .map_err(|e| Error::internal(format!("cannot start the event loop: {e}")))?;
    raise_open_files();
    runtime.block_on(serve(api, address, ready))
}

/// Connections that only wait must not keep others out: systems begin with 1024 open files and allow more.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Where it cannot be raised, it stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// How many requests are worked on at once; recordings and long texts have as many workers again, so that they hold up nothing else.
fn workers(api: &Api) -> usize {
    api.engine.cpu.threads().max(2)
}

/// What there is only so much of.
struct Limits {
    places: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

impl Limits {
    fn new(api: &Api) -> Self {
        let of = |count| Arc::new(Semaphore::new(count));
        Self {
            places: of(api.engine.config.max_concurrent_requests),
            bodies: of(BODIES / BODY_UNIT),
            long: of(workers(api)),
        }
    }
}

fn overloaded(what: &str) -> Error {
    Error::new(ErrorKind::Overloaded, format!("{what}; try again in a second"))
}

async fn serve(api: Arc<Api>, address: SocketAddr, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    let cannot = |e: std::io::Error| Error::new(ErrorKind::Io, format!("cannot listen on {address}: {e}"));
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    ready(listener.local_addr().map_err(cannot)?);
    let limits = Arc::new(Limits::new(&api));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop_signal());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let Ok((socket, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (api, limits) = (api.clone(), limits.clone());
        let service = service_fn(move |request| answer(api.clone(), limits.clone(), request));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .serve_connection(TokioIo::new(socket), service);
        let watched = graceful.watch(connection);
        // A connection's error is its client's doing: it hung up, was slow or sent no HTTP.
        tokio::spawn(async move { watched.await.ok() });
    }
    drop(listener);
    let _ = tokio::time::timeout(SHUTDOWN_TIME, graceful.shutdown()).await;
    #[cfg(feature = "otel")]
    crate::telemetry::otel::flush();
    Ok(())
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
    }
}

async fn answer(
    api: Arc<Api>,
    limits: Arc<Limits>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (info, trace) = (RequestInfo::of(&request), TraceContext::from_headers(request.headers(), None));
    request.extensions_mut().insert(trace.clone());
    let response = match admitted(api.clone(), &limits, request, info.style).await {
        Ok(response) => response,
        Err(error) => {
            let mut response = api.refuse(trace, info, &error).map(Body::from);
            // What is left of the body is not read, so the connection cannot be used again.
            response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    };
    Ok(response)
}

/// The route of a request, if it has one.
fn route(parts: &http::request::Parts) -> Option<&'static Route> {
    match find(&parts.method, parts.uri.path()) {
        Ok(RouteMatch::Route(route, _)) => Some(route),
        _ => None,
    }
}

async fn admitted(
    api: Arc<Api>,
    limits: &Limits,
    request: Request<Incoming>,
    style: ApiStyle,
) -> Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let route = route(&parts);
    let limit = api.payload_limit(style);
    if route.is_some_and(|route| route.access == Access::Public) {
        // These only look at what is there. Busy is not ill: probes need no place and no worker.
        let body = read(body, &parts.headers, limit).await?;
        return Ok(api
            .handle(&Request::from_parts(parts, body), AuthMethod::ApiKey, Deadline::NONE, None)
            .map(Body::from));
    }
    // Before the body, so that neither strangers nor a crowd fill the memory.
    if route.is_some() {
        api.precheck(&parts.headers)?;
    }
    let taken = |_| overloaded("every place in the queue is taken");
    let place = limits.places.clone().try_acquire_owned().map_err(taken)?;
    let units = stated(&parts.headers).unwrap_or(limit).min(limit).min(BODIES).div_ceil(BODY_UNIT) as u32;
    let full = |_| overloaded("the bodies that are waiting fill the memory for them");
    let room = limits.bodies.clone().try_acquire_many_owned(units).map_err(full)?;
    let body = read(body, &parts.headers, limit).await?;
    let turn = match route.filter(|route| route.is_long_running) {
        Some(_) => limits.long.clone().acquire_owned().await.ok(),
        None => None,
    };
    let request = Request::from_parts(parts, body);
    let (sink, mut pieces) = ResponseSender::channel();
    let head = api.stream_head();
    let work = tokio::task::spawn_blocking(move || {
        let response = api.handle(&request, AuthMethod::ApiKey, Deadline::NONE, Some(&sink));
        drop((place, room, turn));
        response
    });
    match pieces.recv().await {
        Some(first) => Ok(head.map(|_| Body { next: Some(first), pieces: Some(pieces) })),
        // The sink is gone with the work: the reply is no stream.
        None => work.await.map(|r| r.map(Body::from)).map_err(|_| Error::internal("the request's task ended early")),
    }
}

/// A body in one piece, or in pieces as they come.
#[derive(Debug)]
struct Body {
    next: Option<Bytes>,
    pieces: Option<Receiver<Bytes>>,
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self { next: Some(bytes).filter(|b| !b.is_empty()), pieces: None }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(next) = self.next.take() {
            return Poll::Ready(Some(Ok(Frame::data(next))));
        }
        match &mut self.pieces {
            None => Poll::Ready(None),
            Some(pieces) => pieces.poll_recv(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.pieces.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.pieces {
            None => SizeHint::with_exact(self.next.as_ref().map_or(0, |b| b.len() as u64)),
            Some(_) => SizeHint::default(),
        }
    }
}

/// The length that a body is said to have.
fn stated(headers: &HeaderMap) -> Option<usize> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a body up to a limit. Of a longer one some is discarded, since many clients read no reply while they send.
async fn read(mut body: Incoming, headers: &HeaderMap, limit: usize) -> Result<Bytes> {
    let stated = stated(headers).filter(|length| *length > limit);
    if let Some(length) = stated.filter(|_| headers.contains_key(http::header::EXPECT)) {
        return Err(too_large(length, limit));
    }
    let late = |length: usize| {
        let time = BODY_TIME.as_secs();
        let message = format!("of the body {length} bytes arrived in {time} s and a second for each {SLOWEST}");
        stated.map_or_else(|| Error::new(ErrorKind::BodyTimeout, message), |length| too_large(length, limit))
    };
    let (mut bytes, mut length, start) = (BytesMut::new(), 0, Instant::now());
    loop {
        let end = start + BODY_TIME + Duration::from_secs((length / SLOWEST) as u64);
        let frame = tokio::time::timeout_at(end, body.frame()).await.map_err(|_| late(length))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|e| Error::new(ErrorKind::InvalidJson, format!("the body broke off: {e}")))?;
        let data = frame.data_ref().map_or(&[][..], |b| &b[..]);
        length += data.len();
        if length > DISCARD_FACTOR * limit {
            break;
        }
        if length <= limit && stated.is_none() {
            bytes.extend_from_slice(data);
        }
    }
    let length = stated.unwrap_or(length);
    if length > limit { Err(too_large(length, limit)) } else { Ok(bytes.freeze()) }
}
