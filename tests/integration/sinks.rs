//! Sinks against mock servers that fail in every documented way. tests/stores writes to real databases.

use crate::support::aws::{ACCESS_KEY, SECRET_KEY, TOKEN, check_signature};
use crate::support::http::{Message, Mock, MockResponse, unused_address};
#[cfg(feature = "cli")]
use crate::support::{
    TINY,
    process::{CommandOutput, run_with_input, tealight},
};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tealight::pipeline::document::Document;
use tealight::pipeline::format::{BodyBuilder, Format, VectorEncoding};
use tealight::pipeline::point::{DocumentFields, Point};
use tealight::pipeline::sink::{OutputName, Sink, SinkConfig};
use tealight::{Error, ErrorKind, Result};
use tealight_core::Deadline;
use tealight_core::Secret;

fn point(text: &str) -> Point {
    let document = Arc::new(DocumentFields::new(&Document::from_text(text), "m").unwrap());
    let vector = vec![0.25, 0.5];
    Point { id: document.point_id(0), document, chunk_index: 0, text: text.into(), start: 0, end: text.len(), vector }
}

fn points(count: usize) -> Vec<Point> {
    (0..count).map(|n| point(&format!("word {n}"))).collect()
}

fn open(url: &str) -> Box<dyn Sink> {
    let name = OutputName::Documents("test".into());
    SinkConfig::parse(url, Some(Secret("sesame".into()))).unwrap().open(&name, Deadline::NONE).unwrap()
}

fn within(time: Duration) -> Deadline {
    Deadline(Some(Instant::now() + time))
}

/// Writes all points, and returns the positions and errors of rejected ones.
fn write(sink: &mut dyn Sink, points: &[Point], deadline: Deadline) -> Result<Vec<(usize, Error)>> {
    let mut rejected = sink.write(points, deadline)?;
    rejected.extend(sink.finish(deadline)?);
    Ok(rejected)
}

fn qdrant(mock: &Mock) -> Box<dyn Sink> {
    open(&format!("qdrant+http://{}/docs", mock.address))
}

fn opensearch(mock: &Mock) -> Box<dyn Sink> {
    open(&format!("opensearch+http://{}/docs", mock.address))
}

fn accepted() -> MockResponse {
    MockResponse::new(200, r#"{"result":{"status":"completed"},"status":"ok"}"#)
}

/// Sends the responses of a list, then those of a function.
fn responses_then(
    responses: Vec<MockResponse>,
    then: impl Fn(&Message) -> MockResponse + Send + Sync + 'static,
) -> Mock {
    let calls = AtomicUsize::new(0);
    Mock::start(move |request| match responses.get(calls.fetch_add(1, Ordering::SeqCst)) {
        Some(response) => response.clone(),
        None => then(request),
    })
}

#[test]
fn qdrant_request_has_points_and_api_key() {
    let mock = Mock::start(|_| accepted());
    assert!(write(&mut *qdrant(&mock), &points(3), Deadline::NONE).unwrap().is_empty());
    let requests = mock.requests();
    assert_eq!(
        (requests.len(), requests[0].method(), requests[0].path()),
        (1, "PUT", "/collections/docs/points?wait=true")
    );
    assert_eq!(
        (requests[0].header("api-key"), requests[0].header("content-type")),
        (Some("sesame"), Some("application/json"))
    );
    let body = requests[0].json();
    assert_eq!(body["points"].as_array().unwrap().len(), 3);
    assert_eq!(body["points"][1]["payload"]["text"], "word 1");
}

#[test]
fn write_of_no_points_sends_no_request() {
    let mock = Mock::start(|_| accepted());
    assert!(write(&mut *qdrant(&mock), &[], Deadline::NONE).unwrap().is_empty());
    assert_eq!(mock.requests().len(), 0);
}

#[test]
fn retryable_failure_is_retried_after_delay_of_server() {
    let responses = vec![
        MockResponse::new(429, r#"{"status":{"error":"slow down"}}"#).header("retry-after", 1),
        MockResponse::new(500, "oops"),
        MockResponse { close_after: Some(5), ..accepted() },
    ];
    let mock = responses_then(responses, |_| accepted());
    let start = Instant::now();
    assert!(write(&mut *qdrant(&mock), &points(2), Deadline::NONE).unwrap().is_empty());
    let requests = mock.requests();
    assert_eq!(requests.len(), 4);
    assert!(requests.iter().all(|request| request.body == requests[0].body));
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn delay_or_response_beyond_deadline_is_not_waited_for() {
    let mock = Mock::start(|_| MockResponse::new(429, "").header("retry-after", 30));
    let start = Instant::now();
    let error = write(&mut *qdrant(&mock), &points(1), within(Duration::from_secs(3))).unwrap_err();
    assert!(error.message.contains("429") && error.message.contains("30 s"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(1) && mock.requests().len() == 1);

    let slow = Mock::start(|_| {
        std::thread::sleep(Duration::from_secs(20));
        accepted()
    });
    let start = Instant::now();
    let error = write(&mut *qdrant(&slow), &points(1), within(Duration::from_secs(1))).unwrap_err();
    assert!(error.kind.is_retryable() && start.elapsed() < Duration::from_secs(3), "{error}");

    let past = Deadline(Some(Instant::now()));
    assert_eq!(write(&mut *qdrant(&mock), &points(1), past).unwrap_err().kind, ErrorKind::Timeout);
}

#[test]
fn permanent_failure_is_not_retried_and_names_remedy() {
    for (status, text, words) in [
        (401, "", vec!["401", "TEALIGHT_SINK_KEY"]),
        (403, r#"{"status":{"error":"forbidden"}}"#, vec!["403", "forbidden"]),
        (404, r#"{"status":{"error":"Not found: Collection `docs`"}}"#, vec!["404", "Not found: Collection `docs`"]),
        (301, "", vec!["301"]),
    ] {
        let mock = Mock::start(move |_| MockResponse::new(status, text).header("location", "http://example.com"));
        let error = write(&mut *qdrant(&mock), &points(3), Deadline::NONE).unwrap_err();
        assert!(words.iter().all(|word| error.message.contains(word)), "{error}");
        assert!(error.message.contains("collection docs of Qdrant"), "{error}");
        assert!(!error.message.contains("sesame") && !error.message.contains("word 1"), "{error}");
        assert_eq!(mock.requests().len(), 1);
    }
}

#[test]
fn refused_connection_is_retried() {
    let address = unused_address();
    let start = Instant::now();
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        let listener = std::net::TcpListener::bind(address).unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        let mut reader = std::io::BufReader::new(socket.try_clone().unwrap());
        Message::read(&mut reader).unwrap();
        std::io::Write::write_all(&mut socket, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    });
    let mut sink = open(&format!("qdrant+http://{address}/docs"));
    write(&mut *sink, &points(1), Deadline::NONE).unwrap();
    late.join().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(300));
}

/// Like Qdrant, rejects a request as a whole if one of its points is invalid.
fn rejecting(word: &'static str) -> Mock {
    Mock::start(move |request| match request.text().contains(word) {
        true => MockResponse::new(400, r#"{"status":{"error":"Wrong input: Vector dimension error"}}"#),
        false => accepted(),
    })
}

#[test]
fn rejected_point_does_not_block_others() {
    let mock = rejecting("word 700\"");
    let mut sink = qdrant(&mock);
    let rejected = write(&mut *sink, &points(1001), Deadline::NONE).unwrap();
    assert_eq!(rejected.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [700]);
    assert_eq!(rejected[0].1.kind, ErrorKind::InvalidValue);
    assert!(rejected[0].1.message.contains("Vector dimension"), "{}", rejected[0].1);
    // Points that cannot be formatted (a zero vector here) are counted in the same positions.
    let mut zero = point("zero");
    zero.vector = vec![0.0; 2];
    let more = [point("word 700"), point("fine"), zero];
    let rejected = write(&mut *sink, &more, Deadline::NONE).unwrap();
    let positions: Vec<_> = rejected.iter().map(|(position, _)| *position).collect();
    assert!(positions.contains(&1001) && !positions.contains(&1002), "{positions:?}");

    let written: HashSet<String> = mock
        .requests()
        .iter()
        .filter(|request| !request.text().contains("word 700\""))
        .flat_map(|request| request.json()["points"].as_array().unwrap().clone())
        .map(|point| point["payload"]["text"].as_str().unwrap().to_string())
        .collect();
    assert!((0..1001).filter(|n| *n != 700).all(|n| written.contains(&format!("word {n}"))));
}

#[test]
fn write_ends_when_every_point_is_rejected() {
    let mock = rejecting("word");
    let error = write(&mut *qdrant(&mock), &points(500), Deadline::NONE).unwrap_err();
    assert!(error.message.contains("Vector dimension") && error.message.contains("first 8"), "{error}");
    assert!(mock.requests().len() < 50, "{}", mock.requests().len());
    // Each point of a small batch is reported.
    let rejected = write(&mut *qdrant(&mock), &points(3), Deadline::NONE).unwrap();
    assert_eq!(rejected.len(), 3);
}

/// The ids of a bulk body.
fn ids(request: &Message) -> Vec<String> {
    let text = request.text();
    let lines = text.lines().step_by(2);
    lines.map(|line| serde_json::from_str::<Value>(line).unwrap()["index"]["_id"].as_str().unwrap().into()).collect()
}

fn bulk(items: Vec<Value>) -> MockResponse {
    let items: Vec<_> = items.into_iter().map(|item| json!({"index": item})).collect();
    MockResponse::new(200, json!({"took": 1, "errors": true, "items": items}).to_string())
}

#[test]
fn bulk_items_that_are_retryable_are_sent_again_alone() {
    let all = points(6);
    let (busy, wrong) = (all[1].id.to_string(), all[4].id.to_string());
    let calls = AtomicUsize::new(0);
    let mock = Mock::start(move |request| {
        let is_first = calls.fetch_add(1, Ordering::SeqCst) == 0;
        let item = |id: String| match () {
            () if id == wrong => json!({"_id": id, "status": 400, "error": {"type": "mapper_parsing_exception",
                "reason": "failed to parse field [year]. Preview of field's value: 'my words'",
                "caused_by": {"type": "x", "reason": "For input string"}}}),
            () if id == busy && is_first => json!({"_id": id, "status": 429, "error": {"type": "busy"}}),
            () => json!({"_id": id, "status": 201}),
        };
        bulk(ids(request).into_iter().map(item).collect())
    });
    let rejected = write(&mut *opensearch(&mock), &all, Deadline::NONE).unwrap();
    assert_eq!(rejected.len(), 1);
    let (position, error) = &rejected[0];
    assert_eq!((*position, error.kind), (4, ErrorKind::InvalidValue));
    assert!(error.message.contains("failed to parse field [year]") && !error.message.contains("my words"), "{error}");
    let requests = mock.requests();
    assert_eq!(
        (requests.len(), requests[0].path(), ids(&requests[1])),
        (2, "/docs/_bulk", vec![all[1].id.to_string()])
    );
    assert_eq!(requests[0].header("content-type"), Some("application/x-ndjson"));
    assert_eq!(requests[0].header("authorization"), Some("ApiKey sesame"));
}

#[test]
fn bulk_items_throttled_until_deadline_fail_write() {
    let mock = Mock::start(|request| bulk(ids(request).iter().map(|_| json!({"status": 429})).collect()));
    let error = write(&mut *opensearch(&mock), &points(2), within(Duration::from_secs(2))).unwrap_err();
    assert!(error.kind.is_retryable() && error.message.contains("429"), "{error}");
    assert!(mock.requests().len() > 1);
}

#[test]
fn response_of_another_service_fails_write() {
    for response in [MockResponse::new(200, "<html>hello"), bulk(vec![]), MockResponse::new(404, "")] {
        let mock = Mock::start(move |_| response.clone());
        let error = write(&mut *opensearch(&mock), &points(2), Deadline::NONE).unwrap_err();
        assert!(error.message.contains("index docs of OpenSearch"), "{error}");
        assert_eq!(mock.requests().len(), 1);
    }
}

/// tests/stores uses a real server, which always responds.
#[cfg(feature = "postgres")]
#[test]
fn silent_postgres_server_times_out_at_deadline() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://tea:secret%20@{}/db", silent.local_addr().unwrap());
    let start = Instant::now();
    let error = write(&mut *open(&url), &points(1), within(Duration::from_secs(1))).unwrap_err();
    assert!(error.kind.is_retryable() && start.elapsed() < Duration::from_secs(3), "{error}");
    assert!(error.message.contains("table documents of PostgreSQL") && !error.message.contains("secret"), "{error}");
    let url = format!("postgres://tea@{}/db?table=a.b", unused_address());
    let error = write(&mut *open(&url), &points(1), within(Duration::from_secs(1))).unwrap_err();
    assert!(error.kind.is_retryable() && error.message.contains("refused"), "{error}");
}

/// Runs an ignored test of this file, named `child_...`, in its own process, because environment variables belong to the whole
/// process: they send AWS requests to a mock.
fn with_aws(test: &str, service: &str, mock: &Mock) -> String {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("sinks::{test}"), "--ignored", "--nocapture"]);
    command.env(format!("AWS_ENDPOINT_URL_{service}"), mock.url()).env("AWS_REGION", "eu-west-1");
    for (name, value) in
        [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY), ("AWS_SESSION_TOKEN", TOKEN)]
    {
        command.env(name, value);
    }
    let output = command.output().unwrap();
    let output_text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && output_text.contains("1 passed"), "{output_text}");
    assert!(!output_text.contains(SECRET_KEY) && !output_text.contains(TOKEN), "{output_text}");
    output_text
}

#[test]
fn put_vectors_request_is_signed_and_complete() {
    let responses = vec![
        MockResponse::new(429, r#"{"message":"Too many"}"#).header("x-amzn-errortype", "TooManyRequestsException"),
        MockResponse::new(400, r#"{"__type":"ThrottlingException"}"#),
    ];
    let mock = responses_then(responses, |_| MockResponse::new(200, "{}"));
    with_aws("child_writes_3_points_to_s3_vectors", "S3VECTORS", &mock);
    let requests = mock.requests();
    assert_eq!((requests.len(), requests[2].method(), requests[2].path()), (3, "POST", "/PutVectors"));
    check_signature(&requests[2], "eu-west-1", "s3vectors", &["content-type", "x-amz-security-token"]);
    let body = requests[2].json();
    assert_eq!((&body["vectorBucketName"], &body["indexName"]), (&json!("bucket"), &json!("index")));
    assert_eq!(body["vectors"].as_array().unwrap().len(), 3);
    assert_eq!(body["vectors"][0]["data"]["float32"], json!([0.25, 0.5]));
}

#[test]
#[ignore = "child process of put_vectors_request_is_signed_and_complete"]
fn child_writes_3_points_to_s3_vectors() {
    assert!(write(&mut *open("s3vectors://bucket/index"), &points(3), Deadline::NONE).unwrap().is_empty());
}

fn object() -> OutputName {
    OutputName::Object { bucket: "in".into(), key: "a/b c.csv".into(), etag: "\"01ab\"".into() }
}

fn object_sink() -> Box<dyn Sink> {
    SinkConfig::parse("s3://bucket/out", None).unwrap().open(&object(), Deadline::NONE).unwrap()
}

const OBJECT: &str = "/bucket/out/a/b%20c.csv.01ab.jsonl";

#[test]
fn small_object_is_uploaded_in_one_request() {
    let mock = responses_then(vec![MockResponse::new(503, "<Error><Code>SlowDown</Code></Error>")], |_| {
        MockResponse::new(200, "")
    });
    with_aws("child_writes_3_points_to_object", "S3", &mock);
    let requests = mock.requests();
    assert_eq!((requests.len(), requests[1].method(), requests[1].path()), (2, "PUT", OBJECT));
    check_signature(&requests[1], "eu-west-1", "s3", &["x-amz-content-sha256"]);
    assert_eq!(requests[1].text().lines().count(), 3);
}

#[test]
fn object_is_written_to_region_of_bucket() {
    let moved = MockResponse::new(301, "<Error><Code>PermanentRedirect</Code></Error>");
    let mock = responses_then(vec![moved.header("x-amz-bucket-region", "us-west-2")], |_| MockResponse::new(200, ""));
    with_aws("child_writes_3_points_to_object", "S3", &mock);
    let requests = mock.requests();
    assert_eq!(requests.len(), 2);
    check_signature(&requests[1], "us-west-2", "s3", &["x-amz-content-sha256"]);
}

#[test]
#[ignore = "child process of small_object_is_uploaded_in_one_request"]
fn child_writes_3_points_to_object() {
    assert!(write(&mut *object_sink(), &points(3), Deadline::NONE).unwrap().is_empty());
}

/// A mock of multipart uploads to S3; `complete` is the response to CompleteMultipartUpload.
fn multipart_uploads(complete: impl Fn() -> MockResponse + Send + Sync + 'static) -> Mock {
    Mock::start(move |request| {
        let (_, query) = request.path().split_once('?').unwrap_or((request.path(), ""));
        match (request.method(), query) {
            ("POST", "uploads=") => MockResponse::new(
                200,
                "<InitiateMultipartUploadResult><UploadId>a+b</UploadId></InitiateMultipartUploadResult>",
            ),
            ("PUT", part) => MockResponse::new(200, "").header("etag", format!("\"{}\"", part.len())),
            ("POST", "uploadId=a%2Bb") => complete(),
            ("DELETE", _) => MockResponse::new(204, ""),
            ("HEAD", "") => MockResponse::new(200, "").header("etag", "\"x-2\"").header("content-length", OBJECT_SIZE),
            _ => MockResponse::new(400, ""),
        }
    })
}

/// Size in bytes of the object of [`child_writes_90_large_points_to_object`].
const OBJECT_SIZE: usize = 9_000_000;

fn request_lines(mock: &Mock) -> Vec<String> {
    mock.requests().iter().map(|request| format!("{} {}", request.method(), request.path())).collect()
}

#[test]
fn large_object_is_uploaded_in_parts() {
    let calls = AtomicUsize::new(0);
    let mock = multipart_uploads(move || match calls.fetch_add(1, Ordering::SeqCst) {
        0 => MockResponse::new(200, "<Error><Code>InternalError</Code></Error>"),
        _ => MockResponse::new(200, "<CompleteMultipartUploadResult/>"),
    });
    with_aws("child_writes_90_large_points_to_object", "S3", &mock);
    let requests = mock.requests();
    assert_eq!(
        request_lines(&mock),
        [
            format!("POST {OBJECT}?uploads="),
            format!("PUT {OBJECT}?partNumber=1&uploadId=a%2Bb"),
            format!("PUT {OBJECT}?partNumber=2&uploadId=a%2Bb"),
            format!("POST {OBJECT}?uploadId=a%2Bb"),
            format!("POST {OBJECT}?uploadId=a%2Bb"),
        ]
    );
    assert!(requests[1].body.len() >= 8 << 20);
    let whole = [&requests[1].body[..], &requests[2].body].concat();
    assert_eq!(whole.len(), OBJECT_SIZE);
    assert!(whole.ends_with(b"\n") && String::from_utf8(whole).unwrap().lines().count() == 90);
    assert!(requests[3].text().contains("<PartNumber>2</PartNumber>"));
}

#[test]
fn upload_is_complete_although_its_response_was_lost() {
    let mock = multipart_uploads(|| MockResponse::new(404, "<Error><Code>NoSuchUpload</Code></Error>"));
    with_aws("child_writes_90_large_points_to_object", "S3", &mock);
    assert_eq!(request_lines(&mock).last().unwrap(), &format!("HEAD {OBJECT}"));
}

/// Each line of the object has 100,000 bytes.
#[test]
#[ignore = "child process of large_object_is_uploaded_in_parts"]
fn child_writes_90_large_points_to_object() {
    let mut sink = object_sink();
    let mut jsonl = BodyBuilder::new(Format::Jsonl, VectorEncoding::Float, None).unwrap();
    jsonl.push(jsonl.encode(&point(&"x".repeat(90_000))).unwrap());
    let text = "x".repeat(190_000 - jsonl.finish().unwrap().len());
    for _ in 0..90 {
        assert!(sink.write(&[point(&text)], Deadline::NONE).unwrap().is_empty());
    }
    assert!(sink.finish(Deadline::NONE).unwrap().is_empty());
}

#[test]
fn failed_or_unfinished_upload_is_aborted() {
    let mock =
        multipart_uploads(|| MockResponse::new(403, "<Error><Code>AccessDenied</Code><Message>no</Message></Error>"));
    with_aws("child_writes_large_object_without_permission", "S3", &mock);
    assert_eq!(request_lines(&mock).last().unwrap(), &format!("DELETE {OBJECT}?uploadId=a%2Bb"));
    let mock = multipart_uploads(|| MockResponse::new(200, ""));
    with_aws("child_drops_unfinished_object", "S3", &mock);
    assert_eq!(request_lines(&mock).last().unwrap(), &format!("DELETE {OBJECT}?uploadId=a%2Bb"));
}

#[test]
#[ignore = "child process of failed_or_unfinished_upload_is_aborted"]
fn child_writes_large_object_without_permission() {
    let text = "x".repeat(9 << 20);
    let error = write(&mut *object_sink(), &[point(&text)], Deadline::NONE).unwrap_err();
    let words = ["s3://bucket/out/a/b c.csv.01ab.jsonl", "403", "AccessDenied", "s3:PutObject"];
    assert!(words.iter().all(|word| error.message.contains(word)), "{error}");
}

#[test]
#[ignore = "child process of failed_or_unfinished_upload_is_aborted"]
fn child_drops_unfinished_object() {
    let mut sink = object_sink();
    let texts = ["x".repeat(9 << 20), "y".into()];
    sink.write(&texts.map(|text| point(&text)), Deadline::NONE).unwrap();
}

/// Runs `tealight embed` with an S3 sink, and returns its output, and the paths and points of the objects that it wrote.
#[cfg(feature = "cli")]
fn embed_to_s3(args: &[&str], input: &str) -> (CommandOutput, Vec<(String, Vec<Value>)>) {
    let mock = Mock::start(|_| MockResponse::new(200, ""));
    let mut command = tealight([&["embed", "--model", TINY, "--sink", "s3://bucket/out"], args].concat());
    command.env("AWS_ENDPOINT_URL_S3", mock.url()).env("AWS_REGION", "eu-west-1");
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    let output = run_with_input(&mut command, input);
    let points = |request: &Message| request.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let objects = mock.requests().iter().map(|request| (request.path().to_string(), points(request))).collect();
    (output, objects)
}

#[cfg(feature = "cli")]
#[test]
fn object_of_standard_input_is_named_after_its_content() {
    let path = |args: &[&str], input: &str| {
        let (output, objects) = embed_to_s3(args, input);
        output.expect_success();
        let [(path, points)] = &objects[..] else { panic!("{objects:?}") };
        assert_eq!(
            points.iter().map(|point| point["text"].as_str().unwrap()).collect::<Vec<_>>().join("\n") + "\n",
            input
        );
        path.clone()
    };
    // The output of `printf 'hello\nworld\n' | sha256sum`.
    let expected = "/bucket/out/4a1e67f2fe1d1cc7b31d0ca2ec441da4778203a036a77da10344c85e24ff0f92.jsonl";
    assert_eq!(path(&[], "hello\nworld\n"), expected);
    for args in [["--input", "-"], ["--input", "/dev/stdin"]] {
        assert_eq!(path(&args, "hello\nworld\n"), expected, "{args:?}");
    }
    assert_ne!(path(&[], "hello\n"), expected, "another run must not overwrite the object");
    let (output, objects) = embed_to_s3(&[], "");
    output.expect_success();
    assert!(objects.is_empty(), "{objects:?}");
}

#[cfg(feature = "cli")]
#[test]
fn sink_reads_text_file_as_one_document_and_rejects_invalid_json_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let notes = file("notes.md", "First line.\nSecond line.\n");
    for more in [&[][..], &["--chunk-tokens", "14"]] {
        let (output, objects) = embed_to_s3(&[&["--input", &notes], more].concat(), "");
        output.expect_success();
        let [(path, points)] = &objects[..] else { panic!("{objects:?}") };
        assert_eq!(path, "/bucket/out/notes.md.jsonl");
        assert!(points.iter().all(|point| point["document_id"] == notes), "{points:?}");
        let starts: Vec<_> = points.iter().map(|point| point["start"].as_u64().unwrap()).collect();
        assert!(starts.len() <= 2 && starts[0] == 0 && starts[1..].iter().all(|start| *start > 0), "{starts:?}");
    }
    let lines = file("lines.jsonl", "{\"id\": \"a\", \"text\": \"one\"}\nnot JSON\n");
    let (output, objects) = embed_to_s3(&["--input", &lines], "");
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("document 2: not a document"), "{}", output.stderr);
    let [(_, points)] = &objects[..] else { panic!("{objects:?}") };
    assert_eq!((points.len(), &points[0]["document_id"]), (1, &json!("a")));
}
