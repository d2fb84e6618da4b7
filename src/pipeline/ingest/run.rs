//! One run: a stream of documents into a sink.

use super::report::{Failure, PointTracker, Report};
use super::time_budget::TimeBudget;
use crate::engine::{Engine, JobContext, LoadTimer};
use crate::pipeline::chunk::Chunking;
use crate::pipeline::embed::{DocumentEmbeddings, EmbedDocuments};
use crate::pipeline::input::{Document, DocumentIter, SourceDocument};
use crate::pipeline::point::Point;
use crate::pipeline::sink::Sink;
use crate::telemetry::trace::CurrentContext;
use std::iter::Peekable;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result};

/// Bytes of the texts of a batch: some forward passes, so that embedding and writing go on side by side.
const BATCH_BYTES: usize = 32 << 10;
/// Documents of a batch.
const BATCH_DOCUMENTS: usize = 256;
/// The field that the engine names where a text is at fault, and not what is asked of it.
const FIELD: &str = "documents";

/// How documents become points.
#[derive(Debug)]
pub struct Ingest<'a> {
    /// With the default model.
    pub engine: &'a Engine,
    /// How documents are cut.
    pub chunking: Chunking,
    /// How many values to keep of each vector; all where it is missing.
    pub dimensions: Option<usize>,
    /// The name of a prompt; as [`EmbedDocuments`] has it where it is missing.
    pub prompt: Option<&'a str>,
    /// Adds up the time that documents wait for models to be loaded.
    pub load_timer: LoadTimer,
}

impl<'a> Ingest<'a> {
    /// As the environment says.
    pub fn from_config(engine: &'a Engine) -> Self {
        Self {
            engine,
            chunking: Chunking { tokens: engine.config.chunk_tokens, overlap: engine.config.chunk_overlap },
            dimensions: None,
            prompt: None,
            load_timer: LoadTimer::default(),
        }
    }

    pub(super) fn jobs(&self, deadline: Deadline) -> JobContext<'_> {
        JobContext { engine: self.engine, deadline, load_timer: &self.load_timer }
    }
}

/// Whether a part of the documents is of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// All of them: a sink that shows nothing until it is finished is not finished otherwise.
    AllOrNothing,
    /// As many as there is time for; the sink is finished, and the rest is handed back.
    Partial,
}

/// Why a run ended before its documents did.
#[derive(Debug, Clone)]
pub enum Stop {
    /// The source is damaged: it would end there again.
    Permanent(Error),
    /// It may end otherwise another time.
    Retryable(Error),
}

impl Stop {
    /// What is said of it.
    pub fn error(&self) -> &Error {
        match self {
            Stop::Permanent(error) | Stop::Retryable(error) => error,
        }
    }

    /// An error of a source: some are the source's own for ever.
    pub(super) fn from_source_error(error: Error) -> Self {
        use ErrorKind::{BodyTooLarge, Empty, InvalidJson, InvalidType, InvalidValue, TooLong, UnsupportedMediaType};
        match error.kind {
            BodyTooLarge | Empty | InvalidJson | InvalidType | InvalidValue | UnsupportedMediaType | TooLong => {
                Stop::Permanent(error)
            }
            _ => Stop::Retryable(error),
        }
    }
}

/// What came of a stream of documents.
#[derive(Debug)]
pub struct Run {
    /// What became of those that were read.
    pub report: Report,
    /// Documents, from the first, about which there is nothing left to do.
    pub committed: usize,
    /// Why it ended before its documents did.
    pub stop: Option<Stop>,
}

impl Ingest<'_> {
    /// Embeds documents and writes their points.
    pub fn run(&self, sink: Box<dyn Sink>, documents: DocumentIter, commit: Commit, deadline: Deadline) -> Run {
        let (budget, tracker) = (TimeBudget::new(deadline), Mutex::default());
        let (sender, points) = sync_channel(1);
        let (read_result, written) = std::thread::scope(|scope| {
            let here = CurrentContext::current();
            let writer = scope.spawn(|| here.in_scope(|| write_points(sink, points, &budget, &tracker, deadline)));
            let read_result = self.embed(documents, WriteQueue { points: sender, budget: &budget, tracker: &tracker });
            let written = writer.join().unwrap_or_else(|_| Err(Error::internal("the sink's thread ended early")));
            (read_result, written)
        });
        let should_commit = read_result.stop.is_none() || commit == Commit::Partial;
        let finished = written.and_then(|mut sink| if should_commit { sink.finish(deadline) } else { Ok(vec![]) });
        let failed = finished.map(|refused| lock(&tracker).reject(refused)).err();
        let report = tracker.into_inner().unwrap_or_else(PoisonError::into_inner).report;
        match failed {
            // Which of its points a sink has that failed is not known.
            Some(error) => {
                let report = Report { documents: 0, points: 0, ..report };
                Run { report, committed: 0, stop: Some(Stop::Retryable(error)) }
            }
            None => Run { report, committed: if should_commit { read_result.read } else { 0 }, stop: read_result.stop },
        }
    }

    fn embed(&self, documents: DocumentIter, queue: WriteQueue) -> ReadResult {
        let later = |read, error| ReadResult { read, stop: Some(Stop::Retryable(error)) };
        let mut read = 0;
        // The time that loading takes is no batch's.
        if let Err(error) = self.jobs(Deadline::NONE).embedder(None) {
            return later(read, error);
        }
        let mut documents = documents.peekable();
        loop {
            let start = Instant::now();
            let Some(DocumentBatch { entries, bytes, end }) =
                DocumentBatch::read(&mut documents, queue.budget, read == 0)
            else {
                return later(read, out_of_time());
            };
            let count = entries.len();
            let given = self.embed_batch(entries, &queue).and_then(|points| {
                queue.budget.record_embed(bytes, start.elapsed());
                queue.send(points)
            });
            if let Err(error) = given {
                return later(read, error);
            }
            read += count;
            match end {
                None => {}
                Some(Ok(())) => return ReadResult { read, stop: None },
                Some(Err(error)) => return ReadResult { read, stop: Some(Stop::from_source_error(error)) },
            }
        }
    }

    /// The points of a batch; documents that have none are failures.
    fn embed_batch(&self, batch: Vec<SourceDocument>, queue: &WriteQueue) -> Result<Vec<Point>> {
        let (mut numbers, mut documents, mut failures) = (vec![], vec![], vec![]);
        for SourceDocument { number, document } in batch {
            match document {
                Ok(document) => {
                    numbers.push(number);
                    documents.push(document);
                }
                Err(error) => failures.push(Failure { number, id: None, error }),
            }
        }
        let made = self.embed_documents(&documents, queue.budget.embed_deadline())?;
        let mut points = vec![];
        let mut tracker = lock(queue.tracker);
        for ((number, document), made) in numbers.into_iter().zip(&documents).zip(made) {
            let id = document.id_or_hash().ok();
            match made {
                Ok(made) => {
                    tracker.add(number, id.unwrap_or_default(), made.len());
                    points.extend(made);
                }
                Err(error) => failures.push(Failure { number, id, error }),
            }
        }
        failures.into_iter().for_each(|failure| tracker.report.add_failure(failure));
        Ok(points)
    }

    /// The points of each document. One that fails all of them is found, and fails alone.
    fn embed_documents(&self, documents: &[Document], deadline: Deadline) -> Result<Vec<Result<Vec<Point>>>> {
        if documents.is_empty() {
            return Ok(vec![]);
        }
        let job = EmbedDocuments {
            model: None,
            documents: documents.to_vec(),
            chunking: self.chunking,
            dimensions: self.dimensions,
            prompt: self.prompt.map(String::from),
        };
        let run = catch_unwind(AssertUnwindSafe(|| self.jobs(deadline).run(job)));
        let error = match run.unwrap_or_else(|_| Err(Error::internal("the model failed").with_param(FIELD))) {
            Ok(DocumentEmbeddings { points, .. }) => return Ok(points),
            Err(error) if error.param.as_deref() == Some(FIELD) => error,
            Err(error) => return Err(error),
        };
        match documents {
            [_] => Ok(vec![Err(error)]),
            _ => documents
                .iter()
                .map(|one| Ok(self.embed_documents(std::slice::from_ref(one), deadline)?.remove(0)))
                .collect(),
        }
    }
}

/// How reading ended.
struct ReadResult {
    /// Documents whose points were handed on, or that have none.
    read: usize,
    stop: Option<Stop>,
}

/// What embedding has in common with writing.
struct WriteQueue<'a> {
    points: SyncSender<Vec<Point>>,
    budget: &'a TimeBudget,
    tracker: &'a Mutex<PointTracker>,
}

impl WriteQueue<'_> {
    fn send(&self, points: Vec<Point>) -> Result<()> {
        match points.is_empty() {
            true => Ok(()),
            // What the sink has died of is said when its thread is joined.
            false => self.points.send(points).map_err(|_| Error::internal("the sink has ended")),
        }
    }
}

/// Documents that are embedded together.
struct DocumentBatch {
    entries: Vec<SourceDocument>,
    /// Of their texts.
    bytes: usize,
    /// How the stream has ended, if it has.
    end: Option<Result<()>>,
}

impl DocumentBatch {
    /// The next documents for which there is time; none if there is none.
    fn read(documents: &mut Peekable<DocumentIter>, budget: &TimeBudget, is_first: bool) -> Option<Self> {
        let room = budget.budget_bytes().min(BATCH_BYTES);
        let mut batch = Self { entries: vec![], bytes: 0, end: None };
        while batch.bytes < BATCH_BYTES && batch.entries.len() < BATCH_DOCUMENTS {
            let bytes = match documents.peek() {
                Some(Ok(entry)) => entry.document.as_ref().map_or(0, |document| document.text.len()),
                _ => 0,
            };
            let fits =
                batch.bytes + bytes <= room || (batch.entries.is_empty() && Self::fits_alone(bytes, budget, is_first));
            if !fits {
                return (!batch.entries.is_empty()).then_some(batch);
            }
            batch.bytes += bytes;
            match documents.next() {
                Some(Ok(entry)) => batch.entries.push(entry),
                Some(Err(error)) => batch.end = Some(Err(error)),
                None => batch.end = Some(Ok(())),
            }
            if batch.end.is_some() {
                break;
            }
        }
        Some(batch)
    }

    /// Whether a text that is longer than a batch, or than there is time for, is tried.
    fn fits_alone(bytes: usize, budget: &TimeBudget, is_first: bool) -> bool {
        let room = budget.budget_bytes();
        bytes <= room || (is_first && budget.allows(bytes))
    }
}

/// Writes what comes, until nothing more does.
fn write_points(
    mut sink: Box<dyn Sink>,
    batches: Receiver<Vec<Point>>,
    budget: &TimeBudget,
    tracker: &Mutex<PointTracker>,
    deadline: Deadline,
) -> Result<Box<dyn Sink>> {
    for points in batches {
        let start = Instant::now();
        let refused = sink.write(&points, deadline)?;
        budget.record_write(start.elapsed());
        lock(tracker).reject(refused);
    }
    Ok(sink)
}

fn out_of_time() -> Error {
    let message = "the time for this invocation ran out: raise the function's timeout, or send less at a time";
    Error::new(ErrorKind::Timeout, message)
}

fn lock(tracker: &Mutex<PointTracker>) -> MutexGuard<'_, PointTracker> {
    tracker.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::pipeline::input::read_json_lines;
    use std::sync::Arc;
    use std::time::Duration;

    /// Keeps what it is given once it is finished.
    #[derive(Clone, Default)]
    struct MockSink {
        kept: Arc<Mutex<Vec<(String, usize)>>>,
        open: Vec<(String, usize)>,
        given: usize,
        pause: Duration,
        fails_at: Option<usize>,
        refuses: Vec<usize>,
    }

    impl Sink for MockSink {
        fn write(&mut self, points: &[Point], _: Deadline) -> Result<Vec<(usize, Error)>> {
            std::thread::sleep(self.pause);
            if self.fails_at.is_some_and(|at| self.given + points.len() > at) {
                return Err(Error::new(ErrorKind::Upstream, "full"));
            }
            let first = self.given;
            self.given += points.len();
            let (refused, kept): (Vec<_>, Vec<_>) =
                points.iter().enumerate().partition(|(i, _)| self.refuses.contains(&(first + i)));
            self.open.extend(kept.into_iter().map(|(_, p)| (p.source.document_id.clone(), p.chunk_index)));
            Ok(refused.into_iter().map(|(i, _)| (first + i, Error::new(ErrorKind::InvalidValue, "no"))).collect())
        }

        fn finish(&mut self, _: Deadline) -> Result<Vec<(usize, Error)>> {
            self.kept.lock().unwrap().append(&mut self.open);
            Ok(vec![])
        }
    }

    fn engine() -> Engine {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models/tiny-st-old");
        Engine::new(Config { model: model.into(), ..Config::from_lookup(|_| None).unwrap() }).unwrap()
    }

    fn run(sink: &MockSink, text: &str, commit: Commit, deadline: Deadline) -> (Run, Vec<String>) {
        let engine = engine();
        let ingest = Ingest { chunking: Chunking::default(), ..Ingest::from_config(&engine) };
        let run = ingest.run(Box::new(sink.clone()), read_json_lines(text.as_bytes()), commit, deadline);
        let kept = sink.kept.lock().unwrap().iter().map(|(id, _)| id.clone()).collect();
        (run, kept)
    }

    fn many(count: usize) -> String {
        (0..count).map(|i| format!("{{\"id\": {i}, \"text\": \"number {i}\"}}\n")).collect()
    }

    #[test]
    fn what_is_wrong_with_a_document_is_its_own_failure() {
        let text = "{\"id\": \"a\", \"text\": \"one\"}\nnot JSON\n{\"id\": \"b\", \"text\": \"two\", \"metadata\": {\"text\": 1}}\n\
            {\"id\": \"c\", \"text\": \"three\"}\n{\"id\": \"d\", \"text\": \"four\"}\n";
        let (run, kept) =
            run(&MockSink { refuses: vec![1], ..MockSink::default() }, text, Commit::AllOrNothing, Deadline::NONE);
        assert_eq!(kept, ["a", "d"]);
        assert!(run.stop.is_none());
        let Report { documents, points, failed, failures } = run.report;
        assert_eq!((documents, points, run.committed), (2, 2, 5));
        assert_eq!(failed.into_iter().collect::<Vec<_>>(), [2, 3, 4]);
        let ids: Vec<_> = failures.iter().map(|f| f.id.as_deref()).collect();
        assert_eq!(ids, [None, Some("b"), Some("c")]);
    }

    #[test]
    fn order_is_kept_over_many_groups() {
        let (run, kept) = run(&MockSink::default(), &many(1000), Commit::AllOrNothing, Deadline::NONE);
        assert_eq!((run.committed, run.report.points), (1000, 1000));
        assert!(kept.iter().enumerate().all(|(i, id)| *id == i.to_string()));
    }

    #[test]
    fn what_is_settled_is_written_and_the_rest_is_handed_back() {
        let sink = MockSink { pause: Duration::from_millis(200), ..MockSink::default() };
        let deadline = Instant::now() + Duration::from_secs(3);
        let (run, kept) = run(&sink, &many(20_000), Commit::Partial, Deadline(Some(deadline)));
        assert!(Instant::now() < deadline);
        assert_eq!(run.stop.unwrap().error().kind, ErrorKind::Timeout);
        assert!(run.committed > 0 && run.committed < 20_000, "{}", run.committed);
        assert_eq!(kept.len(), run.committed);
    }

    #[test]
    fn a_part_of_a_whole_is_not_shown() {
        let deadline = Deadline(Some(Instant::now()));
        let (run, kept) = run(&MockSink::default(), &many(10), Commit::AllOrNothing, deadline);
        assert_eq!((kept.len(), run.committed, run.stop.unwrap().error().kind), (0, 0, ErrorKind::Timeout));
    }

    #[test]
    fn a_sink_that_fails_settles_nothing() {
        for commit in [Commit::AllOrNothing, Commit::Partial] {
            let sink = MockSink { fails_at: Some(600), ..MockSink::default() };
            let (run, kept) = run(&sink, &many(2000), commit, Deadline::NONE);
            assert!(matches!(run.stop, Some(Stop::Retryable(error)) if error.kind == ErrorKind::Upstream));
            assert_eq!((run.committed, kept.len()), (0, 0));
        }
    }

    #[test]
    fn a_source_that_is_damaged_is_told_from_one_that_fails() {
        let engine = engine();
        let ingest = Ingest { chunking: Chunking::default(), ..Ingest::from_config(&engine) };
        for (kind, is_permanent) in
            [(ErrorKind::InvalidType, true), (ErrorKind::Upstream, false), (ErrorKind::Io, false)]
        {
            let sink = MockSink::default();
            let stream = read_json_lines(&b"{\"text\": \"a\"}"[..]).chain([Err(Error::new(kind, "x"))]);
            let run = ingest.run(Box::new(sink.clone()), Box::new(stream), Commit::AllOrNothing, Deadline::NONE);
            assert_eq!(matches!(run.stop, Some(Stop::Permanent(_))), is_permanent, "{kind:?}");
            assert!(sink.kept.lock().unwrap().is_empty());
        }
    }

    #[test]
    fn a_wrong_setting_is_no_documents_fault() {
        let engine = engine();
        let ingest =
            Ingest { chunking: Chunking { tokens: Some(100_000), overlap: 0 }, ..Ingest::from_config(&engine) };
        let run = ingest.run(
            Box::new(MockSink::default()),
            read_json_lines(&b"{\"text\": \"a\"}"[..]),
            Commit::AllOrNothing,
            Deadline::NONE,
        );
        assert!(run.report.failed.is_empty());
        assert!(matches!(run.stop, Some(Stop::Retryable(error)) if error.message.contains("100000")));
    }
}
