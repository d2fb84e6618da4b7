//! OpenAI's server-sent events of a transcription.

use crate::pipeline::format::transcript::{DurationUsage, round_to_hundredths};
use serde::Serialize;
use tealight_models::tasks::transcribe::Segment;

/// `transcript.text.delta`: the next part of the text.
#[derive(Serialize)]
pub(super) struct TranscriptTextDelta<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    delta: &'a str,
}

impl<'a> TranscriptTextDelta<'a> {
    pub(super) fn new(delta: &'a str) -> Self {
        Self { kind: "transcript.text.delta", delta }
    }
}

/// `transcript.text.segment`, sent on request (`timestamp_granularities[]`). OpenAI's field for the speaker is missing.
#[derive(Serialize)]
pub(super) struct TranscriptTextSegment<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    start: f32,
    end: f32,
    text: &'a str,
}

impl<'a> TranscriptTextSegment<'a> {
    pub(super) fn new(segment: &'a Segment, index: usize) -> Self {
        Self {
            kind: "transcript.text.segment",
            id: format!("seg_{index}"),
            start: round_to_hundredths(segment.start),
            end: round_to_hundredths(segment.end),
            text: &segment.text,
        }
    }
}

/// `transcript.text.done`: the last event, with the whole text.
#[derive(Serialize)]
pub(super) struct TranscriptTextDone<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    text: &'a str,
    usage: DurationUsage,
}

impl<'a> TranscriptTextDone<'a> {
    pub(super) fn new(text: &'a str, usage: DurationUsage) -> Self {
        Self { kind: "transcript.text.done", text, usage }
    }
}
