//! Log lines: JSON where Lambda asks for it, and never a text, a recording, a vector or a key.

mod lines;
mod request;

pub use request::{Request, Written, add_loading, take_loading};

use lines::Lines;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::prelude::*;

/// Writes log lines of this process to `writer`: at `AWS_LAMBDA_LOG_LEVEL`, or `RUST_LOG`, or INFO and above; as JSON
/// where `AWS_LAMBDA_LOG_FORMAT` is that, or where `POWERTOOLS_METRICS_NAMESPACE` asks for metrics in them.
pub fn init<W: for<'a> MakeWriter<'a> + Send + Sync + 'static>(writer: W) {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let level = variable("AWS_LAMBDA_LOG_LEVEL").or_else(|| variable("RUST_LOG"));
    let level: LevelFilter = level.and_then(|l| l.parse().ok()).unwrap_or(LevelFilter::INFO);
    // The runtime logs whole events at TRACE, and errors with what they say of a request at ERROR.
    let targets = ["lambda_runtime", "lambda_runtime_api_client"].map(|name| (name, LevelFilter::OFF));
    let targets = Targets::new().with_default(level).with_targets(targets);
    let json = variable("AWS_LAMBDA_LOG_FORMAT").is_some_and(|f| f.eq_ignore_ascii_case("json"));
    let lines = Lines::new(&variable);
    let lines = match json || lines.has_metrics() {
        true => fmt::layer().fmt_fields(JsonFields::new()).event_format(lines).with_writer(writer).boxed(),
        false => fmt::layer().with_target(false).without_time().with_writer(writer).boxed(),
    };
    let registry = tracing_subscriber::registry().with(lines.with_filter(targets.clone()));
    #[cfg(feature = "otel")]
    let registry = registry.with(crate::otel::layer(&variable).map(|layer| layer.with_filter(targets)));
    // A second call, as in a test, changes nothing.
    let _ = registry.try_init();
}
