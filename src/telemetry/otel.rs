//! Spans of requests for a collector of OpenTelemetry, by OTLP over HTTP in JSON:
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>. The variables are those of its SDKs: `OTEL_EXPORTER_OTLP_ENDPOINT`,
//! `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`.

use crate::telemetry::trace::{TRACEPARENT, TraceContext};
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

/// How long a collector may take.
const TIME: Duration = Duration::from_secs(2);
/// What says where a collector is; without one of them nothing is sent.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// What makes spans of those of `tracing`, where the environment names a collector.
pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(
    variable: &dyn Fn(&str) -> Option<String>,
) -> Option<OpenTelemetryLayer<S, SdkTracer>> {
    ENDPOINTS.iter().find_map(|name| variable(name))?;
    let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpJson).with_http_client(Ureq);
    let exporter = exporter.build().inspect_err(|e| eprintln!("tealight: no spans are sent: {e}")).ok()?;
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

/// Links a request's span to what the request is part of; what is called for it is a part of that span then.
pub(crate) fn linked(trace: TraceContext, span: &Span) -> TraceContext {
    if PROVIDER.get().is_none() {
        return trace;
    }
    let propagator = TraceContextPropagator::new();
    let _ = span.set_parent(propagator.extract(&Parent(trace.parent())));
    span.record("otel.kind", "server");
    let mut carrier = HashMap::new();
    propagator.inject_context(&span.context(), &mut carrier as &mut dyn Injector);
    trace.with_parent(carrier.remove(TRACEPARENT))
}

/// Names the span of the request that this thread works on.
pub(crate) fn name(method: &str, route: &str) {
    Span::current().context().span().update_name(format!("{method} {route}"));
}

/// Sends what is not sent yet: a function stands still between invocations.
pub(crate) fn flush() {
    if let Some(provider) = PROVIDER.get() {
        let _ = provider.force_flush();
    }
}

/// Headers as the propagator reads them.
struct Parent<'a>([(&'static str, Option<&'a str>); 2]);

impl Extractor for Parent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| *name == key)?.1
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name).collect()
    }
}

/// The HTTP client of all of tealight.
#[derive(Debug)]
struct Ureq;

#[async_trait::async_trait]
impl HttpClient for Ureq {
    /// Blocks: spans are sent from a thread of their own.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let config = ureq::Agent::config_builder().timeout_global(Some(TIME)).http_status_as_error(false).build();
        let (parts, body) = request.into_parts();
        let mut reply = ureq::Agent::from(config).run(Request::from_parts(parts, &body[..]))?;
        let bytes = reply.body_mut().read_to_vec()?;
        let mut response = Response::new(Bytes::from(bytes));
        *response.status_mut() = reply.status();
        Ok(response)
    }
}
