//! Classifies events by their fields.

use serde::Deserialize;
use serde_json::value::RawValue;
use tealight_core::{Error, ErrorKind, Result};

/// The fields of all kinds of events together, read in one pass. Their values are parsed later, each once, if the kind needs them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
pub struct EventFields<'a> {
    // HTTP events of API Gateway, function URLs and load balancers.
    #[serde(borrow)]
    pub request_context: Option<&'a RawValue>,
    pub raw_path: Option<&'a RawValue>,
    pub http_method: Option<&'a RawValue>,
    pub headers: Option<&'a RawValue>,
    pub multi_value_headers: Option<&'a RawValue>,
    pub body: Option<&'a RawValue>,
    pub is_base64_encoded: Option<&'a RawValue>,
    // HTTP events and direct invocations.
    pub path: Option<&'a RawValue>,
    // Direct invocations.
    pub method: Option<&'a RawValue>,
    pub input: Option<&'a RawValue>,
    pub inputs: Option<&'a RawValue>,
    pub ids: Option<&'a RawValue>,
    pub messages: Option<&'a RawValue>,
    pub prompt: Option<&'a RawValue>,
    pub file: Option<&'a RawValue>,
    pub audio: Option<&'a RawValue>,
    pub uri: Option<&'a RawValue>,
    pub query: Option<&'a RawValue>,
    pub vector: Option<&'a RawValue>,
    pub documents: Option<&'a RawValue>,
    // Events with documents.
    #[serde(rename = "Records")]
    pub records: Option<&'a RawValue>,
    pub source: Option<&'a RawValue>,
    pub detail: Option<&'a RawValue>,
    #[serde(rename = "Items")]
    pub items: Option<&'a RawValue>,
    #[serde(rename = "Event")]
    pub event: Option<&'a RawValue>,
}

/// The kinds of events that the function handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// An HTTP request of API Gateway, a function URL or a load balancer.
    Http,
    /// A request body without HTTP around it.
    Direct,
    /// The message that S3 sends when notifications are configured.
    S3Test,
    /// Documents, or objects that contain documents.
    Documents(EventSource),
}

/// The forms of events with documents: by the field, or by the service if only one has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventSource {
    /// `Records` of SQS, S3 or SNS.
    Records,
    /// EventBridge.
    EventBridge,
    /// A distributed map of Step Functions.
    DistributedMap,
}

impl<'a> EventFields<'a> {
    /// Reads the fields of an event.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidType`]: it is not an object, or has a field twice.
    pub fn parse(payload: &'a str) -> Result<Self> {
        // serde would read the values of a list as fields, in their order.
        if !payload.starts_with('{') {
            return Err(Error::new(ErrorKind::InvalidType, "the event is not a JSON object"));
        }
        serde_json::from_str(payload).map_err(|e| Error::new(ErrorKind::InvalidType, format!("the event: {e}")))
    }

    /// Determines the kind of the event.
    pub fn kind(&self) -> EventKind {
        if self.request_context.is_some() {
            EventKind::Http
        } else if self.records.is_some() {
            EventKind::Documents(EventSource::Records)
        } else if self.source.is_some() && self.detail.is_some() {
            EventKind::Documents(EventSource::EventBridge)
        } else if self.items.is_some() {
            EventKind::Documents(EventSource::DistributedMap)
        } else if self.event.is_some_and(|event| event.get() == "\"s3:TestEvent\"") {
            EventKind::S3Test
        } else {
            EventKind::Direct
        }
    }
}

/// Parses the value of a field. An error is described with the path of the value at fault.
pub fn parse_field<'a, T: Deserialize<'a>>(name: &str, value: Option<&'a RawValue>) -> Result<Option<T>, String> {
    let Some(value) = value else { return Ok(None) };
    let mut deserializer = serde_json::Deserializer::from_str(value.get());
    serde_path_to_error::deserialize(&mut deserializer).map(Some).map_err(|e| {
        let (path, message) = (e.path().to_string(), e.inner().to_string());
        // The position is counted within the value, which would mislead.
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
        if path == "." { format!("{name}: {message}") } else { format!("{name}.{path}: {message}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_follows_from_fields() {
        let documents = EventKind::Documents;
        for (payload, kind) in [
            (r#"{"requestContext": {}, "Records": []}"#, EventKind::Http),
            (r#"{"Records": [], "source": "a", "detail": {}}"#, documents(EventSource::Records)),
            (r#"{"source": "aws.s3", "detail": {}, "input": "a"}"#, documents(EventSource::EventBridge)),
            (r#"{"Items": []}"#, documents(EventSource::DistributedMap)),
            (r#"{"Event": "s3:TestEvent"}"#, EventKind::S3Test),
            (r#"{"Event": "other"}"#, EventKind::Direct),
            (r#"{"source": "a", "requestContext": null}"#, EventKind::Direct),
            ("{}", EventKind::Direct),
        ] {
            assert_eq!(EventFields::parse(payload).unwrap().kind(), kind, "{payload}");
        }
    }

    #[test]
    fn payload_other_than_object_is_rejected() {
        for payload in ["5", "null", r#""text""#, r#"["/embed", "POST"]"#] {
            let error = EventFields::parse(payload).unwrap_err();
            assert!(error.kind == ErrorKind::InvalidType && error.message.contains("JSON object"), "{error}");
        }
    }

    #[test]
    fn field_error_has_path_of_value() {
        let event = EventFields::parse(r#"{"path": 5, "headers": {"a": []}}"#).unwrap();
        let path = parse_field::<String>("path", event.path).unwrap_err();
        assert_eq!(path, "path: invalid type: integer `5`, expected a string");
        let headers = parse_field::<std::collections::BTreeMap<String, String>>("headers", event.headers).unwrap_err();
        assert_eq!(headers, "headers.a: invalid type: sequence, expected a string");
        assert_eq!(parse_field::<String>("method", event.method), Ok(None));
    }
}
