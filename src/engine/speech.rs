//! Job: what is said in a recording.

use super::{Embed, EmbedInputs, Embeddings, Engine, Input, Job, Truncation};
use crate::pipeline::input::Document;
use bytes::Bytes;
use serde_json::value::{RawValue, to_raw_value};
use tealight_audio::Recording;
use tealight_core::Deadline;
use tealight_core::{Error, Result};
use tealight_models::tasks::transcribe::{Listener, Options, Pieces, Segment, Transcript};
use tealight_models::tokenizer::Direction;

/// Hears how far a transcription is: new segments, seconds done, and seconds of the recording, 0 until that is known.
pub type Progress<'a> = &'a mut dyn FnMut(&[Segment], f32, f32) -> Result<()>;

/// Job: what is said in a recording.
pub struct Transcribe<'a> {
    /// A model's name; the default speech model where it is missing.
    pub model: Option<String>,
    /// The file.
    pub audio: Bytes,
    /// What was said before the recording, or words that it has.
    pub prompt: Option<String>,
    /// How.
    pub options: Options,
    /// Hears how far it is; an error from it ends the job.
    pub progress: Progress<'a>,
}

impl std::fmt::Debug for Transcribe<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transcribe {} bytes", self.audio.len())
    }
}

/// What was said, and by which model it was heard.
#[derive(Debug, Clone)]
pub struct Said {
    /// The name of the model.
    pub model: String,
    /// The text with its times.
    pub transcript: Transcript,
}

impl Job for Transcribe<'_> {
    type Output = Said;

    fn run(self, engine: &Engine, deadline: Deadline) -> Result<Said> {
        // What is no recording is refused before a model is loaded for it.
        let recording = Recording::open(self.audio)?;
        let loaded = engine.registry.speech_model(self.model.as_deref())?;
        let model = &loaded.model;
        let mut options = self.options;
        if let Some(prompt) = self.prompt.filter(|p| !p.trim().is_empty()) {
            options.prompt = model.prompt(&prompt)?;
        }
        let again = || Ok(Box::new(recording.samples()?) as Pieces);
        let mut listener = Listener::new(model.config.bands, options.voices, again, || {
            deadline.check()?;
            (self.progress)(&[], 0.0, 0.0)
        })?;
        let seconds = listener.seconds();
        let transcript = model.transcribe(&engine.cpu, &mut listener, &options, |segments, done| {
            deadline.check()?;
            (self.progress)(segments, done, seconds)
        })?;
        Ok(Said { model: loaded.name.clone(), transcript })
    }
}

/// A vector of length 1 for each segment of a transcript, by the embedding model `model`, or the default one; texts that are too
/// long for it are cut.
///
/// # Errors
/// As of [`Embed`].
pub fn embed(
    engine: &Engine,
    transcript: &Transcript,
    model: Option<String>,
    dimensions: Option<usize>,
    deadline: Deadline,
) -> Result<Embeddings> {
    let inputs = transcript.segments.iter().map(|s| Input::Text(s.text.trim().to_string())).collect();
    let truncation = Truncation::Truncate(Direction::Right);
    let texts = EmbedInputs { model, inputs, prompt: None, truncation, field: "segments", first_index: 0 };
    engine.run(Embed { texts, normalize: true, dimensions }, deadline)
}

/// The segments of a recording as documents: each has the name of the recording with its times as a media fragment
/// (<https://www.w3.org/TR/media-frags/#naming-time>).
///
/// # Errors
/// As of [`Transcribe`].
pub fn documents(engine: &Engine, name: &str, audio: Bytes, deadline: Deadline) -> Result<Vec<Document>> {
    let progress: Progress = &mut |_, _, _| Ok(());
    let job = Transcribe { model: None, audio, prompt: None, options: Options::default(), progress };
    let transcript = engine.run(job, deadline)?.transcript;
    let document = |segment: &Segment| {
        let (start, end) = (format!("{:.2}", segment.start), format!("{:.2}", segment.end));
        let metadata = format!("{{\"start_seconds\":{start},\"end_seconds\":{end}}}");
        let raw = |json: serde_json::Result<Box<RawValue>>| json.map_err(|e| Error::internal(e.to_string()));
        let id = raw(to_raw_value(&format!("{name}#t={start},{end}")))?;
        let metadata = raw(RawValue::from_string(metadata))?;
        Ok(Document { id: Some(id), text: segment.text.trim().to_string(), metadata: Some(metadata) })
    };
    transcript.segments.iter().filter(|segment| !segment.text.trim().is_empty()).map(document).collect()
}
