//! Exports the spans of requests to an OpenTelemetry collector, as OTLP over HTTP in JSON
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>). The environment variables are those of OpenTelemetry's SDKs:
//! `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`.

use super::headers::TRACEPARENT;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::registry::LookupSpan;

/// Timeout of an export.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(2);
/// Variables that name a collector. Spans are exported only if one of them is set.
const ENDPOINT_VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// A layer that exports `tracing`'s spans, if the environment names a collector.
pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(
    variable: &dyn Fn(&str) -> Option<String>,
) -> Option<OpenTelemetryLayer<S, SdkTracer>> {
    ENDPOINT_VARIABLES.iter().find_map(|name| variable(name))?;
    let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpJson).with_http_client(Ureq);
    let exporter = exporter.build().inspect_err(|e| eprintln!("tealight: spans are not exported: {e}")).ok()?;
    let mut resource = Resource::builder();
    if variable("OTEL_SERVICE_NAME").is_none() {
        let name = variable("POWERTOOLS_SERVICE_NAME").or_else(|| variable("AWS_LAMBDA_FUNCTION_NAME"));
        resource = resource.with_service_name(name.unwrap_or_else(|| env!("CARGO_PKG_NAME").into()));
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    let tracer = provider.tracer(env!("CARGO_PKG_NAME"));
    let _ = PROVIDER.set(provider);
    Some(tracing_opentelemetry::layer().with_tracer(tracer))
}

/// Makes `span` a child of the remote span that the W3C headers in `parent` name. Returns the `traceparent` of `span`, or `None` if
/// spans are not exported.
pub(crate) fn set_parent(span: &Span, parent: [(&'static str, Option<&str>); 2]) -> Option<String> {
    PROVIDER.get()?;
    let propagator = TraceContextPropagator::new();
    let _ = span.set_parent(propagator.extract(&ParentHeaders(parent)));
    span.record("otel.kind", "server");
    let mut carrier = HashMap::new();
    propagator.inject_context(&span.context(), &mut carrier as &mut dyn Injector);
    carrier.remove(TRACEPARENT)
}

/// Names the span of the current request, such as `POST /v1/embeddings`.
pub(crate) fn rename_span(method: &str, route: &str) {
    Span::current().context().span().update_name(format!("{method} {route}"));
}

/// Exports the remaining spans: Lambda freezes the process between invocations.
pub(crate) fn flush() {
    if let Some(provider) = PROVIDER.get() {
        let _ = provider.force_flush();
    }
}

/// Adapts W3C headers to the propagator.
struct ParentHeaders<'a>([(&'static str, Option<&'a str>); 2]);

impl Extractor for ParentHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| *name == key)?.1
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name).collect()
    }
}

/// Exports with ureq, the HTTP client that the rest of tealight uses.
#[derive(Debug)]
struct Ureq;

#[async_trait::async_trait]
impl HttpClient for Ureq {
    /// Blocks, which is fine because the exporter runs on its own thread.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let config =
            ureq::Agent::config_builder().timeout_global(Some(EXPORT_TIMEOUT)).http_status_as_error(false).build();
        let (parts, body) = request.into_parts();
        let mut received = ureq::Agent::from(config).run(Request::from_parts(parts, &body[..]))?;
        let bytes = received.body_mut().read_to_vec()?;
        let mut response = Response::new(Bytes::from(bytes));
        *response.status_mut() = received.status();
        Ok(response)
    }
}
