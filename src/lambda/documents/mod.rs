//! Events with documents: SQS messages, notifications of S3 objects, and batches of a distributed map. The documents are embedded, and
//! their points are written to the sink.

mod distributed_map;
mod item;
mod process;
mod records;
mod s3_event;

use super::event::EventSource;
use crate::engine::Engine;
use crate::pipeline::sink;
use process::EventProcessor;
use serde_json::value::RawValue;
use tealight_core::{Deadline, Error, ErrorKind, Result};

/// Writes the documents of an event, and returns the response.
///
/// # Errors
/// [`ErrorKind::UnsupportedEvent`]: no sink is configured. The errors of [`sink::configured`] and [`EventProcessor::process`].
pub fn process(engine: &Engine, source: EventSource, payload: &str, deadline: Deadline) -> Result<Box<RawValue>> {
    let target = sink::configured(engine)?.ok_or_else(|| {
        Error::new(ErrorKind::UnsupportedEvent, "event contains documents but TEALIGHT_SINK is not set")
    })?;
    EventProcessor::new(engine, &target, deadline).process(source, payload)
}

/// Parses an event without processing it.
///
/// # Errors
/// [`ErrorKind::UnsupportedEvent`].
pub fn parse(source: EventSource, payload: &str) -> Result<()> {
    match source {
        EventSource::Records => records::parse(payload).map(drop),
        EventSource::EventBridge => s3_event::parse_eventbridge(payload).map(drop),
        EventSource::DistributedMap => distributed_map::parse(payload).map(drop),
    }
}
