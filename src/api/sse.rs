//! Replies that are sent while they are made: server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use super::openai::ErrorBody;
use super::routes::Reply;
use bytes::Bytes;
use serde::Serialize;
use std::time::{Duration, Instant};
use tealight_core::{Error, ErrorKind, Result};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// The type of such replies.
pub const EVENT_STREAM: &str = "text/event-stream";
/// Pieces that wait for a client that reads slowly; then the work waits, too.
const WAITING: usize = 64;
/// How long a client may read nothing while pieces wait for it.
const STALL: Duration = Duration::from_secs(30);
/// How long to wait before looking again whether it does.
const LOOK: Duration = Duration::from_millis(2);

/// Where a transport takes a reply piece by piece.
#[derive(Debug, Clone)]
pub struct Sink(Sender<Bytes>);

impl Sink {
    /// A sink, and where its pieces come out. The first piece says that the reply is a stream of events.
    pub fn channel() -> (Self, Receiver<Bytes>) {
        let (sender, receiver) = channel(WAITING);
        (Self(sender), receiver)
    }

    /// Fails once nobody waits for the reply any more, so that work of minutes ends with the connection that it was for.
    ///
    /// # Errors
    /// [`ErrorKind::ClientClosedRequest`].
    pub(super) fn check(&self) -> Result<()> {
        if self.0.is_closed() { Err(gone()) } else { Ok(()) }
    }

    /// Sends a piece, and waits for a client that reads slowly, but not for one that does not read.
    fn send(&self, mut piece: Bytes) -> Result<()> {
        let start = Instant::now();
        loop {
            piece = match self.0.try_send(piece) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(piece)) if start.elapsed() < STALL => piece,
                Err(_) => return Err(gone()),
            };
            std::thread::sleep(LOOK);
        }
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::ClientClosedRequest, "the client closed the connection before the end")
}

/// The events of a reply: sent at once where the transport can, and else kept until the end.
#[derive(Debug)]
pub(super) struct Events<'a> {
    sink: Option<&'a Sink>,
    begun: bool,
    kept: String,
}

impl<'a> Events<'a> {
    pub(super) fn new(sink: Option<&'a Sink>) -> Self {
        Self { sink, begun: false, kept: String::new() }
    }

    /// Sends OpenAI's last event.
    ///
    /// # Errors
    /// As of [`Events::send`].
    pub(super) fn done(&mut self) -> Result<()> {
        self.write("data: [DONE]\n\n".into())
    }

    /// Sends an event.
    ///
    /// # Errors
    /// [`ErrorKind::ClientClosedRequest`], so that the work for it ends.
    pub(super) fn send(&mut self, value: &impl Serialize) -> Result<()> {
        let data = serde_json::to_string(value).map_err(|e| Error::internal(format!("an event is not JSON: {e}")))?;
        self.write(format!("data: {data}\n\n"))
    }

    fn write(&mut self, event: String) -> Result<()> {
        self.begun = true;
        match self.sink {
            None => self.kept.push_str(&event),
            Some(sink) => sink.send(event.into())?,
        }
        Ok(())
    }

    /// The reply, once all events are sent. An error that comes after the first event is one more event: the status is sent.
    pub(super) fn end(mut self, outcome: Result<()>) -> Result<Reply> {
        if let Err(error) = outcome {
            if self.begun && self.sink.is_some() {
                // Nobody may be there to see it.
                let _ = self.send(&ErrorBody::from(&error));
            }
            return Err(error);
        }
        Ok(Reply::text(self.kept, EVENT_STREAM))
    }
}
