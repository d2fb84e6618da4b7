//! Events with documents: SQS messages, notifications of S3 objects, batches of a distributed map. The binary runs between mocks of S3
//! and Qdrant; tests/stores uses a real Qdrant.

use crate::support::TINY;
use crate::support::aws::{ACCESS_KEY, SECRET_KEY, TOKEN, check_signature};
use crate::support::http::{Message, Mock, MockResponse};
use crate::support::lambda_runtime::{Function, Outcome};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;
/// Replaces the response to the nth request.
type Fault = dyn Fn(usize, &Message) -> Option<MockResponse> + Send + Sync;

/// A mock of S3: range reads with If-Match, and writes.
struct MockS3 {
    mock: Mock,
    objects: Objects,
}

fn etag(bytes: &[u8]) -> String {
    format!("\"e{}-{}\"", bytes.len(), bytes.iter().map(|b| *b as usize).sum::<usize>())
}

fn error(status: u16, code: &str) -> MockResponse {
    MockResponse::new(status, format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>"))
}

impl MockS3 {
    fn start(fault: impl Fn(usize, &Message) -> Option<MockResponse> + Send + Sync + 'static) -> Self {
        let objects = Objects::default();
        let (stored, count) = (objects.clone(), Mutex::new(0));
        let fault: Box<Fault> = Box::new(fault);
        let mock = Mock::start(move |request| {
            let n = {
                let mut count = count.lock().unwrap();
                *count += 1;
                *count - 1
            };
            fault(n, request).unwrap_or_else(|| serve_object(&mut stored.lock().unwrap(), request))
        });
        Self { mock, objects }
    }

    fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.objects.lock().unwrap().insert(path.into(), bytes.into());
    }

    /// The objects under `/out/`, by path: points, one per line.
    fn written(&self) -> BTreeMap<String, Vec<Value>> {
        let objects = self.objects.lock().unwrap();
        let lines = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let parsed = |bytes: &[u8]| lines(bytes).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        objects.iter().filter(|(k, _)| k.starts_with("/out/")).map(|(k, b)| (k.clone(), parsed(b))).collect()
    }

    fn reads(&self) -> Vec<Message> {
        self.mock.requests().into_iter().filter(|m| m.method() == "GET").collect()
    }
}

fn serve_object(objects: &mut BTreeMap<String, Vec<u8>>, request: &Message) -> MockResponse {
    let path = request.path().to_string();
    if request.method() == "PUT" {
        objects.insert(path, request.body.clone());
        return MockResponse::new(200, "").header("etag", "\"written\"");
    }
    let Some(bytes) = objects.get(&path) else { return error(404, "NoSuchKey") };
    if request.header("if-match").is_some_and(|expected| expected != etag(bytes)) {
        return error(412, "PreconditionFailed");
    }
    if request.method() == "HEAD" {
        return MockResponse::new(200, "").header("etag", etag(bytes));
    }
    let range = request.header("range").unwrap().strip_prefix("bytes=").unwrap();
    let (start, end) = range.split_once('-').unwrap();
    let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
    if start >= bytes.len() {
        return error(416, "InvalidRange");
    }
    let end = end.min(bytes.len() - 1);
    MockResponse::new(206, &bytes[start..=end])
        .header("etag", etag(bytes))
        .header("content-range", format!("bytes {start}-{end}/{}", bytes.len()))
}

/// A function that writes to the mock of S3.
fn function(s3: &MockS3, more: &[(&str, &str)]) -> Function {
    let url = s3.mock.url();
    let mut variables = vec![
        ("TEALIGHT_MODEL", TINY),
        ("TEALIGHT_SINK", "s3://out/points"),
        ("AWS_ENDPOINT_URL_S3", url.as_str()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_SESSION_TOKEN", TOKEN),
    ];
    variables.extend(more);
    Function::start(&variables)
}

fn s3_record(key: &str, etag: &str, size: usize) -> Value {
    json!({"eventSource": "aws:s3", "awsRegion": "eu-west-1", "eventName": "ObjectCreated:Put", "s3": {
        "bucket": {"name": "docs"}, "object": {"key": key, "size": size, "eTag": etag.trim_matches('"')}}})
}

fn created(objects: &[(&str, &[u8])]) -> Value {
    let records: Vec<_> = objects.iter().map(|(key, bytes)| s3_record(key, &etag(bytes), bytes.len())).collect();
    json!({"Records": records})
}

fn message(id: &str, body: impl ToString) -> Value {
    json!({"messageId": id, "body": body.to_string(), "eventSource": "aws:sqs", "attributes": {},
        "eventSourceARN": "arn:aws:sqs:eu-west-1:1:documents"})
}

fn in_group(id: &str, group: &str, body: impl ToString) -> Value {
    let mut message = message(id, body);
    message["attributes"] = json!({"MessageGroupId": group});
    message["eventSourceARN"] = "arn:aws:sqs:eu-west-1:1:documents.fifo".into();
    message
}

fn failures(outcome: &Outcome) -> Vec<String> {
    let response = outcome.expect_success();
    let items = response["batchItemFailures"].as_array().unwrap_or_else(|| panic!("{response}"));
    items.iter().map(|item| item["itemIdentifier"].as_str().unwrap().to_string()).collect()
}

fn lines(count: usize) -> Vec<u8> {
    (0..count).map(|i| format!("{{\"id\": {i}, \"text\": \"number {i}\"}}\n")).collect::<String>().into()
}

fn ids(points: &[Value]) -> Vec<&str> {
    points.iter().map(|point| point["document_id"].as_str().unwrap()).collect()
}

fn counts(response: &Value) -> (u64, u64, u64) {
    let count = |name: &str| response[name].as_u64().unwrap_or_else(|| panic!("{response}"));
    (count("documents"), count("points"), count("failures"))
}

#[test]
fn object_is_read_by_decoded_key_and_written_under_its_etag() {
    let s3 = MockS3::start(|_, _| None);
    let bytes = lines(300);
    let path = "/docs/in/a%20b%2B%C3%BC.jsonl";
    s3.put(path, bytes.clone());
    let mut function = function(&s3, &[]);
    let response = function.expect_success(created(&[("in/a+b%2B%C3%BC.jsonl", &bytes)]));
    assert_eq!(counts(&response), (300, 300, 0));
    let written = s3.written();
    let name = format!("/out/points/in/a%20b%2B%C3%BC.jsonl.{}.jsonl", etag(&bytes).trim_matches('"'));
    assert_eq!(written.keys().collect::<Vec<_>>(), [&name]);
    let expected: Vec<_> = (0..300).map(|i| i.to_string()).collect();
    assert_eq!(ids(&written[&name]), expected);
    let reads = s3.reads();
    assert_eq!((reads.len(), reads[0].path(), reads[0].header("if-match")), (1, path, Some(etag(&bytes).as_str())));
    check_signature(&reads[0], "eu-west-1", "s3", &["x-amz-content-sha256", "range", "if-match"]);
    let eventbridge_event = json!({"source": "aws.s3", "detail-type": "Object Created", "region": "eu-west-1", "detail": {
        "bucket": {"name": "docs"}, "object": {"key": "in/a b+ü.jsonl", "size": 1, "etag": etag(&bytes).trim_matches('"')}}});
    assert_eq!(counts(&function.expect_success(eventbridge_event)), (300, 300, 0));
    assert_eq!(s3.written(), written, "repeating the event changes nothing");
    let (log, _) = function.process.stop();
    assert!(!log.contains("number 7") && !log.contains(SECRET_KEY), "{log}");
}

#[test]
fn interrupted_download_is_resumed() {
    let bytes = lines(2000);
    let stored = bytes.clone();
    let s3 = MockS3::start(move |n, request| {
        let mut response = serve_object(&mut BTreeMap::from([("/docs/a.jsonl".into(), stored.clone())]), request);
        match n {
            // Three failures in a row without a byte are not enough to give up.
            0 | 3 => response.close_after = Some(1000),
            1 | 2 | 4 => response.close_after = Some(0),
            5 => return Some(error(503, "SlowDown")),
            _ => return None,
        }
        Some(response)
    });
    s3.put("/docs/a.jsonl", bytes.clone());
    let response = function(&s3, &[]).expect_success(created(&[("a.jsonl", &bytes)]));
    assert_eq!(counts(&response), (2000, 2000, 0));
    let ranges: Vec<_> =
        s3.reads().iter().map(|m| m.header("range").unwrap().split('-').next().unwrap().to_string()).collect();
    let starts = ["0", "1000", "1000", "1000", "2000", "2000", "2000"].map(|start| format!("bytes={start}"));
    assert_eq!(ranges, starts);
    assert!(s3.reads().iter().all(|m| m.header("if-match") == Some(&etag(&bytes))));
}

#[test]
fn newest_version_of_object_is_written() {
    let (old, new) = (lines(5), lines(7));
    // Replaced before the first byte was read.
    let s3 = MockS3::start(|_, _| None);
    s3.put("/docs/a.jsonl", new.clone());
    assert_eq!(counts(&function(&s3, &[]).expect_success(created(&[("a.jsonl", &old)]))), (7, 7, 0));
    assert_eq!(s3.written().len(), 1);

    // Replaced after the last byte was read: the old version may have been written.
    let after = new.clone();
    let s3 = MockS3::start(move |_, request| match request.method() {
        "HEAD" if request.header("if-match") == Some(&etag(&after)) => Some(MockResponse::new(200, "")),
        "HEAD" => Some(error(412, "PreconditionFailed")),
        "GET" if request.header("if-match").is_none() => {
            Some(serve_object(&mut BTreeMap::from([("/docs/a.jsonl".into(), after.clone())]), request))
        }
        _ => None,
    });
    s3.put("/docs/a.jsonl", old.clone());
    let response = function(&s3, &[]).expect_success(created(&[("a.jsonl", &old)]));
    assert_eq!(counts(&response), (7, 7, 0));

    // Replaced every time.
    let s3 = MockS3::start(|_, request| (request.method() == "HEAD").then(|| error(412, "PreconditionFailed")));
    s3.put("/docs/a.jsonl", old.clone());
    assert_eq!(function(&s3, &[]).invoke(created(&[("a.jsonl", &old)])).expect_error().0, "object_replaced");
}

#[test]
fn bucket_in_other_region_is_read_there() {
    let s3 = MockS3::start(|n, request| {
        let is_first_region = request.header("authorization").is_some_and(|a| a.contains("/eu-west-1/"));
        let redirect = || error(301, "PermanentRedirect").header("x-amz-bucket-region", "us-west-2");
        (n < 10 && is_first_region && request.method() == "GET").then(redirect)
    });
    let bytes = lines(3);
    s3.put("/docs/a.jsonl", bytes.clone());
    assert_eq!(counts(&function(&s3, &[]).expect_success(created(&[("a.jsonl", &bytes)]))), (3, 3, 0));
    check_signature(&s3.reads()[1], "us-west-2", "s3", &["x-amz-content-sha256"]);
}

/// Temporary errors and missing permissions fail the invocation, which Lambda retries; permanent errors do not.
#[test]
fn failing_object_does_not_block_others() {
    let s3 = MockS3::start(|_, request| match request.path() {
        "/docs/slow.jsonl" => Some(error(503, "SlowDown")),
        "/docs/closed.jsonl" => Some(error(403, "AccessDenied")),
        _ => None,
    });
    let function = function(&s3, &[]);
    let (bytes, damaged) = (lines(2), b"id,txt\n1,2\n".to_vec());
    let partly_invalid =
        b"{\"id\": 1, \"text\": \"a\"}\nnot JSON\n{\"id\": 2, \"text\": \"\"}\n{\"id\": 3, \"text\": \"b\"}\n".to_vec();
    for path in ["/docs/good.jsonl", "/docs/tool.exe"] {
        s3.put(path, bytes.clone());
    }
    s3.put("/docs/damaged.csv", damaged.clone());
    s3.put("/docs/partly_invalid.jsonl", partly_invalid.clone());
    s3.put("/docs/empty.jsonl", "");
    let event = created(&[
        ("tool.exe", &bytes),
        ("gone.jsonl", &bytes),
        ("damaged.csv", &damaged),
        ("partly_invalid.jsonl", &partly_invalid),
        ("empty.jsonl", b""),
        ("good.jsonl", &bytes),
    ]);
    let response = function.expect_success(&event);
    assert_eq!(counts(&response), (4, 4, 5));
    let failed: BTreeMap<_, _> = response["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| {
            let field = |name: &str| f[name].as_u64();
            ((field("index").unwrap(), field("number")), f["code"].as_str().unwrap())
        })
        .collect();
    let expected = [
        ((0, None), "invalid_value"),
        ((1, None), "object_not_found"),
        ((2, None), "invalid_type"),
        ((3, Some(2)), "invalid_type"),
        ((3, Some(3)), "empty_input"),
    ];
    assert_eq!(failed, BTreeMap::from(expected));
    for (failing, code) in [("slow.jsonl", "upstream_error"), ("closed.jsonl", "object_denied")] {
        s3.objects.lock().unwrap().retain(|path, _| !path.starts_with("/out/"));
        let outcome = function.invoke(created(&[(failing, b"1"), ("good.jsonl", &bytes)]));
        let (found, message) = outcome.expect_error();
        assert!(found == code && message.contains(failing), "{found}: {message}");
        assert_eq!(s3.written().len(), 1, "the valid object is written");
    }
}

#[test]
fn text_object_gets_its_url_as_id() {
    let s3 = MockS3::start(|_, _| None);
    let text = "# Title\n\nA text without metadata.\n".as_bytes();
    s3.put("/docs/note.md", text);
    s3.put("/docs/table.csv", "id,text,year\n7,one,1961\n");
    let function = function(&s3, &[]);
    function.expect_success(created(&[("note.md", text), ("table.csv", b"id,text,year\n7,one,1961\n")]));
    let written: Vec<_> = s3.written().into_values().flatten().collect();
    assert_eq!(ids(&written), ["s3://docs/note.md", "7"]);
    assert_eq!(written[1]["metadata"]["year"], "1961");
}

#[test]
fn messages_fail_one_by_one() {
    let s3 = MockS3::start(|_, request| (request.path() == "/docs/closed.txt").then(|| error(403, "AccessDenied")));
    let (bytes, partly_invalid) = (lines(2), b"no JSON\n".to_vec());
    s3.put("/docs/a.jsonl", bytes.clone());
    s3.put("/docs/partly_invalid.jsonl", partly_invalid.clone());
    let batch = json!({"Records": [
        message("m0", json!({"id": "d0", "text": "zero"})),
        message("m1", "no document"),
        message("m2", created(&[("a.jsonl", &bytes)])),
        message("m3", created(&[("closed.txt", b"x")])),
        message("m4", json!({"documents": [{"id": "d4", "text": "four"}, {"text": ""}]})),
        message("m5", created(&[("tool.exe", b"x")])),
        message("m6", json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "docs"})),
        message("m7", created(&[("partly_invalid.jsonl", &partly_invalid)])),
        message("m8", json!({"Records": [{"eventSource": "aws:kinesis"}]})),
        message("m9", json!({"id": "d9", "text": "nine"})),
    ]});
    let function = function(&s3, &[]);
    assert_eq!(failures(&function.invoke(&batch)), ["m1", "m3", "m4", "m5", "m8"]);
    let written = s3.written();
    let names: Vec<_> = written.keys().map(|k| k.strip_prefix("/out/points/").unwrap()).collect();
    let object = format!("a.jsonl.{}.jsonl", etag(&bytes).trim_matches('"'));
    assert_eq!(names, [object.as_str(), "m0.jsonl", "m4.jsonl", "m9.jsonl"]);
    assert_eq!(ids(&written["/out/points/m4.jsonl"]), ["d4"]);
    // The same message in another batch writes the same object.
    assert_eq!(failures(&function.invoke(json!({"Records": [batch["Records"][9]]}))), [""; 0]);
    assert_eq!(s3.written(), written);
}

/// A mock of Qdrant.
struct MockQdrant {
    mock: Mock,
}

impl MockQdrant {
    fn start(respond: impl Fn(&Value) -> MockResponse + Send + Sync + 'static) -> Self {
        Self { mock: Mock::start(move |request| respond(&request.json())) }
    }

    fn function(&self) -> Function {
        let sink = format!("qdrant+http://{}/documents", self.mock.address);
        Function::start(&[("TEALIGHT_MODEL", TINY), ("TEALIGHT_SINK", &sink)])
    }

    fn document_ids(&self) -> Vec<String> {
        let points = |m: &Message| m.json()["points"].as_array().unwrap().clone();
        let name = |point: Value| point["payload"]["document_id"].as_str().unwrap().to_string();
        self.mock.requests().iter().flat_map(points).map(name).collect()
    }
}

fn accept(_: &Value) -> MockResponse {
    MockResponse::new(200, r#"{"result": {"status": "completed"}, "status": "ok", "time": 0}"#)
}

#[test]
fn messages_of_standard_queue_are_written_together() {
    let qdrant = MockQdrant::start(accept);
    let mut records: Vec<_> =
        (0..100).map(|i| message(&format!("m{i}"), json!({"id": format!("d{i}"), "text": "a"}))).collect();
    records[30] = message("m30", json!({"text": 5}));
    records[60] = message("m60", json!({"id": "d60", "text": "a", "metadata": {"vector": 1}}));
    assert_eq!(failures(&qdrant.function().invoke(json!({"Records": records}))), ["m30", "m60"]);
    assert_eq!(qdrant.document_ids().len(), 98);
    assert!(qdrant.mock.requests().len() < 10, "{}", qdrant.mock.requests().len());
}

#[test]
fn failed_message_stops_its_group_only() {
    let qdrant = MockQdrant::start(accept);
    let document = |id: &str| json!({"id": id, "text": "a"});
    let batch = json!({"Records": [
        in_group("m0", "a", document("a0")),
        in_group("m1", "b", document("b0")),
        in_group("m2", "a", json!({"text": ""})),
        in_group("m3", "b", document("b1")),
        in_group("m4", "a", document("a2")),
        in_group("m5", "c", document("c0")),
    ]});
    let function = qdrant.function();
    assert_eq!(failures(&function.invoke(&batch)), ["m2", "m4"]);
    assert_eq!(qdrant.document_ids(), ["a0", "b0", "b1", "c0"]);
}

#[test]
fn failing_sink_returns_all_messages() {
    let qdrant = MockQdrant::start(|_| MockResponse::new(401, r#"{"status": {"error": "Forbidden"}}"#));
    let records: Vec<_> = (0..3).map(|i| message(&format!("m{i}"), json!({"id": i, "text": "a"}))).collect();
    let function = qdrant.function();
    assert_eq!(failures(&function.invoke(json!({"Records": records}))), ["m0", "m1", "m2"]);
    let outcome = function.invoke(json!({"Items": [{"id": 1, "text": "a"}]}));
    assert!(outcome.is_error, "Step Functions must see the failure");
}

/// Exactly the messages that were not written in time are returned.
#[test]
fn messages_not_written_before_deadline_are_returned() {
    let qdrant = MockQdrant::start(|body| {
        std::thread::sleep(Duration::from_millis(50));
        accept(body)
    });
    let function = qdrant.function();
    function.expect_success(json!({"input": "warm"}));
    let text = "word ".repeat(200);
    let records: Vec<_> = (0..5000)
        .map(|i| message(&format!("m{i}"), json!({"id": format!("d{i}"), "text": format!("{i} {text}")})))
        .collect();
    let deadline = SystemTime::now() + Duration::from_secs(6);
    let outcome = function.invoke_with_deadline(json!({"Records": records}), deadline);
    assert!(outcome.at < deadline, "{:?} late", outcome.at.duration_since(deadline));
    let failed = failures(&outcome);
    assert!(!failed.is_empty() && failed.len() < 5000, "{}", failed.len());
    let written: std::collections::BTreeSet<_> = qdrant.document_ids().into_iter().collect();
    let done = (0..5000).filter(|i| !failed.contains(&format!("m{i}")));
    assert!(done.clone().all(|i| written.contains(&format!("d{i}"))), "messages that are not returned are written");
}

#[test]
fn object_that_takes_too_long_is_error_with_remedy() {
    let s3 = MockS3::start(|_, _| None);
    let text = "word ".repeat(200);
    let bytes: Vec<u8> =
        (0..20_000).map(|i| format!("{{\"id\": {i}, \"text\": \"{i} {text}\"}}\n")).collect::<String>().into();
    let small = lines(2);
    s3.put("/docs/large.jsonl", bytes.clone());
    s3.put("/docs/small.jsonl", small.clone());
    let function = function(&s3, &[]);
    function.expect_success(json!({"input": "warm"}));
    let deadline = SystemTime::now() + Duration::from_secs(4);
    let outcome = function.invoke_with_deadline(created(&[("large.jsonl", &bytes), ("small.jsonl", &small)]), deadline);
    let (code, message) = outcome.expect_error();
    assert!(outcome.at < deadline, "{:?} late", outcome.at.duration_since(deadline));
    assert!(code == "timeout" && message.contains("large.jsonl") && message.contains("timeout"), "{code}: {message}");
    assert_eq!(s3.written().len(), 1, "the small object, and nothing of the large one");
}

#[test]
fn distributed_map_batch_reports_failures_per_item() {
    let s3 = MockS3::start(|_, _| None);
    let (bytes, partly_invalid) = (lines(2), b"{\"id\": 1, \"text\": \"a\"}\nno JSON\n".to_vec());
    s3.put("/docs/bulk/a.jsonl", bytes.clone());
    s3.put("/docs/bulk/b.jsonl", partly_invalid.clone());
    let event = json!({"BatchInput": {"bucket": "docs"}, "Items": [
        {"id": "x", "text": "one", "year": "1961"},
        {"id": "y", "txt": "two"},
        {"Etag": etag(&bytes), "Key": "bulk/a.jsonl", "LastModified": 1, "Size": bytes.len(), "StorageClass": "STANDARD"},
        {"Etag": "\"\"", "Key": "bulk/", "Size": 0},
        {"Etag": etag(&partly_invalid), "Key": "bulk/b.jsonl", "Size": partly_invalid.len()},
    ]});
    let function = function(&s3, &[]);
    let response = function.expect_success(&event);
    assert_eq!(counts(&response), (4, 4, 2));
    let failed = response["failed"].as_array().unwrap();
    assert_eq!((&failed[0]["index"], &failed[0]["code"]), (&1.into(), &"empty_input".into()));
    assert_eq!(
        (&failed[1]["index"], &failed[1]["number"], &failed[1]["object"]),
        (&4.into(), &2.into(), &"s3://docs/bulk/b.jsonl".into())
    );
    let written = s3.written();
    assert_eq!(written.len(), 3);
    function.expect_success(&event);
    assert_eq!(s3.written(), written, "the same batch writes the same objects");
}

#[test]
fn event_without_sink_fails_with_reason() {
    let function = Function::start(&[("TEALIGHT_MODEL", TINY)]);
    for event in [created(&[("a.jsonl", b"1")]), json!({"Records": [message("m", "{}")]}), json!({"Items": []})] {
        let (code, message) = function.invoke(event).expect_error();
        assert!(code == "unsupported_event" && message.contains("TEALIGHT_SINK"), "{message}");
    }
}
