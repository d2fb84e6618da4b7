//! Observability: log lines, metrics, traces, status and page of the real binary.

use crate::support::http::{Mock, MockResponse};
use crate::support::lambda_runtime::Function;
use crate::support::server::Server;
use crate::support::{TINY, path, wait_for};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime};

/// A text that must not appear in any log.
const CANARY: &str = "canary9f3k";
const HELLO: &str = r#"{"input":"hello world"}"#;
const JSON_LINES: (&str, &str) = ("AWS_LAMBDA_LOG_FORMAT", "JSON");
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Log lines whose `field` has this value.
fn lines(log: &str, field: &str, value: &Value) -> Vec<Value> {
    let parsed = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    log.lines().filter(|line| line.starts_with('{')).map(parsed).filter(|line| line[field] == *value).collect()
}

fn http_event(method: &str, path: &str, headers: Value, body: &str) -> Value {
    json!({"version": "2.0", "rawPath": path, "headers": headers, "body": body, "isBase64Encoded": false,
           "requestContext": {"http": {"method": method, "path": path}, "stage": "$default"}})
}

#[test]
fn request_log_line_has_powertools_keys_and_emf_metrics() {
    let function = Function::start(&[("POWERTOOLS_METRICS_NAMESPACE", "tealight"), ("TEALIGHT_MODEL", TINY)]);
    function.expect_success(HELLO);
    function.invoke(r#"{"input":"hello world","dimensions":99999}"#);
    let traced = json!({"traceparent": format!("00-{TRACE}-00f067aa0ba902b7-01")});
    function.expect_success(http_event("POST", "/v1/embeddings", traced, HELLO));
    let requests = wait_for("three lines", || {
        Some(lines(&function.process.stdout(), "message", &"request".into())).filter(|lines| lines.len() == 3)
    });
    let [first, failed, traced] = requests.as_slice() else { panic!("{requests:?}") };
    let expected = json!({
        "level": "INFO", "service": "tealight", "function_name": "tealight", "function_memory_size": 1769,
        "function_arn": "arn:aws:lambda:eu-central-1:210987654321:function:tealight", "function_request_id": "request-0",
        "xray_trace_id": "1-6922e1f1-3f5d7b9a1c2e4d6f8b0a1c3e", "cold_start": true, "route": "/v1/embeddings", "status": 200,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(first[key], *value, "{key} of {first}");
    }
    for key in ["total_ms", "tokenization_ms", "inference_ms", "tokens", "threads"] {
        assert!(first[key].as_f64().is_some_and(|n| n > 0.0), "{key} of {first}");
    }
    assert!(first["model"].is_string() && first["isa"].is_string() && first["error"].is_null(), "{first}");
    let time = first["timestamp"].as_str().unwrap();
    assert!(time.len() >= 20 && &time[10..11] == "T" && time.ends_with('Z'), "{time}");
    assert_eq!(
        (&failed["cold_start"], &failed["status"], &failed["error"]),
        (&false.into(), &400.into(), &"invalid_value".into())
    );
    assert_eq!(failed["function_request_id"], "request-1");
    assert_eq!(traced["trace_id"], TRACE);
    emf(first, [1, 0, 1]);
    emf(failed, [1, 1, 0]);
}

/// Checks the EMF directive of a line against <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>.
#[track_caller]
fn emf(line: &Value, [requests, failures, cold_starts]: [u64; 3]) {
    let counts = json!([line["requests"], line["failures"], line["cold_starts"]]);
    assert_eq!(counts, json!([requests, failures, cold_starts]), "{line}");
    let aws = &line["_aws"];
    assert!(aws["Timestamp"].as_u64().is_some_and(|ms| ms > 1_700_000_000_000), "{aws}");
    let directive = &aws["CloudWatchMetrics"][0];
    assert_eq!(directive["Namespace"], "tealight");
    for dimension in directive["Dimensions"].as_array().unwrap().iter().flat_map(|d| d.as_array().unwrap()) {
        assert!(line[dimension.as_str().unwrap()].is_string(), "{dimension} of {line}");
    }
    let metrics = directive["Metrics"].as_array().unwrap();
    assert!(metrics.len() >= 4, "{line}");
    for metric in metrics {
        assert!(line[metric["Name"].as_str().unwrap()].is_number(), "{metric} of {line}");
        assert!(["Count", "Milliseconds", "Seconds"].contains(&metric["Unit"].as_str().unwrap()));
    }
}

#[test]
fn request_contents_are_never_logged() {
    let (key, sink) = (("TEALIGHT_API_KEY", CANARY), ("TEALIGHT_SINK", "qdrant+http://127.0.0.1:1/documents"));
    for format in ["JSON", "Text"] {
        let level = ("AWS_LAMBDA_LOG_LEVEL", "TRACE");
        let mut function =
            Function::start(&[("AWS_LAMBDA_LOG_FORMAT", format), ("TEALIGHT_MODEL", TINY), key, sink, level]);
        let bodies = [
            json!({"input": CANARY}),
            json!({"input": "x", "model": CANARY}),
            json!({"input": "x", "dimensions": CANARY}),
            json!({"input": "x", CANARY: 1}),
            json!({"inputs": [CANARY, ""]}),
            json!({"ids": [[CANARY]]}),
            json!({"messages": [{"role": CANARY, "content": CANARY}]}),
            json!({"prompt": CANARY, "stop": CANARY}),
            json!({"audio": CANARY}),
            json!({"uri": format!("s3://{CANARY}/x")}),
            json!({"query": CANARY}),
            json!({"documents": [{"id": CANARY, "text": CANARY, "metadata": {CANARY: {CANARY: CANARY}}}], "format": "pinecone"}),
            json!({"documents": [{CANARY: 1}]}),
            json!({"path": format!("/{CANARY}")}),
            json!({"Records": [{"eventSource": "aws:sqs", "messageId": "m", "body": json!({"id": CANARY, "text": CANARY}).to_string()},
                               {"eventSource": "aws:sqs", "messageId": "n", "body": CANARY}]}),
            http_event("POST", "/embed", json!({"authorization": format!("Bearer {CANARY}x")}), HELLO),
            http_event(
                "POST",
                "/embed",
                json!({"authorization": format!("Bearer {CANARY}")}),
                &json!({"inputs": CANARY}).to_string(),
            ),
        ];
        let count = bodies.len();
        // A short deadline, because the sink is unreachable.
        let soon = || SystemTime::now() + Duration::from_secs(3);
        bodies.iter().for_each(|body| drop(function.invoke_with_deadline(body, soon())));
        let (out, err) = function.process.stop();
        let log = out + &err;
        assert!(log.lines().count() > count / 2, "{log}");
        assert!(!log.contains(CANARY), "{log}");
    }
}

#[test]
fn trace_header_is_propagated_to_sink() {
    let index = Mock::start(|_| MockResponse::new(200, r#"{"result":{"status":"completed"},"status":"ok"}"#));
    let url = format!("qdrant+http://{}/documents", index.address);
    let function = Function::start(&[("TEALIGHT_MODEL", TINY), ("TEALIGHT_SINK", &url)]);
    let body = json!({"id": "a", "text": "carried"}).to_string();
    let response =
        function.expect_success(json!({"Records": [{"eventSource": "aws:sqs", "messageId": "m", "body": body}]}));
    assert_eq!(response["batchItemFailures"], json!([]));
    let requests = index.requests();
    assert!(!requests.is_empty());
    for request in requests {
        let xray = "Root=1-6922e1f1-3f5d7b9a1c2e4d6f8b0a1c3e;Sampled=0";
        assert_eq!(request.header("x-amzn-trace-id"), Some(xray), "{request:?}");
    }
}

#[test]
fn server_logs_requests_but_not_health_checks() {
    let server = Server::start(&[JSON_LINES]);
    let traced = [("traceparent", &format!("00-{TRACE}-00f067aa0ba902b7-01")[..])];
    assert_eq!(server.post_with("/v1/embeddings", &traced, HELLO).status(), 200);
    for path in ["/health", "/metrics", "/"] {
        assert_eq!(server.get(path).status(), 200);
    }
    let requests = lines(&server.stop(), "message", &"request".into());
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!((&requests[0]["trace_id"], &requests[0]["model"]), (&TRACE.into(), &"all-MiniLM-L6-v2".into()));
    assert!(requests[0]["load_ms"].is_number() && requests[0]["_aws"].is_null());
}

#[test]
fn rejected_request_is_logged_and_counted() {
    let server = Server::start(&[JSON_LINES, ("TEALIGHT_API_KEY", CANARY)]);
    // A health check does not end the cold start.
    assert_eq!(server.get("/health").status(), 200);
    let wrong = [("authorization", "Bearer wrong")];
    assert_eq!(server.get(&format!("/{CANARY}")).status(), 404);
    assert_eq!(server.get("/embed").status(), 405);
    assert_eq!(server.post_with("/v1/embeddings", &wrong, HELLO).status(), 401);
    let long = "x".repeat(7_000_000);
    let key = [("authorization", &format!("Bearer {CANARY}")[..])];
    assert_eq!(server.post_with("/v1/embeddings", &key, &long).status(), 413);
    let metrics = server.get("/metrics").text();
    for count in [
        "te_request_count{path=\"unknown\"} 2",
        "te_request_count{path=\"/v1/embeddings\"} 2",
        "te_request_failure{err=\"invalid_api_key\"} 1",
        "te_request_failure{err=\"body_too_large\"} 1",
    ] {
        assert!(metrics.lines().any(|line| line == count), "{count}: {metrics}");
    }
    let log = server.stop();
    let field = |name: &str| -> Vec<Value> {
        lines(&log, "message", &"request".into()).iter().map(|line| line[name].clone()).collect()
    };
    assert_eq!(json!(field("status")), json!([404, 405, 401, 413]));
    assert_eq!(json!(field("route")), json!(["unknown", "unknown", "/v1/embeddings", "/v1/embeddings"]));
    assert_eq!(json!(field("cold_start")), json!([true, false, false, false]));
    assert!(!log.contains(CANARY), "{log}");
}

#[test]
fn unsupported_event_is_logged() {
    let function = Function::start(&[JSON_LINES, ("TEALIGHT_MODEL", TINY)]);
    for event in [json!({"nothing": CANARY}), json!({"path": CANARY}), json!({"requestContext": CANARY})] {
        function.invoke(event.to_string());
    }
    // Documents without a sink.
    function.invoke(json!({"Records": [{"eventSource": "aws:sqs", "messageId": "m", "body": CANARY}]}).to_string());
    let requests = wait_for("four lines", || {
        Some(lines(&function.process.stdout(), "message", &"request".into())).filter(|lines| lines.len() == 4)
    });
    let routes: Vec<_> = requests.iter().map(|line| line["route"].clone()).collect();
    assert_eq!(json!(routes), json!(["unknown", "unknown", "unknown", "event"]));
    let has_error_and_request_id = |line: &Value| line["error"].is_string() && line["function_request_id"].is_string();
    assert!(requests.iter().all(has_error_and_request_id), "{requests:?}");
}

#[test]
fn warning_names_invocation_at_log_level_warn() {
    let sink = ("TEALIGHT_SINK", "qdrant+http://127.0.0.1:1/documents");
    let function = Function::start(&[JSON_LINES, ("AWS_LAMBDA_LOG_LEVEL", "WARN"), ("TEALIGHT_MODEL", TINY), sink]);
    let body = json!({"Records": [{"eventSource": "aws:sqs", "messageId": "m", "body": CANARY}]});
    function.invoke(body.to_string());
    let failed = wait_for("a warning", || {
        Some(lines(&function.process.stdout(), "level", &"WARN".into())).filter(|lines| !lines.is_empty())
    });
    assert_eq!(failed[0]["function_request_id"], "request-0", "{failed:?}");
    assert!(lines(&function.process.stdout(), "level", &"INFO".into()).is_empty());
}

#[test]
fn aws_credentials_are_never_logged() {
    const SECRET: &str = "canarySecretKey7h2";
    const TOKEN: &str = "canaryToken4f8";
    let s3_vectors = Mock::start(|_| MockResponse::new(200, "{}"));
    let endpoint = format!("http://{}", s3_vectors.address);
    let mut function = Function::start(&[
        JSON_LINES,
        ("AWS_LAMBDA_LOG_LEVEL", "TRACE"),
        ("RUST_LOG", "trace"),
        ("TEALIGHT_MODEL", TINY),
        ("TEALIGHT_SINK", "s3vectors://acme/documents"),
        ("AWS_ENDPOINT_URL", &endpoint),
        ("AWS_ACCESS_KEY_ID", CANARY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", TOKEN),
    ]);
    let body = json!({"id": "a", "text": "signed"}).to_string();
    let response =
        function.expect_success(json!({"Records": [{"eventSource": "aws:sqs", "messageId": "m", "body": body}]}));
    assert_eq!(response["batchItemFailures"], json!([]));
    let requests = s3_vectors.requests();
    assert!(requests.iter().any(|request| request.header("x-amz-security-token") == Some(TOKEN)), "{requests:?}");
    let (out, err) = function.process.stop();
    let log = out + &err;
    assert!(log.contains("documents written"), "{log}");
    for word in [CANARY, SECRET, TOKEN] {
        assert!(!log.contains(word), "{word}: {log}");
    }
}

/// `completion_tokens` and `retried` are also reported under their former names, which dashboards and alarms may use.
#[test]
fn renamed_metrics_keep_their_former_names() {
    let text_model = path("tests/fixtures/llama/version-0.bin");
    let server = Server::start(&[JSON_LINES, ("TEALIGHT_TEXT_MODEL", text_model.to_str().unwrap())]);
    let body = json!({"prompt": "Once", "max_tokens": 3}).to_string();
    let response = server.post("/v1/completions", body);
    assert_eq!(response.status(), 200, "{}", response.text());
    let tokens = response.json()["usage"]["completion_tokens"].clone();
    assert!(tokens.as_u64().is_some_and(|n| n > 0), "{}", response.text());
    let totals = server.get("/status").json()["requests"].clone();
    assert_eq!((&totals["completion_tokens"], &totals["written_tokens"]), (&tokens, &tokens));
    let metrics = server.get("/metrics").text();
    for name in ["tealight_completion_tokens_total", "tealight_written_tokens_total"] {
        assert!(metrics.lines().any(|line| line == format!("{name} {tokens}")), "{name}: {metrics}");
    }
    let log = server.stop();
    let line = lines(&log, "route", &"/v1/completions".into()).remove(0);
    assert_eq!((&line["completion_tokens"], &line["written_tokens"]), (&tokens, &tokens), "{line}");
}

#[test]
fn message_returned_to_queue_is_logged_as_retried_and_handed_back() {
    let metrics = ("POWERTOOLS_METRICS_NAMESPACE", "tealight");
    let sink = ("TEALIGHT_SINK", "qdrant+http://127.0.0.1:1/documents");
    let function = Function::start(&[metrics, ("TEALIGHT_MODEL", TINY), sink]);
    let body = json!({"id": "a", "text": "b"}).to_string();
    let event = json!({"Records": [{"eventSource": "aws:sqs", "messageId": "m", "body": body}]});
    function.invoke_with_deadline(event, SystemTime::now() + Duration::from_secs(3));
    let line = wait_for("the line of the event", || {
        lines(&function.process.stdout(), "message", &"documents written".into()).into_iter().next()
    });
    assert_eq!((&line["retried"], &line["handed_back"]), (&1.into(), &1.into()), "{line}");
    let names: Vec<_> =
        line["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap().iter().map(|m| &m["Name"]).collect();
    assert!(names.contains(&&"retried".into()) && names.contains(&&"handed_back".into()), "{names:?}");
}

#[test]
fn event_of_fifo_queue_is_logged_in_one_line() {
    let s3_vectors = Mock::start(|_| MockResponse::new(200, "{}"));
    let endpoint = format!("http://{}", s3_vectors.address);
    let mut function = Function::start(&[
        JSON_LINES,
        ("TEALIGHT_MODEL", TINY),
        ("TEALIGHT_SINK", "s3vectors://acme/documents"),
        ("AWS_ENDPOINT_URL", &endpoint),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ]);
    let message = |id: &str, body: String| {
        json!({"eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:eu-west-1:1:documents.fifo", "messageId": id,
               "attributes": {"MessageGroupId": id}, "body": body})
    };
    let document = |id: &str| json!({"id": id, "text": "b"}).to_string();
    let messages = [message("a", document("a")), message("b", "not JSON".into()), message("c", document("c"))];
    let response = function.expect_success(json!({"Records": messages}));
    assert_eq!(response["batchItemFailures"], json!([{"itemIdentifier": "b"}]));
    let (log, _) = function.process.stop();
    let lines = lines(&log, "message", &"documents written".into());
    assert_eq!(lines.len(), 1, "{log}");
    assert_eq!((&lines[0]["documents"], &lines[0]["points"]), (&2.into(), &2.into()), "{log}");
}

#[test]
fn status_lists_models_and_counts_requests() {
    let server = Server::start(&[("TEALIGHT_API_KEY", "sesame")]);
    assert_eq!(server.get("/status").status(), 401);
    let key = [("authorization", "Bearer sesame"), ("content-type", "application/json")];
    let status = || server.connect().call("GET", "/status", &key, "").json();
    let before = status();
    let model = before["models"][0].clone();
    assert_eq!(
        (&model["name"], &model["kind"], &model["loaded"]),
        (&"all-MiniLM-L6-v2".into(), &"embedding".into(), &false.into())
    );
    assert_eq!((&model["license"], &model["default"]), (&"Apache-2.0".into(), &true.into()));
    assert!(model["bytes"].as_u64().is_some_and(|n| n > 20_000_000) && model["load_ms"].is_null());
    assert_eq!(server.post_with("/v1/embeddings", &key, HELLO).status(), 200);
    let after = status();
    assert!(after["models"][0]["loaded"] == true && after["models"][0]["load_ms"].as_f64().is_some_and(|ms| ms > 0.0));
    assert_eq!(after["requests"]["tokens"], 4);
    assert!(after["requests"]["inference_ms_mean"].as_f64().is_some_and(|ms| ms > 0.0));
    assert!(after["memory_bytes"].as_u64().is_some_and(|n| n > 1 << 20));
    let metrics = server.get("/metrics").text();
    for name in [
        "tealight_model_load_seconds{kind=\"embedding\",model=\"all-MiniLM-L6-v2\"}",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "{name}: {metrics}");
    }
}

#[test]
fn page_has_content_security_policy_that_allows_only_its_own_script() {
    let server = Server::start(&[("TEALIGHT_API_KEY", "sesame")]);
    let browser = [("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")];
    let page = server.connect().call("GET", "/", &browser, "");
    assert_eq!((page.status(), page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let (html, policy) = (page.text(), page.header("content-security-policy").unwrap().to_string());
    let inside = |tag: &str| {
        let (_, rest) = html.split_once(&format!("<{tag}")).unwrap();
        rest.split_once('>').unwrap().1.split_once(&format!("</{tag}>")).unwrap().0.to_string()
    };
    for tag in ["script", "style"] {
        let hash = STANDARD.encode(Sha256::digest(inside(tag)));
        assert!(policy.contains(&format!("{tag}-src 'sha256-{hash}'")), "{tag} of {policy}");
        assert_eq!(html.matches(&format!("<{tag}")).count(), 1);
    }
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for outside in ["http://", "https://", "src=\"/", "//cdn"] {
        let found = html.match_indices(outside).map(|(at, _)| &html[at..(at + 60).min(html.len())]);
        let external: Vec<_> = found.filter(|text| !text.contains("www.w3.org")).collect();
        assert!(outside.starts_with("http") || external.is_empty(), "{external:?}");
    }
    assert_eq!(server.connect().call("GET", "/", &[("accept", "*/*")], "").body, b"");
    let function = Function::start(&[("TEALIGHT_MODEL", TINY)]);
    let response = function.expect_success(http_event("GET", "/", json!({"accept": "text/html"}), ""));
    assert_eq!((response["statusCode"].as_u64(), response["body"].as_str()), (Some(200), Some(html.as_str())));
}
