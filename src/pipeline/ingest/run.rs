//! One run: embeds the documents of an iterator in one thread while another thread writes their points to a sink.

use super::batch::DocumentBatch;
use super::outcome::{Commit, IngestResult, Stop};
use super::report::{Failure, PointTracker, Report};
use super::time_budget::TimeBudget;
use crate::engine::{Engine, JobContext, LoadTimer};
use crate::pipeline::chunk::Chunking;
use crate::pipeline::document::Document;
use crate::pipeline::embed::EmbedDocuments;
use crate::pipeline::input::{DocumentIter, NumberedDocument};
use crate::pipeline::point::Point;
use crate::pipeline::sink::Sink;
use crate::telemetry::trace::ThreadScope;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tealight_core::{Deadline, Error, ErrorKind, Result};

/// Embeds documents with the default model and writes their points to a sink.
#[derive(Debug)]
pub struct Ingest<'a> {
    /// Provides the default model.
    pub engine: &'a Engine,
    /// Size and overlap of chunks.
    pub chunking: Chunking,
    /// Number of values to keep of each embedding; default: all.
    pub dimensions: Option<usize>,
    /// Name of the prompt; the default is that of [`EmbedDocuments`].
    pub prompt: Option<&'a str>,
    /// Sums the time that documents wait for a model to load.
    pub load_timer: LoadTimer,
}

impl<'a> Ingest<'a> {
    /// Ingests with the chunking of the configuration and the defaults of the model.
    pub fn from_config(engine: &'a Engine) -> Self {
        Self {
            engine,
            chunking: Chunking { tokens: engine.config.chunk_tokens, overlap: engine.config.chunk_overlap },
            dimensions: None,
            prompt: None,
            load_timer: LoadTimer::default(),
        }
    }

    pub(super) fn job_context(&self, deadline: Deadline) -> JobContext<'_> {
        JobContext { engine: self.engine, deadline, load_timer: &self.load_timer }
    }
}

/// Progress of reading and embedding.
struct EmbedProgress {
    /// Documents that have failed, or whose points were sent to the writer.
    documents: usize,
    stop: Option<Stop>,
}

/// The embedding thread's side of the channel to the writer.
struct WriteQueue<'a> {
    points: SyncSender<Vec<Point>>,
    budget: &'a TimeBudget,
    tracker: &'a Mutex<PointTracker>,
}

impl WriteQueue<'_> {
    fn send(&self, points: Vec<Point>) -> Result<()> {
        if points.is_empty() {
            return Ok(());
        }
        // The error of the sink itself is reported when its thread is joined.
        self.points.send(points).map_err(|_| Error::internal("the sink has stopped"))
    }
}

/// Why a batch could not be embedded.
enum BatchError {
    /// The document with this index cannot be embedded.
    Document(usize, Error),
    /// The model panicked; which document caused it is unknown.
    Panic,
    /// An error that affects all documents.
    Other(Error),
}

impl Ingest<'_> {
    /// Embeds documents and writes their points.
    pub fn run(
        &self,
        sink: Box<dyn Sink>,
        documents: DocumentIter,
        commit: Commit,
        deadline: Deadline,
    ) -> IngestResult {
        let (budget, tracker) = (TimeBudget::new(deadline), Mutex::default());
        // One batch waits while another is written.
        let (sender, points) = sync_channel(1);
        let (progress, written) = std::thread::scope(|scope| {
            let trace = ThreadScope::capture();
            let writer = scope.spawn(|| trace.enter(|| write_points(sink, points, &budget, &tracker, deadline)));
            let progress = self.embed(documents, WriteQueue { points: sender, budget: &budget, tracker: &tracker });
            let written = writer.join().unwrap_or_else(|_| Err(Error::internal("the thread of the sink panicked")));
            (progress, written)
        });
        let should_commit = progress.stop.is_none() || commit == Commit::Partial;
        let finished = written.and_then(|mut sink| if should_commit { sink.finish(deadline) } else { Ok(vec![]) });
        let sink_error = finished.map(|rejected| lock(&tracker).reject(rejected)).err();
        let report = tracker.into_inner().unwrap_or_else(PoisonError::into_inner).report;
        match sink_error {
            // It is unknown which points a failed sink has stored.
            Some(error) => IngestResult {
                report: Report { documents: 0, points: 0, ..report },
                committed: 0,
                stop: Some(Stop::Retryable(error)),
            },
            None => IngestResult {
                report,
                committed: if should_commit { progress.documents } else { 0 },
                stop: progress.stop,
            },
        }
    }

    fn embed(&self, documents: DocumentIter, queue: WriteQueue) -> EmbedProgress {
        // Retryable even if the configuration is invalid, so that messages are kept until an operator has corrected it.
        let stopped = |documents, error| EmbedProgress { documents, stop: Some(Stop::Retryable(error)) };
        let mut count = 0;
        // Load the model first, so that the time of the first batch does not include it.
        if let Err(error) = self.job_context(Deadline::NONE).embedder(None) {
            return stopped(count, error);
        }
        let mut documents = documents.peekable();
        loop {
            let start = Instant::now();
            let Some(batch) = DocumentBatch::read(&mut documents, queue.budget, count == 0) else {
                return stopped(count, out_of_time());
            };
            let batch_len = batch.documents.len();
            let sent = self.embed_batch(batch.documents, &queue).and_then(|points| {
                queue.budget.record_embed(batch.bytes, start.elapsed());
                queue.send(points)
            });
            if let Err(error) = sent {
                return stopped(count, error);
            }
            count += batch_len;
            match batch.end {
                None => {}
                Some(Ok(())) => return EmbedProgress { documents: count, stop: None },
                Some(Err(error)) => {
                    return EmbedProgress { documents: count, stop: Some(Stop::from_source_error(error)) };
                }
            }
        }
    }

    /// The points of a batch. Documents that fail are added to the report.
    fn embed_batch(&self, documents: Vec<NumberedDocument>, queue: &WriteQueue) -> Result<Vec<Point>> {
        let (mut numbers, mut valid, mut failures) = (vec![], vec![], vec![]);
        for NumberedDocument { number, document } in documents {
            match document {
                Ok(document) => {
                    numbers.push(number);
                    valid.push(document);
                }
                Err(error) => failures.push(Failure { number, id: None, error }),
            }
        }
        let embedded = self.embed_documents(&valid, queue.budget.embed_deadline())?;
        let mut points = vec![];
        let mut tracker = lock(queue.tracker);
        for ((number, document), embedded) in numbers.into_iter().zip(&valid).zip(embedded) {
            let id = document.id_or_hash().ok();
            match embedded {
                Ok(document_points) => {
                    tracker.add(number, id.unwrap_or_default(), document_points.len());
                    points.extend(document_points);
                }
                Err(error) => failures.push(Failure { number, id, error }),
            }
        }
        failures.into_iter().for_each(|failure| tracker.report.add_failure(failure));
        Ok(points)
    }

    /// The points of each document. A document that makes its batch fail gets the error; the others are embedded without it.
    fn embed_documents(&self, documents: &[Document], deadline: Deadline) -> Result<Vec<Result<Vec<Point>>>> {
        match (self.try_embed(documents, deadline), documents) {
            (Ok(points), _) => Ok(points),
            (Err(BatchError::Other(error)), _) => Err(error),
            (Err(BatchError::Document(index, error)), _) => {
                let mut points = self.embed_documents(&documents[..index], deadline)?;
                points.push(Err(error));
                points.extend(self.embed_documents(&documents[index + 1..], deadline)?);
                Ok(points)
            }
            (Err(BatchError::Panic), [_]) => Ok(vec![Err(Error::internal("the model failed"))]),
            (Err(BatchError::Panic), _) => {
                let mut points = vec![];
                for document in documents {
                    points.extend(self.embed_documents(std::slice::from_ref(document), deadline)?);
                }
                Ok(points)
            }
        }
    }

    fn try_embed(&self, documents: &[Document], deadline: Deadline) -> Result<Vec<Result<Vec<Point>>>, BatchError> {
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
        let result =
            catch_unwind(AssertUnwindSafe(|| self.job_context(deadline).run(job))).map_err(|_| BatchError::Panic)?;
        match result {
            Ok(embedded) => Ok(embedded.points),
            Err(error) => Err(match error.input_index {
                Some(index) if index < documents.len() => BatchError::Document(index, error),
                _ => BatchError::Other(error),
            }),
        }
    }
}

/// Writes batches of points until the embedding thread closes the channel, and returns the sink, which is not finished yet.
fn write_points(
    mut sink: Box<dyn Sink>,
    batches: Receiver<Vec<Point>>,
    budget: &TimeBudget,
    tracker: &Mutex<PointTracker>,
    deadline: Deadline,
) -> Result<Box<dyn Sink>> {
    for points in batches {
        let start = Instant::now();
        let rejected = sink.write(&points, deadline)?;
        budget.record_write(start.elapsed());
        lock(tracker).reject(rejected);
    }
    Ok(sink)
}

fn out_of_time() -> Error {
    Error::new(ErrorKind::Timeout, "deadline exceeded; raise the function's timeout, or send fewer documents at a time")
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

    /// Makes the points visible in `committed` when it is finished.
    #[derive(Clone, Default)]
    struct MockSink {
        committed: Arc<Mutex<Vec<(String, usize)>>>,
        pending: Vec<(String, usize)>,
        received: usize,
        delay: Duration,
        fails_at: Option<usize>,
        rejects: Vec<usize>,
    }

    impl Sink for MockSink {
        fn write(&mut self, points: &[Point], _: Deadline) -> Result<Vec<(usize, Error)>> {
            std::thread::sleep(self.delay);
            if self.fails_at.is_some_and(|at| self.received + points.len() > at) {
                return Err(Error::new(ErrorKind::Upstream, "full"));
            }
            let first = self.received;
            self.received += points.len();
            let (rejected, accepted): (Vec<_>, Vec<_>) =
                points.iter().enumerate().partition(|(i, _)| self.rejects.contains(&(first + i)));
            self.pending.extend(accepted.into_iter().map(|(_, p)| (p.document.document_id.clone(), p.chunk_index)));
            Ok(rejected.into_iter().map(|(i, _)| (first + i, Error::new(ErrorKind::InvalidValue, "no"))).collect())
        }

        fn finish(&mut self, _: Deadline) -> Result<Vec<(usize, Error)>> {
            self.committed.lock().unwrap().append(&mut self.pending);
            Ok(vec![])
        }
    }

    fn engine() -> Engine {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models/tiny-st-old");
        Engine::new(Config { model: model.into(), ..Config::from_lookup(|_| None).unwrap() }).unwrap()
    }

    fn run(sink: &MockSink, text: &str, commit: Commit, deadline: Deadline) -> (IngestResult, Vec<String>) {
        let engine = engine();
        let ingest = Ingest { chunking: Chunking::default(), ..Ingest::from_config(&engine) };
        let run = ingest.run(Box::new(sink.clone()), read_json_lines(text.as_bytes()), commit, deadline);
        let committed = sink.committed.lock().unwrap().iter().map(|(id, _)| id.clone()).collect();
        (run, committed)
    }

    fn many(count: usize) -> String {
        (0..count).map(|i| format!("{{\"id\": {i}, \"text\": \"number {i}\"}}\n")).collect()
    }

    #[test]
    fn invalid_document_fails_alone() {
        let text = "{\"id\": \"a\", \"text\": \"one\"}\nnot JSON\n{\"id\": \"b\", \"text\": \"two\", \"metadata\": {\"text\": 1}}\n\
            {\"id\": \"c\", \"text\": \"three\"}\n{\"id\": \"d\", \"text\": \"four\"}\n";
        let (run, kept) =
            run(&MockSink { rejects: vec![1], ..MockSink::default() }, text, Commit::AllOrNothing, Deadline::NONE);
        assert_eq!(kept, ["a", "d"]);
        assert!(run.stop.is_none());
        let Report { documents, points, failed_numbers, first_failures } = run.report;
        assert_eq!((documents, points, run.committed), (2, 2, 5));
        assert_eq!(failed_numbers.into_iter().collect::<Vec<_>>(), [2, 3, 4]);
        let ids: Vec<_> = first_failures.iter().map(|f| f.id.as_deref()).collect();
        assert_eq!(ids, [None, Some("b"), Some("c")]);
    }

    #[test]
    fn points_are_written_in_order() {
        let (run, kept) = run(&MockSink::default(), &many(1000), Commit::AllOrNothing, Deadline::NONE);
        assert_eq!((run.committed, run.report.points), (1000, 1000));
        assert!(kept.iter().enumerate().all(|(i, id)| *id == i.to_string()));
    }

    #[test]
    fn partial_commit_writes_what_fits_before_deadline() {
        let sink = MockSink { delay: Duration::from_millis(200), ..MockSink::default() };
        let deadline = Instant::now() + Duration::from_secs(3);
        let (run, kept) = run(&sink, &many(20_000), Commit::Partial, Deadline(Some(deadline)));
        assert!(Instant::now() < deadline);
        assert_eq!(run.stop.unwrap().error().kind, ErrorKind::Timeout);
        assert!(run.committed > 0 && run.committed < 20_000, "{}", run.committed);
        assert_eq!(kept.len(), run.committed);
    }

    #[test]
    fn all_or_nothing_commits_nothing_after_deadline() {
        let deadline = Deadline(Some(Instant::now()));
        let (run, kept) = run(&MockSink::default(), &many(10), Commit::AllOrNothing, deadline);
        assert_eq!((kept.len(), run.committed, run.stop.unwrap().error().kind), (0, 0, ErrorKind::Timeout));
    }

    #[test]
    fn failing_sink_commits_nothing() {
        for commit in [Commit::AllOrNothing, Commit::Partial] {
            let sink = MockSink { fails_at: Some(600), ..MockSink::default() };
            let (run, kept) = run(&sink, &many(2000), commit, Deadline::NONE);
            assert!(matches!(run.stop, Some(Stop::Retryable(error)) if error.kind == ErrorKind::Upstream));
            assert_eq!((run.committed, kept.len()), (0, 0));
        }
    }

    #[test]
    fn invalid_source_is_permanent_and_read_error_is_retryable() {
        let engine = engine();
        let ingest = Ingest { chunking: Chunking::default(), ..Ingest::from_config(&engine) };
        for (kind, is_permanent) in
            [(ErrorKind::InvalidType, true), (ErrorKind::Upstream, false), (ErrorKind::Io, false)]
        {
            let sink = MockSink::default();
            let stream = read_json_lines(&b"{\"text\": \"a\"}"[..]).chain([Err(Error::new(kind, "x"))]);
            let run = ingest.run(Box::new(sink.clone()), Box::new(stream), Commit::AllOrNothing, Deadline::NONE);
            assert_eq!(matches!(run.stop, Some(Stop::Permanent(_))), is_permanent, "{kind:?}");
            assert!(sink.committed.lock().unwrap().is_empty());
        }
    }

    #[test]
    fn invalid_chunking_fails_run_and_no_document() {
        let engine = engine();
        let ingest =
            Ingest { chunking: Chunking { tokens: Some(100_000), overlap: 0 }, ..Ingest::from_config(&engine) };
        let run = ingest.run(
            Box::new(MockSink::default()),
            read_json_lines(&b"{\"text\": \"a\"}"[..]),
            Commit::AllOrNothing,
            Deadline::NONE,
        );
        assert!(run.report.failed_numbers.is_empty());
        assert!(matches!(run.stop, Some(Stop::Retryable(error)) if error.message.contains("100000")));
    }
}
