//! Events that bring work, and what is answered: which messages failed, or what became of everything.

use super::records::{Message, Records, Task};
use super::{distributed_map, records};
use crate::engine::Engine;
use crate::pipeline::ingest::{Extent, Failure, Ingest, MOST_KEPT, Notice, Report, Run, Stop};
use crate::pipeline::input::{Document, Entry};
use crate::pipeline::sink::{Source, Target};
use crate::telemetry::log;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::time::Instant;
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// What brings work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bringer {
    /// `Records` of SQS, S3 or SNS.
    Records,
    /// EventBridge.
    Bridge,
    /// A distributed map of Step Functions.
    Map,
}

/// Works on what one event brings.
#[derive(Debug)]
pub struct Worker<'a> {
    ingest: Ingest<'a>,
    target: &'a Target,
    deadline: Deadline,
    begun: Instant,
}

/// A document with the place that its failures are told by.
struct Placed {
    at: usize,
    document: Result<Document>,
}

impl Placed {
    fn bytes(&self) -> usize {
        self.document.as_ref().map_or(0, |document| document.text.len())
    }
}

/// Documents that are written under one name.
struct Lot {
    name: String,
    extent: Extent,
    documents: Vec<Placed>,
}

/// Tasks with their places as documents and objects.
fn parted(tasks: impl Iterator<Item = (usize, Task)>) -> (Vec<Placed>, Vec<(usize, Notice)>) {
    let (mut documents, mut objects) = (vec![], vec![]);
    for (at, task) in tasks {
        match task {
            Task::Document(document) => documents.push(Placed { at, document }),
            Task::Object(notice) => objects.push((at, notice)),
        }
    }
    (documents, objects)
}

/// What becomes of the parts of an event.
#[derive(Default)]
struct Outcome {
    reply: Reply,
    /// Places at which something failed for good, or cannot be told.
    failed: HashSet<usize>,
    /// What may succeed another time, and where it is.
    later: Vec<(usize, Error)>,
}

#[derive(Default, Serialize)]
struct Reply {
    documents: usize,
    points: usize,
    /// How many there are, all of them.
    failures: usize,
    failed: Vec<Failed>,
}

#[derive(Serialize)]
struct Failed {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<String>,
    /// The line or row of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    code: &'static str,
    message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueReply {
    batch_item_failures: Vec<ItemFailure>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ItemFailure {
    item_identifier: String,
}

impl<'a> Worker<'a> {
    /// Of an engine and where points go.
    pub fn new(engine: &'a Engine, target: &'a Target, deadline: Deadline) -> Self {
        log::take_loading();
        Self { ingest: Ingest::configured(engine), target, deadline, begun: Instant::now() }
    }

    /// Does what an event asks for, and gives the reply.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedEvent`]; and what may succeed another time, where the sender would not hear of it otherwise.
    pub fn work(&self, bringer: Bringer, payload: &str) -> Result<Box<RawValue>> {
        let name = format!("{:x}", Sha256::digest(payload));
        match bringer {
            Bringer::Records => match records::parse(payload)? {
                Records::Queue { messages, is_fifo } => json(&self.queue(messages, is_fifo, &name)),
                Records::Events(tasks) => self.whole(tasks.into_iter().map(Some).collect(), &name),
            },
            Bringer::Bridge => self.whole(records::bridged(payload)?.into_iter().map(Some).collect(), &name),
            Bringer::Map => self.whole(distributed_map::parse(payload)?, &name),
        }
    }

    /// An event that is done as a whole or fails as a whole; what can never succeed is told in the reply.
    fn whole(&self, tasks: Vec<Option<Task>>, name: &str) -> Result<Box<RawValue>> {
        let placed = tasks.into_iter().enumerate().filter_map(|(at, task)| Some((at, task?)));
        let (documents, objects) = parted(placed);
        let outcome = self.all(vec![Lot { name: name.into(), extent: Extent::Whole, documents }], objects);
        let Some((_, first)) = outcome.later.first() else { return json(&outcome.reply) };
        Err(match outcome.later.len() {
            1 => first.clone(),
            several => first.clone().with_context(format_args!("{several} failures, of which the first")),
        })
    }

    /// Messages of a queue.
    fn queue(&self, messages: Vec<Message>, is_fifo: bool, name: &str) -> QueueReply {
        let ids: Vec<_> = messages.iter().map(|message| message.id.clone()).collect();
        let failed = match is_fifo {
            true => self.in_order(messages),
            false => self.together(messages, name),
        };
        let failures = ids.into_iter().enumerate().filter(|(at, _)| failed.contains(at));
        QueueReply { batch_item_failures: failures.map(|(_, id)| ItemFailure { item_identifier: id }).collect() }
    }

    /// Messages one after the other. Once one of a group has failed, the others of it must wait for it.
    fn in_order(&self, messages: Vec<Message>) -> HashSet<usize> {
        let (mut failed, mut groups) = (HashSet::new(), HashSet::new());
        for (at, message) in messages.into_iter().enumerate() {
            let group = message.group.clone();
            if groups.contains(&group) || !self.alone(message) {
                failed.insert(at);
                groups.insert(group);
            }
        }
        failed
    }

    /// One message; whether all of it is done.
    fn alone(&self, message: Message) -> bool {
        match message.tasks {
            Ok(tasks) => {
                let (documents, objects) = parted(tasks.into_iter().map(|task| (0, task)));
                let outcome = self.all(vec![Lot { name: message.id, extent: Extent::Whole, documents }], objects);
                outcome.failed.is_empty() && outcome.later.is_empty()
            }
            Err(error) => {
                refused(&error);
                false
            }
        }
    }

    /// Messages in any order.
    fn together(&self, messages: Vec<Message>, name: &str) -> HashSet<usize> {
        let (mut lots, mut objects, mut failed) = (vec![], vec![], HashSet::new());
        for (at, message) in messages.into_iter().enumerate() {
            match message.tasks {
                Ok(tasks) => {
                    let (documents, found) = parted(tasks.into_iter().map(|task| (at, task)));
                    lots.push(Lot { name: message.id, extent: Extent::Whole, documents });
                    objects.extend(found);
                }
                Err(error) => {
                    refused(&error);
                    failed.insert(at);
                }
            }
        }
        // An object that is written is named by its message, so that the same message brings the same object.
        if !self.target.is_by_source() {
            let mut documents: Vec<_> = lots.into_iter().flat_map(|lot| lot.documents).collect();
            documents.sort_by_key(Placed::bytes);
            lots = vec![Lot { name: name.into(), extent: Extent::Part, documents }];
        }
        lots.sort_by_key(|lot| lot.documents.iter().map(Placed::bytes).sum::<usize>());
        let outcome = self.all(lots, objects);
        failed.extend(outcome.failed);
        failed.extend(outcome.later.into_iter().map(|(at, _)| at));
        failed
    }

    /// Documents first, then objects from the smallest on, so that one that is too large takes no time from the others.
    fn all(&self, lots: Vec<Lot>, mut objects: Vec<(usize, Notice)>) -> Outcome {
        let mut outcome = Outcome::default();
        for lot in lots.into_iter().filter(|lot| !lot.documents.is_empty()) {
            self.documents(lot, &mut outcome);
        }
        objects.sort_by_key(|(_, notice)| notice.size);
        for (at, notice) in objects {
            self.object(at, &notice, &mut outcome);
        }
        let Reply { documents, points, failures, .. } = outcome.reply;
        let (later, total) = (outcome.later.len(), self.begun.elapsed());
        let (engine, loading) = (self.ingest.engine, log::take_loading());
        let (model, isa, threads) = (engine.registry.default_name(), engine.cpu.isa.as_str(), engine.cpu.threads());
        log::IngestSummary { model: &model, documents, points, failures, later, total, loading, isa, threads }.write();
        outcome
    }

    fn documents(&self, Lot { name, extent, documents }: Lot, outcome: &mut Outcome) {
        let places: Vec<_> = documents.iter().map(|placed| placed.at).collect();
        let entry = |(position, placed): (usize, Placed)| Ok(Entry { number: position + 1, document: placed.document });
        let stream = Box::new(documents.into_iter().enumerate().map(entry));
        let run = match self.target.open(&Source::Documents(name), self.deadline) {
            Ok(sink) => self.ingest.run(sink, stream, extent, self.deadline),
            Err(error) => Run { report: Report::default(), settled: 0, stop: Some(Stop::Later(error)) },
        };
        let place = |number: usize| number.checked_sub(1).and_then(|position| places.get(position).copied());
        outcome.failed.extend(run.report.failed.iter().filter_map(|number| place(*number)));
        if let Some(stop) = run.stop {
            delayed(stop.error());
            outcome.later.extend(places.iter().skip(run.settled).map(|at| (*at, stop.error().clone())));
        }
        outcome.reply.add(run.report, |failure| (place(failure.number).unwrap_or_default(), None, None));
    }

    fn object(&self, at: usize, notice: &Notice, outcome: &mut Outcome) {
        let name = format!("s3://{}/{}", notice.bucket, notice.key);
        match self.ingest.object(self.target, notice, self.deadline) {
            // What is wrong with one of its documents fails no message, or all of them would be done again and again.
            Ok(report) => {
                let number = |failure: &Failure| (failure.number > 0).then_some(failure.number);
                outcome.reply.add(report, |failure| (at, Some(name.clone()), number(failure)));
            }
            Err(Stop::Later(error)) => {
                delayed(&error);
                outcome.later.push((at, error));
            }
            Err(Stop::Poison(error)) => {
                refused(&error);
                outcome.failed.insert(at);
                let (code, message) = (error.kind.code(), error.message);
                outcome.reply.fail(Failed { index: at, object: Some(name), number: None, id: None, code, message });
            }
        }
    }
}

impl Reply {
    /// Adds a report, whose failures are at the index, of the object and with the number that `place` says.
    fn add(&mut self, report: Report, place: impl Fn(&Failure) -> (usize, Option<String>, Option<usize>)) {
        self.documents += report.documents;
        self.points += report.points;
        // Those whose words were not kept.
        self.failures += report.failed.len() - report.failures.len();
        for failure in report.failures {
            let (index, object, number) = place(&failure);
            let Failure { id, error, .. } = failure;
            let id = id.as_deref().map(truncate_for_display);
            self.fail(Failed { index, object, number, id, code: error.kind.code(), message: error.message });
        }
    }

    fn fail(&mut self, failed: Failed) {
        self.failures += 1;
        if self.failed.len() < MOST_KEPT {
            self.failed.push(failed);
        }
    }
}

/// What an error says may be a document's own words.
fn refused(error: &Error) {
    tracing::warn!(code = error.kind.code(), "message or object failed");
}

fn delayed(error: &Error) {
    tracing::warn!(code = error.kind.code(), "handed back");
}

fn json(reply: &impl Serialize) -> Result<Box<RawValue>> {
    to_raw_value(reply).map_err(|e| Error::new(ErrorKind::Internal, format!("a reply is not JSON: {e}")))
}
