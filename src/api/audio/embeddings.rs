//! `/v1/audio/embeddings`, which OpenAI's API does not have: the segments of a recording and their embeddings.

use super::super::context::{ApiResponse, RequestContext};
use super::super::response_sender::ResponseSender;
use super::request::ParsedRequest;
use super::usage::audio_usage;
use crate::engine::ValidateOptions;
use crate::engine::speech::{Transcribe, Transcription, embed_segments};
use crate::pipeline::format::transcript::{DurationUsage, round_to_hundredths};
use crate::pipeline::format::{Encoded, encode};
use serde::Serialize;
use std::time::Instant;
use tealight_core::{Result, Usage};
use tealight_models::families::whisper::language_name;
use tealight_models::tasks::transcribe::{Segment, Task};

/// Response of `/v1/audio/embeddings`, whose request is an `AudioRequest`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AudioEmbeddingsResponse {
    /// `list`.
    pub object: &'static str,
    /// One item per segment, in order of time.
    pub data: Vec<SegmentEmbedding>,
    /// Name of the embedding model.
    pub model: String,
    /// Name of the speech-to-text model.
    pub speech_model: String,
    /// Name of the language, such as `english`.
    pub language: String,
    /// Duration of the recording, in seconds.
    pub duration: f32,
    /// Duration of the recording.
    pub usage: DurationUsage,
}

/// A segment of a recording and its embedding.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SegmentEmbedding {
    /// `embedding`.
    pub object: &'static str,
    /// Position in `data`, from 0.
    pub index: usize,
    /// Text of the segment.
    pub text: String,
    /// Start time in the recording, in seconds.
    pub start: f32,
    /// End time in the recording, in seconds.
    pub end: f32,
    /// The embedding, in the requested encoding.
    pub embedding: Encoded,
    /// For int8 and uint8: value = scale × code, or scale × (code − 128).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
}

/// Handles `POST /v1/audio/embeddings`.
pub fn embeddings(context: &RequestContext) -> Result<ApiResponse> {
    let start = Instant::now();
    let ParsedRequest { fields, file, .. } = ParsedRequest::parse(context)?;
    let options = fields.transcribe_options(Task::Transcribe)?;
    // Before the transcription, which takes much longer.
    let check = ValidateOptions { model: fields.embedding_model.clone(), dimensions: fields.dimensions, prompt: None };
    context.run(check).map_err(|e| match e.param.as_deref() {
        Some("model") => e.with_param("embedding_model"),
        _ => e,
    })?;
    let on_progress = &mut |_: &[_], _, _| context.sender.map_or(Ok(()), ResponseSender::check);
    let job = Transcribe { model: fields.model, audio: file, prompt: fields.prompt, options, on_progress };
    let Transcription { model: speech_model, transcript } = context.run(job)?;
    let embeddings = context.run(embed_segments(&transcript, fields.embedding_model, fields.dimensions))?;
    let item = |(index, (segment, vector)): (usize, (&Segment, Vec<f32>))| {
        let (embedding, scale) = encode(vector, fields.encoding_format.unwrap_or_default());
        let text = segment.text.trim().to_string();
        let (start, end) = (round_to_hundredths(segment.start), round_to_hundredths(segment.end));
        SegmentEmbedding { object: "embedding", index, text, start, end, embedding, scale }
    };
    let usage = Usage {
        tokens: embeddings.usage.tokens,
        tokenization_time: embeddings.usage.tokenization_time,
        ..audio_usage(context, transcript.duration, start)
    };
    let response = AudioEmbeddingsResponse {
        object: "list",
        data: transcript.segments.iter().zip(embeddings.vectors).enumerate().map(item).collect(),
        model: embeddings.model,
        speech_model,
        language: language_name(&transcript.language).into(),
        duration: round_to_hundredths(transcript.duration),
        usage: DurationUsage::new(transcript.duration),
    };
    Ok(ApiResponse::json(&response)?.with_usage(usage).with_model(response.speech_model))
}
