//! Recordings as documents: one document per segment of the transcript.

use crate::engine::JobContext;
use crate::engine::speech::{OnProgress, Transcribe};
use crate::pipeline::document::Document;
use bytes::Bytes;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use std::fmt::Write as _;
use tealight_core::{Error, Result};
use tealight_models::tasks::transcribe::{Segment, TranscribeOptions};

/// Transcribes a recording with the default speech-to-text model, and returns its segments as by [`segment_document`]. `read` returns
/// the content of the audio file.
///
/// # Errors
/// As [`Transcribe`].
pub fn recording_documents(
    context: &JobContext,
    name: &str,
    read: impl FnOnce() -> Result<Bytes>,
) -> Result<Vec<Document>> {
    let audio = read()?;
    let on_progress: OnProgress = &mut |_, _, _| Ok(());
    let job = Transcribe { model: None, audio, prompt: None, options: TranscribeOptions::default(), on_progress };
    let transcript = context.run(job)?.transcript;
    transcript.segments.iter().filter_map(|segment| segment_document(name, segment, &[]).transpose()).collect()
}

/// A segment of a recording as a document; none if it has no text. The id is the name of the recording with the times as a media
/// fragment (<https://www.w3.org/TR/media-frags/#naming-time>). The metadata has the times and the other fields. Its names are not
/// `start` and `end`, which a point reserves for positions in the text.
///
/// # Errors
/// Never in practice: strings always serialize.
pub fn segment_document(name: &str, segment: &Segment, other_fields: &[(&str, &str)]) -> Result<Option<Document>> {
    let text = segment.text.trim().to_string();
    if text.is_empty() {
        return Ok(None);
    }
    let (start, end) = (format!("{:.2}", segment.start), format!("{:.2}", segment.end));
    let mut metadata = format!("{{\"start_seconds\":{start},\"end_seconds\":{end}");
    for (name, value) in other_fields {
        let _ = write!(metadata, ",{}:{}", Value::from(*name), Value::from(*value));
    }
    metadata.push('}');
    let raw = |json: serde_json::Result<Box<RawValue>>| json.map_err(|e| Error::internal(e.to_string()));
    let id = raw(to_raw_value(&format!("{name}#t={start},{end}")))?;
    let metadata = raw(RawValue::from_string(metadata))?;
    Ok(Some(Document { id: Some(id), text, metadata: Some(metadata) }))
}
