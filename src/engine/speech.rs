//! Transcription job, and embeddings of its segments.

use super::embed::Embed;
use super::inputs::{EmbedInputs, Input, Truncation};
use super::job::{Job, JobContext};
use super::model_cache::{LoadedModel, ModelCache};
use super::model_task::ModelTask;
use super::registry::{ModelAndWait, ModelDetails, Registry, ServedModel};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use tealight_audio::Recording;
use tealight_core::Result;
use tealight_models::families::whisper::Whisper;
use tealight_models::tasks::transcribe::{
    SampleBlocks, Segment, TranscribeOptions, Transcript, WindowReader, transcribe,
};
use tealight_models::tokenizer::TruncationDirection;

impl ServedModel for Whisper {
    const TASK: ModelTask = ModelTask::Speech;

    fn cache(registry: &Registry) -> &ModelCache<Self> {
        &registry.caches.speech
    }

    fn load(registry: &Registry, _: &str, path: &Path) -> Result<Self> {
        Whisper::load(&registry.cpu, path)
    }

    fn details(&self) -> ModelDetails {
        ModelDetails::default()
    }
}

impl Registry {
    /// The speech-to-text model of this name, or the default one. Loads it if necessary.
    ///
    /// # Errors
    /// As [`Registry::embedder`].
    pub fn speech_model(&self, name: Option<&str>) -> Result<ModelAndWait<Whisper>> {
        self.get(name)
    }
}

impl JobContext<'_> {
    /// The speech-to-text model of this name, or the default one.
    ///
    /// # Errors
    /// As [`Registry::speech_model`].
    pub fn speech_model(&self, name: Option<&str>) -> Result<Arc<LoadedModel<Whisper>>> {
        Ok(self.record_wait(self.engine.registry.speech_model(name)?))
    }
}

/// Called with new segments, the seconds transcribed so far, and the duration of the recording in seconds. The duration is 0 during
/// the first pass over the recording. An error ends the job.
pub type OnProgress<'a> = &'a mut dyn FnMut(&[Segment], f32, f32) -> Result<()>;

/// Job: transcribes a recording.
pub struct Transcribe<'a> {
    /// Name of the model; by default the configured speech-to-text model.
    pub model: Option<String>,
    /// The content of the audio file.
    pub audio: Bytes,
    /// Context or vocabulary that guides the transcription.
    pub prompt: Option<String>,
    /// Decoding options; [`Transcribe::prompt`] replaces the initial prompt.
    pub options: TranscribeOptions,
    /// Called after each window.
    pub on_progress: OnProgress<'a>,
}

impl std::fmt::Debug for Transcribe<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transcribe {} bytes", self.audio.len())
    }
}

/// Result of [`Transcribe`].
#[derive(Debug, Clone)]
pub struct Transcription {
    /// Name of the model.
    pub model: String,
    /// Text with timestamps.
    pub transcript: Transcript,
}

impl Job for Transcribe<'_> {
    type Output = Transcription;

    fn run(self, context: &JobContext) -> Result<Transcription> {
        // Before loading a model, which an unsupported file would not need.
        let recording = Recording::open(self.audio)?;
        let loaded = context.speech_model(self.model.as_deref())?;
        let model = &loaded.model;
        let mut options = self.options;
        if let Some(prompt) = self.prompt.filter(|p| !p.trim().is_empty()) {
            options.initial_prompt = model.encode_prompt(&prompt)?;
        }
        let decode = || Ok(Box::new(recording.samples(context.engine.cpu.isa)?) as SampleBlocks);
        let mut windows = WindowReader::new(model.config.num_mel_bins, options.vad, decode, || {
            context.deadline.check()?;
            (self.on_progress)(&[], 0.0, 0.0)
        })?;
        let duration = windows.duration();
        let transcript = transcribe(model, &context.engine.cpu, &mut windows, &options, |segments, done| {
            context.deadline.check()?;
            (self.on_progress)(segments, done, duration)
        })?;
        Ok(Transcription { model: loaded.name.clone(), transcript })
    }
}

/// The job that computes a unit-length embedding of each segment of a transcript, with the embedding model `model` or the default
/// one. Segments that are too long for the model are truncated.
pub fn embed_segments(transcript: &Transcript, model: Option<String>, dimensions: Option<usize>) -> Embed {
    let inputs = transcript.segments.iter().map(|s| Input::Text(s.text.trim().to_string())).collect();
    let truncation = Truncation::Truncate(TruncationDirection::Right);
    let inputs = EmbedInputs { model, truncation, field: "segments", ..EmbedInputs::new(inputs) };
    Embed { inputs, normalize: true, dimensions }
}
