//! Records of SQS, S3 and SNS, and the messages in them: documents, or notifications of created objects.
//!
//! A notification is sent by S3 itself or by EventBridge. Either may be the body of an SQS message, or the message of an SNS
//! notification.

use super::item::{IngestItem, parse_part, unsupported};
use super::s3_event::{parse_eventbridge, parse_s3_records};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;
use tealight_core::{Result, truncate_for_display};

/// Maximum nesting of SNS envelopes.
const MAX_ENVELOPES: usize = 3;

/// A message of an SQS queue.
#[derive(Debug)]
pub struct Message {
    /// The `messageId`, reported to SQS on failure.
    pub id: String,
    /// The message group, within which a FIFO queue keeps the order.
    pub group: Option<String>,
    /// What the message contains, or the reason why it is invalid.
    pub items: Result<Vec<IngestItem>>,
}

/// The records of an event.
#[derive(Debug)]
pub enum Records {
    /// Messages of SQS, which fail one by one.
    Sqs {
        /// Messages in the order of the queue.
        messages: Vec<Message>,
        /// Whether the queue keeps the order within message groups.
        is_fifo: bool,
    },
    /// Records of S3 or SNS, which succeed or fail together.
    Other(Vec<IngestItem>),
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "Records")]
    records: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct RecordSource {
    #[serde(rename = "eventSource", alias = "EventSource")]
    source: Option<String>,
}

/// Parses an event that has `Records`.
///
/// # Errors
/// [`tealight_core::ErrorKind::UnsupportedEvent`]: the records are of another service, or of several.
pub fn parse(payload: &str) -> Result<Records> {
    let Envelope { records } = parse_part(payload)?;
    match record_source(&records)?.as_str() {
        "aws:sqs" => parse_sqs(&records),
        "aws:s3" => Ok(Records::Other(parse_s3_records(&records)?)),
        "aws:sns" => {
            let items = records.iter().map(|record| {
                let SnsRecord { sns } = parse_part(record.get())?;
                parse_message(&sns.message, MAX_ENVELOPES)
            });
            Ok(Records::Other(items.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect()))
        }
        other => {
            let other = truncate_for_display(other);
            Err(unsupported(format!("records of {other:?}; supported: aws:sqs, aws:s3, aws:sns")))
        }
    }
}

/// The service that all records come from.
fn record_source(records: &[&RawValue]) -> Result<String> {
    let source =
        |record: &&RawValue| parse_part::<RecordSource>(record.get()).map(|record| record.source.unwrap_or_default());
    let mut sources = records.iter().map(source);
    let first = sources.next().transpose()?.unwrap_or_default();
    for source in sources {
        let source = source?;
        if source != first {
            let (first, source) = (truncate_for_display(&first), truncate_for_display(&source));
            return Err(unsupported(format!("records of both {first} and {source}")));
        }
    }
    Ok(first)
}

#[derive(Deserialize)]
struct SnsRecord {
    #[serde(rename = "Sns")]
    sns: SnsNotification,
}

#[derive(Deserialize)]
struct SnsNotification {
    #[serde(rename = "Message")]
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SqsRecord {
    message_id: String,
    body: String,
    #[serde(default)]
    attributes: SqsAttributes,
    #[serde(rename = "eventSourceARN")]
    arn: Option<String>,
}

#[derive(Default, Deserialize)]
struct SqsAttributes {
    #[serde(rename = "MessageGroupId")]
    group: Option<String>,
}

fn parse_sqs(records: &[&RawValue]) -> Result<Records> {
    let records = records.iter().map(|record| parse_part(record.get())).collect::<Result<Vec<SqsRecord>>>()?;
    // Messages of a standard queue may also have groups, but no order.
    let is_fifo = records.iter().any(|r| r.arn.as_deref().is_some_and(|arn| arn.ends_with(".fifo")));
    let message = |record: SqsRecord| Message {
        items: parse_message(&record.body, MAX_ENVELOPES),
        group: record.attributes.group,
        id: record.message_id,
    };
    Ok(Records::Sqs { messages: records.into_iter().map(message).collect(), is_fifo })
}

/// The fields that determine what a message contains.
#[derive(Default, Deserialize)]
struct MessageFields<'a> {
    #[serde(borrow, rename = "Records")]
    records: Option<Vec<&'a RawValue>>,
    #[serde(rename = "Event")]
    event: Option<Value>,
    source: Option<Value>,
    #[serde(borrow)]
    detail: Option<&'a RawValue>,
    #[serde(rename = "Type")]
    kind: Option<Value>,
    #[serde(rename = "Message")]
    message: Option<Value>,
    #[serde(borrow)]
    documents: Option<Vec<&'a RawValue>>,
    text: Option<IgnoredAny>,
}

/// Parses a message of SQS or SNS.
fn parse_message(body: &str, envelopes: usize) -> Result<Vec<IngestItem>> {
    // A message whose fields cannot be read is parsed as a document, whose error names the problem.
    let fields: MessageFields = serde_json::from_str(body).unwrap_or_default();
    if fields.text.is_some() {
        return Ok(vec![IngestItem::parse_document(body)]);
    }
    if let Some(documents) = fields.documents {
        return Ok(documents.iter().map(|document| IngestItem::parse_document(document.get())).collect());
    }
    if let Some(records) = fields.records {
        return match parse(body)? {
            Records::Other(items) => Ok(items),
            Records::Sqs { .. } => Err(unsupported(format!("a message that contains {} SQS messages", records.len()))),
        };
    }
    if fields.source.is_some() && fields.detail.is_some() {
        return parse_eventbridge(body);
    }
    if fields.event.is_some_and(|event| event == "s3:TestEvent") {
        return Ok(vec![]);
    }
    match (fields.kind, fields.message) {
        (Some(kind), Some(Value::String(inner))) if kind == "Notification" && envelopes > 0 => {
            parse_message(&inner, envelopes - 1)
        }
        _ => Ok(vec![IngestItem::parse_document(body)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::ingest::ObjectNotification;
    use serde_json::json;
    use tealight_core::ErrorKind;

    fn fixture(name: &str) -> String {
        let path = format!("{}/tests/fixtures/events/{name}.json", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    }

    fn notifications(items: Vec<IngestItem>) -> Vec<ObjectNotification> {
        let notification = |item| match item {
            IngestItem::Object(notification) => notification,
            IngestItem::Document(document) => panic!("{document:?}"),
        };
        items.into_iter().map(notification).collect()
    }

    fn texts(items: Vec<IngestItem>) -> Vec<Result<String, ErrorKind>> {
        let text = |item| match item {
            IngestItem::Document(document) => document.map(|d| d.text).map_err(|e| e.kind),
            IngestItem::Object(notification) => panic!("{notification:?}"),
        };
        items.into_iter().map(text).collect()
    }

    fn s3(key: &str, name: &str) -> Value {
        json!({"Records": [{"eventSource": "aws:s3", "awsRegion": "eu-west-1", "eventName": name, "s3": {
            "bucket": {"name": "docs"}, "object": {"key": key, "size": 3, "eTag": "e"}}}]})
    }

    /// The object of the fixtures.
    fn expected() -> ObjectNotification {
        ObjectNotification {
            bucket: "tealight-example-documents".into(),
            key: "in/first page (draft) grüße.jsonl".into(),
            etag: Some("9b74c9897bac770ffc029102a200c5de".into()),
            size: Some(2311),
            region: Some("eu-central-1".into()),
        }
    }

    #[test]
    fn notification_is_independent_of_its_envelope() {
        let (put, bridge) = (fixture("s3_put"), fixture("s3_eventbridge"));
        let Records::Other(found) = parse(&put).unwrap() else { panic!("a queue") };
        assert_eq!(notifications(found), [expected()]);
        assert_eq!(notifications(parse_eventbridge(&bridge).unwrap()), [expected()]);
        for inner in [put, bridge] {
            let sns = json!({"Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:eu-central-1:1:t",
                "Subject": "Amazon S3 Notification", "Message": inner, "SignatureVersion": "1"});
            let direct =
                json!({"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": sns}]}).to_string();
            let Records::Other(found) = parse(&direct).unwrap() else { panic!("a queue") };
            assert_eq!(notifications(found), [expected()]);
            for body in [inner, sns.to_string()] {
                assert_eq!(notifications(parse_message(&body, MAX_ENVELOPES).unwrap()), [expected()]);
            }
        }
    }

    #[test]
    fn s3_keys_are_decoded_and_eventbridge_keys_are_not() {
        for (key, plain) in [
            ("a+b.txt", "a b.txt"),
            ("a%2Bb.txt", "a+b.txt"),
            ("a%252Bb.txt", "a%2Bb.txt"),
            ("%E4%B8%96%E7%95%8C/gr%C3%BC%C3%9Fe.md", "世界/grüße.md"),
            ("a%20b%26c%3D.csv", "a b&c=.csv"),
        ] {
            let found = notifications(parse_message(&s3(key, "ObjectCreated:Put").to_string(), 0).unwrap());
            assert_eq!(found[0].key, plain);
            let event = json!({"source": "aws.s3", "detail-type": "Object Created", "region": "eu-west-1",
                "detail": {"bucket": {"name": "docs"}, "object": {"key": plain, "size": 3, "etag": "e"}}});
            assert_eq!(notifications(parse_eventbridge(&event.to_string()).unwrap()), found);
        }
        assert!(parse_message(&s3("%FF", "ObjectCreated:Put").to_string(), 0).unwrap_err().message.contains("UTF-8"));
    }

    #[test]
    fn events_without_created_object_are_ignored() {
        let folder = s3("in/", "ObjectCreated:Put").to_string().replace("\"size\":3", "\"size\":0");
        let bridge = json!({"source": "aws.s3", "detail-type": "Object Deleted", "detail": {"anything": 1}});
        for body in [
            fixture("s3_test_event"),
            s3("a.txt", "ObjectRemoved:Delete").to_string(),
            s3("a.txt", "s3:ObjectTagging:Put").to_string(),
            bridge.to_string(),
            folder,
        ] {
            assert_eq!(parse_message(&body, MAX_ENVELOPES).unwrap().len(), 0, "{body}");
        }
        assert_eq!(
            notifications(parse_message(&s3("a.txt", "s3:ObjectCreated:Copy").to_string(), 0).unwrap()).len(),
            1
        );
    }

    #[test]
    fn message_is_one_document_or_a_list() {
        let found = parse_message(r#"{"id": 7, "text": "one", "metadata": {"Records": []}}"#, 3).unwrap();
        assert_eq!(texts(found), [Ok("one".into())]);
        let found =
            parse_message(r#"{"documents": [{"text": "one"}, {"text": ""}, {"text": 2}, 3, {"text": "two"}]}"#, 3)
                .unwrap();
        let wrong = || Err(ErrorKind::InvalidType);
        assert_eq!(texts(found), [Ok("one".into()), Err(ErrorKind::Empty), wrong(), wrong(), Ok("two".into())]);
        for body in ["", "hello", "[]", "{}", "null", r#"{"input": "hello"}"#, r#"{"Type": "Notification"}"#] {
            assert_eq!(texts(parse_message(body, 3).unwrap()), [wrong()], "{body}");
        }
    }

    #[test]
    fn messages_keep_ids_and_groups() {
        let record = |id: &str, body: &str, group: &str| {
            json!({"messageId": id, "body": body, "eventSource": "aws:sqs", "attributes": {"MessageGroupId": group},
                "eventSourceARN": "arn:aws:sqs:eu-west-1:1:documents.fifo"})
        };
        let event = json!({"Records": [record("m1", "{\"text\": \"a\"}", "g"), record("m2", "?", "h")]});
        let Records::Sqs { messages, is_fifo } = parse(&event.to_string()).unwrap() else { panic!("no queue") };
        let names: Vec<_> = messages.iter().map(|m| (m.id.as_str(), m.group.as_deref().unwrap())).collect();
        assert_eq!((names, is_fifo), (vec![("m1", "g"), ("m2", "h")], true));
        let Records::Sqs { messages, is_fifo } = parse(&fixture("sqs")).unwrap() else { panic!("no queue") };
        assert!(messages.len() == 2 && !is_fifo);
    }

    #[test]
    fn unsupported_records_are_rejected() {
        let record_from =
            |source: &str| json!({"eventSource": source, "EventSource": null, "messageId": "m", "body": "{}"});
        for records in [
            json!([{"eventSource": "aws:dynamodb"}]),
            json!([{"eventSource": "aws:kinesis"}]),
            json!([{"messageId": "m", "body": "{}", "eventSource": "aws:sqs"}, {"eventSource": "aws:s3"}]),
            json!([{"cf": {}}]),
            json!([]),
            json!([record_from("aws:sqs")]),
            json!({}),
            json!([5]),
        ] {
            let error = parse(&json!({"Records": records}).to_string()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::UnsupportedEvent, "{records}");
        }
        // In a message, the message fails.
        let kinesis = json!({"Records": [{"eventSource": "aws:kinesis"}]}).to_string();
        assert_eq!(parse_message(&kinesis, 3).unwrap_err().kind, ErrorKind::UnsupportedEvent);
        let event = json!({"source": "my.app", "detail-type": "x", "detail": {}}).to_string();
        assert_eq!(parse_message(&event, 3).unwrap_err().kind, ErrorKind::UnsupportedEvent);
    }
}
