//! The real binary as a Lambda function, against a mock Runtime API.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use support::runtime::{Function, Outcome};
use support::{TINY, floats, path, wait_for};

const HELLO: &str = r#"{"input":"hello world"}"#;
/// The text of the fixture with a base64 body.
const GREETING: &str = r#"{"inputs":["hello world","grüße, 世界 🕯"]}"#;
/// The key that fixtures with an Authorization header carry.
const KEY: &str = "tealight-test-key";
/// Ends the prelude of a streamed reply.
const NULS: [u8; 8] = [0; 8];

fn event(name: &str) -> Value {
    let text = std::fs::read_to_string(path(&format!("tests/fixtures/events/{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The fixture with another request in it.
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

/// The fixtures of requests, one for each form of events and replies.
const FRONT_DOORS: [&str; 5] = ["http_api_default_stage", "function_url", "rest_api", "alb", "alb_multi_value"];

fn header(reply: &Value, name: &str) -> Option<String> {
    let single = reply["headers"][name].as_str();
    single.or(reply["multiValueHeaders"][name][0].as_str()).map(str::to_string)
}

fn body(reply: &Value) -> Value {
    let text = reply["body"].as_str().unwrap_or_else(|| panic!("no body in {reply}"));
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {text}"))
}

#[track_caller]
fn status(reply: &Value, expected: u16) {
    assert_eq!(reply["statusCode"], expected, "{reply}");
}

#[test]
fn one_process_serves_every_kind_of_direct_invocation() {
    let function = Function::start(&[]);
    let openai = function.good(HELLO);
    let vector = &openai["data"][0]["embedding"];
    assert_eq!((&openai["object"], &openai["model"]), (&json!("list"), &json!("all-MiniLM-L6-v2")));
    assert_eq!(openai["usage"], json!({"prompt_tokens": 4, "total_tokens": 4}));
    assert_eq!(floats(vector).len(), 384);

    let tei = function.good(r#"{"inputs":["hello world","good night"]}"#);
    assert_eq!(&tei[0], vector, "the same text, the same vector");
    let named = function.good(r#"{"path":"/v1/embeddings","input":["good night","hello world"]}"#);
    assert_eq!((&named["data"][0]["embedding"], &named["data"][1]["embedding"]), (&tei[1], vector));

    let both = json!({"source_sentence": "hello world", "sentences": ["good night", "hello world"]});
    let scores = floats(&function.good(json!({"inputs": both})));
    let cosine: f32 = floats(vector).iter().zip(floats(&tei[1])).map(|(a, b)| a * b).sum();
    assert!((scores[0] - cosine).abs() < 1e-5 && (scores[1] - 1.0).abs() < 1e-5, "{scores:?}, not {cosine}");

    let tokens = function.good(r#"{"path":"/tokenize","inputs":"hello world"}"#);
    let ids: Vec<_> = tokens[0].as_array().unwrap().iter().map(|t| t["id"].clone()).collect();
    assert_eq!(json!(ids), json!([101, 7592, 2088, 102]));
    assert_eq!(function.good(json!({"ids": ids})), json!(["hello world"]));
    assert_eq!(&function.good(json!({"input": ids}))["data"][0]["embedding"], vector);
}

#[test]
fn a_path_leads_a_direct_invocation_to_any_route() {
    let function = Function::start(&[]);
    assert_eq!(function.good(r#"{"path":"/v1/models"}"#)["data"][0]["id"], "all-MiniLM-L6-v2");
    assert_eq!(function.good(r#"{"path":"/info","method":"GET"}"#)["max_input_length"], 256);
    assert_eq!(function.good(r#"{"path":"/health"}"#), Value::Null);
    let metrics = function.good(r#"{"path":"/metrics"}"#);
    assert!(metrics.as_str().unwrap().contains("te_request_count{path=\"/info\"} 1"), "{metrics}");
}

#[test]
fn the_model_is_loaded_before_the_first_invocation() {
    let function = Function::start(&[]);
    wait_for("the log of the load", || function.process.stdout().contains("model loaded").then_some(()));
    function.good(HELLO);
    assert_eq!(function.process.stdout().matches("model loaded").count(), 1);
}

/// Sends every fixture there is: a new one without a line here fails.
#[test]
fn every_event_fixture_is_answered_in_its_own_form() {
    let function = Function::start(&[]);
    let (openai, tei) = (function.good(HELLO), function.good(GREETING));
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
            "alb_health_check" => healthy(&outcome),
            "sqs" | "s3_put" | "s3_eventbridge" => kept(&outcome),
            "s3_test_event" => assert_eq!(outcome.good(), Value::Null),
            other => panic!("what is the reply to {other}?"),
        }
    }
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// A good reply whose body is equal to that of a direct invocation.
fn carries(reply: &Value, expected: &Value) {
    status(reply, 200);
    assert_eq!(&body(reply), expected);
    assert_eq!(reply["isBase64Encoded"], false);
    assert_eq!(header(reply, "content-type").as_deref(), Some("application/json"));
    assert!(header(reply, "x-compute-tokens").unwrap().parse::<usize>().unwrap() > 0);
}

fn v2(outcome: &Outcome, expected: &Value) {
    let reply = outcome.good();
    carries(&reply, expected);
    assert_eq!(keys(&reply), ["body", "cookies", "headers", "isBase64Encoded", "statusCode"]);
    assert_eq!(reply["cookies"], json!([]));
}

fn v1(outcome: &Outcome, expected: &Value) {
    let reply = outcome.good();
    carries(&reply, expected);
    // API Gateway refuses a reply with other fields than these and multiValueHeaders.
    assert_eq!(keys(&reply), ["body", "headers", "isBase64Encoded", "statusCode"]);
}

fn alb(outcome: &Outcome, expected: &Value) {
    let reply = outcome.good();
    carries(&reply, expected);
    assert_eq!(keys(&reply), ["body", "headers", "isBase64Encoded", "statusCode", "statusDescription"]);
    assert_eq!(reply["statusDescription"], "200 OK");
}

fn alb_multi_value(outcome: &Outcome, expected: &Value) {
    let reply = outcome.good();
    carries(&reply, expected);
    assert_eq!(keys(&reply), ["body", "isBase64Encoded", "multiValueHeaders", "statusCode", "statusDescription"]);
    assert_eq!(reply["multiValueHeaders"]["content-type"], json!(["application/json"]));
}

fn healthy(outcome: &Outcome) {
    let reply = outcome.good();
    status(&reply, 200);
    assert_eq!((&reply["body"], &reply["statusDescription"]), (&json!(""), &json!("200 OK")));
}

/// A failed invocation leaves records in their queue, or sends them to the dead letters: nothing is lost.
fn kept(outcome: &Outcome) {
    assert_eq!(outcome.error().0, "unsupported_event");
}

#[test]
fn bad_requests_are_answered_in_the_form_of_their_event_and_route() {
    let function = Function::start(&[]);
    for door in FRONT_DOORS {
        for (method, path, request, expected, code) in [
            ("POST", "/v1/embeddings", r#"{"input":""}"#, 400, "empty_input"),
            ("POST", "/v1/embeddings", r#"{"input":"#, 400, "invalid_json"),
            ("POST", "/v1/embeddings", r#"{"input":5}"#, 400, "invalid_type"),
            ("POST", "/v1/embeddings", r#"{"input":"a","dimensions":385}"#, 400, "invalid_value"),
            ("POST", "/v1/embeddings", r#"{"input":"a","model":"nope"}"#, 404, "model_not_found"),
            ("GET", "/nothing", "", 404, "unknown_url"),
            ("DELETE", "/v1/embeddings", "", 405, "method_not_allowed"),
        ] {
            let reply = function.good(http_event(door, method, path, request));
            status(&reply, expected);
            assert_eq!(body(&reply)["error"]["code"], code, "{door} {path} {request}");
        }
        for (request, expected, word) in [
            (r#"{"inputs":[]}"#, 400, "Empty"),
            (r#"{"inputs":"#, 400, "Validation"),
            (r#"{"inputs":{}}"#, 422, "Validation"),
        ] {
            let reply = function.good(http_event(door, "POST", "/embed", request));
            status(&reply, expected);
            assert_eq!(body(&reply)["error_type"], word, "{door} {request}");
        }
        let reply = function.good(http_event(door, "GET", "/embed", ""));
        assert_eq!(header(&reply, "allow").as_deref(), Some("POST"), "{door}: {reply}");
    }
    function.good(HELLO);
}

#[test]
fn the_reason_of_a_load_balancers_reply_goes_with_its_status() {
    let function = Function::start(&[]);
    let reply = function.good(http_event("alb", "GET", "/nothing", ""));
    assert_eq!(reply["statusDescription"], "404 Not Found");
}

#[test]
fn a_body_that_is_not_base64_is_a_bad_request() {
    let function = Function::start(&[]);
    for door in FRONT_DOORS {
        let mut event = http_event(door, "POST", "/v1/embeddings", "*** not base64 ***");
        event["isBase64Encoded"] = true.into();
        let reply = function.good(event);
        status(&reply, 400);
        let message = body(&reply)["error"]["message"].to_string();
        assert!(message.contains("base64"), "{door}: {message}");
    }
    function.good(HELLO);
}

#[test]
fn bytes_that_are_not_utf8_are_a_bad_request() {
    let function = Function::start(&[]);
    let mut event = http_event("http_api_base64", "POST", "/v1/embeddings", STANDARD.encode(b"{\"input\":\"\xff\"}"));
    event["isBase64Encoded"] = true.into();
    let reply = function.good(event);
    status(&reply, 400);
    assert!(body(&reply)["error"]["message"].as_str().unwrap().contains("UTF-8"), "{reply}");
    function.good(HELLO);
}

#[test]
fn bad_direct_invocations_fail_and_say_why() {
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
        let (found, message) = function.invoke(payload).error();
        assert_eq!(found, code, "{payload}: {message}");
        assert!(message.contains(word), "{payload}: {message}");
    }
    function.good(HELLO);
}

/// TEI's bodies have coarser words than ours; a failed invocation keeps ours.
#[test]
fn the_error_type_of_a_direct_invocation_is_as_precise_on_teis_routes() {
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
        assert_eq!(function.invoke(&payload).error().0, code, "{payload}");
    }
}

#[test]
fn the_field_of_a_wrong_type_is_named_in_a_direct_invocation_too() {
    let function = Function::start(&[]);
    for (payload, field) in [(r#"{"path":5}"#, "path"), (r#"{"input":"a","method":[]}"#, "method")] {
        let (code, message) = function.invoke(payload).error();
        assert_eq!(code, "invalid_type", "{payload}");
        assert!(message.contains(field), "{payload}: {message}");
    }
}

/// A path without its slash must not lead to `/`, which answers nothing with success.
#[test]
fn a_path_without_a_slash_is_embedded_or_refused() {
    let function = Function::start(&[]);
    let outcome = function.invoke(r#"{"path":"embed","inputs":"hello world"}"#);
    if outcome.is_error {
        let (_, message) = outcome.error();
        assert!(message.contains("embed"), "{message}");
    } else {
        assert_eq!(floats(&outcome.good()[0]).len(), 384);
    }
}

#[test]
fn a_deadline_in_1970_is_none() {
    let function = Function::start(&[]);
    // What `cargo lambda watch` sends: 600,000 ms.
    let deadline = SystemTime::UNIX_EPOCH + Duration::from_secs(600);
    let vector = &function.invoke_before(HELLO, deadline).good()["data"][0]["embedding"];
    assert_eq!(floats(vector).len(), 384);
}

/// 2048 inputs of 250 tokens each: far more than any CPU does in two seconds on one thread.
fn big_job() -> Value {
    json!({"input": vec!["candle ".repeat(248); 2048]})
}

#[test]
fn a_job_that_takes_too_long_fails_before_its_deadline() {
    let function = Function::start(&[("TEALIGHT_THREADS", "1")]);
    function.good(HELLO);
    let deadline = SystemTime::now() + Duration::from_secs(2);
    let outcome = function.invoke_before(big_job(), deadline);
    assert_eq!(outcome.error().0, "timeout");
    // Not a matter of speed: Lambda kills what reports later, and the caller would learn nothing.
    assert!(outcome.at < deadline, "{:?} late", outcome.at.duration_since(deadline));

    let url = http_event("function_url", "POST", "/v1/embeddings", big_job());
    let deadline = SystemTime::now() + Duration::from_secs(2);
    let outcome = function.invoke_before(url, deadline);
    let reply = outcome.good();
    status(&reply, 504);
    assert_eq!(body(&reply)["error"]["code"], "timeout");
    assert!(outcome.at < deadline, "{:?} late", outcome.at.duration_since(deadline));
    function.good(HELLO);
}

#[test]
fn the_api_key_opens_http_and_is_not_asked_for_by_direct_invocations() {
    let function = Function::start(&[("TEALIGHT_API_KEY", KEY)]);
    let expected = function.good(HELLO);
    let with = event("function_url");
    carries(&function.good(&with), &expected);
    for door in FRONT_DOORS {
        for wrong in [None, Some("Bearer tealight-test-keys"), Some("Bearer "), Some(KEY)] {
            let reply = function.good(with_key(door, wrong));
            status(&reply, 401);
            assert_eq!(body(&reply)["error"]["code"], "invalid_api_key", "{door} {wrong:?}");
            assert_eq!(header(&reply, "www-authenticate").as_deref(), Some("Bearer"), "{door}");
        }
        let reply = function.good(with_key(door, Some(&format!("Bearer {KEY}"))));
        carries(&reply, &expected);
    }
    healthy(&function.invoke(event("alb_health_check")));
    assert!(!function.process.stdout().contains(KEY), "the key is in the log");
}

fn with_key(door: &str, authorization: Option<&str>) -> Value {
    let mut event = event(door);
    for (part, value) in [("headers", json!(authorization)), ("multiValueHeaders", json!([authorization]))] {
        let Some(headers) = event[part].as_object_mut() else { continue };
        headers.remove("authorization");
        if authorization.is_some() {
            headers.insert("Authorization".into(), value);
        }
    }
    event
}

/// The prelude and the body of a streamed reply.
fn streamed(outcome: &Outcome) -> (Value, Vec<u8>) {
    let report = &outcome.report;
    assert!(!outcome.is_error, "{}", report.text());
    assert_eq!(report.header("content-type"), Some("application/vnd.awslambda.http-integration-response"));
    assert_eq!(report.header("lambda-runtime-function-response-mode"), Some("streaming"));
    assert_eq!(report.header("transfer-encoding"), Some("chunked"));
    let at = report.body.windows(NULS.len()).position(|w| w == NULS).expect("8 NULs after the prelude");
    (serde_json::from_slice(&report.body[..at]).unwrap(), report.body[at + NULS.len()..].to_vec())
}

#[test]
fn a_function_url_can_be_answered_by_a_stream_and_nothing_else_is() {
    let function = Function::start(&[("TEALIGHT_RESPONSE_STREAM", "1")]);
    let expected = function.good(HELLO);
    for _ in 0..2 {
        let (prelude, body) = streamed(&function.invoke(event("function_url")));
        assert_eq!((&prelude["statusCode"], &prelude["cookies"]), (&json!(200), &json!([])));
        assert_eq!(prelude["headers"]["content-type"], "application/json");
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
        v2(&function.invoke(event("http_api_default_stage")), &expected);
        v1(&function.invoke(event("rest_api")), &expected);
    }
    let bad = http_event("function_url", "POST", "/v1/embeddings", r#"{"input":""}"#);
    let (prelude, body) = streamed(&function.invoke(bad));
    assert_eq!(prelude["statusCode"], 400);
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["error"]["code"], "empty_input");
}

#[test]
fn a_function_url_is_answered_in_one_piece_where_streaming_is_not_on() {
    let function = Function::start(&[]);
    let outcome = function.invoke(event("function_url"));
    v2(&outcome, &function.good(HELLO));
    assert_eq!(outcome.report.header("lambda-runtime-function-response-mode"), None);
}

#[test]
fn a_model_that_is_missing_at_first_is_found_later() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("late.gguf");
    let mut function = Function::start(&[("TEALIGHT_MODEL", file.to_str().unwrap())]);
    let (code, message) = function.invoke(HELLO).error();
    assert_eq!(code, "model_not_found");
    assert!(message.contains(file.to_str().unwrap()), "{message}");
    let reply = function.good(event("alb"));
    assert!(body(&reply)["error"]["message"].as_str().unwrap().contains("late.gguf"), "{reply}");
    assert!(function.process.is_alive());

    std::fs::copy(path("models/all-MiniLM-L6-v2.gguf"), &file).unwrap();
    assert_eq!(floats(&function.good(HELLO)["data"][0]["embedding"]).len(), 384);
    carries(&function.good(event("alb")), &function.good(HELLO));
}

#[test]
fn a_damaged_model_can_be_replaced_while_the_function_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    std::fs::write(&file, b"GGUF and then nothing").unwrap();
    let function = Function::start(&[("TEALIGHT_MODEL", file.to_str().unwrap())]);
    let (code, message) = function.invoke(HELLO).error();
    assert_eq!(code, "model_load_failed");
    assert!(message.contains(file.to_str().unwrap()), "{message}");

    // A new file in its place, as deployments do it, not the same one with other bytes.
    let good = folder.path().join("good.gguf");
    std::fs::copy(path("tests/fixtures/models/tiny-bert-f32.gguf"), &good).unwrap();
    std::fs::rename(&good, &file).unwrap();
    assert_eq!(floats(&function.good(HELLO)["data"][0]["embedding"]).len(), 32);
}

#[test]
fn a_bad_variable_ends_init_and_is_named() {
    let mut function = Function::start(&[("TEALIGHT_THREADS", "0")]);
    let status = function.process.wait();
    assert_eq!(status.code(), Some(1));
    assert!(function.process.stderr().contains("TEALIGHT_THREADS"), "{}", function.process.stderr());
}

#[test]
fn sigterm_ends_the_function() {
    let mut function = Function::start(&[("TEALIGHT_MODEL", TINY)]);
    function.good(HELLO);
    function.process.terminate();
    function.process.wait();
}

#[test]
fn a_reply_that_lambda_would_not_take_is_an_error_that_says_what_to_do() {
    let function = Function::start(&[]);
    let inputs = vec!["a"; 2048];
    let (kind, message) = function.invoke(json!({"input": inputs})).error();
    assert_eq!(kind, "reply_too_large");
    assert!(message.contains("base64") && message.contains("6291556"), "{message}");
    let event = json!({"requestContext": {"http": {"method": "POST"}}, "rawPath": "/v1/embeddings",
        "body": json!({"input": inputs}).to_string()});
    assert_eq!(function.good(&event)["statusCode"], 413);
    let smaller = function.good(json!({"input": inputs, "encoding_format": "int8"}));
    assert_eq!(smaller["data"].as_array().unwrap().len(), 2048);
}

#[test]
fn what_a_request_says_is_not_logged() {
    let function = Function::start(&[("AWS_LAMBDA_LOG_LEVEL", "TRACE"), ("TEALIGHT_API_KEY", "sesame")]);
    let secret = "SECRETTEXT";
    function.good(json!({"input": secret}));
    function.invoke(json!(secret)).error();
    function.invoke(json!({"input": "a", "dimensions": secret})).error();
    function.invoke(json!({"input": "a", "model": secret})).error();
    let event = json!({"requestContext": {"http": {"method": "POST"}}, "rawPath": "/v1/embeddings",
        "headers": {"authorization": "Bearer sesame"}, "body": json!({"input": secret}).to_string()});
    assert_eq!(function.good(&event)["statusCode"], 200);
    let (out, err) = (function.process.stdout(), function.process.stderr());
    for log in [&out, &err] {
        assert!(!log.contains(secret) && !log.contains("sesame"), "{log}");
    }
    assert!(out.contains("model loaded") && out.contains("invalid_type"), "{out}");
}

#[test]
fn direct_invocations_may_write_a_method_small_and_a_path_with_a_query() {
    let function = Function::start(&[]);
    assert!(function.good(json!({"path": "/v1/models", "method": "get"}))["data"].is_array());
    assert!(function.good(json!({"path": "/embed?x=1", "inputs": "a"}))[0].is_array());
}

#[test]
fn a_snapshot_has_the_model_and_no_instructions_that_other_machines_may_lack() {
    let function = Function::start(&[("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start"), ("TEALIGHT_MODEL", TINY)]);
    function.good(HELLO);
    let status = function.good(json!({"path": "/status"}));
    assert!(["avx2", "neon", "scalar"].contains(&status["isa"].as_str().unwrap()), "{status}");
    // The first text was embedded before the snapshot, and not by a request.
    assert_eq!((&status["requests"]["count"], &status["models"][0]["loaded"]), (&1.into(), &true.into()), "{status}");
    let log = function.process.stdout();
    assert_eq!(log.matches("model loaded").count(), 1, "{log}");
}

#[test]
fn a_version_whose_model_is_missing_is_not_published() {
    let mut function =
        Function::start(&[("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start"), ("TEALIGHT_MODEL", "nothing-here")]);
    let status = function.process.wait();
    assert!(!status.success() && function.process.stderr().contains("nothing-here"), "{}", function.process.stderr());
}
