//! OpenAI's routes for speech: <https://platform.openai.com/docs/api-reference/audio>.

mod request;

pub use request::{AudioRequest, Chunking, ServerVad};

use super::context::{ApiResponse, RequestContext};
use super::response_sender::ResponseSender;
use super::sse::SseWriter;
use crate::engine::ValidateOptions;
use crate::engine::speech::{self, Said, Transcribe};
use crate::pipeline::format::transcript::{Parts, Usage, render, rounded};
use crate::pipeline::format::{Encoded, encode};
use request::Request;
use schemars::JsonSchema;
use serde::Serialize;
use std::time::{Duration, Instant};
use tealight_core::{Error, Result};
use tealight_models::families::whisper::language_name;
use tealight_models::tasks::transcribe::{Segment, Task};

/// The reply of `/v1/audio/embeddings`, which takes an [`AudioRequest`] and is not OpenAI's.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AudioEmbeddingsResponse {
    /// `list`.
    pub object: &'static str,
    /// A document for each segment, in order.
    pub data: Vec<SegmentEmbedding>,
    /// The model that made the vectors.
    pub model: String,
    /// The model that heard.
    pub speech_model: String,
    /// The name of the language.
    pub language: String,
    /// Seconds.
    pub duration: f32,
    /// What it cost.
    pub usage: Usage,
}

/// What was said, when, and its vector.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SegmentEmbedding {
    /// `embedding`.
    pub object: &'static str,
    /// Which segment.
    pub index: usize,
    /// What was said.
    pub text: String,
    /// Seconds.
    pub start: f32,
    /// Seconds.
    pub end: f32,
    /// The vector.
    pub embedding: Encoded,
    /// For int8 and uint8: value = scale × code, or scale × (code − 128).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
}

/// Answers `POST /v1/audio/transcriptions`.
pub fn transcriptions(context: &RequestContext) -> Result<ApiResponse> {
    answer(context, Task::Transcribe)
}

/// Answers `POST /v1/audio/translations`.
pub fn translations(context: &RequestContext) -> Result<ApiResponse> {
    answer(context, Task::Translate)
}

/// Answers `POST /v1/audio/embeddings`: what is said, in segments, and their vectors.
pub fn embeddings(context: &RequestContext) -> Result<ApiResponse> {
    let start = Instant::now();
    let Request { fields, file, .. } = Request::read(context)?;
    let options = fields.options(Task::Transcribe)?;
    let check = ValidateOptions { model: fields.embedding_model.clone(), dimensions: fields.dimensions, prompt: None };
    context.run(check).map_err(|e| match e.param.as_deref() {
        Some("model") => e.with_param("embedding_model"),
        _ => e,
    })?;
    let progress = &mut |_: &[_], _, _| context.sender.map_or(Ok(()), ResponseSender::check);
    let job = Transcribe { model: fields.model, audio: file, prompt: fields.prompt, options, progress };
    let Said { model: speech_model, transcript } = context.run(job)?;
    let vectors = context.run(speech::embed_segments(&transcript, fields.embedding_model, fields.dimensions))?;
    let document = |(index, (segment, vector)): (usize, (&Segment, Vec<f32>))| {
        let (embedding, scale) = encode(vector, fields.encoding_format.unwrap_or_default());
        let (text, start, end) = (segment.text.trim().to_string(), rounded(segment.start), rounded(segment.end));
        SegmentEmbedding { object: "embedding", index, text, start, end, embedding, scale }
    };
    let work = tealight_core::Usage {
        tokens: vectors.usage.tokens,
        tokenization: vectors.usage.tokenization,
        ..work(context, transcript.duration, start)
    };
    let response = AudioEmbeddingsResponse {
        object: "list",
        data: transcript.segments.iter().zip(vectors.vectors).enumerate().map(document).collect(),
        model: vectors.model,
        speech_model,
        language: language_name(&transcript.language).into(),
        duration: rounded(transcript.duration),
        usage: Usage::of(transcript.duration),
    };
    Ok(ApiResponse::json(&response)?.with_usage(work).with_model(response.speech_model))
}

/// What a recording of so many seconds was, for the counters; models that had to be loaded count for themselves.
fn work(context: &RequestContext, seconds: f32, start: Instant) -> tealight_core::Usage {
    let audio = Duration::from_secs_f32(seconds.max(0.0));
    let inference = start.elapsed().saturating_sub(context.jobs.load_timer.total());
    tealight_core::Usage { audio_duration: audio, inference, ..tealight_core::Usage::default() }
}

fn answer(context: &RequestContext, task: Task) -> Result<ApiResponse> {
    let start = Instant::now();
    let Request { fields, file, form } = Request::read(context)?;
    let options = fields.options(task)?;
    let parts = Parts { segments: !options.words || fields.wants("segment"), words: options.words };
    let mut events = fields.stream.unwrap_or(false).then(|| SseWriter::new(context.sender));
    let (with_times, mut count) = (fields.wants("segment"), 0);
    let job = Transcribe {
        model: fields.model,
        audio: file,
        prompt: fields.prompt,
        options,
        progress: &mut |segments, _, _| {
            context.sender.map_or(Ok(()), ResponseSender::check)?;
            let Some(events) = &mut events else { return Ok(()) };
            for segment in segments {
                events.send(&Delta { kind: "transcript.text.delta", delta: &segment.text })?;
                if with_times {
                    events.send(&Timed::of(segment, count))?;
                    count += 1;
                }
            }
            Ok(())
        },
    };
    let outcome = context.run(job);
    if let Some(mut events) = events {
        let seconds = outcome.as_ref().map_or(0.0, |said| said.transcript.duration);
        let model = outcome.as_ref().map_or_else(|_| String::new(), |said| said.model.clone());
        let done = outcome.and_then(|said| {
            let (text, usage) = (said.transcript.text(), Usage::of(seconds));
            events.send(&Done { kind: "transcript.text.done", text: text.trim(), usage })
        });
        return Ok(events.finish(done)?.with_usage(work(context, seconds, start)).with_model(model));
    }
    let Said { model, transcript } = outcome?;
    let body =
        render(&transcript, task, form, parts).map_err(|e| Error::internal(format!("a reply is not JSON: {e}")))?;
    Ok(ApiResponse::text(body, form.content_type())
        .with_usage(work(context, transcript.duration, start))
        .with_model(model))
}

/// OpenAI's event for a further part of a text.
#[derive(Serialize)]
struct Delta<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    delta: &'a str,
}

/// OpenAI's event for a segment, which clients ask for by `timestamp_granularities[]`; who speaks is not told.
#[derive(Serialize)]
struct Timed<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    start: f32,
    end: f32,
    text: &'a str,
}

impl<'a> Timed<'a> {
    fn of(segment: &'a Segment, index: usize) -> Self {
        let (id, start, end) = (format!("seg_{index}"), rounded(segment.start), rounded(segment.end));
        Self { kind: "transcript.text.segment", id, start, end, text: &segment.text }
    }
}

/// OpenAI's last event.
#[derive(Serialize)]
struct Done<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    text: &'a str,
    usage: Usage,
}
