//! What became of documents.

use std::collections::{BTreeSet, VecDeque};
use tealight_core::Error;

/// Failures that are kept with what they say: a reply has its limit, and so has memory.
pub const MAX_FAILURES: usize = 200;
/// Documents back to which a sink's refusal is traced by name.
const MAX_TRACKED_DOCUMENTS: usize = 1 << 16;

/// A document that became nothing.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Where it stands in its source: the line or row, from 1.
    pub number: usize,
    /// What it is called, if that is known.
    pub id: Option<String>,
    /// Why.
    pub error: Error,
}

/// What became of documents.
#[derive(Debug, Default)]
pub struct Report {
    /// Documents whose points the sink has.
    pub documents: usize,
    /// Points that the sink has.
    pub points: usize,
    /// The numbers of documents that became nothing.
    pub failed: BTreeSet<usize>,
    /// The first of these failures.
    pub failures: Vec<Failure>,
}

impl Report {
    /// Counts a document that became nothing.
    pub fn add_failure(&mut self, failure: Failure) {
        if !self.failed.insert(failure.number) {
            return;
        }
        if self.failures.len() < MAX_FAILURES {
            tracing::warn!(code = failure.error.kind.code(), number = failure.number, "document failed");
            self.failures.push(failure);
        }
    }
}

/// Which documents the points are of that a sink was written.
#[derive(Debug, Default)]
pub(super) struct PointTracker {
    pub report: Report,
    /// The position of a document's first point, with its number and id.
    written: VecDeque<(usize, usize, String)>,
    /// Points written so far.
    points: usize,
}

impl PointTracker {
    /// Counts a document whose points the sink is written.
    pub fn add(&mut self, number: usize, id: String, points: usize) {
        self.written.push_back((self.points, number, id));
        if self.written.len() > MAX_TRACKED_DOCUMENTS {
            self.written.pop_front();
        }
        self.points += points;
        self.report.points += points;
        self.report.documents += 1;
    }

    /// Counts points that a sink has refused.
    pub fn reject(&mut self, refused: Vec<(usize, Error)>) {
        for (position, error) in refused {
            self.report.points = self.report.points.saturating_sub(1);
            let behind = self.written.partition_point(|(first, ..)| *first <= position);
            let (number, id) = match behind.checked_sub(1).and_then(|at| self.written.get(at)) {
                Some((_, number, id)) => (*number, Some(id.clone())),
                None => (0, None),
            };
            if !self.report.failed.contains(&number) {
                self.report.documents = self.report.documents.saturating_sub(1);
            }
            self.report.add_failure(Failure { number, id, error });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tealight_core::ErrorKind;

    #[test]
    fn a_refused_point_is_traced_to_its_document() {
        let mut tracker = PointTracker::default();
        for (number, points) in [(1, 2), (4, 1), (5, 3)] {
            tracker.add(number, format!("d{number}"), points);
        }
        let refused =
            |positions: &[usize]| positions.iter().map(|p| (*p, Error::new(ErrorKind::InvalidValue, "no"))).collect();
        tracker.reject(refused(&[2, 4]));
        tracker.reject(refused(&[5]));
        assert_eq!((tracker.report.documents, tracker.report.points), (1, 3));
        let failures: Vec<_> = tracker.report.failures.iter().map(|f| (f.number, f.id.as_deref())).collect();
        assert_eq!(failures, [(4, Some("d4")), (5, Some("d5"))]);
    }
}
