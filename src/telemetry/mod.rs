//! Logs, metrics in log lines, and traces.
//!
//! | module | contents |
//! |---|---|
//! | [`log`] | log lines as text or JSON; CloudWatch metrics (EMF) in them |
//! | [`trace`] | the trace and the Lambda invocation that a request belongs to |
//! | [`headers`] | trace headers of W3C and AWS X-Ray |
//! | `otel` | export of spans to an OpenTelemetry collector (feature `otel`) |

pub mod headers;
pub mod log;
#[cfg(feature = "otel")]
pub mod otel;
pub mod trace;
