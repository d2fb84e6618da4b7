//! HTTP requests and direct invocations, and the events that contain them.

use arbitrary::{Arbitrary, Unstructured};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// `BREW` is a method that HTTP does not define (RFC 2324).
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "OPTIONS", "BREW"];
/// Path segments with a meaning; others are random.
const SEGMENTS: [&str; 6] = ["v1", "embeddings", "prod", "$default", "%2F", "embed"];
const FIELDS: [&str; 9] = ["input", "inputs", "ids", "messages", "prompt", "audio", "uri", "query", "vector"];

/// The formats of HTTP events: version 2.0 and 1.0 of API Gateway's payload format, the first of which function URLs also have, and
/// those of an Application Load Balancer (ALB) without and with multi-value headers.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Format {
    PayloadV2,
    PayloadV1,
    Alb,
    AlbMultiValue,
}

#[derive(Debug, Arbitrary)]
enum Body {
    None,
    Text(String),
    Bytes(Vec<u8>),
}

/// An HTTP request.
#[derive(Debug, Arbitrary)]
pub struct Http {
    format: Format,
    #[arbitrary(with = |u: &mut Unstructured| u.choose(&METHODS).copied())]
    method: &'static str,
    #[arbitrary(with = |u: &mut Unstructured| path(u))]
    path: String,
    stage: Option<String>,
    headers: BTreeMap<String, Vec<String>>,
    body: Body,
}

fn path(u: &mut Unstructured) -> arbitrary::Result<String> {
    let segment = |u: &mut Unstructured| match u.ratio(1, 2)? {
        true => u.arbitrary::<String>(),
        false => u.choose(&SEGMENTS).map(|segment| segment.to_string()),
    };
    (0..u.int_in_range(1..=4)?).map(|_| Ok(format!("/{}", segment(u)?))).collect()
}

impl Http {
    pub fn method(&self) -> &str {
        self.method
    }

    /// The path, and the path without the stage if it starts with the stage.
    pub fn paths(&self) -> Vec<&str> {
        let stage = self.stage.as_deref().unwrap_or("$default");
        let rest = self.path.strip_prefix('/').and_then(|path| path.strip_prefix(stage));
        let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let rest = rest.map(|rest| if rest.is_empty() { "/" } else { rest });
        [Some(self.path.as_str()), rest].into_iter().flatten().collect()
    }

    pub fn body(&self) -> Bytes {
        match &self.body {
            Body::None => Bytes::new(),
            Body::Text(text) => text.clone().into(),
            Body::Bytes(bytes) => bytes.clone().into(),
        }
    }

    /// The headers that are valid in HTTP, as the service puts them into the event.
    pub fn headers(&self) -> impl Iterator<Item = (&String, &String)> {
        let is_multi = matches!(self.format, Format::AlbMultiValue | Format::PayloadV1);
        let name_and_count =
            move |(name, values): (_, &'_ Vec<String>)| (name, if is_multi { values.len() } else { 1 });
        let kept = self.headers.iter().map(move |pair| (name_and_count(pair), pair.1));
        let pairs = kept.flat_map(|((name, count), values)| values.iter().rev().take(count).map(move |v| (name, v)));
        pairs.filter(|(name, value)| HeaderName::try_from(*name).is_ok() && HeaderValue::try_from(*value).is_ok())
    }

    pub fn event(&self) -> Value {
        let last = |values: &Vec<String>| values.last().cloned();
        let single: Map<String, Value> =
            self.headers.iter().filter_map(|(name, values)| Some((name.clone(), last(values)?.into()))).collect();
        let (body, encoded) = match &self.body {
            Body::None => (Value::Null, false),
            Body::Text(text) => (text.clone().into(), false),
            Body::Bytes(bytes) => (STANDARD.encode(bytes).into(), true),
        };
        let mut event = json!({"body": body, "isBase64Encoded": encoded});
        let (path, method) = match self.format {
            Format::PayloadV2 => {
                event["requestContext"] = json!({"http": {"method": self.method}});
                ("rawPath", None)
            }
            Format::PayloadV1 => {
                event["requestContext"] = json!({"resourceId": "x"});
                ("path", Some(self.method))
            }
            Format::Alb | Format::AlbMultiValue => {
                event["requestContext"] = json!({"elb": {"targetGroupArn": "x"}});
                ("path", Some(self.method))
            }
        };
        event[path] = self.path.clone().into();
        if let Some(method) = method {
            event["httpMethod"] = method.into();
        }
        if let Some(stage) = &self.stage {
            event["requestContext"]["stage"] = stage.clone().into();
        }
        if !matches!(self.format, Format::AlbMultiValue) {
            event["headers"] = single.into();
        }
        if matches!(self.format, Format::AlbMultiValue | Format::PayloadV1) {
            event["multiValueHeaders"] = json!(self.headers);
        }
        event
    }
}

/// A direct invocation.
#[derive(Debug, Arbitrary)]
pub struct Direct {
    pub path: Option<String>,
    method: Option<String>,
    #[arbitrary(with = |u: &mut Unstructured| u.choose(&FIELDS).copied())]
    field: &'static str,
    pub text: String,
    is_object: bool,
}

impl Direct {
    pub fn event(&self) -> Value {
        let value = if self.is_object { json!({"source_sentence": self.text}) } else { json!(self.text) };
        let mut event = json!({self.field: value});
        for (name, value) in [("path", &self.path), ("method", &self.method)] {
            if let Some(value) = value {
                event[name] = value.clone().into();
            }
        }
        event
    }
}
