//! Events: any JSON, and HTTP events in each format. Nothing panics; the request equals the one that the event was built from, and
//! the response contains the body of the API's response.
#![no_main]

mod http_events;
mod json;

use arbitrary::{Arbitrary, Unstructured};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_events::{Direct, Http};
use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tealight::lambda::fuzzing::{request, response};

fuzz_target!(|data: &[u8]| {
    match std::str::from_utf8(data) {
        Ok(text) if text.trim_start().starts_with(['{', '[']) => check_any(text),
        // Input that is too short for a structure is skipped.
        _ => drop(check_structured(&mut Unstructured::new(data))),
    }
});

fn check_structured(source: &mut Unstructured) -> arbitrary::Result<()> {
    match source.int_in_range(0..=2)? {
        0 => check_http(&Http::arbitrary(source)?),
        1 => check_direct(&Direct::arbitrary(source)?),
        _ => check_any(&json::event(source)?.to_string()),
    }
    Ok(())
}

fn check_any(payload: &str) {
    if let Ok(Some(request)) = request(payload) {
        assert!(request.uri().path().starts_with('/'), "{} {payload}", request.uri());
    }
    let _ = response(payload, &Response::new(Bytes::from_static(b"\xff")));
}

fn check_http(http: &Http) {
    let payload = http.event().to_string();
    let request: Request<Bytes> = request(&payload).unwrap().unwrap();
    assert_eq!(request.method(), http.method());
    assert_eq!(request.body(), &http.body());
    let decoded = |path: &str| percent_decode_str(path).collect::<Vec<_>>();
    let path = decoded(request.uri().path());
    assert!(http.paths().iter().any(|expected| decoded(expected) == path), "{} {payload}", request.uri());
    assert_eq!(request.uri().query(), None);
    for (name, value) in http.headers() {
        assert!(request.headers().get_all(name).iter().any(|v| v.as_bytes() == value.as_bytes()), "{name} {payload}");
    }
    check_response(&payload, &http.body());
}

/// Checks that the response to an event contains this body.
fn check_response(payload: &str, body: &Bytes) {
    let response = response(payload, &Response::new(body.clone())).unwrap();
    let response: Value = serde_json::from_str(response.get()).unwrap();
    let text = response["body"].as_str().unwrap();
    let is_base64 = response["isBase64Encoded"].as_bool().unwrap();
    let found = if is_base64 { STANDARD.decode(text).unwrap() } else { text.as_bytes().to_vec() };
    assert!(response["statusCode"] == 200 && found == *body, "{response}");
}

fn check_direct(direct: &Direct) {
    let payload = direct.event().to_string();
    if let Ok(Some(request)) = request(&payload) {
        assert_eq!(request.body(), payload.as_bytes());
        // A URI drops the fragment.
        let path = direct.path.as_deref().map(|path| path.split('#').next().unwrap_or_default());
        assert!(path.is_none_or(|path| request.uri() == path), "{} {payload}", request.uri());
    }
    let _ = response(&payload, &Response::new(Bytes::from(direct.text.clone().into_bytes())));
}
