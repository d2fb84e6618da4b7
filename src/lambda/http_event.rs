//! HTTP requests as API Gateway, function URLs and load balancers put them into events.

use crate::api::routes::find;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tealight_core::{Error, ErrorKind, Result};

/// What may not stand in the path of a URI and comes decoded in some events.
const UNSAFE: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`').add(b'{').add(b'}').add(b'#').add(b'?');

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    request_context: Context,
    /// HTTP API v2 and function URLs.
    raw_path: Option<String>,
    /// REST API v1 and load balancers.
    path: Option<String>,
    http_method: Option<String>,
    #[serde(default)]
    headers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    multi_value_headers: Option<BTreeMap<String, Vec<String>>>,
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    http: Option<ContextHttp>,
    elb: Option<serde::de::IgnoredAny>,
    stage: Option<String>,
    domain_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ContextHttp {
    method: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// HTTP API v2 and function URLs.
    V2,
    /// REST API v1.
    V1,
    /// Application load balancer, with one value a header or with lists.
    Alb { multi: bool },
}

/// A request in an event.
#[derive(Debug)]
pub struct HttpEvent {
    wire: Wire,
    form: Form,
}

impl HttpEvent {
    /// Reads an event that has a `requestContext`.
    pub fn parse(payload: &str) -> Result<Self> {
        let mut deserializer = serde_json::Deserializer::from_str(payload);
        let wire: Wire = serde_path_to_error::deserialize(&mut deserializer).map_err(|e| {
            Error::new(ErrorKind::UnsupportedEvent, format!("the event is not an HTTP request of AWS: {e}"))
        })?;
        // The emulator's v2 events carry a misleading httpMethod, so the context decides first.
        let form = match &wire.request_context {
            Context { http: Some(_), .. } => Form::V2,
            Context { elb: Some(_), .. } => Form::Alb { multi: wire.multi_value_headers.is_some() },
            _ => Form::V1,
        };
        Ok(Self { wire, form })
    }

    /// Whether it came by a function URL.
    pub fn is_function_url(&self) -> bool {
        let domain = self.wire.request_context.domain_name.as_deref().unwrap_or_default();
        self.form == Form::V2 && domain.contains(".lambda-url.")
    }

    fn method(&self) -> Result<Method> {
        let context = self.wire.request_context.http.as_ref().map(|h| h.method.as_str());
        let name = context.or(self.wire.http_method.as_deref()).unwrap_or_default();
        Method::from_bytes(name.as_bytes()).map_err(|_| {
            Error::new(ErrorKind::UnsupportedEvent, format!("the event's method is {name:?}, which is none of HTTP"))
        })
    }

    /// The path, without the stage that some front doors put before it.
    fn path(&self, method: &Method) -> String {
        let path = self.wire.raw_path.as_deref().or(self.wire.path.as_deref()).unwrap_or("/");
        let stage = self.wire.request_context.stage.as_deref().unwrap_or("$default");
        let stripped =
            path.strip_prefix('/').and_then(|p| p.strip_prefix(stage)).filter(|p| p.is_empty() || p.starts_with('/'));
        match stripped {
            // A stage may be called like the beginning of a route, for instance "v1".
            Some(rest) if find(method, path).is_err() => if rest.is_empty() { "/" } else { rest }.into(),
            _ => path.into(),
        }
    }

    fn headers(&self) -> HeaderMap {
        let single = self.wire.headers.iter().flatten().map(|(k, v)| (k, vec![v]));
        let multi = self.wire.multi_value_headers.iter().flatten().map(|(k, v)| (k, v.iter().collect()));
        // The lists have all that the single values have.
        let all: BTreeMap<&String, Vec<&String>> = single.chain(multi).collect();
        let pairs = all.into_iter().flat_map(|(k, values)| values.into_iter().map(move |v| (k, v)));
        pairs.filter_map(|(k, v)| Some((HeaderName::try_from(k).ok()?, HeaderValue::try_from(v).ok()?))).fold(
            HeaderMap::new(),
            |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            },
        )
    }

    fn body(&self) -> Result<Bytes> {
        let body = self.wire.body.as_deref().unwrap_or_default();
        if !self.wire.is_base64_encoded {
            return Ok(Bytes::copy_from_slice(body.as_bytes()));
        }
        let bytes = STANDARD
            .decode(body)
            .map_err(|e| Error::new(ErrorKind::UnsupportedEvent, format!("the event's body is not base64: {e}")))?;
        Ok(bytes.into())
    }

    /// The request that it carries.
    pub fn request(&self) -> Result<Request<Bytes>> {
        let method = self.method()?;
        let path = utf8_percent_encode(&self.path(&method), UNSAFE).to_string();
        let none = || Error::new(ErrorKind::NotFound, format!("the event's path is {path:?}, which is none of a URL"));
        // A URI may also be a host, or begin with one.
        if !path.starts_with('/') {
            return Err(none());
        }
        let mut request = Request::builder().method(method).uri(&path).body(self.body()?).map_err(|_| none())?;
        *request.headers_mut() = self.headers();
        Ok(request)
    }

    /// A reply in the form that belongs to the event.
    pub fn reply(&self, response: &Response<Bytes>) -> Result<Box<RawValue>> {
        let status = response.status();
        let (body, encoded) = match std::str::from_utf8(response.body()) {
            Ok(text) => (text.to_string(), false),
            Err(_) => (STANDARD.encode(response.body()), true),
        };
        let mut reply = json!({"statusCode": status.as_u16(), "body": body, "isBase64Encoded": encoded});
        match self.form {
            Form::V2 => {
                reply["headers"] = single_headers(response);
                reply["cookies"] = json!([]);
            }
            Form::V1 => reply["headers"] = single_headers(response),
            Form::Alb { multi } => {
                let reason = status.canonical_reason().unwrap_or_default();
                reply["statusDescription"] = json!(format!("{} {reason}", status.as_u16()).trim_end());
                let (name, value) = match multi {
                    true => ("multiValueHeaders", multi_headers(response)),
                    false => ("headers", single_headers(response)),
                };
                reply[name] = value;
            }
        }
        to_raw_value(&reply).map_err(|e| Error::internal(format!("a reply is not JSON: {e}")))
    }
}

fn single_headers(response: &Response<Bytes>) -> Value {
    headers(response, |v| json!(v))
}

fn multi_headers(response: &Response<Bytes>) -> Value {
    headers(response, |v| json!([v]))
}

fn headers(response: &Response<Bytes>, value: fn(&str) -> Value) -> Value {
    let pairs = response.headers().iter();
    pairs.filter_map(|(k, v)| Some((k.to_string(), value(v.to_str().ok()?)))).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> HttpEvent {
        let path = format!("{}/tests/fixtures/events/{name}.json", env!("CARGO_MANIFEST_DIR"));
        HttpEvent::parse(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn a_stage_is_taken_from_the_path_unless_the_route_begins_so() {
        let event = |path: &str, stage: &str| {
            let event = json!({"requestContext": {"http": {"method": "POST"}, "stage": stage}, "rawPath": path});
            HttpEvent::parse(&event.to_string()).unwrap().path(&Method::POST)
        };
        assert_eq!(event("/prod/v1/embeddings", "prod"), "/v1/embeddings");
        assert_eq!(event("/v1/embeddings", "v1"), "/v1/embeddings");
        assert_eq!(event("/v1/v1/embeddings", "v1"), "/v1/embeddings");
        assert_eq!(event("/production/embed", "prod"), "/production/embed");
        assert_eq!(event("/prod", "prod"), "/");
        assert_eq!(event("/embed", "$default"), "/embed");
    }

    #[test]
    fn every_fixture_is_the_request_that_it_says() {
        for name in [
            "http_api_default_stage",
            "http_api_named_stage",
            "http_api_base64",
            "rest_api",
            "function_url",
            "function_url_iam",
            "alb",
            "alb_multi_value",
        ] {
            let request = fixture(name).request().unwrap();
            assert_eq!(request.method(), Method::POST, "{name}");
            assert!(find(request.method(), request.uri().path()).is_ok(), "{name}: {}", request.uri());
            let body: Value = serde_json::from_slice(request.body()).unwrap();
            assert!(body.is_object(), "{name}");
        }
    }

    #[test]
    fn a_path_without_a_slash_is_no_host() {
        for path in ["embed", "example.com:80", "http://example.com/embed", "*"] {
            let event = json!({"requestContext": {"http": {"method": "POST"}}, "rawPath": path});
            let error = HttpEvent::parse(&event.to_string()).unwrap().request().unwrap_err();
            assert!(error.kind == ErrorKind::NotFound && error.message.contains(path), "{error:?}");
        }
    }

    #[test]
    fn replies_have_the_form_of_their_event() {
        let mut response = Response::new(Bytes::from_static(b"{}"));
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        let reply =
            |name: &str| -> Value { serde_json::from_str(fixture(name).reply(&response).unwrap().get()).unwrap() };
        assert_eq!(reply("function_url")["cookies"], json!([]));
        assert_eq!(reply("rest_api")["headers"]["content-type"], "application/json");
        assert_eq!(reply("alb")["statusDescription"], "200 OK");
        assert_eq!(reply("alb_multi_value")["multiValueHeaders"]["content-type"], json!(["application/json"]));
        assert!(reply("alb_multi_value").get("headers").is_none());
    }

    #[test]
    fn only_a_lambda_url_is_a_function_url() {
        assert!(fixture("function_url").is_function_url());
        assert!(!fixture("http_api_default_stage").is_function_url());
    }
}
