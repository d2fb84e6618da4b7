//! The channel through which a response is sent while it is produced.

use bytes::Bytes;
use std::time::{Duration, Instant};
use tealight_core::{Error, ErrorKind, Result};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// The content type of server-sent events.
pub(super) const EVENT_STREAM: &str = "text/event-stream";
/// Chunks that are buffered for a client that reads slowly; then producing the response pauses.
const CHANNEL_CAPACITY: usize = 64;
/// How long a client may read nothing while the buffer is full.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a full buffer is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Sends the chunks of a response.
#[derive(Debug, Clone)]
pub struct ResponseSender(Sender<Bytes>);

impl ResponseSender {
    /// A sender and its receiver. The first chunk means that the response is a stream of server-sent events.
    pub fn channel() -> (Self, Receiver<Bytes>) {
        let (sender, receiver) = channel(CHANNEL_CAPACITY);
        (Self(sender), receiver)
    }

    /// Fails if the client has disconnected, so that work that takes minutes ends with its connection.
    ///
    /// # Errors
    /// [`ErrorKind::ClientClosedRequest`].
    pub fn check(&self) -> Result<()> {
        if self.0.is_closed() { Err(client_closed_request()) } else { Ok(()) }
    }

    /// Sends a chunk. Waits for a client that reads slowly, but not for one that does not read.
    ///
    /// # Errors
    /// [`ErrorKind::ClientClosedRequest`].
    pub fn send(&self, mut chunk: Bytes) -> Result<()> {
        let start = Instant::now();
        loop {
            chunk = match self.0.try_send(chunk) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(chunk)) if start.elapsed() < SEND_TIMEOUT => chunk,
                Err(_) => return Err(client_closed_request()),
            };
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

fn client_closed_request() -> Error {
    Error::new(ErrorKind::ClientClosedRequest, "the client closed the connection before the end of the response")
}
