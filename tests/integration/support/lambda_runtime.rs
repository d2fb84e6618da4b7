//! The binary as a Lambda function, against a mock of the Runtime API:
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>.

use super::TIMEOUT;
use super::http::{Message, Mock, MockResponse};
use super::process::{Process, tealight};
use serde_json::Value;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

const API: &str = "/2018-06-01/runtime";

struct Event {
    id: String,
    payload: String,
    deadline_ms: u128,
}

/// The result of an invocation.
#[derive(Debug)]
pub struct Outcome {
    /// Whether the invocation failed.
    pub is_error: bool,
    /// The request by which the function reported it.
    pub report: Message,
    /// When the report arrived.
    pub at: SystemTime,
}

impl Outcome {
    /// The response of an invocation that must have succeeded.
    #[track_caller]
    pub fn expect_success(&self) -> Value {
        assert!(!self.is_error, "{}", self.report.text());
        self.report.json()
    }

    /// The error type and message of an invocation that must have failed.
    #[track_caller]
    pub fn expect_error(&self) -> (String, String) {
        assert!(self.is_error, "succeeded: {}", self.report.text());
        let error = self.report.json();
        let field = |name: &str| error[name].as_str().unwrap_or_else(|| panic!("no {name} in {error}")).to_string();
        (field("errorType"), field("errorMessage"))
    }
}

/// A function with its Runtime API.
pub struct Function {
    /// The process of the function.
    pub process: Process,
    events: Sender<Event>,
    outcomes: Receiver<Outcome>,
    invocations: std::cell::Cell<usize>,
}

impl Function {
    /// Starts a function with these environment variables, in addition to those that Lambda sets.
    pub fn start(variables: &[(&str, &str)]) -> Self {
        let (events, queue) = channel();
        let (done, outcomes) = channel();
        let (queue, done) = (Arc::new(Mutex::new(queue)), Mutex::new(done));
        let api = Mock::start(move |request| match (request.method(), request.path().strip_prefix(API)) {
            ("GET", Some("/invocation/next")) => next(&queue),
            ("GET", Some("/restore/next")) => MockResponse::new(200, "{}"),
            ("POST", Some(path)) => report(request, path, &done.lock().unwrap()),
            _ => MockResponse::new(404, "{}"),
        });
        let mut command = tealight([]);
        command.env("AWS_LAMBDA_RUNTIME_API", api.address.to_string());
        command.envs(LAMBDA_VARIABLES).envs(variables.iter().copied());
        Self { process: Process::start(command), events, outcomes, invocations: 0.into() }
    }

    /// Invokes the function and waits for the result.
    pub fn invoke(&self, payload: impl ToString) -> Outcome {
        self.invoke_with_deadline(payload, SystemTime::now() + 2 * TIMEOUT)
    }

    /// As [`Function::invoke`], with a deadline.
    pub fn invoke_with_deadline(&self, payload: impl ToString, deadline: SystemTime) -> Outcome {
        let id = format!("request-{}", self.invocations.replace(self.invocations.get() + 1));
        let deadline_ms = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        self.events.send(Event { id: id.clone(), payload: payload.to_string(), deadline_ms }).unwrap();
        let outcome = self.outcomes.recv_timeout(TIMEOUT).unwrap_or_else(|e| panic!("{e}: {}", self.process.stdout()));
        assert!(outcome.report.path().contains(&format!("/invocation/{id}/")), "{:?}", outcome.report.start_line);
        outcome
    }

    /// Invokes the function; the invocation must succeed.
    #[track_caller]
    pub fn expect_success(&self, payload: impl ToString) -> Value {
        self.invoke(payload).expect_success()
    }
}

/// The environment variables that Lambda sets.
const LAMBDA_VARIABLES: [(&str, &str); 6] = [
    ("AWS_LAMBDA_FUNCTION_NAME", "tealight"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1769"),
    ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
    ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/tealight"),
    ("AWS_LAMBDA_LOG_STREAM_NAME", "2026/11/23/[$LATEST]0123456789abcdef"),
    ("AWS_REGION", "eu-central-1"),
];

/// Waits for the next event, as Lambda does.
fn next(queue: &Mutex<Receiver<Event>>) -> MockResponse {
    let event = loop {
        match queue.lock().unwrap().recv_timeout(Duration::from_secs(1)) {
            Ok(event) => break event,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return MockResponse::new(410, "{}"),
        }
    };
    MockResponse::new(200, event.payload)
        .header("content-type", "application/json")
        .header("lambda-runtime-aws-request-id", event.id)
        .header("lambda-runtime-deadline-ms", event.deadline_ms)
        .header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:eu-central-1:210987654321:function:tealight")
        .header("lambda-runtime-trace-id", "Root=1-6922e1f1-3f5d7b9a1c2e4d6f8b0a1c3e;Sampled=0")
}

fn report(request: &Message, path: &str, done: &Sender<Outcome>) -> MockResponse {
    let is_error = path.ends_with("/error");
    let _ = done.send(Outcome { is_error, report: request.clone(), at: SystemTime::now() });
    MockResponse::new(202, r#"{"status":"OK"}"#)
}
