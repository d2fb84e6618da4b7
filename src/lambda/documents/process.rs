//! Events with documents, and the responses: which messages failed, or what happened to each item.

use super::super::event::EventSource;
use super::item::IngestItem;
use super::records::{Message, Records};
use super::{distributed_map, records, s3_event};
use crate::engine::{Engine, ModelTask};
use crate::pipeline::document::Document;
use crate::pipeline::ingest::{Commit, Failure, Ingest, IngestResult, MAX_FAILURES, ObjectNotification, Report, Stop};
use crate::pipeline::input::NumberedDocument;
use crate::pipeline::sink::{OutputName, SinkConfig};
use crate::telemetry::log;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::time::Instant;
use tealight_core::{Deadline, Error, Result, truncate_for_display};

/// Processes the documents and objects of one event.
#[derive(Debug)]
pub struct EventProcessor<'a> {
    ingest: Ingest<'a>,
    sink_config: &'a SinkConfig,
    deadline: Deadline,
    start: Instant,
}

/// A document, with the index of the item or message that it came in, by which its failure is reported.
struct Indexed {
    index: usize,
    document: Result<Document>,
}

impl Indexed {
    fn text_bytes(&self) -> usize {
        self.document.as_ref().map_or(0, |document| document.text.len())
    }
}

/// Documents that are one input of the sink. A sink that writes objects derives the key from `name` ([`OutputName::Documents`]):
/// the id of a message, or the hash of the event.
struct NamedDocuments {
    name: String,
    commit: Commit,
    documents: Vec<Indexed>,
}

/// Separates items, with their indices, into documents and objects.
fn split_items(items: impl Iterator<Item = (usize, IngestItem)>) -> (Vec<Indexed>, Vec<(usize, ObjectNotification)>) {
    let (mut documents, mut objects) = (vec![], vec![]);
    for (index, item) in items {
        match item {
            IngestItem::Document(document) => documents.push(Indexed { index, document }),
            IngestItem::Object(notification) => objects.push((index, notification)),
        }
    }
    (documents, objects)
}

/// The response to an event, and its failed items.
#[derive(Default)]
struct EventOutcome {
    response: IngestResponse,
    /// Indices of items that failed permanently.
    failed_indices: HashSet<usize>,
    /// Retryable errors, with the index of the item.
    retryable: Vec<(usize, Error)>,
}

impl EventOutcome {
    fn is_success(&self) -> bool {
        self.failed_indices.is_empty() && self.retryable.is_empty()
    }

    /// Adds the counts of another part of the same event, which is logged in one line.
    fn add_counts(&mut self, other: Self) {
        self.response.documents += other.response.documents;
        self.response.points += other.response.points;
        self.response.failures += other.response.failures;
        self.retryable.extend(other.retryable);
    }
}

/// The response to events other than those of SQS.
#[derive(Default, Serialize)]
struct IngestResponse {
    documents: usize,
    points: usize,
    /// All failures, of which `failed` lists the first.
    failures: usize,
    failed: Vec<FailedItem>,
}

#[derive(Serialize)]
struct FailedItem {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<String>,
    /// The line or row of the object, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    code: &'static str,
    message: String,
}

/// The response to SQS: <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SqsBatchResponse {
    batch_item_failures: Vec<BatchItemFailure>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchItemFailure {
    item_identifier: String,
}

impl<'a> EventProcessor<'a> {
    /// A processor that writes to this sink.
    pub fn new(engine: &'a Engine, sink_config: &'a SinkConfig, deadline: Deadline) -> Self {
        Self { ingest: Ingest::from_config(engine), sink_config, deadline, start: Instant::now() }
    }

    /// Processes an event and returns the response.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::UnsupportedEvent`]; a retryable error, for services that retry only if the invocation fails.
    pub fn process(&self, source: EventSource, payload: &str) -> Result<Box<RawValue>> {
        let name = format!("{:x}", Sha256::digest(payload));
        match source {
            EventSource::Records => match records::parse(payload)? {
                Records::Sqs { messages, is_fifo } => to_json(&self.process_sqs(messages, is_fifo, &name)),
                Records::Other(items) => self.process_all_or_nothing(items.into_iter().map(Some).collect(), &name),
            },
            EventSource::EventBridge => {
                let items = s3_event::parse_eventbridge(payload)?;
                self.process_all_or_nothing(items.into_iter().map(Some).collect(), &name)
            }
            EventSource::DistributedMap => self.process_all_or_nothing(distributed_map::parse(payload)?, &name),
        }
    }

    /// Processes an event whose service can only retry all of it. One retryable error fails the invocation; permanent failures
    /// are only listed in the response. `None` is a folder placeholder of a distributed map: it is skipped, but counts in the
    /// indices of failures.
    fn process_all_or_nothing(&self, items: Vec<Option<IngestItem>>, name: &str) -> Result<Box<RawValue>> {
        let indexed = items.into_iter().enumerate().filter_map(|(index, item)| Some((index, item?)));
        let (documents, objects) = split_items(indexed);
        let named = NamedDocuments { name: name.into(), commit: Commit::AllOrNothing, documents };
        let outcome = self.process_items(vec![named], objects);
        self.log_outcome(&outcome);
        let Some((_, first)) = outcome.retryable.first() else { return to_json(&outcome.response) };
        Err(match outcome.retryable.len() {
            1 => first.clone(),
            count => first.clone().with_context(format_args!("{count} failures; the first")),
        })
    }

    fn process_sqs(&self, messages: Vec<Message>, is_fifo: bool, name: &str) -> SqsBatchResponse {
        let ids: Vec<_> = messages.iter().map(|message| message.id.clone()).collect();
        let failed = if is_fifo { self.process_fifo(messages) } else { self.process_standard(messages, name) };
        let failures = ids.into_iter().enumerate().filter(|(index, _)| failed.contains(index));
        let failures = failures.map(|(_, id)| BatchItemFailure { item_identifier: id });
        SqsBatchResponse { batch_item_failures: failures.collect() }
    }

    /// Messages of a FIFO queue, in order. After one message of a group has failed, the later ones of the group also fail, so that
    /// they are delivered after it. Returns the indices of failed messages.
    fn process_fifo(&self, messages: Vec<Message>) -> HashSet<usize> {
        let (mut failed, mut failed_groups, mut total) = (HashSet::new(), HashSet::new(), EventOutcome::default());
        for (index, message) in messages.into_iter().enumerate() {
            let group = message.group.clone();
            let is_blocked = failed_groups.contains(&group);
            let outcome = if is_blocked { EventOutcome::default() } else { self.process_message(message) };
            if is_blocked || !outcome.is_success() {
                failed.insert(index);
                failed_groups.insert(group);
            }
            total.add_counts(outcome);
        }
        self.log_outcome(&total);
        failed
    }

    /// Processes one message separately.
    fn process_message(&self, message: Message) -> EventOutcome {
        let items = match message.items {
            Ok(items) => items,
            Err(error) => {
                log_failure(&error);
                return EventOutcome { failed_indices: HashSet::from([0]), ..Default::default() };
            }
        };
        let (documents, objects) = split_items(items.into_iter().map(|item| (0, item)));
        let named = NamedDocuments { name: message.id, commit: Commit::AllOrNothing, documents };
        self.process_items(vec![named], objects)
    }

    /// Messages of a standard queue, in any order. Returns the indices of failed messages.
    fn process_standard(&self, messages: Vec<Message>, name: &str) -> HashSet<usize> {
        let (mut named, mut objects, mut failed) = (vec![], vec![], HashSet::new());
        for (index, message) in messages.into_iter().enumerate() {
            match message.items {
                Ok(items) => {
                    let (documents, message_objects) = split_items(items.into_iter().map(|item| (index, item)));
                    named.push(NamedDocuments { name: message.id, commit: Commit::AllOrNothing, documents });
                    objects.extend(message_objects);
                }
                Err(error) => {
                    log_failure(&error);
                    failed.insert(index);
                }
            }
        }
        // A sink that writes objects names them by message, so that a redelivered message overwrites its object. Other sinks get
        // the documents of all messages together.
        if !self.sink_config.has_object_per_name() {
            let mut documents: Vec<_> = named.into_iter().flat_map(|named| named.documents).collect();
            documents.sort_by_key(Indexed::text_bytes);
            named = vec![NamedDocuments { name: name.into(), commit: Commit::Partial, documents }];
        }
        named.sort_by_key(|named| named.documents.iter().map(Indexed::text_bytes).sum::<usize>());
        let outcome = self.process_items(named, objects);
        self.log_outcome(&outcome);
        failed.extend(outcome.failed_indices);
        failed.extend(outcome.retryable.into_iter().map(|(index, _)| index));
        failed
    }

    /// Processes documents, then objects by increasing size, so that an oversized object does not starve the others.
    fn process_items(&self, named: Vec<NamedDocuments>, mut objects: Vec<(usize, ObjectNotification)>) -> EventOutcome {
        let mut outcome = EventOutcome::default();
        for documents in named.into_iter().filter(|named| !named.documents.is_empty()) {
            self.process_documents(documents, &mut outcome);
        }
        objects.sort_by_key(|(_, notification)| notification.size);
        for (index, notification) in objects {
            self.process_object(index, &notification, &mut outcome);
        }
        outcome
    }

    fn process_documents(
        &self,
        NamedDocuments { name, commit, documents }: NamedDocuments,
        outcome: &mut EventOutcome,
    ) {
        let indices: Vec<_> = documents.iter().map(|indexed| indexed.index).collect();
        let entry = |(position, indexed): (usize, Indexed)| {
            Ok(NumberedDocument { number: position + 1, document: indexed.document })
        };
        let stream = Box::new(documents.into_iter().enumerate().map(entry));
        let run = match self.sink_config.open(&OutputName::Documents(name), self.deadline) {
            Ok(sink) => self.ingest.run(sink, stream, commit, self.deadline),
            Err(error) => IngestResult { report: Report::default(), committed: 0, stop: Some(Stop::Retryable(error)) },
        };
        let index = |number: usize| number.checked_sub(1).and_then(|position| indices.get(position).copied());
        outcome.failed_indices.extend(run.report.failed_numbers.iter().filter_map(|number| index(*number)));
        if let Some(stop) = run.stop {
            log_retry(stop.error());
            outcome.retryable.extend(indices.iter().skip(run.committed).map(|index| (*index, stop.error().clone())));
        }
        outcome.response.add(run.report, |failure| (index(failure.number).unwrap_or_default(), None, None));
    }

    fn process_object(&self, index: usize, notification: &ObjectNotification, outcome: &mut EventOutcome) {
        let name = format!("s3://{}/{}", notification.bucket, notification.key);
        match self.ingest.object(self.sink_config, notification, self.deadline) {
            // An invalid document of an object does not fail its message, which would be redelivered again and again.
            Ok(report) => {
                let number = |failure: &Failure| (failure.number > 0).then_some(failure.number);
                outcome.response.add(report, |failure| (index, Some(name.clone()), number(failure)));
            }
            Err(Stop::Retryable(error)) => {
                log_retry(&error);
                outcome.retryable.push((index, error));
            }
            Err(Stop::Permanent(error)) => {
                log_failure(&error);
                outcome.failed_indices.insert(index);
                let (code, message) = (error.kind.code(), error.message);
                outcome.response.push(FailedItem { index, object: Some(name), number: None, id: None, code, message });
            }
        }
    }

    fn log_outcome(&self, outcome: &EventOutcome) {
        let IngestResponse { documents, points, failures, .. } = outcome.response;
        let (retried, total) = (outcome.retryable.len(), self.start.elapsed());
        let (engine, loading) = (self.ingest.engine, self.ingest.load_timer.total());
        let (model, isa, threads) =
            (engine.registry.default_name(ModelTask::Embedding), engine.cpu.isa.as_str(), engine.cpu.threads());
        log::IngestSummary { model: &model, documents, points, failures, retried, total, loading, isa, threads }.emit();
    }
}

impl IngestResponse {
    /// Adds a report. `locate` returns the index, the object and the line of a failure.
    fn add(&mut self, report: Report, locate: impl Fn(&Failure) -> (usize, Option<String>, Option<usize>)) {
        self.documents += report.documents;
        self.points += report.points;
        // Failures beyond the limit of a report are counted without their message.
        self.failures += report.failed_numbers.len() - report.first_failures.len();
        for failure in report.first_failures {
            let (index, object, number) = locate(&failure);
            let Failure { id, error, .. } = failure;
            let id = id.as_deref().map(truncate_for_display);
            self.push(FailedItem { index, object, number, id, code: error.kind.code(), message: error.message });
        }
    }

    fn push(&mut self, failed: FailedItem) {
        self.failures += 1;
        if self.failed.len() < MAX_FAILURES {
            self.failed.push(failed);
        }
    }
}

/// Only the code is logged: the message may quote a document.
fn log_failure(error: &Error) {
    tracing::warn!(code = error.kind.code(), "message or object failed");
}

fn log_retry(error: &Error) {
    tracing::warn!(code = error.kind.code(), "message or object will be retried");
}

fn to_json(response: &impl Serialize) -> Result<Box<RawValue>> {
    to_raw_value(response).map_err(|e| Error::internal(format!("the response cannot be serialized: {e}")))
}
