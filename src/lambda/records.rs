//! What records and messages bring: documents, and notices of objects that were created.
//!
//! A notice comes from S3 itself or from EventBridge, and either may be the body of an SQS message, or in an envelope of SNS.

use crate::pipeline::ingest::Notice;
use crate::pipeline::input::Document;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Envelopes within each other that are opened.
const MOST_ENVELOPES: usize = 3;

/// What there is to do.
#[derive(Debug)]
pub enum Task {
    /// A document, or why it is none.
    Document(Result<Document>),
    /// An object was created.
    Object(Notice),
}

/// A message of a queue.
#[derive(Debug)]
pub struct Message {
    /// By which its queue knows it.
    pub id: String,
    /// Whose order is kept with that of others of the same name.
    pub group: Option<String>,
    /// What there is to do, or why that cannot be told.
    pub tasks: Result<Vec<Task>>,
}

/// Records of one source.
#[derive(Debug)]
pub enum Records {
    /// Messages of a queue, which is told of each that failed.
    Queue {
        /// In the order of the queue.
        messages: Vec<Message>,
        /// Whether the queue keeps an order within groups.
        is_fifo: bool,
    },
    /// What S3 or SNS has brought: all of it fails, or nothing does.
    Events(Vec<Task>),
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "Records")]
    records: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Origin {
    #[serde(rename = "eventSource", alias = "EventSource")]
    source: Option<String>,
}

/// The records of an event of this payload.
///
/// # Errors
/// [`ErrorKind::UnsupportedEvent`]: they are of another source, or of several.
pub fn parse(payload: &str) -> Result<Records> {
    let Envelope { records } = read(payload)?;
    let mut sources = records.iter().map(|record| read::<Origin>(record.get()).map(|o| o.source.unwrap_or_default()));
    let first = sources.next().transpose()?.unwrap_or_default();
    for source in sources {
        let source = source?;
        if source != first {
            return Err(unsupported(format!(
                "records of {} and {} in one event",
                truncate_for_display(&first),
                truncate_for_display(&source)
            )));
        }
    }
    match first.as_str() {
        "aws:sqs" => queue(&records),
        "aws:s3" => Ok(Records::Events(objects(&records)?)),
        "aws:sns" => {
            let tasks = records.iter().map(|record| {
                let Published { sns } = read(record.get())?;
                tasks(&sns.message, MOST_ENVELOPES)
            });
            Ok(Records::Events(tasks.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect()))
        }
        other => Err(unsupported(format!(
            "records of {:?}; those of SQS, S3 and SNS are served",
            truncate_for_display(other)
        ))),
    }
}

#[derive(Deserialize)]
struct Published {
    #[serde(rename = "Sns")]
    sns: Notification,
}

#[derive(Deserialize)]
struct Notification {
    #[serde(rename = "Message")]
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SqsRecord {
    message_id: String,
    body: String,
    #[serde(default)]
    attributes: Attributes,
    #[serde(rename = "eventSourceARN")]
    arn: Option<String>,
}

#[derive(Default, Deserialize)]
struct Attributes {
    #[serde(rename = "MessageGroupId")]
    group: Option<String>,
}

fn queue(records: &[&RawValue]) -> Result<Records> {
    let records = records.iter().map(|record| read(record.get())).collect::<Result<Vec<SqsRecord>>>()?;
    // Messages of a standard queue may have groups too, without an order.
    let is_fifo = records.iter().any(|r| r.arn.as_deref().is_some_and(|arn| arn.ends_with(".fifo")));
    let message = |record: SqsRecord| Message {
        tasks: tasks(&record.body, MOST_ENVELOPES),
        group: record.attributes.group,
        id: record.message_id,
    };
    Ok(Records::Queue { messages: records.into_iter().map(message).collect(), is_fifo })
}

/// What the fields of a message say that it is.
#[derive(Default, Deserialize)]
struct Marks<'a> {
    #[serde(borrow, rename = "Records")]
    records: Option<Vec<&'a RawValue>>,
    #[serde(rename = "Event")]
    event: Option<serde_json::Value>,
    source: Option<serde_json::Value>,
    #[serde(borrow)]
    detail: Option<&'a RawValue>,
    #[serde(rename = "Type")]
    kind: Option<serde_json::Value>,
    #[serde(rename = "Message")]
    message: Option<serde_json::Value>,
    #[serde(borrow)]
    documents: Option<Vec<&'a RawValue>>,
    text: Option<serde::de::IgnoredAny>,
}

/// What a message asks for.
fn tasks(body: &str, envelopes: usize) -> Result<Vec<Task>> {
    // What is no object, or has a mark of another type, is no document either, which says what is wrong with it.
    let marks: Marks = serde_json::from_str(body).unwrap_or_default();
    if marks.text.is_some() {
        return Ok(vec![document(body)]);
    }
    if let Some(documents) = marks.documents {
        return Ok(documents.iter().map(|one| document(one.get())).collect());
    }
    if let Some(records) = marks.records {
        return match parse(body)? {
            Records::Events(tasks) => Ok(tasks),
            Records::Queue { .. } => Err(unsupported(format!("{} messages of a queue in a message", records.len()))),
        };
    }
    if marks.source.is_some() && marks.detail.is_some() {
        return bridged(body);
    }
    if marks.event.is_some_and(|event| event == "s3:TestEvent") {
        return Ok(vec![]);
    }
    match (marks.kind, marks.message) {
        (Some(kind), Some(serde_json::Value::String(inner))) if kind == "Notification" && envelopes > 0 => {
            tasks(&inner, envelopes - 1)
        }
        _ => Ok(vec![document(body)]),
    }
}

fn document(json: &str) -> Task {
    Task::Document(Document::parse(json.as_bytes()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct S3Record {
    aws_region: Option<String>,
    event_name: String,
    s3: S3Part,
}

#[derive(Deserialize)]
struct S3Part {
    bucket: Bucket,
    object: S3Object,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
struct S3Object {
    key: String,
    size: Option<u64>,
    #[serde(alias = "eTag")]
    etag: Option<String>,
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>
fn objects(records: &[&RawValue]) -> Result<Vec<Task>> {
    let mut found = vec![];
    for record in records {
        let S3Record { aws_region, event_name, s3 } = read(record.get())?;
        if !event_name.trim_start_matches("s3:").starts_with("ObjectCreated:") {
            ignored(&event_name);
            continue;
        }
        let key = unescaped(&s3.object.key)?;
        found.extend(created(s3.bucket, S3Object { key, ..s3.object }, aws_region));
    }
    Ok(found)
}

/// A key as forms write it in a URL: a plus is a space.
pub fn unescaped(key: &str) -> Result<String> {
    let key = key.replace('+', " ");
    let decoded = percent_decode_str(&key).decode_utf8();
    decoded.map(String::from).map_err(|_| unsupported(format!("the key {:?} is not UTF-8", truncate_for_display(&key))))
}

#[derive(Deserialize)]
struct BridgedHead {
    source: String,
    #[serde(rename = "detail-type")]
    kind: String,
}

#[derive(Deserialize)]
struct Bridged {
    region: Option<String>,
    detail: S3Part,
}

/// What EventBridge has brought; keys in it have no escapes.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>
pub fn bridged(payload: &str) -> Result<Vec<Task>> {
    let head: BridgedHead = read(payload)?;
    if head.source != "aws.s3" {
        return Err(unsupported(format!(
            "an event of {:?}; those of aws.s3 are served",
            truncate_for_display(&head.source)
        )));
    }
    if head.kind != "Object Created" {
        ignored(&head.kind);
        return Ok(vec![]);
    }
    let Bridged { region, detail } = read(payload)?;
    Ok(created(detail.bucket, detail.object, region).into_iter().collect())
}

fn created(bucket: Bucket, object: S3Object, region: Option<String>) -> Option<Task> {
    let S3Object { key, size, etag } = object;
    let notice = Notice { bucket: bucket.name, key, etag, size, region };
    (!notice.is_folder()).then_some(Task::Object(notice))
}

fn ignored(name: &str) {
    tracing::info!(event = truncate_for_display(name), "an event that creates no object is passed over");
}

fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|e| unsupported(e.to_string()).truncate_message())
}

fn unsupported(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::UnsupportedEvent, format!("the event is none that is served: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn fixture(name: &str) -> String {
        let path = format!("{}/tests/fixtures/events/{name}.json", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    }

    fn notices(tasks: Vec<Task>) -> Vec<Notice> {
        let notice = |task| match task {
            Task::Object(notice) => notice,
            Task::Document(document) => panic!("{document:?}"),
        };
        tasks.into_iter().map(notice).collect()
    }

    fn texts(tasks: Vec<Task>) -> Vec<Result<String, ErrorKind>> {
        let text = |task| match task {
            Task::Document(document) => document.map(|d| d.text).map_err(|e| e.kind),
            Task::Object(notice) => panic!("{notice:?}"),
        };
        tasks.into_iter().map(text).collect()
    }

    fn s3(key: &str, name: &str) -> Value {
        json!({"Records": [{"eventSource": "aws:s3", "awsRegion": "eu-west-1", "eventName": name, "s3": {
            "bucket": {"name": "docs"}, "object": {"key": key, "size": 3, "eTag": "e"}}}]})
    }

    /// The one object of a fixture, by whichever way its notice comes.
    fn expected() -> Notice {
        Notice {
            bucket: "tealight-example-documents".into(),
            key: "in/first page (draft) grüße.jsonl".into(),
            etag: Some("9b74c9897bac770ffc029102a200c5de".into()),
            size: Some(2311),
            region: Some("eu-central-1".into()),
        }
    }

    #[test]
    fn a_notice_is_the_same_by_every_way() {
        let (put, bridge) = (fixture("s3_put"), fixture("s3_eventbridge"));
        let Records::Events(found) = parse(&put).unwrap() else { panic!("a queue") };
        assert_eq!(notices(found), [expected()]);
        assert_eq!(notices(bridged(&bridge).unwrap()), [expected()]);
        for inner in [put, bridge] {
            let sns = json!({"Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:eu-central-1:1:t",
                "Subject": "Amazon S3 Notification", "Message": inner, "SignatureVersion": "1"});
            let direct =
                json!({"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": sns}]}).to_string();
            let Records::Events(found) = parse(&direct).unwrap() else { panic!("a queue") };
            assert_eq!(notices(found), [expected()]);
            for body in [inner, sns.to_string()] {
                assert_eq!(notices(tasks(&body, MOST_ENVELOPES).unwrap()), [expected()]);
            }
        }
    }

    #[test]
    fn keys_of_s3_are_unescaped_and_those_of_eventbridge_are_not() {
        for (key, plain) in [
            ("a+b.txt", "a b.txt"),
            ("a%2Bb.txt", "a+b.txt"),
            ("a%252Bb.txt", "a%2Bb.txt"),
            ("%E4%B8%96%E7%95%8C/gr%C3%BC%C3%9Fe.md", "世界/grüße.md"),
            ("a%20b%26c%3D.csv", "a b&c=.csv"),
        ] {
            let found = notices(tasks(&s3(key, "ObjectCreated:Put").to_string(), 0).unwrap());
            assert_eq!(found[0].key, plain);
            let event = json!({"source": "aws.s3", "detail-type": "Object Created", "region": "eu-west-1",
                "detail": {"bucket": {"name": "docs"}, "object": {"key": plain, "size": 3, "etag": "e"}}});
            assert_eq!(notices(bridged(&event.to_string()).unwrap()), found);
        }
        assert!(tasks(&s3("%FF", "ObjectCreated:Put").to_string(), 0).unwrap_err().message.contains("UTF-8"));
    }

    #[test]
    fn what_creates_no_object_is_passed_over() {
        let folder = s3("in/", "ObjectCreated:Put").to_string().replace("\"size\":3", "\"size\":0");
        let bridge = json!({"source": "aws.s3", "detail-type": "Object Deleted", "detail": {"anything": 1}});
        for body in [
            fixture("s3_test_event"),
            s3("a.txt", "ObjectRemoved:Delete").to_string(),
            s3("a.txt", "s3:ObjectTagging:Put").to_string(),
            bridge.to_string(),
            folder,
        ] {
            assert_eq!(tasks(&body, MOST_ENVELOPES).unwrap().len(), 0, "{body}");
        }
        assert_eq!(notices(tasks(&s3("a.txt", "s3:ObjectCreated:Copy").to_string(), 0).unwrap()).len(), 1);
    }

    #[test]
    fn a_message_is_a_document_or_several() {
        let found = tasks(r#"{"id": 7, "text": "one", "metadata": {"Records": []}}"#, 3).unwrap();
        assert_eq!(texts(found), [Ok("one".into())]);
        let found =
            tasks(r#"{"documents": [{"text": "one"}, {"text": ""}, {"text": 2}, 3, {"text": "two"}]}"#, 3).unwrap();
        let wrong = || Err(ErrorKind::InvalidType);
        assert_eq!(texts(found), [Ok("one".into()), Err(ErrorKind::Empty), wrong(), wrong(), Ok("two".into())]);
        for body in ["", "hello", "[]", "{}", "null", r#"{"input": "hello"}"#, r#"{"Type": "Notification"}"#] {
            assert_eq!(texts(tasks(body, 3).unwrap()), [wrong()], "{body}");
        }
    }

    #[test]
    fn messages_keep_their_names_and_groups() {
        let record = |id: &str, body: &str, group: &str| {
            json!({"messageId": id, "body": body, "eventSource": "aws:sqs", "attributes": {"MessageGroupId": group},
                "eventSourceARN": "arn:aws:sqs:eu-west-1:1:documents.fifo"})
        };
        let event = json!({"Records": [record("m1", "{\"text\": \"a\"}", "g"), record("m2", "?", "h")]});
        let Records::Queue { messages, is_fifo } = parse(&event.to_string()).unwrap() else { panic!("no queue") };
        let names: Vec<_> = messages.iter().map(|m| (m.id.as_str(), m.group.as_deref().unwrap())).collect();
        assert_eq!((names, is_fifo), (vec![("m1", "g"), ("m2", "h")], true));
        let Records::Queue { messages, is_fifo } = parse(&fixture("sqs")).unwrap() else { panic!("no queue") };
        assert!(messages.len() == 2 && !is_fifo);
    }

    #[test]
    fn other_records_are_refused() {
        let of = |source: &str| json!({"eventSource": source, "EventSource": null, "messageId": "m", "body": "{}"});
        for records in [
            json!([{"eventSource": "aws:dynamodb"}]),
            json!([{"eventSource": "aws:kinesis"}]),
            json!([{"messageId": "m", "body": "{}", "eventSource": "aws:sqs"}, {"eventSource": "aws:s3"}]),
            json!([{"cf": {}}]),
            json!([]),
            json!([of("aws:sqs")]),
            json!({}),
            json!([5]),
        ] {
            let error = parse(&json!({"Records": records}).to_string()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::UnsupportedEvent, "{records}");
        }
        // In a queue, it is the message that fails.
        let kinesis = json!({"Records": [{"eventSource": "aws:kinesis"}]}).to_string();
        assert_eq!(tasks(&kinesis, 3).unwrap_err().kind, ErrorKind::UnsupportedEvent);
        let event = json!({"source": "my.app", "detail-type": "x", "detail": {}}).to_string();
        assert_eq!(tasks(&event, 3).unwrap_err().kind, ErrorKind::UnsupportedEvent);
    }
}
