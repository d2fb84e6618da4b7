//! The channel by which a response is sent while it is produced.

use bytes::Bytes;
use std::time::{Duration, Instant};
use tealight_core::{Error, ErrorKind, Result};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Pieces that wait for a client that reads slowly; then the work waits, too.
const WAITING: usize = 64;
/// How long a client may read nothing while pieces wait for it.
const STALL: Duration = Duration::from_secs(30);
/// How long to wait before looking again whether it does.
const LOOK: Duration = Duration::from_millis(2);

/// Where a transport takes a reply piece by piece.
#[derive(Debug, Clone)]
pub struct ResponseSender(Sender<Bytes>);

impl ResponseSender {
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
    pub(super) fn send(&self, mut piece: Bytes) -> Result<()> {
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
