//! Log lines, as text or JSON. They never contain texts, audio, embeddings or keys at any level. Therefore only events of the
//! tealight crates (targets that begin with `tealight`) are logged: libraries log their arguments, such as signatures and whole
//! events.

mod json_formatter;
mod summary;

pub use summary::{IngestSummary, RequestSummary};

use json_formatter::JsonFormatter;
use std::any::Any;
use std::panic::PanicHookInfo;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::prelude::*;

/// The `tracing` target of this crate's events.
const TARGET: &str = env!("CARGO_PKG_NAME");

/// Writes the log lines of this process to `writer`. The level is that of `AWS_LAMBDA_LOG_LEVEL` or `RUST_LOG`, by default INFO.
/// The format is JSON if `AWS_LAMBDA_LOG_FORMAT` is `JSON`, or if `POWERTOOLS_METRICS_NAMESPACE` asks for metrics. Panics are also
/// logged. Further calls have no effect.
pub fn init<W: for<'a> MakeWriter<'a> + Send + Sync + 'static>(writer: W) {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let configured = variable("AWS_LAMBDA_LOG_LEVEL").or_else(|| variable("RUST_LOG"));
    let targets = Targets::new().with_target(TARGET, configured.map_or(LevelFilter::INFO, |text| level(&text)));
    let json = variable("AWS_LAMBDA_LOG_FORMAT").is_some_and(|f| f.eq_ignore_ascii_case("json"));
    let formatter = JsonFormatter::new(&variable);
    let layer = if json || formatter.has_metrics() {
        fmt::layer().fmt_fields(JsonFields::new()).event_format(formatter).with_writer(writer).boxed()
    } else {
        fmt::layer().with_target(false).without_time().with_writer(writer).boxed()
    };
    let registry = tracing_subscriber::registry().with(layer.with_filter(targets.clone()));
    #[cfg(feature = "otel")]
    let registry = registry.with(crate::telemetry::otel::layer(&variable).map(|layer| layer.with_filter(targets)));
    if registry.try_init().is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
}

/// Parses one of Lambda's log levels, or the level that a `RUST_LOG` filter gives this crate; INFO if it gives none.
fn level(text: &str) -> LevelFilter {
    // Lambda has a sixth level, FATAL.
    let text = if text.eq_ignore_ascii_case("fatal") { "error" } else { text };
    if let Ok(level) = text.parse() {
        return level;
    }
    let Ok(targets) = text.parse::<Targets>() else { return LevelFilter::INFO };
    let crate_level = targets.iter().find(|(name, _)| *name == TARGET).map(|(_, level)| level);
    crate_level.or(targets.default_level()).unwrap_or(LevelFilter::INFO)
}

/// Logs the location of a panic, and its message if that is a literal: a formatted message may quote a request.
fn log_panic(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(at = location, "panic: {}", literal_message(info.payload()));
}

/// The message of a panic if it is a string literal in the code.
fn literal_message(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("internal error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_message_with_arguments_is_not_logged() {
        let payload = |text: &str| std::panic::catch_unwind(|| panic!("no {text}")).unwrap_err();
        assert_eq!(literal_message(&*payload("canary")), "internal error");
        let payload = std::panic::catch_unwind(|| panic!("no such thing")).unwrap_err();
        assert_eq!(literal_message(&*payload), "no such thing");
    }

    #[test]
    fn level_is_parsed_from_lambda_names_and_rust_log_filters() {
        for (text, expected) in [
            ("TRACE", LevelFilter::TRACE),
            ("warn", LevelFilter::WARN),
            ("FATAL", LevelFilter::ERROR),
            ("off", LevelFilter::OFF),
            ("tealight=debug", LevelFilter::DEBUG),
            ("warn,tealight=trace", LevelFilter::TRACE),
            ("warn,hyper=trace", LevelFilter::WARN),
            ("hyper=trace", LevelFilter::INFO),
            ("loud", LevelFilter::INFO),
        ] {
            assert_eq!(level(text), expected, "{text}");
        }
    }
}
