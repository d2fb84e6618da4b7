//! Streamed responses, with the binary and real weights, which tests/run downloads.

use crate::support::http::request;
use crate::support::lambda_runtime::Function;
use crate::support::server::Server;
use crate::support::{TIMEOUT, wait_for};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};
use tealight_audio::Recording;

const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";
const COMPLETIONS: &str = "/v1/completions";
/// Repetitions of `jfk.flac`; each window of 30 s contains three.
const REPETITIONS: usize = 40;

fn cache() -> String {
    std::env::var("HF_HOME").expect("HF_HOME with the weights")
}

fn variables(cache: &str) -> Vec<(&str, &str)> {
    vec![("HF_HOME", cache), ("HOME", "/"), ("TEALIGHT_SPEECH_MODEL", "whisper-tiny.en"), ("TEALIGHT_THREADS", "1")]
}

/// A request to transcribe a long recording as a stream.
fn long_recording() -> String {
    let bytes = std::fs::read(crate::support::path("tests/fixtures/audio/jfk.flac")).unwrap();
    let recording = Recording::open(bytes.into()).unwrap();
    let speech =
        recording.samples(tealight_kernels::Isa::detect()).unwrap().collect::<Result<Vec<_>, _>>().unwrap().concat();
    let data: Vec<u8> = speech.iter().flat_map(|v| ((v * 127.0) as i8 as u8 ^ 0x80).to_le_bytes()).collect();
    let data = data.repeat(REPETITIONS);
    // 8-bit mono WAV at 16 kHz.
    let mut wav = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\x80\x3e\0\0\x01\0\x08\0data".to_vec();
    wav[4..8].copy_from_slice(&(36 + data.len() as u32).to_le_bytes());
    wav.extend((data.len() as u32).to_le_bytes());
    wav.extend(data);
    json!({"file": BASE64_STANDARD.encode(wav), "stream": true}).to_string()
}

/// Parses the server-sent events of a body.
fn events(body: &str) -> Vec<Value> {
    let data = body.split_terminator("\n\n").map(|text| text.strip_prefix("data: ").expect("data"));
    data.filter(|text| *text != "[DONE]").map(|text| serde_json::from_str(text).unwrap()).collect()
}

/// A request for a streamed completion that has at least 6,000 tokens.
fn long_text() -> String {
    json!({"prompt": "Once", "max_tokens": 6000, "logit_bias": {"0": -100, "2": -100}, "stream": true}).to_string()
}

fn post(server: &Server, path: &str, body: &str) -> TcpStream {
    let mut socket = TcpStream::connect(server.address).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let headers = [("content-type", "application/json"), ("connection", "close")];
    socket.write_all(&request("POST", path, &headers, body)).unwrap();
    socket
}

#[test]
#[ignore = "needs the weights that tests/run downloads"]
fn server_sends_events_while_transcribing() {
    let cache = cache();
    let server = Server::start(&variables(&cache));
    let mut response = String::new();
    post(&server, TRANSCRIPTIONS, &long_recording()).read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    for line in
        ["http/1.1 200 ok", "content-type: text/event-stream", "transfer-encoding: chunked", "cache-control: no-cache"]
    {
        assert!(head.lines().any(|l| l == line), "{line} is not in {head}");
    }
    // Chunked encoding: one chunk per event.
    let (mut rest, mut chunks) = (body, vec![]);
    while let Some((size, more)) = rest.split_once("\r\n") {
        let (chunk, more) = more.split_at(usize::from_str_radix(size, 16).unwrap());
        chunks.extend((!chunk.is_empty()).then_some(chunk));
        rest = more.trim_start_matches("\r\n");
    }
    let events = events(&chunks.concat());
    assert!(events.len() >= REPETITIONS / 3 && chunks.len() == events.len(), "{} {}", events.len(), chunks.len());
    let (last, deltas) = events.split_last().unwrap();
    let text: String = deltas.iter().map(|e| e["delta"].as_str().unwrap()).collect();
    assert_eq!((&last["type"], last["text"].as_str().unwrap()), (&"transcript.text.done".into(), text.trim()));
    // An invalid request is rejected with a status, because no event has been sent.
    let rejected = server.post(TRANSCRIPTIONS, json!({"file": "bm8=", "stream": true}).to_string());
    assert_eq!(rejected.status(), 400);
}

#[test]
#[ignore = "needs the weights that tests/run downloads"]
fn work_ends_when_client_disconnects() {
    let cache = cache();
    let server = Server::start(&variables(&cache));
    for (count, path, body) in [(1, TRANSCRIPTIONS, long_recording()), (2, COMPLETIONS, long_text())] {
        let mut socket = post(&server, path, &body);
        socket.read_exact(&mut [0; 200]).unwrap();
        drop(socket);
        let line = format!("te_request_failure{{err=\"client_gone\"}} {count}\n");
        wait_for("the end of the work", || server.get("/metrics").text().contains(&line).then_some(()));
    }
}

#[test]
#[ignore = "needs the weights that tests/run downloads"]
fn long_requests_do_not_block_short_ones() {
    let cache = cache();
    let server = Server::start(&variables(&cache));
    let body = long_text();
    // More than run at once.
    let mut long: Vec<_> = (0..4).map(|_| post(&server, COMPLETIONS, &body)).collect();
    long[0].read_exact(&mut [0; 200]).unwrap();
    server.assert_serving();
    for socket in &mut long {
        socket.set_nonblocking(true).unwrap();
        let mut events = vec![];
        let still = socket.read_to_end(&mut events).unwrap_err();
        assert!(still.kind() == ErrorKind::WouldBlock && !String::from_utf8_lossy(&events).contains("[DONE]"));
    }
}

fn start_streaming_function() -> Function {
    let cache = cache();
    let mut variables = variables(&cache);
    variables.push(("TEALIGHT_RESPONSE_STREAM", "1"));
    Function::start(&variables)
}

fn invoke(function: &Function, path: &str, body: String, deadline: SystemTime) -> (Value, Vec<Value>) {
    let event = json!({"version": "2.0", "rawPath": path, "headers": {"content-type": "application/json"},
        "requestContext": {"domainName": "x.lambda-url.eu-central-1.on.aws", "http": {"method": "POST"}, "stage": "$default"},
        "body": body, "isBase64Encoded": false});
    let outcome = function.invoke_with_deadline(event, deadline);
    assert_eq!(outcome.report.header("lambda-runtime-function-response-mode"), Some("streaming"));
    let body = outcome.report.body;
    let at = body.windows(8).position(|w| w == [0; 8]).unwrap();
    (serde_json::from_slice(&body[..at]).unwrap(), events(std::str::from_utf8(&body[at + 8..]).unwrap()))
}

#[test]
#[ignore = "needs the weights that tests/run downloads"]
fn function_streams_and_reports_timeout_as_event() {
    let function = start_streaming_function();
    let start = SystemTime::now();
    let (prelude, events) = invoke(&function, TRANSCRIPTIONS, long_recording(), start + TIMEOUT);
    let whole = start.elapsed().unwrap();
    assert_eq!(
        (&prelude["statusCode"], &prelude["headers"]["content-type"]),
        (&200.into(), &"text/event-stream".into())
    );
    assert_eq!(events.last().unwrap()["type"], "transcript.text.done");
    // Half of the time that the whole recording takes.
    let (_, all) = invoke(&function, TRANSCRIPTIONS, long_recording(), SystemTime::now() + whole / 2);
    let (last, deltas) = all.split_last().unwrap();
    assert!(deltas.len() < events.len() - 1, "{} of {}", deltas.len(), events.len());
    assert_eq!(last["error"]["code"], "timeout", "{last}");
    assert!(deltas.iter().all(|e| e["type"] == "transcript.text.delta"), "{deltas:?}");
}

#[test]
#[ignore = "needs the weights that tests/run downloads"]
fn function_ends_completion_before_deadline() {
    let function = start_streaming_function();
    let time = Duration::from_secs(3);
    let (prelude, events) = invoke(&function, COMPLETIONS, long_text(), SystemTime::now() + time);
    assert_eq!(prelude["statusCode"], 200);
    let (last, parts) = events.split_last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "length", "{last}");
    let text: String = parts.iter().map(|e| e["choices"][0]["text"].as_str().unwrap()).collect();
    assert!(parts.len() > 5 && text.len() > 20, "{text}");
    // Completions that were not started in time are empty, and none is missing.
    let mut several: Value = serde_json::from_str(&long_text()).unwrap();
    several["prompt"] = json!(["Once", "Twice", "Thrice"]);
    let (_, events) = invoke(&function, COMPLETIONS, several.to_string(), SystemTime::now() + time);
    let ends = events.iter().filter(|e| e["choices"][0]["finish_reason"] == "length");
    assert_eq!(ends.map(|e| e["choices"][0]["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
}
