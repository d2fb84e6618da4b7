//! `/v1/audio/transcriptions` and `/v1/audio/translations`.

use super::super::context::{ApiResponse, RequestContext};
use super::super::response_sender::ResponseSender;
use super::super::sse::SseWriter;
use super::events::{TranscriptTextDelta, TranscriptTextDone, TranscriptTextSegment};
use super::request::ParsedRequest;
use super::usage::audio_usage;
use crate::engine::speech::{Transcribe, Transcription};
use crate::pipeline::format::transcript::{DurationUsage, Granularities, render};
use std::time::Instant;
use tealight_core::{Error, Result};
use tealight_models::tasks::transcribe::{Task, TranscribeOptions};

/// Handles `POST /v1/audio/transcriptions`.
pub fn transcriptions(context: &RequestContext) -> Result<ApiResponse> {
    run_task(context, Task::Transcribe)
}

/// Handles `POST /v1/audio/translations`.
pub fn translations(context: &RequestContext) -> Result<ApiResponse> {
    run_task(context, Task::Translate)
}

fn run_task(context: &RequestContext, task: Task) -> Result<ApiResponse> {
    let start = Instant::now();
    let request = ParsedRequest::parse(context)?;
    let options = request.fields.transcribe_options(task)?;
    if request.fields.stream.unwrap_or(false) {
        stream_response(context, request, options, start)
    } else {
        complete_response(context, request, options, start)
    }
}

fn complete_response(
    context: &RequestContext,
    request: ParsedRequest,
    options: TranscribeOptions,
    start: Instant,
) -> Result<ApiResponse> {
    let ParsedRequest { fields, file, format } = request;
    let (task, words) = (options.task, options.word_timestamps);
    let granularities = Granularities { segments: !words || fields.has_granularity("segment"), words };
    let on_progress = &mut |_: &[_], _, _| context.sender.map_or(Ok(()), ResponseSender::check);
    let job = Transcribe { model: fields.model, audio: file, prompt: fields.prompt, options, on_progress };
    let Transcription { model, transcript } = context.run(job)?;
    let body = render(&transcript, task, format, granularities)
        .map_err(|e| Error::internal(format!("cannot serialize the transcript: {e}")))?;
    let usage = audio_usage(context, transcript.duration, start);
    Ok(ApiResponse::text(body, format.content_type()).with_usage(usage).with_model(model))
}

fn stream_response(
    context: &RequestContext,
    request: ParsedRequest,
    options: TranscribeOptions,
    start: Instant,
) -> Result<ApiResponse> {
    let ParsedRequest { fields, file, .. } = request;
    let mut events = SseWriter::new(context.sender);
    let (with_segments, mut segment_count) = (fields.has_granularity("segment"), 0);
    let job = Transcribe {
        model: fields.model,
        audio: file,
        prompt: fields.prompt,
        options,
        on_progress: &mut |segments, _, _| {
            context.sender.map_or(Ok(()), ResponseSender::check)?;
            for segment in segments {
                events.send(&TranscriptTextDelta::new(&segment.text))?;
                if with_segments {
                    events.send(&TranscriptTextSegment::new(segment, segment_count))?;
                    segment_count += 1;
                }
            }
            Ok(())
        },
    };
    let result = context.run(job);
    let duration = result.as_ref().map_or(0.0, |transcription| transcription.transcript.duration);
    let model = result.as_ref().map_or_else(|_| String::new(), |transcription| transcription.model.clone());
    let finished = result.and_then(|transcription| {
        let text = transcription.transcript.text();
        events.send(&TranscriptTextDone::new(text.trim(), DurationUsage::new(duration)))
    });
    Ok(events.finish(finished)?.with_usage(audio_usage(context, duration, start)).with_model(model))
}
