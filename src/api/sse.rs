//! Responses as server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use super::context::ApiResponse;
use super::errors::OpenAiError;
use super::response_sender::{EVENT_STREAM, ResponseSender};
use serde::Serialize;
use tealight_core::{Error, Result};

/// Writes the events of a response: to the client at once if the transport can stream, or else to a buffer.
#[derive(Debug)]
pub(super) struct SseWriter<'a> {
    sender: Option<&'a ResponseSender>,
    has_started: bool,
    buffer: String,
}

impl<'a> SseWriter<'a> {
    pub(super) fn new(sender: Option<&'a ResponseSender>) -> Self {
        Self { sender, has_started: false, buffer: String::new() }
    }

    /// Sends an event with a JSON value.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::ClientClosedRequest`], so that the work for the response ends.
    pub(super) fn send(&mut self, value: &impl Serialize) -> Result<()> {
        let data = serde_json::to_string(value)
            .map_err(|e| Error::internal(format!("the event cannot be serialized: {e}")))?;
        self.write(format!("data: {data}\n\n"))
    }

    /// Sends the event that ends a stream of OpenAI.
    ///
    /// # Errors
    /// As [`SseWriter::send`].
    #[cfg(feature = "text")]
    pub(super) fn send_done(&mut self) -> Result<()> {
        self.write("data: [DONE]\n\n".into())
    }

    /// Ends the response. After the status has been sent, an error is one more event.
    ///
    /// # Errors
    /// The error of `outcome`.
    pub(super) fn finish(mut self, outcome: Result<()>) -> Result<ApiResponse> {
        if let Err(error) = outcome {
            if self.has_started && self.sender.is_some() {
                // The client may have disconnected.
                let _ = self.send(&OpenAiError::from(&error));
            }
            return Err(error);
        }
        Ok(ApiResponse::text(self.buffer, EVENT_STREAM))
    }

    fn write(&mut self, event: String) -> Result<()> {
        self.has_started = true;
        match self.sender {
            None => self.buffer.push_str(&event),
            Some(sender) => sender.send(event.into())?,
        }
        Ok(())
    }
}
