//! The local server: HTTP/1.1 over the same interface that the function has.

use crate::api::routes::{Access, Family, Found, find};
use crate::api::stream::Sink;
use crate::api::{Api, Trust, too_large};
use crate::engine::Deadline;
use crate::error::{Error, Kind, Result};
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
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Receiver;

/// How long a client may take to send its headers.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// How long a client may take to send its body.
const BODY_TIME: Duration = Duration::from_secs(30);
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
        .max_blocking_threads(api.engine.cpu.threads().max(2))
        .build()
        .map_err(|e| Error::internal(format!("cannot start the event loop: {e}")))?;
    runtime.block_on(serve(api, address, ready))
}

async fn serve(api: Arc<Api>, address: SocketAddr, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    let cannot = |e: std::io::Error| Error::new(Kind::Io, format!("cannot listen on {address}: {e}"));
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    ready(listener.local_addr().map_err(cannot)?);
    let places = Arc::new(Semaphore::new(api.engine.config.max_concurrent));
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
        let (api, places) = (api.clone(), places.clone());
        let service = service_fn(move |request| answer(api.clone(), places.clone(), request));
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
    places: Arc<Semaphore>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let family = Family::of(&request);
    let response = match admitted(api.clone(), places, request, family).await {
        Ok(response) => response,
        Err(error) => {
            let mut response = api.refuse(family, &error).map(Body::from);
            // What is left of the body is not read, so the connection cannot be used again.
            response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    };
    Ok(response)
}

/// Who may use the route of a request, if it has one.
fn access(parts: &http::request::Parts) -> Option<Access> {
    match find(&parts.method, parts.uri.path()) {
        Ok(Found::Route(route, _)) => Some(route.access),
        _ => None,
    }
}

async fn admitted(
    api: Arc<Api>,
    places: Arc<Semaphore>,
    request: Request<Incoming>,
    family: Family,
) -> Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let access = access(&parts);
    if access == Some(Access::Open) {
        // These only look at what is there. Busy is not ill: probes need no place and no worker.
        let body = read(body, &parts.headers, api.payload_limit(family)).await?;
        return Ok(api.handle(&Request::from_parts(parts, body), Trust::Key, Deadline::NONE, None).map(Body::from));
    }
    // Before the body, so that neither strangers nor a crowd fill the memory.
    if access.is_some() {
        api.precheck(&parts.headers)?;
    }
    let place = places
        .try_acquire_owned()
        .map_err(|_| Error::new(Kind::Overloaded, "every place in the queue is taken; try again in a second"))?;
    let body = read(body, &parts.headers, api.payload_limit(family)).await?;
    let request = Request::from_parts(parts, body);
    let (sink, mut pieces) = Sink::channel();
    let head = api.stream_head();
    let work = tokio::task::spawn_blocking(move || {
        let response = api.handle(&request, Trust::Key, Deadline::NONE, Some(&sink));
        drop(place);
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

/// Reads a body up to a limit. Of a longer one some is discarded, since many clients read no reply while they send.
async fn read(mut body: Incoming, headers: &HeaderMap, limit: usize) -> Result<Bytes> {
    let stated = headers.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let stated = stated.filter(|length| *length > limit);
    if let Some(length) = stated.filter(|_| headers.contains_key(http::header::EXPECT)) {
        return Err(too_large(length, limit));
    }
    let reading = async {
        let (mut bytes, mut length) = (BytesMut::new(), 0);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| Error::new(Kind::InvalidJson, format!("the body broke off: {e}")))?;
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
    };
    let late = |_| match stated {
        Some(length) => too_large(length, limit),
        None => Error::new(Kind::SlowBody, format!("the body did not arrive within {} s", BODY_TIME.as_secs())),
    };
    tokio::time::timeout(BODY_TIME, reading).await.map_err(late)?
}
