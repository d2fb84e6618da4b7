//! Reading the body of a request.

use crate::api::errors::body_too_large;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, EXPECT};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::time::Duration;
use tealight_core::{Error, ErrorKind, Result};
use tokio::time::Instant;

/// How long a client may take to send its body, in addition to the time at [`MIN_BODY_RATE`].
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// The slowest rate at which a body may arrive, in bytes per second: recordings may come from mobile phones.
const MIN_BODY_RATE: usize = 8 << 10;
/// How much of a body over the limit is read and discarded, as a multiple of the limit.
const DISCARD_FACTOR: usize = 8;

/// The `Content-Length` header.
pub fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a body of at most `limit` bytes. A longer body is read further and discarded, because many clients read no response
/// before they have sent everything.
///
/// # Errors
/// [`ErrorKind::BodyTooLarge`], [`ErrorKind::BodyTimeout`]; [`ErrorKind::InvalidJson`] if the connection closes early.
pub async fn read(mut body: Incoming, headers: &HeaderMap, limit: usize) -> Result<Bytes> {
    let excess_content_length = content_length(headers).filter(|length| *length > limit);
    if let Some(length) = excess_content_length.filter(|_| headers.contains_key(EXPECT)) {
        return Err(body_too_large(length, limit));
    }
    let (mut bytes, mut length, start) = (BytesMut::new(), 0, Instant::now());
    loop {
        let end = start + BODY_TIMEOUT + Duration::from_secs((length / MIN_BODY_RATE) as u64);
        let Ok(frame) = tokio::time::timeout_at(end, body.frame()).await else {
            return Err(match excess_content_length {
                Some(length) => body_too_large(length, limit),
                None => too_slow(length, start.elapsed()),
            });
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|e| Error::new(ErrorKind::InvalidJson, format!("the body is incomplete: {e}")))?;
        let data = frame.data_ref().map_or(&[][..], |b| &b[..]);
        length += data.len();
        if length > DISCARD_FACTOR * limit {
            break;
        }
        if length <= limit && excess_content_length.is_none() {
            bytes.extend_from_slice(data);
        }
    }
    let length = excess_content_length.unwrap_or(length);
    if length > limit { Err(body_too_large(length, limit)) } else { Ok(bytes.freeze()) }
}

fn too_slow(length: usize, elapsed: Duration) -> Error {
    let (seconds, kib) = (elapsed.as_secs(), MIN_BODY_RATE >> 10);
    let message = format!("request body too slow: {length} bytes in {seconds} s; minimum {kib} KiB/s");
    Error::new(ErrorKind::BodyTimeout, message)
}
