//! Recordings as documents: one document per segment of the transcript.

use crate::engine::JobContext;
use crate::engine::speech::{OnProgress, Transcribe};
use crate::pipeline::document::Document;
use bytes::Bytes;
use serde_json::value::{RawValue, to_raw_value};
use tealight_core::{Error, Result};
use tealight_models::tasks::transcribe::{Segment, TranscribeOptions};

/// Transcribes a recording with the default speech-to-text model. The id of a segment is the name of the recording with the times
/// as a media fragment (<https://www.w3.org/TR/media-frags/#naming-time>); its metadata also has the times. `read` returns the
/// content of the audio file.
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
    let with_text = transcript.segments.iter().filter(|segment| !segment.text.trim().is_empty());
    with_text.map(|segment| segment_document(name, segment)).collect()
}

fn segment_document(name: &str, segment: &Segment) -> Result<Document> {
    let (start, end) = (format!("{:.2}", segment.start), format!("{:.2}", segment.end));
    let metadata = format!("{{\"start_seconds\":{start},\"end_seconds\":{end}}}");
    let raw = |json: serde_json::Result<Box<RawValue>>| json.map_err(|e| Error::internal(e.to_string()));
    let id = raw(to_raw_value(&format!("{name}#t={start},{end}")))?;
    let metadata = raw(RawValue::from_string(metadata))?;
    Ok(Document { id: Some(id), text: segment.text.trim().to_string(), metadata: Some(metadata) })
}
