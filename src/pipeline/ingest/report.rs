//! Counts and failures of a run.

use std::collections::{BTreeSet, VecDeque};
use tealight_core::Error;

/// Maximum number of failures that are stored with their message; the others are only counted, because responses and memory are
/// limited.
pub const MAX_FAILURES: usize = 200;
/// Number of most recent documents to which rejected points can be attributed.
const MAX_TRACKED_DOCUMENTS: usize = 1 << 16;

/// A document that could not be ingested.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Line or row in the source, from 1; 0 if the failure belongs to no document.
    pub number: usize,
    /// Id of the document, if known.
    pub id: Option<String>,
    /// Why the document or one of its points was rejected.
    pub error: Error,
}

/// Counts and failures of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Documents whose points were written.
    pub documents: usize,
    /// Points that were written.
    pub points: usize,
    /// Numbers of the documents that failed.
    pub failed_numbers: BTreeSet<usize>,
    /// The first [`MAX_FAILURES`] failures.
    pub first_failures: Vec<Failure>,
}

impl Report {
    /// Counts a failed document, once.
    pub fn add_failure(&mut self, failure: Failure) {
        if !self.failed_numbers.insert(failure.number) {
            return;
        }
        if self.first_failures.len() < MAX_FAILURES {
            tracing::warn!(code = failure.error.kind.code(), number = failure.number, "document failed");
            self.first_failures.push(failure);
        }
    }
}

/// Attributes the points that a sink rejects, which it identifies by position, to their documents.
#[derive(Debug, Default)]
pub(super) struct PointTracker {
    pub report: Report,
    /// Position of the first point, number and id of each document.
    documents: VecDeque<(usize, usize, String)>,
    /// Points sent to the sink so far.
    points: usize,
}

impl PointTracker {
    /// Counts a document whose points are sent to the sink.
    pub fn add(&mut self, number: usize, id: String, points: usize) {
        self.documents.push_back((self.points, number, id));
        if self.documents.len() > MAX_TRACKED_DOCUMENTS {
            self.documents.pop_front();
        }
        self.points += points;
        self.report.points += points;
        self.report.documents += 1;
    }

    /// Counts points that the sink has permanently rejected, by position.
    pub fn reject(&mut self, rejected: Vec<(usize, Error)>) {
        for (position, error) in rejected {
            self.report.points = self.report.points.saturating_sub(1);
            let next = self.documents.partition_point(|(first, ..)| *first <= position);
            let (number, id) = match next.checked_sub(1).and_then(|index| self.documents.get(index)) {
                Some((_, number, id)) => (*number, Some(id.clone())),
                None => (0, None),
            };
            if !self.report.failed_numbers.contains(&number) {
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
    fn rejected_point_is_attributed_to_its_document() {
        let mut tracker = PointTracker::default();
        for (number, points) in [(1, 2), (4, 1), (5, 3)] {
            tracker.add(number, format!("d{number}"), points);
        }
        let rejected =
            |positions: &[usize]| positions.iter().map(|p| (*p, Error::new(ErrorKind::InvalidValue, "no"))).collect();
        tracker.reject(rejected(&[2, 4]));
        tracker.reject(rejected(&[5]));
        assert_eq!((tracker.report.documents, tracker.report.points), (1, 3));
        let failures: Vec<_> = tracker.report.first_failures.iter().map(|f| (f.number, f.id.as_deref())).collect();
        assert_eq!(failures, [(4, Some("d4")), (5, Some("d5"))]);
    }
}
