//! Log lines: JSON where Lambda asks for it, and never a text, a recording, a vector or a key. So only this crate's own are
//! written: libraries log what they are given, signatures and whole events among it.

mod lines;
mod request;

pub use request::{IngestSummary, RequestSummary};

use lines::JsonFormatter;
use std::any::Any;
use std::panic::PanicHookInfo;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::prelude::*;

/// The target of this crate's lines.
const OURS: &str = env!("CARGO_PKG_NAME");

/// Writes log lines of this process to `writer`: at `AWS_LAMBDA_LOG_LEVEL`, or `RUST_LOG`, or INFO and above; as JSON
/// where `AWS_LAMBDA_LOG_FORMAT` is that, or where `POWERTOOLS_METRICS_NAMESPACE` asks for metrics in them. A panic is a
/// line, too.
pub fn init<W: for<'a> MakeWriter<'a> + Send + Sync + 'static>(writer: W) {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let given = variable("AWS_LAMBDA_LOG_LEVEL").or_else(|| variable("RUST_LOG"));
    let targets = Targets::new().with_target(OURS, given.map_or(LevelFilter::INFO, |text| level(&text)));
    let json = variable("AWS_LAMBDA_LOG_FORMAT").is_some_and(|f| f.eq_ignore_ascii_case("json"));
    let lines = JsonFormatter::new(&variable);
    let lines = match json || lines.has_metrics() {
        true => fmt::layer().fmt_fields(JsonFields::new()).event_format(lines).with_writer(writer).boxed(),
        false => fmt::layer().with_target(false).without_time().with_writer(writer).boxed(),
    };
    let registry = tracing_subscriber::registry().with(lines.with_filter(targets.clone()));
    #[cfg(feature = "otel")]
    let registry = registry.with(crate::telemetry::otel::layer(&variable).map(|layer| layer.with_filter(targets)));
    // A second call, as in a test, changes nothing.
    if registry.try_init().is_ok() {
        std::panic::set_hook(Box::new(panicked));
    }
}

/// The level of a name of Lambda's, or of what `RUST_LOG` says of this crate; INFO where it says nothing.
fn level(text: &str) -> LevelFilter {
    // Lambda knows a sixth level, for what ends the process.
    let text = if text.eq_ignore_ascii_case("fatal") { "error" } else { text };
    if let Ok(level) = text.parse() {
        return level;
    }
    let Ok(targets) = text.parse::<Targets>() else { return LevelFilter::INFO };
    let ours = targets.iter().find(|(name, _)| *name == OURS).map(|(_, level)| level);
    ours.or(targets.default_level()).unwrap_or(LevelFilter::INFO)
}

/// Says where a panic was; of what it says only what stands in the code, since the rest may be a request's own words.
fn panicked(info: &PanicHookInfo<'_>) {
    let at = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(at, "panic: {}", said(info.payload()));
}

/// What a panic says where that stands in the code.
fn said(payload: &(dyn Any + Send)) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("a defect")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_says_nothing_that_it_was_given() {
        let payload = |text: &str| std::panic::catch_unwind(|| panic!("no {text}")).unwrap_err();
        assert_eq!(said(&*payload("canary")), "a defect");
        let payload = std::panic::catch_unwind(|| panic!("no such thing")).unwrap_err();
        assert_eq!(said(&*payload), "no such thing");
    }

    #[test]
    fn levels_are_lambdas_names_or_filters_of_rust_log() {
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
