//! The API key from AWS Secrets Manager: a mock of it on this machine, and the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use serde_json::json;
use support::aws::{ACCESS_KEY, SECRET_KEY, TOKEN, check_signature};
use support::http::{Message, Mock, Reply, unused_address};
use support::runtime::Function;
use support::server::Server;

const ARN: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:x";
const KEY: &str = "sk-candle-0123456789";
const HELLO: &str = r#"{"input":"hello world"}"#;

/// The variables of a function that has its key in the mock.
fn variables(endpoint: &str) -> Vec<(&str, &str)> {
    vec![
        ("TEALIGHT_API_KEY_SECRET", ARN),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", endpoint),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_SESSION_TOKEN", TOKEN),
        // Not the region of the secret, which its ARN names.
        ("AWS_REGION", "us-east-2"),
    ]
}

fn holding(secret: &str) -> Mock {
    let reply = json!({"ARN": ARN, "Name": "x", "SecretString": secret, "VersionStages": ["AWSCURRENT"]}).to_string();
    Mock::start(move |_| Reply::new(200, reply.clone()).header("content-type", "application/x-amz-json-1.1"))
}

fn ask(server: &Server, key: &str) -> Message {
    let key = format!("Bearer {key}");
    server.post_with("/v1/embeddings", &[("content-type", "application/json"), ("authorization", &key)], HELLO)
}

#[test]
fn the_key_is_read_once_and_opens() {
    let mock = holding(KEY);
    let url = mock.url();
    let server = Server::start(&variables(&url));
    assert_eq!(server.get("/health").status(), 200);
    assert_eq!(mock.requests().len(), 0, "what needs no key asks for none");
    for _ in 0..3 {
        assert_eq!(ask(&server, KEY).status(), 200);
        assert_eq!(ask(&server, "wrong").status(), 401);
        assert_eq!(server.post("/embed", r#"{"inputs":"a"}"#).status(), 401);
    }
    assert_eq!(mock.requests().len(), 1);
    let log = server.stop();
    assert!(!log.contains(KEY) && !log.contains(SECRET_KEY) && !log.contains(TOKEN), "{log}");
}

#[test]
fn concurrent_requests_read_it_once() {
    let mock = holding(KEY);
    let url = mock.url();
    let server = Server::start(&variables(&url));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(ask(&server, KEY).status(), 200));
        }
    });
    assert_eq!(mock.requests().len(), 1);
}

#[test]
fn a_secret_of_json_has_the_key_in_a_field() {
    let mock = holding(&json!({"api_key": KEY, "note": "other"}).to_string());
    let url = mock.url();
    let server = Server::start(&variables(&url));
    assert_eq!(ask(&server, KEY).status(), 200);
    assert_eq!(ask(&server, "other").status(), 401);
}

#[test]
fn the_request_is_one_that_secrets_manager_accepts() {
    let mock = holding(KEY);
    let url = mock.url();
    let server = Server::start(&variables(&url));
    assert_eq!(ask(&server, KEY).status(), 200);
    let seen = mock.requests();
    let request = &seen[0];
    assert_eq!((request.method(), request.path()), ("POST", "/"));
    assert_eq!(request.header("x-amz-target"), Some("secretsmanager.GetSecretValue"));
    assert_eq!(request.header("content-type"), Some("application/x-amz-json-1.1"));
    assert_eq!(request.header("x-amz-security-token"), Some(TOKEN));
    assert_eq!(request.json(), json!({"SecretId": ARN}));
    check_signature(request, "eu-west-1", "secretsmanager", &["x-amz-target"]);
}

#[test]
fn without_a_session_there_is_no_token() {
    let mock = holding(KEY);
    let url = mock.url();
    let without: Vec<_> = variables(&url).into_iter().filter(|(name, _)| *name != "AWS_SESSION_TOKEN").collect();
    let server = Server::start(&without);
    assert_eq!(ask(&server, KEY).status(), 200);
    let seen = mock.requests();
    assert_eq!(seen[0].header("x-amz-security-token"), None);
    check_signature(&seen[0], "eu-west-1", "secretsmanager", &["x-amz-target"]);
}

#[test]
fn a_refusal_of_secrets_manager_is_said_and_may_pass() {
    let is_down = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let switch = is_down.clone();
    let mock = Mock::start(move |_| match switch.load(std::sync::atomic::Ordering::SeqCst) {
        true => Reply::new(400, r#"{"__type":"AccessDeniedException","Message":"not authorized"}"#),
        false => Reply::new(200, json!({"SecretString": KEY}).to_string()),
    });
    let url = mock.url();
    let server = Server::start(&variables(&url));
    let reply = ask(&server, KEY);
    assert_eq!(reply.status(), 502, "{}", reply.text());
    assert_eq!(reply.json()["error"]["code"], "upstream_error");
    let message = reply.json()["error"]["message"].to_string();
    assert!(message.contains("Secrets Manager") && message.contains("AccessDeniedException"), "{message}");
    assert_eq!(server.post("/embed", r#"{"inputs":"a"}"#).json()["error_type"], "Backend");
    assert_eq!(server.get("/health").status(), 200);

    is_down.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(ask(&server, KEY).status(), 200, "a failure is not kept");
    assert!(!server.stop().contains(KEY));
}

#[test]
fn without_secrets_manager_nobody_gets_in() {
    let url = format!("http://{}", unused_address());
    let server = Server::start(&variables(&url));
    for key in [KEY, "", "null", ARN] {
        let reply = ask(&server, key);
        assert_eq!(reply.status(), 502, "{}", reply.text());
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains("Secrets Manager"));
    }
    assert_eq!(server.get("/health").status(), 200);
}

#[test]
fn a_secret_that_is_no_text_lets_nobody_in() {
    for reply in [r#"{"SecretBinary":"AAAA"}"#, "{}", "not JSON", r#"{"SecretString":""}"#] {
        let mock = Mock::start(move |_| Reply::new(200, reply));
        let url = mock.url();
        let server = Server::start(&variables(&url));
        for key in [KEY, "", "null"] {
            let status = ask(&server, key).status();
            assert!([401, 502].contains(&status), "{reply} and the key {key:?}: {status}");
        }
    }
}

#[test]
fn missing_credentials_are_named() {
    let mock = holding(KEY);
    let url = mock.url();
    let without: Vec<_> = variables(&url).into_iter().filter(|(name, _)| *name != "AWS_SECRET_ACCESS_KEY").collect();
    let server = Server::start(&without);
    let reply = ask(&server, KEY);
    assert_eq!(reply.status(), 502, "{}", reply.text());
    assert!(reply.text().contains("AWS_SECRET_ACCESS_KEY"), "{}", reply.text());
    assert_eq!(mock.requests().len(), 0);
}

#[test]
fn the_function_reads_it_too_and_only_for_http() {
    let mock = holding(KEY);
    let url = mock.url();
    let function = Function::start(&variables(&url));
    function.expect_success(HELLO);
    assert_eq!(mock.requests().len(), 0, "IAM has checked a direct invocation");
    let event = |key: &str| {
        json!({"version": "2.0", "rawPath": "/v1/embeddings", "headers": {"authorization": format!("Bearer {key}")},
            "requestContext": {"http": {"method": "POST"}, "stage": "$default"}, "body": HELLO, "isBase64Encoded": false})
    };
    assert_eq!(function.expect_success(event(KEY))["statusCode"], 200);
    assert_eq!(function.expect_success(event("wrong"))["statusCode"], 401);
    assert_eq!(mock.requests().len(), 1);
    let written = function.process.stdout() + &function.process.stderr();
    assert!(!written.contains(KEY) && !written.contains(SECRET_KEY), "{written}");
}
