//! The line of a request: what was asked of which model, what came of it, and where the time went.

use crate::telemetry::trace;
use std::time::Duration;
use tealight_core::{ErrorKind, Usage};

/// The name of the event, by which [`super::lines`] knows it.
pub(super) const EVENT: &str = "request";

/// Fields that CloudWatch makes metrics of, and their units.
pub(super) const METRICS: &[(&str, &str)] = &[
    ("requests", "Count"),
    ("failures", "Count"),
    ("cold_starts", "Count"),
    ("total_ms", "Milliseconds"),
    ("load_ms", "Milliseconds"),
    ("tokenization_ms", "Milliseconds"),
    ("inference_ms", "Milliseconds"),
    ("tokens", "Count"),
    ("written_tokens", "Count"),
    ("audio_s", "Seconds"),
    ("documents", "Count"),
    ("points", "Count"),
    ("failed_documents", "Count"),
    ("handed_back", "Count"),
];

/// A request that is done, or was turned away.
#[derive(Debug)]
pub struct RequestSummary<'a> {
    /// The path of its route.
    pub route: &'a str,
    /// The status of its reply.
    pub status: u16,
    /// Why it failed, if it did.
    pub error: Option<ErrorKind>,
    /// The model that worked for it.
    pub model: Option<&'a str>,
    /// What that took.
    pub usage: Option<Usage>,
    /// From the request to its reply.
    pub total: Duration,
    /// The part of it in which models were loaded.
    pub loading: Duration,
    /// The instruction set.
    pub isa: &'a str,
    /// Threads of a forward pass.
    pub threads: usize,
}

impl RequestSummary<'_> {
    /// Writes the line.
    pub fn write(&self) {
        let usage = self.usage.unwrap_or_default();
        // What a request has nothing of is left out of its line.
        let some = |n: usize| (n > 0).then_some(n as u64);
        tracing::info!(
            name: EVENT,
            route = self.route,
            status = self.status,
            error = self.error.map(ErrorKind::code),
            model = self.model,
            total_ms = ms(self.total),
            load_ms = some_ms(self.loading),
            tokenization_ms = some_ms(usage.tokenization),
            inference_ms = some_ms(usage.inference),
            tokens = some(usage.tokens),
            written_tokens = some(usage.completion_tokens),
            audio_s = (!usage.audio_duration.is_zero()).then_some(usage.audio_duration.as_secs_f64()),
            isa = self.isa,
            threads = self.threads as u64,
            "request"
        );
        trace::mark_warm();
    }
}

/// Documents of an event that are done.
#[derive(Debug)]
pub struct IngestSummary<'a> {
    /// The model that made the vectors.
    pub model: &'a str,
    /// Documents whose points are written.
    pub documents: usize,
    /// Points that are written.
    pub points: usize,
    /// Documents and objects that failed.
    pub failures: usize,
    /// Messages and objects that are handed back.
    pub later: usize,
    /// From the event to the reply.
    pub total: Duration,
    /// The part of it in which the model was loaded.
    pub loading: Duration,
    /// The instruction set.
    pub isa: &'a str,
    /// Threads of a forward pass.
    pub threads: usize,
}

impl IngestSummary<'_> {
    /// Writes the line.
    pub fn write(&self) {
        tracing::info!(
            name: EVENT,
            route = "event",
            model = self.model,
            documents = self.documents as u64,
            points = self.points as u64,
            failed_documents = self.failures as u64,
            handed_back = self.later as u64,
            total_ms = ms(self.total),
            load_ms = some_ms(self.loading),
            isa = self.isa,
            threads = self.threads as u64,
            "documents written"
        );
        trace::mark_warm();
    }
}

/// Milliseconds, to the microsecond.
fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

/// The same, but for what took none.
fn some_ms(time: Duration) -> Option<f64> {
    (time.as_micros() > 0).then(|| ms(time))
}
