//! The binary as a Lambda function, against a mock of the Runtime API.

use crate::support::lambda_runtime::{Function, Outcome};
use crate::support::{TINY, floats, path, wait_for};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

const HELLO: &str = r#"{"input":"hello world"}"#;
/// The body of the fixture `http_api_base64`.
const GREETING: &str = r#"{"inputs":["hello world","grüße, 世界 🕯"]}"#;
/// The API key in the Authorization headers of the fixtures.
const KEY: &str = "tealight-test-key";
/// Separates the prelude of a streamed response from its body.
const NULS: [u8; 8] = [0; 8];

fn event(name: &str) -> Value {
    let text = std::fs::read_to_string(path(&format!("tests/fixtures/events/{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A fixture with another request in it.
fn http_event(name: &str, method: &str, path: &str, body: impl ToString) -> Value {
    let mut event = event(name);
    let is_v2 = event["requestContext"]["http"].is_object();
    let (at, value) = if is_v2 { ("rawPath", path) } else { ("path", path) };
    event[at] = value.into();
    if is_v2 {
        event["requestContext"]["http"]["method"] = method.into();
    } else {
        event["httpMethod"] = method.into();
    }
    event["isBase64Encoded"] = false.into();
    event["body"] = body.to_string().into();
    event
}

/// One fixture per format of HTTP events.
const HTTP_FORMATS: [&str; 5] = ["http_api_default_stage", "function_url", "rest_api", "alb", "alb_multi_value"];

fn header(response: &Value, name: &str) -> Option<String> {
    let single = response["headers"][name].as_str();
    single.or(response["multiValueHeaders"][name][0].as_str()).map(str::to_string)
}

fn body(response: &Value) -> Value {
    let text = response["body"].as_str().unwrap_or_else(|| panic!("no body in {response}"));
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {text}"))
}

#[track_caller]
fn status(response: &Value, expected: u16) {
    assert_eq!(response["statusCode"], expected, "{response}");
}

#[test]
fn direct_invocation_route_follows_from_fields() {
    let function = Function::start(&[]);
    let openai = function.expect_success(HELLO);
    let vector = &openai["data"][0]["embedding"];
    assert_eq!((&openai["object"], &openai["model"]), (&json!("list"), &json!("all-MiniLM-L6-v2")));
    assert_eq!(openai["usage"], json!({"prompt_tokens": 4, "total_tokens": 4}));
    assert_eq!(floats(vector).len(), 384);

    let tei = function.expect_success(r#"{"inputs":["hello world","good night"]}"#);
    assert_eq!(&tei[0], vector, "embeddings of the same text are equal");
    let named = function.expect_success(r#"{"path":"/v1/embeddings","input":["good night","hello world"]}"#);
    assert_eq!((&named["data"][0]["embedding"], &named["data"][1]["embedding"]), (&tei[1], vector));

    let both = json!({"source_sentence": "hello world", "sentences": ["good night", "hello world"]});
    let scores = floats(&function.expect_success(json!({"inputs": both})));
    let cosine: f32 = floats(vector).iter().zip(floats(&tei[1])).map(|(a, b)| a * b).sum();
    assert!((scores[0] - cosine).abs() < 1e-5 && (scores[1] - 1.0).abs() < 1e-5, "{scores:?}, not {cosine}");

    let tokens = function.expect_success(r#"{"path":"/tokenize","inputs":"hello world"}"#);
    let ids: Vec<_> = tokens[0].as_array().unwrap().iter().map(|t| t["id"].clone()).collect();
    assert_eq!(json!(ids), json!([101, 7592, 2088, 102]));
    assert_eq!(function.expect_success(json!({"ids": ids})), json!(["hello world"]));
    assert_eq!(&function.expect_success(json!({"input": ids}))["data"][0]["embedding"], vector);
}

#[test]
fn direct_invocation_path_selects_route() {
    let function = Function::start(&[]);
    assert_eq!(function.expect_success(r#"{"path":"/v1/models"}"#)["data"][0]["id"], "all-MiniLM-L6-v2");
    assert_eq!(function.expect_success(r#"{"path":"/info","method":"GET"}"#)["max_input_length"], 256);
    assert_eq!(function.expect_success(r#"{"path":"/health"}"#), Value::Null);
    let metrics = function.expect_success(r#"{"path":"/metrics"}"#);
    assert!(metrics.as_str().unwrap().contains("te_request_count{path=\"/info\"} 1"), "{metrics}");
}

#[test]
fn model_is_loaded_during_init() {
    let mut function = Function::start(&[]);
    wait_for("the log of the load", || function.process.stdout().contains("model loaded").then_some(()));
    function.expect_success(HELLO);
    assert_eq!(function.process.stop().0.matches("model loaded").count(), 1);
}

/// Sends every fixture: a new one that is not listed here fails.
#[test]
fn event_fixtures_get_response_in_their_format() {
    let function = Function::start(&[]);
    let (openai, tei) = (function.expect_success(HELLO), function.expect_success(GREETING));
    for entry in path("tests/fixtures/events").read_dir().unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_string();
        let outcome = function.invoke(event(&name));
        match name.as_str() {
            "http_api_default_stage" | "http_api_named_stage" | "function_url" | "function_url_iam" => {
                v2(&outcome, &openai);
            }
            "http_api_base64" => v2(&outcome, &tei),
            "rest_api" => v1(&outcome, &openai),
            "alb" => alb(&outcome, &openai),
            "alb_multi_value" => alb_multi_value(&outcome, &openai),
            "alb_health_check" => check_healthy(&outcome),
            "sqs" | "s3_put" | "s3_eventbridge" => check_retained(&outcome),
            "s3_test_event" => assert_eq!(outcome.expect_success(), Value::Null),
            other => panic!("{other} is not listed"),
        }
    }
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// Checks that a response succeeded and has the body of a direct invocation.
fn check_body(response: &Value, expected: &Value) {
    status(response, 200);
    assert_eq!(&body(response), expected);
    assert_eq!(response["isBase64Encoded"], false);
    assert_eq!(header(response, "content-type").as_deref(), Some("application/json"));
    assert!(header(response, "x-compute-tokens").unwrap().parse::<usize>().unwrap() > 0);
}

fn v2(outcome: &Outcome, expected: &Value) {
    let response = outcome.expect_success();
    check_body(&response, expected);
    assert_eq!(keys(&response), ["body", "cookies", "headers", "isBase64Encoded", "statusCode"]);
    assert_eq!(response["cookies"], json!([]));
}

fn v1(outcome: &Outcome, expected: &Value) {
    let response = outcome.expect_success();
    check_body(&response, expected);
    // API Gateway rejects responses with fields other than these and multiValueHeaders.
    assert_eq!(keys(&response), ["body", "headers", "isBase64Encoded", "statusCode"]);
}

fn alb(outcome: &Outcome, expected: &Value) {
    let response = outcome.expect_success();
    check_body(&response, expected);
    assert_eq!(keys(&response), ["body", "headers", "isBase64Encoded", "statusCode", "statusDescription"]);
    assert_eq!(response["statusDescription"], "200 OK");
}

fn alb_multi_value(outcome: &Outcome, expected: &Value) {
    let response = outcome.expect_success();
    check_body(&response, expected);
    assert_eq!(keys(&response), ["body", "isBase64Encoded", "multiValueHeaders", "statusCode", "statusDescription"]);
    assert_eq!(response["multiValueHeaders"]["content-type"], json!(["application/json"]));
}

fn check_healthy(outcome: &Outcome) {
    let response = outcome.expect_success();
    status(&response, 200);
    assert_eq!((&response["body"], &response["statusDescription"]), (&json!(""), &json!("200 OK")));
}

/// Checks that the invocation failed, which leaves records in their queue or moves them to the dead-letter queue.
fn check_retained(outcome: &Outcome) {
    assert_eq!(outcome.expect_error().0, "unsupported_event");
}

#[test]
fn invalid_http_request_gets_error_in_format_of_event_and_route() {
    let function = Function::start(&[]);
    for format in HTTP_FORMATS {
        for (method, path, request, expected, code) in [
            ("POST", "/v1/embeddings", r#"{"input":""}"#, 400, "empty_input"),
            ("POST", "/v1/embeddings", r#"{"input":"#, 400, "invalid_json"),
            ("POST", "/v1/embeddings", r#"{"input":5}"#, 400, "invalid_type"),
            ("POST", "/v1/embeddings", r#"{"input":"a","dimensions":385}"#, 400, "invalid_value"),
            ("POST", "/v1/embeddings", r#"{"input":"a","model":"nope"}"#, 404, "model_not_found"),
            ("GET", "/nothing", "", 404, "unknown_url"),
            ("DELETE", "/v1/embeddings", "", 405, "method_not_allowed"),
        ] {
            let response = function.expect_success(http_event(format, method, path, request));
            status(&response, expected);
            assert_eq!(body(&response)["error"]["code"], code, "{format} {path} {request}");
        }
        for (request, expected, word) in [
            (r#"{"inputs":[]}"#, 400, "Empty"),
            (r#"{"inputs":"#, 400, "Validation"),
            (r#"{"inputs":{}}"#, 422, "Validation"),
        ] {
            let response = function.expect_success(http_event(format, "POST", "/embed", request));
            status(&response, expected);
            assert_eq!(body(&response)["error_type"], word, "{format} {request}");
        }
        let response = function.expect_success(http_event(format, "GET", "/embed", ""));
        assert_eq!(header(&response, "allow").as_deref(), Some("POST"), "{format}: {response}");
    }
    function.expect_success(HELLO);
}

#[test]
fn alb_status_description_matches_status() {
    let function = Function::start(&[]);
    let response = function.expect_success(http_event("alb", "GET", "/nothing", ""));
    assert_eq!(response["statusDescription"], "404 Not Found");
}

#[test]
fn invalid_base64_body_is_rejected() {
    let function = Function::start(&[]);
    for format in HTTP_FORMATS {
        let mut event = http_event(format, "POST", "/v1/embeddings", "*** not base64 ***");
        event["isBase64Encoded"] = true.into();
        let response = function.expect_success(event);
        status(&response, 400);
        let message = body(&response)["error"]["message"].to_string();
        assert!(message.contains("base64"), "{format}: {message}");
    }
    function.expect_success(HELLO);
}

#[test]
fn invalid_utf8_body_is_rejected() {
    let function = Function::start(&[]);
    let mut event = http_event("http_api_base64", "POST", "/v1/embeddings", STANDARD.encode(b"{\"input\":\"\xff\"}"));
    event["isBase64Encoded"] = true.into();
    let response = function.expect_success(event);
    status(&response, 400);
    assert!(body(&response)["error"]["message"].as_str().unwrap().contains("UTF-8"), "{response}");
    function.expect_success(HELLO);
}

#[test]
fn invalid_direct_invocation_fails_with_code_and_message() {
    let function = Function::start(&[]);
    for (payload, code, word) in [
        (r#""hello world""#, "invalid_type", "JSON object"),
        ("5", "invalid_type", "JSON object"),
        (r#"["hello world"]"#, "invalid_type", "JSON object"),
        ("null", "invalid_type", "JSON object"),
        ("{}", "unsupported_event", "input"),
        (r#"{"text":"hello"}"#, "unsupported_event", "input"),
        (r#"{"input":""}"#, "empty_input", "input"),
        (r#"{"input":[]}"#, "empty_input", "input"),
        (r#"{"input":"a","dimensions":0}"#, "invalid_value", "dimensions"),
        (r#"{"input":"a","model":"nope"}"#, "model_not_found", "nope"),
        (r#"{"input":[30522]}"#, "invalid_value", "30522"),
        (r#"{"path":"/nothing","input":"a"}"#, "unknown_url", "/nothing"),
        (r#"{"path":"/v1/embeddings","method":"GET"}"#, "method_not_allowed", "POST"),
        (r#"{"path":"a b","input":"a"}"#, "invalid_value", "path"),
    ] {
        let (found, message) = function.invoke(payload).expect_error();
        assert_eq!(found, code, "{payload}: {message}");
        assert!(message.contains(word), "{payload}: {message}");
    }
    function.expect_success(HELLO);
}

/// TEI's error types are coarser than our codes; a failed invocation reports the code.
#[test]
fn direct_invocation_of_tei_route_reports_error_code() {
    let function = Function::start(&[]);
    for (payload, code) in [
        (json!({"inputs": ["a"], "dimensions": 0}), "invalid_value"),
        (json!({"inputs": vec!["a"; 33]}), "invalid_value"),
        (json!({"inputs": 5}), "invalid_type"),
        (json!({"inputs": "word ".repeat(300), "truncate": false}), "context_length_exceeded"),
        (json!({"ids": [30522]}), "invalid_value"),
        (json!({"inputs": ""}), "empty_input"),
        (json!({"path": "/embed", "method": "GET"}), "method_not_allowed"),
    ] {
        assert_eq!(function.invoke(&payload).expect_error().0, code, "{payload}");
    }
}

#[test]
fn wrong_type_in_direct_invocation_names_field() {
    let function = Function::start(&[]);
    for (payload, field) in [(r#"{"path":5}"#, "path"), (r#"{"input":"a","method":[]}"#, "method")] {
        let (code, message) = function.invoke(payload).expect_error();
        assert_eq!(code, "invalid_type", "{payload}");
        assert!(message.contains(field), "{payload}: {message}");
    }
}

/// A path without its slash must not select `/`, which succeeds with an empty response.
#[test]
fn path_without_slash_is_not_health_check() {
    let function = Function::start(&[]);
    let outcome = function.invoke(r#"{"path":"embed","inputs":"hello world"}"#);
    if outcome.is_error {
        let (_, message) = outcome.expect_error();
        assert!(message.contains("embed"), "{message}");
    } else {
        assert_eq!(floats(&outcome.expect_success()[0]).len(), 384);
    }
}

#[test]
fn deadline_in_1970_means_no_limit() {
    let function = Function::start(&[]);
    // `cargo lambda watch` sends 600,000 ms.
    let deadline = SystemTime::UNIX_EPOCH + Duration::from_secs(600);
    let vector = &function.invoke_with_deadline(HELLO, deadline).expect_success()["data"][0]["embedding"];
    assert_eq!(floats(vector).len(), 384);
}

/// 2048 inputs of 250 tokens: far more than any CPU embeds in two seconds on one thread.
fn big_job() -> Value {
    json!({"input": vec!["candle ".repeat(248); 2048]})
}

#[test]
fn slow_request_times_out_before_deadline() {
    let function = Function::start(&[("TEALIGHT_THREADS", "1")]);
    function.expect_success(HELLO);
    let deadline = SystemTime::now() + Duration::from_secs(2);
    let outcome = function.invoke_with_deadline(big_job(), deadline);
    assert_eq!(outcome.expect_error().0, "timeout");
    // After the deadline, Lambda would stop the environment, and the caller would get no reason.
    assert!(outcome.at < deadline, "{:?} late", outcome.at.duration_since(deadline));

    let url = http_event("function_url", "POST", "/v1/embeddings", big_job());
    let deadline = SystemTime::now() + Duration::from_secs(2);
    let outcome = function.invoke_with_deadline(url, deadline);
    let response = outcome.expect_success();
    status(&response, 504);
    assert_eq!(body(&response)["error"]["code"], "timeout");
    assert!(outcome.at < deadline, "{:?} late", outcome.at.duration_since(deadline));
    function.expect_success(HELLO);
}

#[test]
fn api_key_is_required_for_http_events_only() {
    let mut function = Function::start(&[("TEALIGHT_API_KEY", KEY)]);
    let expected = function.expect_success(HELLO);
    let with = event("function_url");
    check_body(&function.expect_success(&with), &expected);
    for format in HTTP_FORMATS {
        for wrong in [None, Some("Bearer tealight-test-keys"), Some("Bearer "), Some(KEY)] {
            let response = function.expect_success(with_key(format, wrong));
            status(&response, 401);
            assert_eq!(body(&response)["error"]["code"], "invalid_api_key", "{format} {wrong:?}");
            assert_eq!(header(&response, "www-authenticate").as_deref(), Some("Bearer"), "{format}");
        }
        let response = function.expect_success(with_key(format, Some(&format!("Bearer {KEY}"))));
        check_body(&response, &expected);
    }
    check_healthy(&function.invoke(event("alb_health_check")));
    assert!(!function.process.stop().0.contains(KEY), "the key is in the log");
}

fn with_key(format: &str, authorization: Option<&str>) -> Value {
    let mut event = event(format);
    for (part, value) in [("headers", json!(authorization)), ("multiValueHeaders", json!([authorization]))] {
        let Some(headers) = event[part].as_object_mut() else { continue };
        headers.remove("authorization");
        if authorization.is_some() {
            headers.insert("Authorization".into(), value);
        }
    }
    event
}

/// Splits a streamed response into its prelude and its body.
fn split_stream(outcome: &Outcome) -> (Value, Vec<u8>) {
    let report = &outcome.report;
    assert!(!outcome.is_error, "{}", report.text());
    assert_eq!(report.header("content-type"), Some("application/vnd.awslambda.http-integration-response"));
    assert_eq!(report.header("lambda-runtime-function-response-mode"), Some("streaming"));
    assert_eq!(report.header("transfer-encoding"), Some("chunked"));
    let at = report.body.windows(NULS.len()).position(|w| w == NULS).expect("8 NULs after the prelude");
    (serde_json::from_slice(&report.body[..at]).unwrap(), report.body[at + NULS.len()..].to_vec())
}

#[test]
fn response_stream_applies_to_function_url_only() {
    let function = Function::start(&[("TEALIGHT_RESPONSE_STREAM", "1")]);
    let expected = function.expect_success(HELLO);
    for _ in 0..2 {
        let (prelude, body) = split_stream(&function.invoke(event("function_url")));
        assert_eq!((&prelude["statusCode"], &prelude["cookies"]), (&json!(200), &json!([])));
        assert_eq!(prelude["headers"]["content-type"], "application/json");
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
        v2(&function.invoke(event("http_api_default_stage")), &expected);
        v1(&function.invoke(event("rest_api")), &expected);
    }
    let bad = http_event("function_url", "POST", "/v1/embeddings", r#"{"input":""}"#);
    let (prelude, body) = split_stream(&function.invoke(bad));
    assert_eq!(prelude["statusCode"], 400);
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["error"]["code"], "empty_input");
}

#[test]
fn function_url_response_is_buffered_by_default() {
    let function = Function::start(&[]);
    let outcome = function.invoke(event("function_url"));
    v2(&outcome, &function.expect_success(HELLO));
    assert_eq!(outcome.report.header("lambda-runtime-function-response-mode"), None);
}

#[test]
fn missing_model_is_found_once_installed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("late.gguf");
    let mut function = Function::start(&[("TEALIGHT_MODEL", file.to_str().unwrap())]);
    let (code, message) = function.invoke(HELLO).expect_error();
    assert_eq!(code, "model_not_found");
    assert!(message.contains(file.to_str().unwrap()), "{message}");
    let response = function.expect_success(event("alb"));
    assert!(body(&response)["error"]["message"].as_str().unwrap().contains("late.gguf"), "{response}");
    assert!(function.process.is_running());

    std::fs::copy(path("models/all-MiniLM-L6-v2.gguf"), &file).unwrap();
    assert_eq!(floats(&function.expect_success(HELLO)["data"][0]["embedding"]).len(), 384);
    check_body(&function.expect_success(event("alb")), &function.expect_success(HELLO));
}

#[test]
fn damaged_model_can_be_replaced_at_run_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    std::fs::write(&file, b"GGUF and then nothing").unwrap();
    let function = Function::start(&[("TEALIGHT_MODEL", file.to_str().unwrap())]);
    let (code, message) = function.invoke(HELLO).expect_error();
    assert_eq!(code, "model_load_failed");
    assert!(message.contains(file.to_str().unwrap()), "{message}");

    // Deployments replace the file; they do not overwrite its bytes.
    let good = folder.path().join("good.gguf");
    std::fs::copy(path("tests/fixtures/models/tiny-bert-f32.gguf"), &good).unwrap();
    std::fs::rename(&good, &file).unwrap();
    assert_eq!(floats(&function.expect_success(HELLO)["data"][0]["embedding"]).len(), 32);
}

#[test]
fn invalid_variable_fails_init_and_is_named() {
    let mut function = Function::start(&[("TEALIGHT_THREADS", "0")]);
    let status = function.process.wait();
    assert_eq!(status.code(), Some(1));
    assert!(function.process.stderr().contains("TEALIGHT_THREADS"), "{}", function.process.stderr());
}

#[test]
fn sigterm_stops_function() {
    let mut function = Function::start(&[("TEALIGHT_MODEL", TINY)]);
    function.expect_success(HELLO);
    function.process.terminate();
    function.process.wait();
}

#[test]
fn response_over_lambda_limit_is_error_with_remedy() {
    let function = Function::start(&[]);
    let inputs = vec!["a"; 2048];
    let (kind, message) = function.invoke(json!({"input": inputs})).expect_error();
    assert_eq!(kind, "reply_too_large");
    assert!(message.contains("base64") && message.contains("6291556"), "{message}");
    let event = json!({"requestContext": {"http": {"method": "POST"}}, "rawPath": "/v1/embeddings",
        "body": json!({"input": inputs}).to_string()});
    assert_eq!(function.expect_success(&event)["statusCode"], 413);
    let smaller = function.expect_success(json!({"input": inputs, "encoding_format": "int8"}));
    assert_eq!(smaller["data"].as_array().unwrap().len(), 2048);
}

#[test]
fn request_content_is_not_logged() {
    let mut function = Function::start(&[("AWS_LAMBDA_LOG_LEVEL", "TRACE"), ("TEALIGHT_API_KEY", "sesame")]);
    let secret = "SECRETTEXT";
    function.expect_success(json!({"input": secret}));
    function.invoke(json!(secret)).expect_error();
    function.invoke(json!({"input": "a", "dimensions": secret})).expect_error();
    function.invoke(json!({"input": "a", "model": secret})).expect_error();
    let event = json!({"requestContext": {"http": {"method": "POST"}}, "rawPath": "/v1/embeddings",
        "headers": {"authorization": "Bearer sesame"}, "body": json!({"input": secret}).to_string()});
    assert_eq!(function.expect_success(&event)["statusCode"], 200);
    let (out, err) = function.process.stop();
    for log in [&out, &err] {
        assert!(!log.contains(secret) && !log.contains("sesame"), "{log}");
    }
    assert!(out.contains("model loaded") && out.contains("invalid_type"), "{out}");
}

#[test]
fn direct_invocation_accepts_lower_case_method_and_query_string() {
    let function = Function::start(&[]);
    assert!(function.expect_success(json!({"path": "/v1/models", "method": "get"}))["data"].is_array());
    assert!(function.expect_success(json!({"path": "/embed?x=1", "inputs": "a"}))[0].is_array());
}

#[test]
fn snapshot_contains_model_and_uses_common_instruction_set() {
    let mut function = Function::start(&[("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start"), ("TEALIGHT_MODEL", TINY)]);
    function.expect_success(HELLO);
    let status = function.expect_success(json!({"path": "/status"}));
    assert!(["avx2", "neon", "scalar"].contains(&status["isa"].as_str().unwrap()), "{status}");
    // The first text was embedded before the snapshot, not by a request.
    assert_eq!((&status["requests"]["count"], &status["models"][0]["loaded"]), (&1.into(), &true.into()), "{status}");
    let (log, _) = function.process.stop();
    assert_eq!(log.matches("model loaded").count(), 1, "{log}");
}

#[test]
fn snapshot_without_model_fails_init() {
    let mut function =
        Function::start(&[("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start"), ("TEALIGHT_MODEL", "nothing-here")]);
    let status = function.process.wait();
    assert!(!status.success() && function.process.stderr().contains("nothing-here"), "{}", function.process.stderr());
}
