//! The local server: HTTP/1.1 on a socket, with the API that the function has.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | accepting connections, and running requests within the limits |
//! | `request_body.rs` | reading a body up to a size and at a minimum rate |
//! | `response_body.rs` | a body as one buffer, or as a stream of server-sent events |

mod request_body;
mod response_body;

use crate::api::Api;
use crate::api::request::{ApiRequest, RequestInfo};
use crate::api::response_sender::ResponseSender;
use crate::api::route::Access;
use crate::api::routes::{self, RouteMatch};
use crate::telemetry::trace::TraceContext;
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use request_body::{content_length, read};
use response_body::ResponseBody;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tealight_core::{Deadline, Error, ErrorKind, Result};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// How long a client may take to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of request bodies in memory at once. Permits are acquired by a `u32`, so the limit must be below 4 GiB.
const MAX_BUFFERED_BYTES: u32 = 512 << 20;
/// How long requests in progress may continue after a signal to stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before accepting again when the process has no file descriptor left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Serves until SIGINT or SIGTERM, then finishes the requests in progress. Calls `ready` with the bound address.
///
/// # Errors
/// [`ErrorKind::Io`]: the address cannot be bound.
pub fn run(api: Arc<Api>, address: SocketAddr, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2 * workers(&api))
        .build()
        .map_err(|e| Error::internal(format!("cannot start the event loop: {e}")))?;
    raise_open_file_limit();
    runtime.block_on(serve(api, address, ready))
}

/// Idle connections must not keep others out: the default limit is usually 1024 open files, and systems allow more.
fn raise_open_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Without the permission, the limit stays as it is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// How many short requests run at once. The same number of long-running requests run separately and do not delay short ones.
fn workers(api: &Api) -> usize {
    api.engine.cpu.threads().max(2)
}

/// Limits of all connections together.
struct Limits {
    /// Requests that are read, queued or running.
    request_permits: Arc<Semaphore>,
    /// Memory of their bodies, in bytes.
    body_permits: Arc<Semaphore>,
    /// Long-running requests that run at once.
    long_running_permits: Arc<Semaphore>,
}

impl Limits {
    fn new(api: &Api) -> Self {
        let semaphore = |count| Arc::new(Semaphore::new(count));
        Self {
            request_permits: semaphore(api.engine.config.max_concurrent_requests),
            body_permits: semaphore(MAX_BUFFERED_BYTES as usize),
            long_running_permits: semaphore(workers(api)),
        }
    }
}

async fn serve(api: Arc<Api>, address: SocketAddr, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    let listen_error = |e: std::io::Error| Error::new(ErrorKind::Io, format!("cannot listen on {address}: {e}"));
    let listener = TcpListener::bind(address).await.map_err(listen_error)?;
    ready(listener.local_addr().map_err(listen_error)?);
    let limits = Arc::new(Limits::new(&api));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop_signal());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let Ok((socket, _)) = accepted else {
            tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            continue;
        };
        let (api, limits) = (api.clone(), limits.clone());
        let service = service_fn(move |request| respond(api.clone(), limits.clone(), request));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(socket), service);
        let watched = graceful.watch(connection);
        // An error of a connection is caused by its client, which disconnected, was slow or sent no HTTP.
        tokio::spawn(async move { watched.await.ok() });
    }
    drop(listener);
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, graceful.shutdown()).await;
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

async fn respond(
    api: Arc<Api>,
    limits: Arc<Limits>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let (parts, body) = request.into_parts();
    let route_match = routes::find(&parts.method, parts.uri.path());
    let info = RequestInfo::new(&route_match, TraceContext::from_headers(&parts.headers, None));
    match run_within_limits(api.clone(), &limits, parts, body, route_match, info.clone()).await {
        Ok(response) => Ok(response),
        Err(error) => {
            let mut response = api.reject(&info, &error).map(ResponseBody::from);
            // The rest of the body stays unread, so the connection cannot be used again.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            Ok(response)
        }
    }
}

/// Reads the body and runs the request, if the limits allow both.
async fn run_within_limits(
    api: Arc<Api>,
    limits: &Limits,
    parts: Parts,
    body: Incoming,
    route_match: RouteMatch,
    info: RequestInfo,
) -> Result<Response<ResponseBody>> {
    let limit = api.payload_limit(info.style);
    let route = route_match.route();
    if route.is_some_and(|route| route.access == Access::Public) {
        // These routes only report state. They need no permit: a health check must succeed while the server is busy.
        let body = read(body, &parts.headers, limit).await?;
        let request = ApiRequest { http: Request::from_parts(parts, body), route_match, info };
        return Ok(api.handle_http(&request, Deadline::NONE, None).map(ResponseBody::from));
    }
    // Checked before the body is read, to bound memory.
    if route.is_some() {
        api.check_key_early(&parts.headers)?;
    }
    let request_permit = limits.request_permits.clone().try_acquire_owned().map_err(|_| {
        let limit = api.engine.config.max_concurrent_requests;
        overloaded(format!("concurrency limit of {limit} requests reached"))
    })?;
    let length = content_length(&parts.headers).unwrap_or(limit).min(limit).min(MAX_BUFFERED_BYTES as usize);
    let body_permits = limits
        .body_permits
        .clone()
        .try_acquire_many_owned(length as u32)
        .map_err(|_| overloaded(format!("buffered request bodies exceed {} MiB", MAX_BUFFERED_BYTES >> 20)))?;
    let body = read(body, &parts.headers, limit).await?;
    let long_running_permit = match route.filter(|route| route.is_long_running) {
        Some(_) => limits.long_running_permits.clone().acquire_owned().await.ok(),
        None => None,
    };
    let request = ApiRequest { http: Request::from_parts(parts, body), route_match, info };
    let (sender, mut chunks) = ResponseSender::channel();
    let head = api.stream_head();
    let work = tokio::task::spawn_blocking(move || {
        let response = api.handle_http(&request, Deadline::NONE, Some(&sender));
        drop((request_permit, body_permits, long_running_permit));
        response
    });
    match chunks.recv().await {
        Some(first) => Ok(head.map(|_| ResponseBody::stream(first, chunks))),
        // The sender was dropped without a chunk: the response is not streamed.
        None => {
            let response = work.await.map_err(|_| Error::internal("the task of the request ended early"))?;
            Ok(response.map(ResponseBody::from))
        }
    }
}

fn overloaded(what: String) -> Error {
    Error::new(ErrorKind::Overloaded, format!("{what}; retry in 1 s"))
}
