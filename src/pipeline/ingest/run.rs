//! One run: a stream of documents into a sink.

use super::report::{Failure, Ledger, Report};
use super::time_budget::Pace;
use crate::engine::{Engine, JobContext, LoadTimer};
use crate::pipeline::chunk::Chunking;
use crate::pipeline::embed::{EmbedDocuments, Embedded};
use crate::pipeline::input::{Document, Entry, Stream};
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

/// Bytes of the texts of a group: some forward passes, so that embedding and writing go on side by side.
const GROUP_BYTES: usize = 32 << 10;
/// Documents of a group.
const GROUP_DOCUMENTS: usize = 256;
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
    pub fn configured(engine: &'a Engine) -> Self {
        Self {
            engine,
            chunking: engine.config.chunking,
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
pub enum Extent {
    /// All of them: a sink that shows nothing until it is finished is not finished otherwise.
    Whole,
    /// As many as there is time for; the sink is finished, and the rest is handed back.
    Part,
}

/// Why a run ended before its documents did.
#[derive(Debug, Clone)]
pub enum Stop {
    /// The source is damaged: it would end there again.
    Poison(Error),
    /// It may end otherwise another time.
    Later(Error),
}

impl Stop {
    /// What is said of it.
    pub fn error(&self) -> &Error {
        match self {
            Stop::Poison(error) | Stop::Later(error) => error,
        }
    }

    /// An error of a source: some are the source's own for ever.
    pub(super) fn of_source(error: Error) -> Self {
        use ErrorKind::{BodyTooLarge, Empty, InvalidJson, InvalidType, InvalidValue, TooLong, UnsupportedMediaType};
        match error.kind {
            BodyTooLarge | Empty | InvalidJson | InvalidType | InvalidValue | UnsupportedMediaType | TooLong => {
                Stop::Poison(error)
            }
            _ => Stop::Later(error),
        }
    }
}

/// What came of a stream of documents.
#[derive(Debug)]
pub struct Run {
    /// What became of those that were read.
    pub report: Report,
    /// Documents, from the first, about which there is nothing left to do.
    pub settled: usize,
    /// Why it ended before its documents did.
    pub stop: Option<Stop>,
}

impl Ingest<'_> {
    /// Embeds documents and writes their points.
    pub fn run(&self, sink: Box<dyn Sink>, documents: Stream, extent: Extent, deadline: Deadline) -> Run {
        let (pace, ledger) = (Pace::new(deadline), Mutex::default());
        let (sender, points) = sync_channel(1);
        let (ended, written) = std::thread::scope(|scope| {
            let here = CurrentContext::current();
            let writer = scope.spawn(|| here.in_scope(|| write(sink, points, &pace, &ledger, deadline)));
            let ended = self.embed(documents, Belt { points: sender, pace: &pace, ledger: &ledger });
            let written = writer.join().unwrap_or_else(|_| Err(Error::internal("the sink's thread ended early")));
            (ended, written)
        });
        let is_of_use = ended.stop.is_none() || extent == Extent::Part;
        let finished = written.and_then(|mut sink| if is_of_use { sink.finish(deadline) } else { Ok(vec![]) });
        let failed = finished.map(|refused| lock(&ledger).refuse(refused)).err();
        let report = ledger.into_inner().unwrap_or_else(PoisonError::into_inner).report;
        match failed {
            // Which of its points a sink has that failed is not known.
            Some(error) => {
                let report = Report { documents: 0, points: 0, ..report };
                Run { report, settled: 0, stop: Some(Stop::Later(error)) }
            }
            None => Run { report, settled: if is_of_use { ended.read } else { 0 }, stop: ended.stop },
        }
    }

    fn embed(&self, documents: Stream, belt: Belt) -> Ended {
        let later = |read, error| Ended { read, stop: Some(Stop::Later(error)) };
        let mut read = 0;
        // The time that loading takes is no group's.
        if let Err(error) = self.jobs(Deadline::NONE).embedder(None) {
            return later(read, error);
        }
        let mut documents = documents.peekable();
        loop {
            let start = Instant::now();
            let Some(Group { entries, bytes, end }) = Group::of(&mut documents, belt.pace, read == 0) else {
                return later(read, out_of_time());
            };
            let count = entries.len();
            let given = self.made(entries, &belt).and_then(|points| {
                belt.pace.embedded(bytes, start.elapsed());
                belt.give(points)
            });
            if let Err(error) = given {
                return later(read, error);
            }
            read += count;
            match end {
                None => {}
                Some(Ok(())) => return Ended { read, stop: None },
                Some(Err(error)) => return Ended { read, stop: Some(Stop::of_source(error)) },
            }
        }
    }

    /// The points of a group; documents that have none are failures.
    fn made(&self, group: Vec<Entry>, belt: &Belt) -> Result<Vec<Point>> {
        let (mut numbers, mut documents, mut failures) = (vec![], vec![], vec![]);
        for Entry { number, document } in group {
            match document {
                Ok(document) => {
                    numbers.push(number);
                    documents.push(document);
                }
                Err(error) => failures.push(Failure { number, id: None, error }),
            }
        }
        let made = self.points(&documents, belt.pace.embedding())?;
        let mut points = vec![];
        let mut ledger = lock(belt.ledger);
        for ((number, document), made) in numbers.into_iter().zip(&documents).zip(made) {
            let id = document.name().ok();
            match made {
                Ok(made) => {
                    ledger.give(number, id.unwrap_or_default(), made.len());
                    points.extend(made);
                }
                Err(error) => failures.push(Failure { number, id, error }),
            }
        }
        failures.into_iter().for_each(|failure| ledger.report.fail(failure));
        Ok(points)
    }

    /// The points of each document. One that fails all of them is found, and fails alone.
    fn points(&self, documents: &[Document], deadline: Deadline) -> Result<Vec<Result<Vec<Point>>>> {
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
            Ok(Embedded { points, .. }) => return Ok(points),
            Err(error) if error.param.as_deref() == Some(FIELD) => error,
            Err(error) => return Err(error),
        };
        match documents {
            [_] => Ok(vec![Err(error)]),
            _ => documents.iter().map(|one| Ok(self.points(std::slice::from_ref(one), deadline)?.remove(0))).collect(),
        }
    }
}

/// How reading ended.
struct Ended {
    /// Documents whose points were handed on, or that have none.
    read: usize,
    stop: Option<Stop>,
}

/// What embedding has in common with writing.
struct Belt<'a> {
    points: SyncSender<Vec<Point>>,
    pace: &'a Pace,
    ledger: &'a Mutex<Ledger>,
}

impl Belt<'_> {
    fn give(&self, points: Vec<Point>) -> Result<()> {
        match points.is_empty() {
            true => Ok(()),
            // What the sink has died of is said when its thread is joined.
            false => self.points.send(points).map_err(|_| Error::internal("the sink has ended")),
        }
    }
}

/// Documents that are embedded together.
struct Group {
    entries: Vec<Entry>,
    /// Of their texts.
    bytes: usize,
    /// How the stream has ended, if it has.
    end: Option<Result<()>>,
}

impl Group {
    /// The next documents for which there is time; none if there is none.
    fn of(documents: &mut Peekable<Stream>, pace: &Pace, is_first: bool) -> Option<Self> {
        let room = pace.room().min(GROUP_BYTES);
        let mut group = Self { entries: vec![], bytes: 0, end: None };
        while group.bytes < GROUP_BYTES && group.entries.len() < GROUP_DOCUMENTS {
            let bytes = match documents.peek() {
                Some(Ok(entry)) => entry.document.as_ref().map_or(0, |document| document.text.len()),
                _ => 0,
            };
            let fits =
                group.bytes + bytes <= room || (group.entries.is_empty() && Self::may_be_alone(bytes, pace, is_first));
            if !fits {
                return (!group.entries.is_empty()).then_some(group);
            }
            group.bytes += bytes;
            match documents.next() {
                Some(Ok(entry)) => group.entries.push(entry),
                Some(Err(error)) => group.end = Some(Err(error)),
                None => group.end = Some(Ok(())),
            }
            if group.end.is_some() {
                break;
            }
        }
        Some(group)
    }

    /// Whether a text that is longer than a group, or than there is time for, is tried.
    fn may_be_alone(bytes: usize, pace: &Pace, is_first: bool) -> bool {
        let room = pace.room();
        bytes <= room || (is_first && pace.has_room_for(bytes))
    }
}

/// Writes what comes, until nothing more does.
fn write(
    mut sink: Box<dyn Sink>,
    groups: Receiver<Vec<Point>>,
    pace: &Pace,
    ledger: &Mutex<Ledger>,
    deadline: Deadline,
) -> Result<Box<dyn Sink>> {
    for points in groups {
        let start = Instant::now();
        let refused = sink.write(&points, deadline)?;
        pace.wrote(start.elapsed());
        lock(ledger).refuse(refused);
    }
    Ok(sink)
}

fn out_of_time() -> Error {
    let message = "the time for this invocation ran out: raise the function's timeout, or send less at a time";
    Error::new(ErrorKind::Timeout, message)
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::pipeline::input::lines;
    use std::sync::Arc;
    use std::time::Duration;

    /// Keeps what it is given once it is finished.
    #[derive(Clone, Default)]
    struct Shelf {
        kept: Arc<Mutex<Vec<(String, usize)>>>,
        open: Vec<(String, usize)>,
        given: usize,
        pause: Duration,
        fails_at: Option<usize>,
        refuses: Vec<usize>,
    }

    impl Sink for Shelf {
        fn write(&mut self, points: &[Point], _: Deadline) -> Result<Vec<(usize, Error)>> {
            std::thread::sleep(self.pause);
            if self.fails_at.is_some_and(|at| self.given + points.len() > at) {
                return Err(Error::new(ErrorKind::Upstream, "full"));
            }
            let first = self.given;
            self.given += points.len();
            let (refused, kept): (Vec<_>, Vec<_>) =
                points.iter().enumerate().partition(|(i, _)| self.refuses.contains(&(first + i)));
            self.open.extend(kept.into_iter().map(|(_, p)| (p.origin.document_id.clone(), p.chunk)));
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

    fn run(shelf: &Shelf, text: &str, extent: Extent, deadline: Deadline) -> (Run, Vec<String>) {
        let engine = engine();
        let ingest = Ingest { chunking: Chunking::default(), ..Ingest::configured(&engine) };
        let run = ingest.run(Box::new(shelf.clone()), lines(text.as_bytes()), extent, deadline);
        let kept = shelf.kept.lock().unwrap().iter().map(|(id, _)| id.clone()).collect();
        (run, kept)
    }

    fn many(count: usize) -> String {
        (0..count).map(|i| format!("{{\"id\": {i}, \"text\": \"number {i}\"}}\n")).collect()
    }

    #[test]
    fn what_is_wrong_with_a_document_is_its_own_failure() {
        let text = "{\"id\": \"a\", \"text\": \"one\"}\nnot JSON\n{\"id\": \"b\", \"text\": \"two\", \"metadata\": {\"text\": 1}}\n\
            {\"id\": \"c\", \"text\": \"three\"}\n{\"id\": \"d\", \"text\": \"four\"}\n";
        let (run, kept) = run(&Shelf { refuses: vec![1], ..Shelf::default() }, text, Extent::Whole, Deadline::NONE);
        assert_eq!(kept, ["a", "d"]);
        assert!(run.stop.is_none());
        let Report { documents, points, failed, failures } = run.report;
        assert_eq!((documents, points, run.settled), (2, 2, 5));
        assert_eq!(failed.into_iter().collect::<Vec<_>>(), [2, 3, 4]);
        let ids: Vec<_> = failures.iter().map(|f| f.id.as_deref()).collect();
        assert_eq!(ids, [None, Some("b"), Some("c")]);
    }

    #[test]
    fn order_is_kept_over_many_groups() {
        let (run, kept) = run(&Shelf::default(), &many(1000), Extent::Whole, Deadline::NONE);
        assert_eq!((run.settled, run.report.points), (1000, 1000));
        assert!(kept.iter().enumerate().all(|(i, id)| *id == i.to_string()));
    }

    #[test]
    fn what_is_settled_is_written_and_the_rest_is_handed_back() {
        let shelf = Shelf { pause: Duration::from_millis(200), ..Shelf::default() };
        let deadline = Instant::now() + Duration::from_secs(3);
        let (run, kept) = run(&shelf, &many(20_000), Extent::Part, Deadline(Some(deadline)));
        assert!(Instant::now() < deadline);
        assert_eq!(run.stop.unwrap().error().kind, ErrorKind::Timeout);
        assert!(run.settled > 0 && run.settled < 20_000, "{}", run.settled);
        assert_eq!(kept.len(), run.settled);
    }

    #[test]
    fn a_part_of_a_whole_is_not_shown() {
        let deadline = Deadline(Some(Instant::now()));
        let (run, kept) = run(&Shelf::default(), &many(10), Extent::Whole, deadline);
        assert_eq!((kept.len(), run.settled, run.stop.unwrap().error().kind), (0, 0, ErrorKind::Timeout));
    }

    #[test]
    fn a_sink_that_fails_settles_nothing() {
        for extent in [Extent::Whole, Extent::Part] {
            let shelf = Shelf { fails_at: Some(600), ..Shelf::default() };
            let (run, kept) = run(&shelf, &many(2000), extent, Deadline::NONE);
            assert!(matches!(run.stop, Some(Stop::Later(error)) if error.kind == ErrorKind::Upstream));
            assert_eq!((run.settled, kept.len()), (0, 0));
        }
    }

    #[test]
    fn a_source_that_is_damaged_is_told_from_one_that_fails() {
        let engine = engine();
        let ingest = Ingest { chunking: Chunking::default(), ..Ingest::configured(&engine) };
        for (kind, is_poison) in [(ErrorKind::InvalidType, true), (ErrorKind::Upstream, false), (ErrorKind::Io, false)]
        {
            let shelf = Shelf::default();
            let stream = lines(&b"{\"text\": \"a\"}"[..]).chain([Err(Error::new(kind, "x"))]);
            let run = ingest.run(Box::new(shelf.clone()), Box::new(stream), Extent::Whole, Deadline::NONE);
            assert_eq!(matches!(run.stop, Some(Stop::Poison(_))), is_poison, "{kind:?}");
            assert!(shelf.kept.lock().unwrap().is_empty());
        }
    }

    #[test]
    fn a_wrong_setting_is_no_documents_fault() {
        let engine = engine();
        let ingest = Ingest { chunking: Chunking { tokens: Some(100_000), overlap: 0 }, ..Ingest::configured(&engine) };
        let run =
            ingest.run(Box::new(Shelf::default()), lines(&b"{\"text\": \"a\"}"[..]), Extent::Whole, Deadline::NONE);
        assert!(run.report.failed.is_empty());
        assert!(matches!(run.stop, Some(Stop::Later(error)) if error.message.contains("100000")));
    }
}
