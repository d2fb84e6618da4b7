//! Log lines: JSON where Lambda asks for it, and never a text, a vector or a key.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::prelude::*;

/// Writes log lines of this process to `writer`: at `AWS_LAMBDA_LOG_LEVEL`, or `RUST_LOG`, or INFO and above; as JSON
/// where `AWS_LAMBDA_LOG_FORMAT` is that.
pub fn init<W: for<'a> MakeWriter<'a> + Send + Sync + 'static>(writer: W) {
    let variable = |name| std::env::var(name).ok();
    let level = variable("AWS_LAMBDA_LOG_LEVEL").or_else(|| variable("RUST_LOG"));
    let level: LevelFilter = level.and_then(|l| l.parse().ok()).unwrap_or(LevelFilter::INFO);
    // The runtime logs whole events at TRACE, and errors with what they say of a request at ERROR.
    let targets = ["lambda_runtime", "lambda_runtime_api_client"].map(|name| (name, LevelFilter::OFF));
    let targets = Targets::new().with_default(level).with_targets(targets);
    let lines = fmt::layer().with_target(false).without_time().with_writer(writer);
    let json = variable("AWS_LAMBDA_LOG_FORMAT").is_some_and(|f| f.eq_ignore_ascii_case("json"));
    let lines = if json { lines.json().boxed() } else { lines.boxed() };
    // A second call, as in a test, changes nothing.
    let _ = tracing_subscriber::registry().with(lines.with_filter(targets)).try_init();
}
