//! Export of spans: runs the real binary against a mock OpenTelemetry collector.

use crate::support::TINY;
use crate::support::http::{Mock, MockResponse};
use crate::support::lambda_runtime::Function;
use crate::support::server::Server;
use serde_json::{Value, json};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const HELLO: &str = r#"{"input":"canary9f3k"}"#;

fn collector() -> Mock {
    Mock::start(|_| MockResponse::new(200, "{}").header("content-type", "application/json"))
}

/// The received spans, each with its service name.
fn spans(collector: &Mock) -> Vec<(String, Value)> {
    let mut spans = vec![];
    for request in collector.requests() {
        assert_eq!((request.method(), request.path()), ("POST", "/v1/traces"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert!(!request.text().contains("canary9f3k"), "{}", request.text());
        for resource in request.json()["resourceSpans"].as_array().unwrap() {
            let attributes = resource["resource"]["attributes"].as_array().unwrap();
            let service = attributes.iter().find(|a| a["key"] == "service.name").unwrap();
            let service = service["value"]["stringValue"].as_str().unwrap().to_string();
            let scopes = resource["scopeSpans"].as_array().unwrap();
            let all = scopes.iter().flat_map(|scope| scope["spans"].as_array().unwrap());
            spans.extend(all.map(|span| (service.clone(), span.clone())));
        }
    }
    spans
}

#[test]
fn request_span_is_child_of_callers_span() {
    let collector = collector();
    let server = Server::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url()), ("OTEL_SERVICE_NAME", "vectors")]);
    let header = [("traceparent", &format!("00-{TRACE}-{PARENT}-01")[..])];
    assert_eq!(server.post_with("/v1/embeddings", &header, HELLO).status(), 200);
    server.stop();
    let spans = spans(&collector);
    let [(service, span)] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!(service, "vectors");
    assert_eq!((&span["name"], &span["traceId"]), (&"POST /v1/embeddings".into(), &TRACE.into()));
    // 2 is SERVER: https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto
    assert_eq!((&span["parentSpanId"], &span["kind"]), (&PARENT.into(), &2.into()));
    let event = span["events"].as_array().unwrap().iter().find(|event| event["name"] == "request").unwrap();
    let keys: Vec<_> = event["attributes"].as_array().unwrap().iter().map(|a| a["key"].as_str().unwrap()).collect();
    assert!(["route", "status", "model", "total_ms"].iter().all(|key| keys.contains(key)), "{keys:?}");
}

#[test]
fn lambda_exports_span_before_response_and_propagates_it_to_sink() {
    let (collector, index) =
        (collector(), Mock::start(|_| MockResponse::new(200, r#"{"result":{"status":"completed"},"status":"ok"}"#)));
    let sink = format!("qdrant+http://{}/documents", index.address);
    let endpoint = collector.url();
    let function = Function::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("TEALIGHT_MODEL", TINY),
        ("TEALIGHT_SINK", &sink),
    ]);
    let body = json!({"id": "a", "text": "carried"}).to_string();
    function.expect_success(json!({"Records": [{"eventSource": "aws:sqs", "messageId": "m", "body": body}]}));
    let spans = spans(&collector);
    let [(service, span)] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!((service.as_str(), &span["name"]), ("tealight", &"request".into()));
    let expected = format!("00-{}-{}-0", span["traceId"].as_str().unwrap(), span["spanId"].as_str().unwrap());
    let requests = index.requests();
    assert!(!requests.is_empty());
    for request in requests {
        assert!(
            request.header("traceparent").is_some_and(|text| text.starts_with(&expected)),
            "{request:?} {expected}"
        );
    }
}

#[test]
fn unreachable_collector_does_not_affect_requests() {
    let server = Server::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")]);
    server.assert_serving();
    server.stop();
}
