//! HTTP requests as API Gateway, function URLs and load balancers put them into events.

use super::event::{EventFields, parse_field};
use crate::api::routes::{PathRoutes, RouteMatch};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::ser::{Serialize, Serializer};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::{RawValue, to_raw_value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use tealight_core::{Error, ErrorKind, Result};

/// Characters that some events contain decoded, and that the path of a URI must encode.
const PATH_ENCODE_SET: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`').add(b'{').add(b'}').add(b'#').add(b'?');

/// The fields of an HTTP event.
#[derive(Debug)]
struct HttpPayload {
    /// The HTTP method, from the request context or else from the field `httpMethod`.
    method: Option<String>,
    /// `rawPath` in payload format 2.0 (HTTP APIs and function URLs), `path` in format 1.0 (REST APIs) and of load balancers.
    path: Option<String>,
    stage: Option<String>,
    headers: BTreeMap<String, String>,
    multi_value_headers: Option<BTreeMap<String, Vec<String>>>,
    body: Option<String>,
    is_base64_encoded: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpContext {
    http: Option<HttpContextHttp>,
    elb: Option<IgnoredAny>,
    stage: Option<String>,
    domain_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct HttpContextHttp {
    method: String,
}

/// The formats of HTTP events and their responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadFormat {
    /// Payload format 2.0: HTTP APIs and function URLs.
    V2,
    /// Payload format 1.0: REST APIs, and HTTP APIs that are configured for it.
    V1,
    /// Application load balancer, with one value per header or with lists.
    Alb {
        /// Whether headers are lists.
        multi_value: bool,
    },
}

/// An HTTP event.
#[derive(Debug)]
pub struct HttpEvent {
    payload: HttpPayload,
    /// Decides the format of the response.
    pub format: PayloadFormat,
    /// Whether it came through a function URL, which can stream the response.
    pub is_function_url: bool,
}

impl HttpEvent {
    /// Reads an event that has a `requestContext`.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedEvent`]: a field has another type than in events of AWS.
    pub fn parse(event: &EventFields) -> Result<Self> {
        Self::parse_fields(event)
            .map_err(|e| Error::new(ErrorKind::UnsupportedEvent, format!("not an HTTP event: {e}")))
    }

    fn parse_fields(event: &EventFields) -> Result<Self, String> {
        let context: HttpContext =
            parse_field("requestContext", event.request_context)?.ok_or("requestContext is missing")?;
        let multi_value_headers = parse_field("multiValueHeaders", event.multi_value_headers)?;
        // Events of `cargo lambda watch` in format 2.0 have a misleading httpMethod, so the context decides first.
        let format = match &context {
            HttpContext { http: Some(_), .. } => PayloadFormat::V2,
            HttpContext { elb: Some(_), .. } => PayloadFormat::Alb { multi_value: multi_value_headers.is_some() },
            _ => PayloadFormat::V1,
        };
        let domain = context.domain_name.as_deref().unwrap_or_default();
        let is_function_url = format == PayloadFormat::V2 && domain.contains(".lambda-url.");
        let (raw_path, path) = (parse_field("rawPath", event.raw_path)?, parse_field("path", event.path)?);
        let http_method = parse_field("httpMethod", event.http_method)?;
        let payload = HttpPayload {
            method: context.http.map(|http| http.method).or(http_method),
            path: raw_path.or(path),
            stage: context.stage,
            headers: parse_field("headers", event.headers)?.unwrap_or_default(),
            multi_value_headers,
            body: parse_field("body", event.body)?,
            is_base64_encoded: parse_field("isBase64Encoded", event.is_base64_encoded)?.unwrap_or_default(),
        };
        Ok(Self { payload, format, is_function_url })
    }

    /// Converts the event to the request that the local server would get, and looks up its route.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedEvent`]: the method or the base64 of the body is invalid. [`ErrorKind::NotFound`]: the path is
    /// invalid.
    pub fn into_request(self) -> Result<(Request<Bytes>, RouteMatch)> {
        let method = self.payload.method()?;
        let (path, routes) = self.payload.find_routes();
        let invalid_path = || Error::new(ErrorKind::NotFound, format!("path is {path:?}; expected the path of a URL"));
        // `Uri` also parses "host:port" and "http://host/path", which are not paths.
        if !path.starts_with('/') {
            return Err(invalid_path());
        }
        let uri = Uri::try_from(&path).map_err(|_| invalid_path())?;
        let (headers, route) = (self.payload.headers(), routes.select(&method));
        let mut request = Request::new(self.payload.into_body()?);
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
        Ok((request, route))
    }
}

impl HttpPayload {
    fn method(&self) -> Result<Method> {
        let name = self.method.as_deref().unwrap_or_default();
        Method::from_bytes(name.as_bytes()).map_err(|_| {
            Error::new(ErrorKind::UnsupportedEvent, format!("the method is {name:?}; expected an HTTP method"))
        })
    }

    /// The percent-encoded path, without the stage that API Gateway may put before it, and the routes of that path.
    fn find_routes(&self) -> (String, PathRoutes) {
        let encode = |path: &str| utf8_percent_encode(path, PATH_ENCODE_SET).to_string();
        let path = self.path.as_deref().unwrap_or("/");
        let encoded = encode(path);
        let routes = PathRoutes::find(&encoded);
        // A stage may have the name with which a route starts, such as "v1".
        if !routes.is_empty() {
            return (encoded, routes);
        }
        let stage = self.stage.as_deref().unwrap_or("$default");
        let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(stage));
        match rest.filter(|rest| rest.is_empty() || rest.starts_with('/')) {
            Some(rest) => {
                let encoded = encode(if rest.is_empty() { "/" } else { rest });
                let routes = PathRoutes::find(&encoded);
                (encoded, routes)
            }
            None => (encoded, routes),
        }
    }

    fn headers(&self) -> HeaderMap {
        let single = self.headers.iter().map(|(k, v)| (k, vec![v]));
        let multi = self.multi_value_headers.iter().flatten().map(|(k, v)| (k, v.iter().collect()));
        // The lists also contain the single values.
        let all: BTreeMap<&String, Vec<&String>> = single.chain(multi).collect();
        let pairs = all.into_iter().flat_map(|(k, values)| values.into_iter().map(move |v| (k, v)));
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.append(name, value);
            }
        }
        headers
    }

    fn into_body(self) -> Result<Bytes> {
        let body = self.body.unwrap_or_default();
        if !self.is_base64_encoded {
            return Ok(body.into());
        }
        let bytes = STANDARD.decode(body).map_err(|e| {
            Error::new(ErrorKind::UnsupportedEvent, format!("the body of the event is not base64: {e}"))
        })?;
        Ok(bytes.into())
    }
}

/// The response to an HTTP event. Fields that a format does not have are omitted, because API Gateway rejects unknown fields.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct HttpEventResponse<'a> {
    status_code: u16,
    body: Cow<'a, str>,
    is_base64_encoded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<SingleValues<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_headers: Option<MultiValues<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cookies: Option<[&'a str; 0]>,
}

/// Headers as an object of texts.
#[derive(Debug)]
struct SingleValues<'a>(&'a HeaderMap);

/// Headers as an object of lists.
#[derive(Debug)]
struct MultiValues<'a>(&'a HeaderMap);

impl Serialize for SingleValues<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(text_values(self.0))
    }
}

impl Serialize for MultiValues<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(text_values(self.0).map(|(name, value)| (name, [value])))
    }
}

fn text_values(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
}

impl PayloadFormat {
    /// Converts a response to this format.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`]: it cannot be serialized.
    pub fn response(self, response: &Response<Bytes>) -> Result<Box<RawValue>> {
        let status = response.status();
        let (body, is_base64_encoded) = match std::str::from_utf8(response.body()) {
            Ok(text) => (text.into(), false),
            Err(_) => (STANDARD.encode(response.body()).into(), true),
        };
        let is_alb = matches!(self, PayloadFormat::Alb { .. });
        let has_lists = self == PayloadFormat::Alb { multi_value: true };
        let description = || {
            let reason = status.canonical_reason().unwrap_or_default();
            format!("{} {reason}", status.as_u16()).trim_end().to_string()
        };
        let response = HttpEventResponse {
            status_code: status.as_u16(),
            body,
            is_base64_encoded,
            status_description: is_alb.then(description),
            headers: (!has_lists).then_some(SingleValues(response.headers())),
            multi_value_headers: has_lists.then_some(MultiValues(response.headers())),
            cookies: (self == PayloadFormat::V2).then_some([]),
        };
        to_raw_value(&response).map_err(|e| Error::internal(format!("the response cannot be serialized: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(event: &str) -> HttpEvent {
        HttpEvent::parse(&EventFields::parse(event).unwrap()).unwrap()
    }

    fn fixture(name: &str) -> HttpEvent {
        let path = format!("{}/tests/fixtures/events/{name}.json", env!("CARGO_MANIFEST_DIR"));
        parse(&std::fs::read_to_string(path).unwrap())
    }

    #[test]
    fn stage_is_stripped_unless_path_is_route() {
        let path = |path: &str, stage: &str| {
            let event = json!({"requestContext": {"http": {"method": "POST"}, "stage": stage}, "rawPath": path});
            parse(&event.to_string()).payload.find_routes().0
        };
        assert_eq!(path("/prod/v1/embeddings", "prod"), "/v1/embeddings");
        assert_eq!(path("/v1/embeddings", "v1"), "/v1/embeddings");
        assert_eq!(path("/v1/v1/embeddings", "v1"), "/v1/embeddings");
        assert_eq!(path("/production/embed", "prod"), "/production/embed");
        assert_eq!(path("/prod", "prod"), "/");
        assert_eq!(path("/embed", "$default"), "/embed");
    }

    #[test]
    fn fixtures_convert_to_routed_requests() {
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
            let (request, route) = fixture(name).into_request().unwrap();
            assert_eq!(request.method(), Method::POST, "{name}");
            assert!(route.route().is_some(), "{name}: {}", request.uri());
            let body: Value = serde_json::from_slice(request.body()).unwrap();
            assert!(body.is_object(), "{name}");
        }
    }

    #[test]
    fn path_without_leading_slash_is_not_found() {
        for path in ["embed", "example.com:80", "http://example.com/embed", "*"] {
            let event = json!({"requestContext": {"http": {"method": "POST"}}, "rawPath": path});
            let error = parse(&event.to_string()).into_request().unwrap_err();
            assert!(error.kind == ErrorKind::NotFound && error.message.contains(path), "{error:?}");
        }
    }

    #[test]
    fn response_has_format_of_event() {
        let mut response = Response::new(Bytes::from_static(b"{}"));
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        let convert = |name: &str| -> Value {
            serde_json::from_str(fixture(name).format.response(&response).unwrap().get()).unwrap()
        };
        assert_eq!(convert("function_url")["cookies"], json!([]));
        assert_eq!(convert("rest_api")["headers"]["content-type"], "application/json");
        assert_eq!(convert("alb")["statusDescription"], "200 OK");
        assert_eq!(convert("alb_multi_value")["multiValueHeaders"]["content-type"], json!(["application/json"]));
        assert!(convert("alb_multi_value").get("headers").is_none());
    }

    #[test]
    fn wrong_type_names_its_field() {
        let event = EventFields::parse(r#"{"requestContext": {"http": {"method": 5}}}"#).unwrap();
        let error = HttpEvent::parse(&event).unwrap_err();
        assert!(error.message.contains("requestContext.http.method: invalid type"), "{error}");
    }

    #[test]
    fn only_lambda_url_domain_is_function_url() {
        assert!(fixture("function_url").is_function_url);
        assert!(!fixture("http_api_default_stage").is_function_url);
    }
}
