//! The best of many rows, by a bounded heap.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A row and its score; better is greater. Of equal scores the earlier row is better, so that nothing depends on threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Hit {
    pub score: f32,
    pub row: u32,
}

impl Eq for Hit {}

impl Ord for Hit {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.row.cmp(&self.row))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The best of what was offered.
#[derive(Debug)]
pub(super) struct Best {
    count: usize,
    /// The worst on top.
    hits: BinaryHeap<Reverse<Hit>>,
}

impl Best {
    pub(super) fn new(count: usize) -> Self {
        Self { count, hits: BinaryHeap::with_capacity(count + 1) }
    }

    /// A score that no better row is below.
    pub(super) fn least(&self) -> f32 {
        match self.hits.peek() {
            Some(Reverse(worst)) if self.hits.len() == self.count => worst.score,
            _ => f32::NEG_INFINITY,
        }
    }

    pub(super) fn offer(&mut self, hit: Hit) {
        self.hits.push(Reverse(hit));
        if self.hits.len() > self.count {
            self.hits.pop();
        }
    }

    /// The hits, the best first.
    pub(super) fn sorted(self) -> Vec<Hit> {
        self.hits.into_sorted_vec().into_iter().map(|Reverse(hit)| hit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_of_equals_the_earlier() {
        let mut best = Best::new(3);
        assert_eq!(best.least(), f32::NEG_INFINITY);
        for (row, score) in [(4, 1.0), (1, 2.0), (7, 2.0), (0, 2.0), (2, -1.0), (3, 3.0)] {
            best.offer(Hit { score, row });
        }
        assert_eq!(best.least(), 2.0);
        assert_eq!(best.sorted().iter().map(|h| h.row).collect::<Vec<_>>(), [3, 0, 1]);
    }
}
