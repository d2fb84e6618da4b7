//! Counters of this process: requests, tokens and durations.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tealight_core::Usage;
use tealight_core::{ErrorKind, Result};

/// Upper bounds of the duration buckets, in seconds.
const BUCKET_BOUNDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Totals since the process started, as `/status` reports them.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Totals {
    /// Completed requests, including failed ones.
    pub count: u64,
    /// Requests with an error response.
    pub failures: u64,
    /// Tokens of inputs and prompts.
    pub tokens: u64,
    /// Generated tokens.
    pub completion_tokens: u64,
    /// The former name of `completion_tokens`.
    pub written_tokens: u64,
    /// Seconds of audio that were transcribed.
    pub audio_s: f64,
    /// Mean inference time of requests that ran a model, in milliseconds.
    pub inference_ms_mean: Option<f64>,
}

/// Counters that all threads update.
#[derive(Debug, Default)]
pub struct Metrics(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    requests: BTreeMap<&'static str, u64>,
    successes: BTreeMap<&'static str, u64>,
    failures: BTreeMap<&'static str, u64>,
    tokens: u64,
    completion_tokens: u64,
    audio_seconds: f64,
    duration: Histogram,
    tokenization: Histogram,
    inference: Histogram,
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [u64; BUCKET_BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        for (bucket, bound) in self.buckets.iter_mut().zip(BUCKET_BOUNDS) {
            *bucket += (seconds <= bound) as u64;
        }
        self.count += 1;
        self.sum += seconds;
    }

    fn render(&self, out: &mut String, name: &str) {
        let _ = writeln!(out, "# TYPE {name} histogram");
        for (bucket, bound) in self.buckets.iter().zip(BUCKET_BOUNDS) {
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {bucket}");
        }
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {}", self.count);
        let _ = writeln!(out, "{name}_sum {}\n{name}_count {}", self.sum, self.count);
    }
}

impl Metrics {
    /// Counts a request. `path` is the path of its route, not of its URL.
    pub fn count(&self, path: &'static str, total: Duration, outcome: Result<Option<Usage>, ErrorKind>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state.requests.entry(path).or_default() += 1;
        match outcome {
            Ok(usage) => {
                *state.successes.entry(path).or_default() += 1;
                if let Some(usage) = usage {
                    state.tokens += usage.tokens as u64;
                    state.completion_tokens += usage.completion_tokens as u64;
                    state.audio_seconds += usage.audio_duration.as_secs_f64();
                    state.duration.add(total);
                    state.tokenization.add(usage.tokenization_time);
                    state.inference.add(usage.inference_time);
                }
            }
            Err(kind) => *state.failures.entry(kind.code()).or_default() += 1,
        }
    }

    /// The totals since the process started.
    pub fn totals(&self) -> Totals {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let inference = &state.inference;
        Totals {
            count: state.requests.values().sum(),
            failures: state.failures.values().sum(),
            tokens: state.tokens,
            completion_tokens: state.completion_tokens,
            written_tokens: state.completion_tokens,
            audio_s: state.audio_seconds,
            inference_ms_mean: (inference.count > 0).then(|| inference.sum * 1e3 / inference.count as f64),
        }
    }

    /// The counters in the text format of Prometheus.
    pub(super) fn to_prometheus(&self) -> String {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::new();
        counters(&mut out, "te_request_count", "path", &state.requests);
        counters(&mut out, "te_request_success", "path", &state.successes);
        counters(&mut out, "te_request_failure", "err", &state.failures);
        total(&mut out, "tealight_tokens_total", state.tokens);
        total(&mut out, "tealight_completion_tokens_total", state.completion_tokens);
        // The former name, which dashboards may use.
        total(&mut out, "tealight_written_tokens_total", state.completion_tokens);
        total(&mut out, "tealight_audio_seconds_total", state.audio_seconds);
        state.duration.render(&mut out, "te_request_duration");
        state.tokenization.render(&mut out, "te_request_tokenization_duration");
        state.inference.render(&mut out, "te_request_inference_duration");
        out
    }
}

fn total(out: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(out, "# TYPE {name} counter\n{name} {value}");
}

fn counters(out: &mut String, name: &str, label: &str, values: &BTreeMap<&'static str, u64>) {
    let _ = writeln!(out, "# TYPE {name} counter");
    for (key, value) in values {
        let _ = writeln!(out, "{name}{{{label}=\"{key}\"}} {value}");
    }
}

/// The resident set size of this process; none on systems without procfs:
/// <https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>.
pub(super) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kilobytes.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}
