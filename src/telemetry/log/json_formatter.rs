//! JSON log lines with the keys of Powertools for AWS Lambda
//! (<https://docs.powertools.aws.dev/lambda/python/latest/core/logger/>), and metrics in CloudWatch's embedded metric format
//! (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>).

use super::summary;
use serde_json::{Map, Value, json};
use std::fmt::{Debug, Result};
use std::time::{SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, Scope};

/// `service`, if no environment variable names one.
const DEFAULT_SERVICE: &str = "tealight";
/// Prefix of span fields that are meant for the OpenTelemetry layer and are not logged.
const OTEL_PREFIX: &str = "otel.";

/// Writes each event as a line of JSON.
#[derive(Debug)]
pub(super) struct JsonFormatter {
    /// Fields of every line.
    common: Map<String, Value>,
    /// CloudWatch namespace of the metrics; `None` if lines carry no metrics.
    namespace: Option<String>,
}

impl JsonFormatter {
    /// Reads the name and memory of the function from environment variables.
    pub fn new(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let name = variable("AWS_LAMBDA_FUNCTION_NAME");
        let service =
            variable("POWERTOOLS_SERVICE_NAME").or_else(|| name.clone()).unwrap_or_else(|| DEFAULT_SERVICE.into());
        let memory = variable("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").and_then(|mb| mb.parse::<u32>().ok());
        let pairs = [
            ("service", Some(json!(service))),
            ("function_name", name.map(Value::from)),
            ("function_memory_size", memory.map(Value::from)),
        ];
        let common = pairs.into_iter().filter_map(|(key, value)| Some((key.into(), value?))).collect();
        Self { common, namespace: variable("POWERTOOLS_METRICS_NAMESPACE") }
    }

    /// Whether lines carry CloudWatch metrics.
    pub fn has_metrics(&self) -> bool {
        self.namespace.is_some()
    }
}

impl<S, N> FormatEvent<S, N> for JsonFormatter
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> Result {
        let now = SystemTime::now();
        let mut line = Map::new();
        line.insert("level".into(), event.metadata().level().as_str().into());
        line.insert("timestamp".into(), OffsetDateTime::from(now).format(&Rfc3339).unwrap_or_default().into());
        line.extend(self.common.clone());
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>().map_or("", |fields| fields.fields.as_str());
            let fields: Map<String, Value> = serde_json::from_str(fields).unwrap_or_default();
            line.extend(fields.into_iter().filter(|(key, _)| !key.starts_with(OTEL_PREFIX)));
        }
        event.record(&mut FieldVisitor(&mut line));
        if let Some(namespace) = self.namespace.as_deref().filter(|_| event.metadata().name() == summary::EVENT) {
            let ms = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
            write_emf(&mut line, namespace, ms);
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// Adds the EMF directive: which fields are metrics, and their dimensions.
fn write_emf(line: &mut Map<String, Value>, namespace: &str, ms: u64) {
    line.insert("requests".into(), 1.into());
    line.insert("failures".into(), (line.contains_key("error") as u8).into());
    line.insert("cold_starts".into(), ((line.get("cold_start") == Some(&Value::Bool(true))) as u8).into());
    let is_present = |(name, _): &&(&str, &str)| line.get(*name).is_some_and(Value::is_number);
    let metrics: Vec<_> = summary::METRICS.iter().filter(is_present).collect();
    let metrics: Vec<_> = metrics.iter().map(|(name, unit)| json!({"Name": name, "Unit": unit})).collect();
    let mut dimensions = vec![vec!["service"], vec!["service", "route"]];
    if line.contains_key("model") {
        dimensions.push(vec!["service", "model"]);
    }
    let directive = json!({"Namespace": namespace, "Dimensions": dimensions, "Metrics": metrics});
    line.insert("_aws".into(), json!({"Timestamp": ms, "CloudWatchMetrics": [directive]}));
}

/// Collects the fields of an event.
struct FieldVisitor<'a>(&'a mut Map<String, Value>);

impl FieldVisitor<'_> {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().into(), value.into());
    }
}

impl Visit for FieldVisitor<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.insert(field, format!("{value:?}"));
    }
}
