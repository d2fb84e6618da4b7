//! One log line per request or Lambda event: route, outcome, model and durations.

use crate::telemetry::trace;
use std::time::Duration;
use tealight_core::{ErrorKind, Usage};

/// The name of these `tracing` events, by which [`super::json_formatter`] recognizes them.
pub(super) const EVENT: &str = "request";

/// Fields that become CloudWatch metrics, and their units. `written_tokens` and `handed_back` are the former names of
/// `completion_tokens` and `retried`; dashboards and alarms may still use them.
pub(super) const METRICS: &[(&str, &str)] = &[
    ("requests", "Count"),
    ("failures", "Count"),
    ("cold_starts", "Count"),
    ("total_ms", "Milliseconds"),
    ("load_ms", "Milliseconds"),
    ("tokenization_ms", "Milliseconds"),
    ("inference_ms", "Milliseconds"),
    ("tokens", "Count"),
    ("completion_tokens", "Count"),
    ("written_tokens", "Count"),
    ("audio_s", "Seconds"),
    ("documents", "Count"),
    ("points", "Count"),
    ("failed_documents", "Count"),
    ("retried", "Count"),
    ("handed_back", "Count"),
];

/// A request with a response, successful or not.
#[derive(Debug)]
pub struct RequestSummary<'a> {
    /// Path of the route.
    pub route: &'a str,
    /// HTTP status of the response.
    pub status: u16,
    /// Why the request failed; `None` if it succeeded.
    pub error: Option<ErrorKind>,
    /// The model that did most of the work.
    pub model: Option<&'a str>,
    /// Tokens, audio and times; `None` if no model was used.
    pub usage: Option<Usage>,
    /// Time from the request to the response.
    pub total: Duration,
    /// The part of `total` in which the request waited for models to be loaded.
    pub loading: Duration,
    /// Instruction set of the kernels.
    pub isa: &'a str,
    /// Threads per forward pass.
    pub threads: usize,
}

impl RequestSummary<'_> {
    /// Logs the summary at level INFO. Fields that are zero for this request are omitted.
    pub fn emit(&self) {
        let usage = self.usage.unwrap_or_default();
        let nonzero = |n: usize| (n > 0).then_some(n as u64);
        tracing::info!(
            name: EVENT,
            route = self.route,
            status = self.status,
            error = self.error.map(ErrorKind::code),
            model = self.model,
            total_ms = ms(self.total),
            load_ms = nonzero_ms(self.loading),
            tokenization_ms = nonzero_ms(usage.tokenization_time),
            inference_ms = nonzero_ms(usage.inference_time),
            tokens = nonzero(usage.tokens),
            completion_tokens = nonzero(usage.completion_tokens),
            written_tokens = nonzero(usage.completion_tokens),
            audio_s = (!usage.audio_duration.is_zero()).then_some(usage.audio_duration.as_secs_f64()),
            isa = self.isa,
            threads = self.threads as u64,
            "request"
        );
        trace::mark_warm();
    }
}

/// A Lambda event whose documents were embedded and written to the sink.
#[derive(Debug)]
pub struct IngestSummary<'a> {
    /// Name of the embedding model.
    pub model: &'a str,
    /// Documents whose points were written.
    pub documents: usize,
    /// Points that were written.
    pub points: usize,
    /// Documents and objects that failed permanently.
    pub failures: usize,
    /// Documents and objects with a retryable error, whose message, event or batch AWS delivers again.
    pub retried: usize,
    /// Time from the event to the response.
    pub total: Duration,
    /// The part of `total` in which documents waited for models to be loaded.
    pub loading: Duration,
    /// Instruction set of the kernels.
    pub isa: &'a str,
    /// Threads per forward pass.
    pub threads: usize,
}

impl IngestSummary<'_> {
    /// Logs the summary at level INFO.
    pub fn emit(&self) {
        tracing::info!(
            name: EVENT,
            route = "event",
            model = self.model,
            documents = self.documents as u64,
            points = self.points as u64,
            failed_documents = self.failures as u64,
            retried = self.retried as u64,
            handed_back = self.retried as u64,
            total_ms = ms(self.total),
            load_ms = nonzero_ms(self.loading),
            isa = self.isa,
            threads = self.threads as u64,
            "documents written"
        );
        trace::mark_warm();
    }
}

/// Milliseconds, with microsecond resolution.
fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

fn nonzero_ms(time: Duration) -> Option<f64> {
    (time.as_micros() > 0).then(|| ms(time))
}
