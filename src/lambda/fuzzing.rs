//! Events without the runtime around them, for `fuzz/`: what is asked, and how a reply goes back.

use super::batch::Bringer;
use super::{HttpEvent, Kinds, direct_invoke, distributed_map, kind_of, records};
use bytes::Bytes;
use http::{Request, Response};
use serde_json::value::RawValue;
use tealight_core::Result;

/// The request that an event carries, if its kind carries one.
pub fn request(payload: &str) -> Result<Option<Request<Bytes>>> {
    match kind_of(payload) {
        Kinds::Http => HttpEvent::parse(payload)?.request().map(Some),
        Kinds::Direct => direct_invoke::request(payload).map(Some),
        Kinds::S3Test => Ok(None),
        Kinds::Work(Bringer::Records) => records::parse(payload).map(|_| None),
        Kinds::Work(Bringer::Bridge) => records::bridged(payload).map(|_| None),
        Kinds::Work(Bringer::Map) => distributed_map::parse(payload).map(|_| None),
    }
}

/// A reply in the event's form.
pub fn reply(payload: &str, response: &Response<Bytes>) -> Result<Box<RawValue>> {
    match kind_of(payload) {
        Kinds::Http => HttpEvent::parse(payload)?.reply(response),
        Kinds::Direct => direct_invoke::reply(response),
        Kinds::S3Test | Kinds::Work(_) => Ok(direct_invoke::null()),
    }
}
