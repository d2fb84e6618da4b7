//! Usage of audio requests.

use super::super::context::RequestContext;
use std::time::{Duration, Instant};
use tealight_core::Usage;

/// Usage of a request that started at `start`, for a recording of some seconds. Inference time excludes loading models.
pub(super) fn audio_usage(context: &RequestContext, seconds: f32, start: Instant) -> Usage {
    let audio_duration = Duration::from_secs_f32(seconds.max(0.0));
    let inference_time = start.elapsed().saturating_sub(context.job_context.load_timer.total());
    Usage { audio_duration, inference_time, ..Usage::default() }
}
