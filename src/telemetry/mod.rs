//! Logs, metrics and traces.

pub mod log;
#[cfg(feature = "otel")]
pub mod otel;
pub mod trace;
