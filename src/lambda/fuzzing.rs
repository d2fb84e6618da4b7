//! Events without the runtime around them, for `fuzz/`: converting a payload to a request, and a response to the event's format.

use super::event::{EventFields, EventKind};
use super::http_event::HttpEvent;
use super::{direct_invoke, documents};
use crate::api::context::Body;
use bytes::Bytes;
use http::{Request, Response};
use serde_json::value::RawValue;
use tealight_core::Result;

/// The request that an event contains; none if its kind contains none.
///
/// # Errors
/// The event is invalid.
pub fn request(payload: &str) -> Result<Option<Request<Bytes>>> {
    let event = EventFields::parse(payload)?;
    match event.kind() {
        EventKind::Http => HttpEvent::parse(&event)?.into_request().map(|(request, _)| Some(request)),
        EventKind::Direct => {
            let (head, _) = direct_invoke::parse(&event)?;
            Ok(Some(head.map(|()| Bytes::copy_from_slice(payload.as_bytes()))))
        }
        EventKind::S3Test => Ok(None),
        EventKind::Documents(source) => documents::parse(source, payload).map(|()| None),
    }
}

/// A response in the event's format.
///
/// # Errors
/// The event is invalid.
pub fn response(payload: &str, response: &Response<Bytes>) -> Result<Box<RawValue>> {
    let event = EventFields::parse(payload)?;
    match event.kind() {
        EventKind::Http => HttpEvent::parse(&event)?.format.response(response),
        EventKind::Direct => Body::Text(String::from_utf8_lossy(response.body()).into_owned()).into_json(),
        EventKind::S3Test | EventKind::Documents(_) => Body::Empty.into_json(),
    }
}
