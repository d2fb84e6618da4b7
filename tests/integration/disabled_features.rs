//! A function for embeddings only, `--no-default-features --features lambda`, and with the command line: what needs another feature
//! fails with the name of it.

use crate::support::lambda_runtime::Function;
#[cfg(feature = "cli")]
use crate::support::path;
use crate::support::process::{run, tealight};
use serde_json::{Value, json};

#[track_caller]
fn assert_names(message: &str, feature: &str) {
    assert!(message.contains(&format!("build with --features {feature}")), "{feature}: {message}");
}

#[test]
fn direct_invocation_of_disabled_route_names_feature() {
    let function = Function::start(&[]);
    for (payload, feature) in [
        (json!({"audio": "UklGRg=="}), "speech"),
        (json!({"uri": "s3://talks/a.flac"}), "speech"),
        (json!({"path": "/v1/audio/embeddings", "audio": "UklGRg=="}), "speech"),
        (json!({"messages": []}), "text"),
        (json!({"prompt": "Once"}), "text"),
        (json!({"query": "hello"}), "index"),
    ] {
        let (code, message) = function.invoke(&payload).expect_error();
        assert_eq!(code, "unknown_url", "{payload}: {message}");
        assert_names(&message, feature);
    }
    function.expect_success(json!({"input": "hello world"}));
}

#[test]
fn http_event_of_disabled_route_gets_404() {
    let function = Function::start(&[]);
    for (path, feature) in [("/v1/audio/transcriptions", "speech"), ("/v1/completions", "text"), ("/search", "index")] {
        let event = json!({"requestContext": {"http": {"method": "POST"}}, "rawPath": path, "body": "{}"});
        let response = function.expect_success(event);
        assert_eq!(response["statusCode"], 404, "{response}");
        let body: Value = serde_json::from_str(response["body"].as_str().unwrap()).unwrap();
        assert_names(body["error"]["message"].as_str().unwrap(), feature);
    }
}

#[test]
fn event_with_documents_stays_in_queue() {
    let function = Function::start(&[("TEALIGHT_SINK", "qdrant+http://127.0.0.1:1/documents")]);
    let sqs = json!({"Records": [{"eventSource": "aws:sqs", "messageId": "m", "body": "{\"text\": \"a\"}"}]});
    for event in [sqs, json!({"Items": []}), json!({"source": "aws.s3", "detail": {}})] {
        let (code, message) = function.invoke(&event).expect_error();
        assert_eq!(code, "unsupported_event", "{event}: {message}");
        assert_names(&message, "sinks");
    }
}

#[test]
fn openapi_and_models_list_only_what_is_enabled() {
    let function = Function::start(&[]);
    let document = function.expect_success(json!({"path": "/openapi.json"}));
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.contains_key("/v1/embeddings") && paths.contains_key("/documents"));
    assert!(!paths.keys().any(|path| path.contains("audio") || path.contains("completions") || path == "/search"));
}

#[test]
#[cfg(not(feature = "cli"))]
fn command_line_is_disabled() {
    assert_names(&run(&mut tealight(["embed", "a"])).expect_failure(), "cli");
}

#[test]
#[cfg(feature = "cli")]
fn models_command_lists_only_what_is_enabled() {
    let models = run(&mut tealight(["models"])).expect_text();
    assert!(
        models.contains("all-MiniLM-L6-v2") && !models.contains("whisper") && !models.contains("smollm2"),
        "{models}"
    );
}

#[test]
#[cfg(feature = "cli")]
fn commands_of_disabled_features_are_unknown() {
    for args in [&["transcribe", "a.wav"][..], &["generate", "a"], &["index", "info", "a"], &["bench", "generate"]] {
        let done = run(&mut tealight(args.iter().copied()));
        assert!(done.code == Some(2) && done.stderr.contains("unrecognized subcommand"), "{args:?}: {}", done.stderr);
    }
}

#[test]
#[cfg(feature = "cli")]
fn option_model_and_input_of_disabled_features_name_feature() {
    let folder = tempfile::tempdir().unwrap();
    let whisper = folder.path().join("whisper.bin").display().to_string();
    std::fs::write(&whisper, b"lmgg").unwrap();
    let llama = path("tests/fixtures/llama/version-0.bin").display().to_string();
    let recording = path("tests/fixtures/audio/speech.flac").display().to_string();
    let output = folder.path().join("out.gguf").display().to_string();
    for (args, feature) in [
        (&["embed", "--model", &llama, "a"][..], "text"),
        (&["pack", &llama, "-o", &output], "text"),
        (&["embed", "--model", &whisper, "a"], "speech"),
        (&["pack", &whisper, "-o", &output], "speech"),
        (&["embed", "--input", &recording, "--format", "qdrant"], "speech"),
        (&["cost", "--recording", &recording], "speech"),
        (&["embed", "--sink", "qdrant+http://127.0.0.1:1/documents", "a"], "sinks"),
    ] {
        assert_names(&run(&mut tealight(args.iter().copied())).expect_failure(), feature);
    }
}
