//! The API key in AWS Secrets Manager: runs the real binary against a mock service.

use crate::support::aws::{ACCESS_KEY, SECRET_KEY, TOKEN, check_signature};
use crate::support::http::{Message, Mock, MockResponse, unused_address};
use crate::support::lambda_runtime::Function;
use crate::support::server::Server;
use serde_json::json;

const ARN: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:x";
const KEY: &str = "sk-candle-0123456789";
const HELLO: &str = r#"{"input":"hello world"}"#;

/// Environment variables of a process that reads its key from the mock.
fn variables(endpoint: &str) -> Vec<(&str, &str)> {
    vec![
        ("TEALIGHT_API_KEY_SECRET", ARN),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", endpoint),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_SESSION_TOKEN", TOKEN),
        // Differs from the region in the ARN, which takes precedence.
        ("AWS_REGION", "us-east-2"),
    ]
}

/// A server that reads its key from the mock, without one of its environment variables.
fn server_without(name: &str, endpoint: &str) -> Server {
    let others: Vec<_> = variables(endpoint).into_iter().filter(|(other, _)| *other != name).collect();
    Server::start(&others)
}

fn mock_secret(secret: &str) -> Mock {
    let response =
        json!({"ARN": ARN, "Name": "x", "SecretString": secret, "VersionStages": ["AWSCURRENT"]}).to_string();
    Mock::start(move |_| MockResponse::new(200, response.clone()).header("content-type", "application/x-amz-json-1.1"))
}

fn embed_with_key(server: &Server, key: &str) -> Message {
    let key = format!("Bearer {key}");
    server.post_with("/v1/embeddings", &[("content-type", "application/json"), ("authorization", &key)], HELLO)
}

#[test]
fn api_key_is_read_once_and_accepted() {
    let mock = mock_secret(KEY);
    let url = mock.url();
    let server = Server::start(&variables(&url));
    assert_eq!(server.get("/health").status(), 200);
    assert_eq!(mock.requests().len(), 0, "a public route read the key");
    for _ in 0..3 {
        assert_eq!(embed_with_key(&server, KEY).status(), 200);
        assert_eq!(embed_with_key(&server, "wrong").status(), 401);
        assert_eq!(server.post("/embed", r#"{"inputs":"a"}"#).status(), 401);
    }
    assert_eq!(mock.requests().len(), 1);
    let log = server.stop();
    assert!(!log.contains(KEY) && !log.contains(SECRET_KEY) && !log.contains(TOKEN), "{log}");
}

#[test]
fn concurrent_requests_read_secret_once() {
    let mock = mock_secret(KEY);
    let url = mock.url();
    let server = Server::start(&variables(&url));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(embed_with_key(&server, KEY).status(), 200));
        }
    });
    assert_eq!(mock.requests().len(), 1);
}

#[test]
fn key_is_read_from_field_of_json_secret() {
    let mock = mock_secret(&json!({"api_key": KEY, "note": "other"}).to_string());
    let url = mock.url();
    let server = Server::start(&variables(&url));
    assert_eq!(embed_with_key(&server, KEY).status(), 200);
    assert_eq!(embed_with_key(&server, "other").status(), 401);
}

#[test]
fn request_to_secrets_manager_is_signed_correctly() {
    let mock = mock_secret(KEY);
    let url = mock.url();
    let server = Server::start(&variables(&url));
    assert_eq!(embed_with_key(&server, KEY).status(), 200);
    let requests = mock.requests();
    let request = &requests[0];
    assert_eq!((request.method(), request.path()), ("POST", "/"));
    assert_eq!(request.header("x-amz-target"), Some("secretsmanager.GetSecretValue"));
    assert_eq!(request.header("content-type"), Some("application/x-amz-json-1.1"));
    assert_eq!(request.header("x-amz-security-token"), Some(TOKEN));
    assert_eq!(request.json(), json!({"SecretId": ARN}));
    check_signature(request, "eu-west-1", "secretsmanager", &["x-amz-target"]);
}

#[test]
fn request_without_session_has_no_token() {
    let mock = mock_secret(KEY);
    let server = server_without("AWS_SESSION_TOKEN", &mock.url());
    assert_eq!(embed_with_key(&server, KEY).status(), 200);
    let requests = mock.requests();
    assert_eq!(requests[0].header("x-amz-security-token"), None);
    check_signature(&requests[0], "eu-west-1", "secretsmanager", &["x-amz-target"]);
}

#[test]
fn secrets_manager_error_is_reported_and_not_cached() {
    let is_down = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let switch = is_down.clone();
    let mock = Mock::start(move |_| {
        if switch.load(std::sync::atomic::Ordering::SeqCst) {
            MockResponse::new(400, r#"{"__type":"AccessDeniedException","Message":"not authorized"}"#)
        } else {
            MockResponse::new(200, json!({"SecretString": KEY}).to_string())
        }
    });
    let url = mock.url();
    let server = Server::start(&variables(&url));
    let response = embed_with_key(&server, KEY);
    assert_eq!(response.status(), 502, "{}", response.text());
    assert_eq!(response.json()["error"]["code"], "upstream_error");
    let message = response.json()["error"]["message"].to_string();
    assert!(message.contains("Secrets Manager") && message.contains("AccessDeniedException"), "{message}");
    assert_eq!(server.post("/embed", r#"{"inputs":"a"}"#).json()["error_type"], "Backend");
    assert_eq!(server.get("/health").status(), 200);

    is_down.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(embed_with_key(&server, KEY).status(), 200, "the failure was cached");
    assert!(!server.stop().contains(KEY));
}

#[test]
fn unreachable_secrets_manager_rejects_all_keys() {
    let url = format!("http://{}", unused_address());
    let server = Server::start(&variables(&url));
    for key in [KEY, "", "null", ARN] {
        let response = embed_with_key(&server, key);
        assert_eq!(response.status(), 502, "{}", response.text());
        assert!(response.json()["error"]["message"].as_str().unwrap().contains("Secrets Manager"));
    }
    assert_eq!(server.get("/health").status(), 200);
}

#[test]
fn invalid_secret_rejects_all_keys() {
    for response in [r#"{"SecretBinary":"AAAA"}"#, "{}", "not JSON", r#"{"SecretString":""}"#] {
        let mock = Mock::start(move |_| MockResponse::new(200, response));
        let url = mock.url();
        let server = Server::start(&variables(&url));
        for key in [KEY, "", "null"] {
            let status = embed_with_key(&server, key).status();
            assert!([401, 502].contains(&status), "{response} and the key {key:?}: {status}");
        }
    }
}

#[test]
fn missing_credentials_are_named_in_error() {
    let mock = mock_secret(KEY);
    let server = server_without("AWS_SECRET_ACCESS_KEY", &mock.url());
    let response = embed_with_key(&server, KEY);
    assert_eq!(response.status(), 502, "{}", response.text());
    assert!(response.text().contains("AWS_SECRET_ACCESS_KEY"), "{}", response.text());
    assert_eq!(mock.requests().len(), 0);
}

#[test]
fn lambda_function_checks_key_for_http_events_only() {
    let mock = mock_secret(KEY);
    let url = mock.url();
    let mut function = Function::start(&variables(&url));
    function.expect_success(HELLO);
    assert_eq!(mock.requests().len(), 0, "a direct invocation read the key");
    let event = |key: &str| {
        json!({"version": "2.0", "rawPath": "/v1/embeddings", "headers": {"authorization": format!("Bearer {key}")},
            "requestContext": {"http": {"method": "POST"}, "stage": "$default"}, "body": HELLO, "isBase64Encoded": false})
    };
    assert_eq!(function.expect_success(event(KEY))["statusCode"], 200);
    assert_eq!(function.expect_success(event("wrong"))["statusCode"], 401);
    assert_eq!(mock.requests().len(), 1);
    let (out, err) = function.process.stop();
    let written = out + &err;
    assert!(!written.contains(KEY) && !written.contains(SECRET_KEY), "{written}");
}
