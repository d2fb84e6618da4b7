//! One invocation: its deadline, its trace, and the formats of its response.

use crate::telemetry::trace::TraceContext;
use bytes::Bytes;
use http::{HeaderMap, Response};
use lambda_runtime::streaming::Body;
use lambda_runtime::{Context, FunctionResponse, MetadataPrelude, StreamResponse};
use serde_json::value::RawValue;
use std::time::{Duration, Instant, SystemTime};
use tealight_core::{Deadline, Error, ErrorKind, Result};
use tokio::sync::mpsc::Receiver;

/// A tenth of the remaining time is reserved for sending the response, but at most this much.
const MAX_RESERVE: Duration = Duration::from_millis(500);

/// The largest buffered response that Lambda accepts, in bytes: 6 MiB plus 100 bytes, as Lambda's error message says. The
/// [documentation](https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html) says 6 MB.
const MAX_RESPONSE_BYTES: usize = (6 << 20) + 100;

/// What the function returns to the runtime.
pub type LambdaResponse = FunctionResponse<Box<RawValue>, Body>;

/// An invocation, without its event.
#[derive(Debug)]
pub struct Invocation {
    context: Context,
    /// When the work for a response must end.
    deadline: Deadline,
    /// When writing documents must end: earlier, because a timeout would discard what has been done.
    documents_deadline: Deadline,
}

impl Invocation {
    /// Computes the deadlines of an invocation that has just arrived.
    pub fn new(context: Context) -> Self {
        let (limit, now) = (time_limit(context.deadline(), SystemTime::now()), Instant::now());
        let deadline = Deadline(limit.map(|limit| now + limit));
        let documents_deadline = Deadline(limit.map(|limit| now + limit - reserve(limit)));
        Self { context, deadline, documents_deadline }
    }

    /// Lambda's id of the invocation.
    pub fn request_id(&self) -> &str {
        &self.context.request_id
    }

    /// The trace that the invocation belongs to, or that the headers of an HTTP event name.
    pub fn trace(&self, headers: &HeaderMap) -> TraceContext {
        let Context { request_id, invoked_function_arn, xray_trace_id, .. } = &self.context;
        TraceContext::from_headers(headers, xray_trace_id.as_deref()).with_invocation(request_id, invoked_function_arn)
    }

    /// The deadline of work for a response.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// The deadline of writing documents.
    pub fn documents_deadline(&self) -> Deadline {
        self.documents_deadline
    }

    /// Waits for work, at most until the deadline.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`]; [`ErrorKind::Internal`] if the work panicked.
    pub async fn wait<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T> {
        let done = match self.deadline.0 {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), work).await,
            None => Ok(work.await),
        };
        match done {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err(Error::internal("the task of the request ended early")),
            Err(_) => {
                let message = "deadline exceeded; send less per request or raise the function's timeout";
                Err(Error::new(ErrorKind::Timeout, message))
            }
        }
    }
}

/// How long an invocation may work. A deadline in the past means no limit: `cargo lambda watch` sends 1970.
fn time_limit(deadline: SystemTime, now: SystemTime) -> Option<Duration> {
    let remaining = deadline.duration_since(now).ok().filter(|remaining| !remaining.is_zero())?;
    Some(remaining - reserve(remaining))
}

fn reserve(time: Duration) -> Duration {
    (time / 10).min(MAX_RESERVE)
}

/// Checks that Lambda accepts a buffered response; the error says how to make it smaller.
///
/// # Errors
/// [`ErrorKind::ResponseTooLarge`].
pub fn check_response_size(response: Box<RawValue>) -> Result<Box<RawValue>> {
    let length = response.get().len();
    if length <= MAX_RESPONSE_BYTES {
        return Ok(response);
    }
    let message = format!(
        "the response has {length} bytes; Lambda accepts {MAX_RESPONSE_BYTES}. Send fewer inputs, or set encoding_format to base64"
    );
    Err(Error::new(ErrorKind::ResponseTooLarge, message))
}

/// A response in the format of a function URL in the mode RESPONSE_STREAM.
pub fn stream_response(head: Response<()>, stream: Body) -> LambdaResponse {
    let (parts, ()) = head.into_parts();
    FunctionResponse::StreamingResponse(StreamResponse {
        metadata_prelude: MetadataPrelude { status_code: parts.status, headers: parts.headers, cookies: vec![] },
        stream,
    })
}

/// A body that consists of chunks as they are produced. If the client is gone, the receiver is dropped, which ends the work.
pub fn stream_body(first: Bytes, mut chunks: Receiver<Bytes>) -> Body {
    let (mut sender, body) = lambda_runtime::streaming::channel();
    tokio::spawn(async move {
        let mut next = Some(first);
        while let Some(chunk) = next {
            if sender.send_data(chunk).await.is_err() {
                break;
            }
            next = chunks.recv().await;
        }
    });
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadline_in_past_means_no_limit() {
        let now = SystemTime::now();
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!(time_limit(SystemTime::UNIX_EPOCH + Duration::from_secs(600), now), None);
        assert_eq!(time_limit(now, now), None);
        assert_eq!(time_limit(at(1000), now), Some(Duration::from_millis(900)));
        assert_eq!(time_limit(at(60_000), now), Some(Duration::from_millis(59_500)));
    }
}
