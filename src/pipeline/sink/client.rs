//! The HTTP client of sinks: authentication, which responses are retryable, and error messages from responses.

use super::retry::{self, AttemptError};
use crate::aws::AwsRequest;
use crate::aws::s3::xml_element;
use crate::telemetry::trace::TraceContext;
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::Value;
use std::time::Duration;
use tealight_core::{Deadline, Error, ErrorKind, Result, Secret};

/// Maximum size of a response, in bytes.
const MAX_RESPONSE_BYTES: u64 = 64 << 20;
/// Error codes of AWS services that are retryable although the status is 4xx:
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html>.
const RETRYABLE_CODES: [&str; 9] = [
    "OperationAborted",
    "PriorRequestNotComplete",
    "RequestTimeout",
    "RequestTimeoutException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
];

/// How requests are authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    Anonymous,
    /// With this HTTP header.
    Header(&'static str, Secret),
    /// Signed with the AWS credentials of the environment.
    Aws {
        service: &'static str,
        region: String,
    },
}

pub(super) struct HttpRequest<'a> {
    pub method: Method,
    pub url: &'a str,
    pub content_type: &'a str,
    pub body: &'a [u8],
}

#[derive(Debug)]
pub(super) struct HttpResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The response body as text.
    pub text: String,
}

/// Sends requests to one store.
#[derive(Debug)]
pub(super) struct Client {
    agent: ureq::Agent,
    /// Describes the store in error messages.
    name: String,
    pub identity: Identity,
}

impl Client {
    pub fn new(name: String, identity: Identity) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        // Points and keys are not sent to another host than the configured one.
        let config = config.max_redirects(0).max_redirects_will_error(false);
        Self { agent: config.build().into(), name, identity }
    }

    /// Sends a request, and retries it until `classify` succeeds or fails permanently, or time or attempts run out.
    pub fn send<T>(
        &self,
        request: &HttpRequest,
        deadline: Deadline,
        mut classify: impl FnMut(HttpResponse) -> Result<T, AttemptError>,
    ) -> Result<T> {
        retry::run(deadline, |time| classify(self.send_once(request, time)?)).map_err(|e| self.with_name(e))
    }

    /// Sends a request without retries. Fails for statuses that are retryable; other statuses are returned.
    pub fn send_once(&self, request: &HttpRequest, time: Duration) -> Result<HttpResponse, AttemptError> {
        let request = self.build_request(request)?;
        let request = self.agent.configure_request(request).timeout_global(Some(time)).build();
        let mut response = self.agent.run(request).map_err(transport_error)?;
        let body = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).lossy_utf8(true);
        let text = body.read_to_string().map_err(transport_error)?;
        let (parts, _) = response.into_parts();
        let response = HttpResponse { status: parts.status, headers: parts.headers, text };
        if response.is_retryable() { Err(response.retryable_error()) } else { Ok(response) }
    }

    /// Adds the name of the store to an error.
    pub fn with_name(&self, error: Error) -> Error {
        error.with_context(&self.name)
    }

    fn build_request<'a>(&self, request: &HttpRequest<'a>) -> Result<Request<&'a [u8]>> {
        let HttpRequest { method, url, content_type, body } = request;
        let typed = [("content-type", *content_type)];
        let headers = if content_type.is_empty() { &[][..] } else { &typed };
        if let Identity::Aws { service, region } = &self.identity {
            let call = AwsRequest { service, region, method: method.clone(), url, headers, body };
            let (parts, _) = call.sign()?.into_parts();
            return Ok(Request::from_parts(parts, body));
        }
        let mut builder = Request::builder().method(method).uri(*url);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        if let Identity::Header(name, Secret(value)) = &self.identity {
            let value = http::HeaderValue::from_str(value);
            let mut value =
                value.map_err(|_| upstream_error("the key contains characters that are not allowed in a header"))?;
            value.set_sensitive(true);
            builder = builder.header(*name, value);
        }
        let mut request = builder.body(*body).map_err(|e| upstream_error(format!("invalid URL: {e}")))?;
        request.headers_mut().extend(TraceContext::current().headers());
        Ok(request)
    }
}

impl HttpResponse {
    fn is_retryable(&self) -> bool {
        matches!(self.status.as_u16(), 408 | 429 | 500..)
            || self.status.is_client_error() && RETRYABLE_CODES.contains(&self.code().as_str())
    }

    /// An error that is retried, after the time in the header `Retry-After`.
    pub fn retryable_error(&self) -> AttemptError {
        let wait = self.headers.get(http::header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
        AttemptError { wait: Duration::from_secs(wait.unwrap_or(0)), ..AttemptError::retryable(self.error("")) }
    }

    /// An error with the status, the message of the response, and advice.
    pub fn error(&self, advice: &str) -> Error {
        let detail = error_message(&self.text);
        let mut message = format!("{}{}{detail}", self.status, if detail.is_empty() { "" } else { ": " });
        if !advice.is_empty() {
            message += &format!(" ({advice})");
        }
        upstream_error(message)
    }

    /// The error code of an AWS service.
    pub fn code(&self) -> String {
        let header = self.headers.get("x-amzn-errortype").and_then(|v| v.to_str().ok()).map(String::from);
        let code = header.or_else(|| {
            let json: Option<Value> = serde_json::from_str(&self.text).ok();
            let json = json.and_then(|v| v["__type"].as_str().or(v["code"].as_str()).map(String::from));
            json.or_else(|| xml_element(&self.text, "Code").map(String::from))
        });
        // namespace#Code:documentation
        let code = code.unwrap_or_default();
        code.split(':').next().and_then(|c| c.rsplit('#').next()).unwrap_or_default().to_string()
    }
}

/// The store failed or rejected a request.
pub(super) fn upstream_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Upstream, message).truncate_message()
}

/// The response did not arrive completely.
fn transport_error(error: ureq::Error) -> AttemptError {
    use ureq::Error as E;
    let is_permanent = matches!(
        error,
        E::BadUri(_) | E::Http(_) | E::InvalidProxyUrl | E::Tls(_) | E::Pem(_) | E::Rustls(_) | E::BodyExceedsLimit(_)
    );
    AttemptError { is_retryable: !is_permanent, ..AttemptError::retryable(upstream_error(error.to_string())) }
}

/// The error message in the body of a response, wherever the store puts it.
fn error_message(text: &str) -> String {
    const PATHS: [&[&str]; 8] = [
        // Qdrant
        &["status", "error"],
        // OpenSearch
        &["error", "reason"],
        &["error"],
        // AWS
        &["message"],
        &["Message"],
        &["errorMessage"],
        &["__type"],
        &["detail"],
    ];
    if let Ok(json) = serde_json::from_str::<Value>(text) {
        let at = |path: &&[&str]| path.iter().try_fold(&json, |value, name| value.get(name))?.as_str();
        return strip_preview(PATHS.iter().find_map(at).unwrap_or_default()).into();
    }
    if let Some(code) = xml_element(text, "Code") {
        return format!("{code} {}", xml_element(text, "Message").unwrap_or_default()).trim().into();
    }
    // Probably an HTML page of a proxy; its first words say the most.
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
}

/// Removes the quotation of the document from an error message of OpenSearch.
pub(super) fn strip_preview(reason: &str) -> &str {
    const PREVIEW: &str = " Preview of field's value";
    reason.split_once(PREVIEW).map_or(reason, |(reason, _)| reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, text: &str) -> HttpResponse {
        let status = StatusCode::from_u16(status).unwrap();
        HttpResponse { status, headers: HeaderMap::new(), text: text.into() }
    }

    #[test]
    fn error_message_is_found_in_body() {
        for (text, expected) in [
            (r#"{"status":{"error":"Not found: Collection `c`"},"time":1.0}"#, "Not found: Collection `c`"),
            (r#"{"error":{"type":"t","reason":"no such index"},"status":404}"#, "no such index"),
            (r#"{"message":"The bucket is not there"}"#, "The bucket is not there"),
            (r#"{"__type":"AccessDeniedException"}"#, "AccessDeniedException"),
            ("<Error><Code>NoSuchBucket</Code><Message>m</Message></Error>", "NoSuchBucket m"),
            ("<html>\n Bad  Gateway", "<html> Bad Gateway"),
            (r#"{"error":{"reason":"[year] is long. Preview of field's value: 'a secret'"}}"#, "[year] is long."),
            ("", ""),
        ] {
            assert_eq!(error_message(text), expected);
        }
        assert_eq!(response(404, "").error("no such thing").message, "404 Not Found (no such thing)");
    }

    #[test]
    fn retryable_responses_are_detected_by_status_and_code() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(response(status, "").is_retryable(), "{status}");
        }
        for status in [200, 301, 400, 401, 403, 404, 409, 413, 422] {
            assert!(!response(status, "").is_retryable(), "{status}");
        }
        assert!(response(400, r#"{"__type":"com.amazonaws#ThrottlingException"}"#).is_retryable());
        assert!(response(400, "<Error><Code>RequestTimeout</Code></Error>").is_retryable());
        assert!(!response(400, r#"{"__type":"ValidationException"}"#).is_retryable());
    }
}
