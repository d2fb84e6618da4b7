//! Events: any JSON, and requests in events of each front door. Nothing panics; what a request says is what comes out of its event,
//! and what a reply says is in the event's reply.
#![no_main]

mod given;
mod loose;

use arbitrary::{Arbitrary, Unstructured};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use given::{Direct, Http};
use http::{Request, Response};
use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tealight::lambda::fuzzing::{reply, request};

fuzz_target!(|data: &[u8]| {
    match std::str::from_utf8(data) {
        Ok(text) if text.trim_start().starts_with(['{', '[']) => any(text),
        // Input that ends early is none.
        _ => drop(structured(&mut Unstructured::new(data))),
    }
});

fn structured(source: &mut Unstructured) -> arbitrary::Result<()> {
    match source.int_in_range(0..=2)? {
        0 => of_http(&Http::arbitrary(source)?),
        1 => of_direct(&Direct::arbitrary(source)?),
        _ => any(&loose::event(source)?.to_string()),
    }
    Ok(())
}

fn any(payload: &str) {
    if let Ok(Some(request)) = request(payload) {
        assert!(request.uri().path().starts_with('/'), "{} {payload}", request.uri());
    }
    let _ = reply(payload, &Response::new(Bytes::from_static(b"\xff")));
}

fn of_http(http: &Http) {
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
    check_reply(&payload, &http.body());
}

/// The body of a reply is in the event's reply.
fn check_reply(payload: &str, body: &Bytes) {
    let reply: Value = serde_json::from_str(reply(payload, &Response::new(body.clone())).unwrap().get()).unwrap();
    let text = reply["body"].as_str().unwrap();
    let found = match reply["isBase64Encoded"].as_bool().unwrap() {
        true => STANDARD.decode(text).unwrap(),
        false => text.as_bytes().to_vec(),
    };
    assert!(reply["statusCode"] == 200 && found == *body, "{reply}");
}

fn of_direct(direct: &Direct) {
    let payload = direct.event().to_string();
    if let Ok(Some(request)) = request(&payload) {
        assert_eq!(request.body(), payload.as_bytes());
        // What follows "#" is no part of a request.
        let path = direct.path.as_deref().map(|path| path.split('#').next().unwrap_or_default());
        assert!(path.is_none_or(|path| request.uri() == path), "{} {payload}", request.uri());
    }
    let _ = reply(&payload, &Response::new(Bytes::from(direct.text.clone().into_bytes())));
}
