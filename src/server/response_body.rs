//! The body of a response.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc::Receiver;

/// One buffer, or chunks as they are produced.
#[derive(Debug)]
pub struct ResponseBody {
    next: Option<Bytes>,
    chunks: Option<Receiver<Bytes>>,
}

impl ResponseBody {
    /// Chunks as they are produced, after the first one.
    pub fn stream(first: Bytes, chunks: Receiver<Bytes>) -> Self {
        Self { next: Some(first), chunks: Some(chunks) }
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self { next: Some(bytes).filter(|b| !b.is_empty()), chunks: None }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(next) = self.next.take() {
            return Poll::Ready(Some(Ok(Frame::data(next))));
        }
        match &mut self.chunks {
            None => Poll::Ready(None),
            Some(chunks) => chunks.poll_recv(context).map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.chunks.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.chunks {
            None => SizeHint::with_exact(self.next.as_ref().map_or(0, |b| b.len() as u64)),
            Some(_) => SizeHint::default(),
        }
    }
}
