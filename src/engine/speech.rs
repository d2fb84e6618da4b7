//! Job: what is said in a recording.

use super::embed::Embed;
use super::inputs::{EmbedInputs, Input, Truncation};
use super::job::{Job, JobContext};
use bytes::Bytes;
use tealight_audio::Recording;
use tealight_core::Result;
use tealight_models::tasks::transcribe::{Listener, Options, Pieces, Segment, Transcript};
use tealight_models::tokenizer::TruncationDirection;

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

    fn run(self, context: &JobContext) -> Result<Said> {
        // What is no recording is refused before a model is loaded for it.
        let recording = Recording::open(self.audio)?;
        let loaded = context.speech_model(self.model.as_deref())?;
        let model = &loaded.model;
        let mut options = self.options;
        if let Some(prompt) = self.prompt.filter(|p| !p.trim().is_empty()) {
            options.prompt = model.prompt(&prompt)?;
        }
        let again = || Ok(Box::new(recording.samples()?) as Pieces);
        let mut listener = Listener::new(model.config.bands, options.voices, again, || {
            context.deadline.check()?;
            (self.progress)(&[], 0.0, 0.0)
        })?;
        let seconds = listener.seconds();
        let transcript = model.transcribe(&context.engine.cpu, &mut listener, &options, |segments, done| {
            context.deadline.check()?;
            (self.progress)(segments, done, seconds)
        })?;
        Ok(Said { model: loaded.name.clone(), transcript })
    }
}

/// The job that computes a unit-length embedding of each segment of a transcript, with the embedding model `model` or the default
/// one. Segments that are too long for the model are truncated.
pub fn embed_segments(transcript: &Transcript, model: Option<String>, dimensions: Option<usize>) -> Embed {
    let inputs = transcript.segments.iter().map(|s| Input::Text(s.text.trim().to_string())).collect();
    let truncation = Truncation::Truncate(TruncationDirection::Right);
    let texts = EmbedInputs { model, inputs, prompt: None, truncation, field: "segments", first_index: 0 };
    Embed { texts, normalize: true, dimensions }
}
