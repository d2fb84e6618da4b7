//! Recordings and indexes in Amazon S3: runs the real binary against a mock service. tests/clients has a larger test with real weights.

use crate::support::aws::{ACCESS_KEY, SECRET_KEY, TOKEN, check_signature};
use crate::support::http::{Message, Mock, MockResponse, unused_address};
use crate::support::lambda_runtime::Function;
use crate::support::server::Server;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

const URI: &str = "s3://talks/2026/a b+ü.flac";
const PATH: &str = "/talks/2026/a%20b%2B%C3%BC.flac";

fn variables(endpoint: &str) -> Vec<(&str, &str)> {
    vec![
        ("TEALIGHT_S3_PREFIXES", "s3://other/x/, s3://talks"),
        // Without a model, requests end after the audio was checked.
        ("TEALIGHT_SPEECH_MODEL", "no-such-model"),
        ("AWS_ENDPOINT_URL_S3", endpoint),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_SESSION_TOKEN", TOKEN),
        ("AWS_REGION", "eu-west-1"),
    ]
}

fn flac() -> Vec<u8> {
    std::fs::read(crate::support::path("tests/fixtures/audio/speech.flac")).unwrap()
}

fn transcribe_uri(server: &Server, uri: &str) -> Message {
    server.post("/v1/audio/transcriptions", json!({"uri": uri}).to_string())
}

#[track_caller]
fn check_error(response: &Message, status: u16, code: &str, words: &[&str]) {
    assert_eq!(response.status(), status, "{}", response.text());
    let error = &response.json()["error"];
    assert_eq!(error["code"], code, "{error}");
    for word in words {
        assert!(error["message"].as_str().unwrap().contains(word), "{word}: {error}");
    }
}

#[test]
fn request_for_object_is_signed_correctly() {
    let mock = Mock::start(|_| MockResponse::new(200, flac()));
    let url = mock.url();
    let server = Server::start(&variables(&url));
    // The audio was accepted; only the model is missing.
    check_error(&transcribe_uri(&server, URI), 404, "model_not_found", &["no-such-model"]);
    let requests = mock.requests();
    assert_eq!((requests.len(), requests[0].method(), requests[0].path()), (1, "GET", PATH));
    assert_eq!(requests[0].header("x-amz-security-token"), Some(TOKEN));
    check_signature(&requests[0], "eu-west-1", "s3", &["x-amz-content-sha256"]);
    let log = server.stop();
    assert!(!log.contains(SECRET_KEY) && !log.contains(TOKEN), "{log}");
}

#[test]
fn direct_invocation_accepts_uri_or_recording() {
    let mock = Mock::start(|_| MockResponse::new(200, "no recording"));
    let url = mock.url();
    let function = Function::start(&variables(&url));
    let (code, message) = function.invoke(json!({"uri": URI})).expect_error();
    assert!(code == "invalid_value" && message.contains("not a supported audio file"), "{code}: {message}");
    for field in ["file", "audio"] {
        let (code, message) = function.invoke(json!({field: "bm8gcmVjb3JkaW5n", "prompt": "a name"})).expect_error();
        assert!(
            code == "invalid_value" && message.contains("not a supported audio file"),
            "{field}: {code}: {message}"
        );
        let (code, message) = function.invoke(json!({field: "%"})).expect_error();
        assert!(code == "invalid_value" && message.contains("base64"), "{field}: {code}: {message}");
        let both = function.invoke(json!({field: "bm8=", "uri": URI})).expect_error();
        assert!(both.1.contains("both"), "{field}: {both:?}");
    }
    assert_eq!(mock.requests().len(), 1);
}

#[test]
fn uri_outside_allowed_prefixes_is_rejected_without_request() {
    let mock = Mock::start(|_| MockResponse::new(200, flac()));
    let url = mock.url();
    let server = Server::start(&variables(&url));
    let uris = [
        "s3://talks-of-others/x",
        "s3://other/y",
        "s3://talks/../other/y",
        "https://talks/x",
        "file:///etc/passwd",
        "s3://talks",
        "",
    ];
    for uri in uris {
        let response = transcribe_uri(&server, uri);
        check_error(&response, 400, "invalid_value", &["uri is"]);
        assert_eq!(response.json()["error"]["param"], "uri");
    }
    let closed = Server::start(&[("AWS_ENDPOINT_URL_S3", &url)]);
    check_error(&transcribe_uri(&closed, URI), 400, "invalid_value", &["TEALIGHT_S3_PREFIXES"]);
    assert_eq!(mock.requests().len(), 0);
}

fn error(code: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>")
}

#[test]
fn error_code_of_s3_is_reported() {
    for (status, code) in [(404, "NoSuchKey"), (403, "AccessDenied")] {
        let mock = Mock::start(move |_| MockResponse::new(status, error(code)));
        let url = mock.url();
        let response = transcribe_uri(&Server::start(&variables(&url)), URI);
        check_error(&response, 400, "invalid_value", &[code, URI]);
        assert_eq!((mock.requests().len(), &response.json()["error"]["param"]), (1, &Value::from("uri")));
    }
    let mock = Mock::start(|_| MockResponse::new(503, error("SlowDown")));
    let url = mock.url();
    check_error(&transcribe_uri(&Server::start(&variables(&url)), URI), 502, "upstream_error", &["SlowDown"]);
    assert_eq!(mock.requests().len(), 4);
    let unreachable = format!("http://{}", unused_address());
    let response = transcribe_uri(&Server::start(&variables(&unreachable)), URI);
    check_error(&response, 502, "upstream_error", &[URI]);
}

#[test]
fn transient_s3_error_is_retried() {
    let calls = AtomicUsize::new(0);
    let mock = Mock::start(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => MockResponse::new(503, error("SlowDown")),
        1 => MockResponse { close_after: Some(1000), ..MockResponse::new(200, flac()) },
        _ => MockResponse::new(200, flac()),
    });
    let url = mock.url();
    check_error(&transcribe_uri(&Server::start(&variables(&url)), URI), 404, "model_not_found", &[]);
    assert_eq!(mock.requests().len(), 3);
}

#[test]
fn request_follows_bucket_to_its_region() {
    let calls = AtomicUsize::new(0);
    let mock = Mock::start(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => MockResponse::new(301, error("PermanentRedirect")).header("x-amz-bucket-region", "us-west-2"),
        _ => MockResponse::new(200, flac()),
    });
    let url = mock.url();
    check_error(&transcribe_uri(&Server::start(&variables(&url)), URI), 404, "model_not_found", &[]);
    let requests = mock.requests();
    assert_eq!(requests.len(), 2);
    check_signature(&requests[1], "us-west-2", "s3", &["x-amz-content-sha256"]);
}

#[test]
fn object_over_size_limit_is_rejected() {
    let mock = Mock::start(|_| {
        let mut response = MockResponse { close_after: Some(10), ..MockResponse::new(200, "0123456789") };
        response.headers.push(("content-length".into(), "600000000".into()));
        response
    });
    let url = mock.url();
    check_error(
        &transcribe_uri(&Server::start(&variables(&url)), URI),
        413,
        "body_too_large",
        &["600000000", "536870912"],
    );
}

#[test]
fn invalid_prefix_is_rejected_at_startup() {
    let error = tealight::config::Config::from_lookup(|name| (name == "TEALIGHT_S3_PREFIXES").then(|| "talks/".into()));
    assert!(error.unwrap_err().message.contains("s3://BUCKET/PREFIX"));
}

#[test]
fn index_in_s3_is_downloaded_at_first_search() {
    use tealight_index::{IndexBuilder, IndexDocument, Metric, ScanEncoding};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tlx");
    let mut builder = IndexBuilder::new(None, 2, Metric::Cosine, ScanEncoding::Int8).unwrap();
    for (id, vector) in [("right", [1.0, 0.0]), ("up", [0.0, 1.0])] {
        let document = IndexDocument { id: id.into(), text: format!("it goes {id}"), metadata: Default::default() };
        builder.add(&document, &vector).unwrap();
    }
    builder.write(&path).unwrap();
    let index = std::fs::read(&path).unwrap();
    let mock = Mock::start(move |_| MockResponse::new(200, index.clone()));
    let url = mock.url();
    let mut index_variables = variables(&url);
    index_variables.push(("TEALIGHT_INDEX", "s3://indexes/docs/a.tlx"));
    let function = Function::start(&index_variables);
    let found = function.invoke(json!({"vector": [0.1, 0.9], "k": 1})).expect_success();
    assert_eq!(found["results"][0]["id"], "up");
    let found = function.invoke(json!({"query": "right", "mode": "words"})).expect_success();
    assert_eq!(found["results"][0]["id"], "right");
    assert_eq!(mock.requests().iter().map(|m| m.path().to_string()).collect::<Vec<_>>(), ["/indexes/docs/a.tlx"]);
    let empty = Mock::start(|_| MockResponse::new(404, "<Error><Code>NoSuchKey</Code></Error>"));
    let url = empty.url();
    let mut index_variables = variables(&url);
    index_variables.push(("TEALIGHT_INDEX", "s3://indexes/docs/a.tlx"));
    let (code, message) = Function::start(&index_variables).invoke(json!({"query": "x"})).expect_error();
    assert!(code == "invalid_value" && message.contains("NoSuchKey"), "{code}: {message}");
}
