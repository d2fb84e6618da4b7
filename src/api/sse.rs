//! Replies that are sent while they are made: server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use super::context::ApiResponse;
use super::errors::OpenAiError;
use super::response_sender::ResponseSender;
use serde::Serialize;
use tealight_core::{Error, Result};

/// The type of such replies.
pub const EVENT_STREAM: &str = "text/event-stream";

/// The events of a reply: sent at once where the transport can, and else kept until the end.
#[derive(Debug)]
pub(super) struct SseWriter<'a> {
    sink: Option<&'a ResponseSender>,
    begun: bool,
    kept: String,
}

impl<'a> SseWriter<'a> {
    pub(super) fn new(sink: Option<&'a ResponseSender>) -> Self {
        Self { sink, begun: false, kept: String::new() }
    }

    /// Sends OpenAI's last event.
    ///
    /// # Errors
    /// As of [`SseWriter::send`].
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
    pub(super) fn end(mut self, outcome: Result<()>) -> Result<ApiResponse> {
        if let Err(error) = outcome {
            if self.begun && self.sink.is_some() {
                // Nobody may be there to see it.
                let _ = self.send(&OpenAiError::from(&error));
            }
            return Err(error);
        }
        Ok(ApiResponse::text(self.kept, EVENT_STREAM))
    }
}
