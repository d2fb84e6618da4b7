//! The local server: HTTP/1.1 over the same interface that the function has.

use crate::api::routes::{Access, Family, Found, find};
use crate::api::{Api, Trust, too_large};
use crate::engine::Deadline;
use crate::error::{Error, Kind, Result};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

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
) -> Result<Response<Full<Bytes>>, Infallible> {
    let family = Family::of(&request);
    let response = match admitted(api.clone(), places, request, family).await {
        Ok(response) => response,
        Err(error) => {
            let mut response = api.refuse(family, &error);
            // What is left of the body is not read, so the connection cannot be used again.
            response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    };
    Ok(response.map(Full::new))
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
) -> Result<Response<Bytes>> {
    let (parts, body) = request.into_parts();
    let access = access(&parts);
    if access == Some(Access::Open) {
        // These only look at what is there. Busy is not ill: probes need no place and no worker.
        let body = read(body, &parts.headers, api.payload_limit(family)).await?;
        return Ok(api.handle(&Request::from_parts(parts, body), Trust::Key, Deadline::NONE));
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
    let work = tokio::task::spawn_blocking(move || {
        let response = api.handle(&request, Trust::Key, Deadline::NONE);
        drop(place);
        response
    });
    work.await.map_err(|_| Error::internal("the request's task ended early"))
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
