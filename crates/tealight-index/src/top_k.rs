//! The best of many rows.

use std::cmp::{Ordering, Reverse};

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

/// The best of what was offered. Hits are gathered, and the worse half of them is dropped when there are twice as many as wanted: that
/// takes less time than a heap where a thousand are wanted.
#[derive(Debug)]
pub(super) struct Best {
    count: usize,
    hits: Vec<Hit>,
    least: f32,
}

impl Best {
    pub(super) fn new(count: usize) -> Self {
        Self { count, hits: Vec::with_capacity(2 * count), least: f32::NEG_INFINITY }
    }

    /// A score that a later row must be above to be among the best: that of the best row dropped so far.
    pub(super) fn least(&self) -> f32 {
        self.least
    }

    pub(super) fn offer(&mut self, hit: Hit) {
        self.hits.push(hit);
        if self.hits.len() >= 2 * self.count {
            self.drop_worse();
        }
    }

    fn drop_worse(&mut self) {
        if self.hits.len() > self.count {
            let (.., dropped, _) = self.hits.select_nth_unstable_by_key(self.count, |hit| Reverse(*hit));
            self.least = dropped.score;
            self.hits.truncate(self.count);
        }
    }

    /// The hits in any order.
    pub(super) fn kept(mut self) -> Vec<Hit> {
        self.drop_worse();
        self.hits
    }

    /// The hits, the best first.
    pub(super) fn sorted(self) -> Vec<Hit> {
        let mut hits = self.kept();
        hits.sort_unstable_by_key(|hit| Reverse(*hit));
        hits
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

    #[test]
    fn what_is_kept_is_what_sorting_all_would_keep() {
        // Scores that repeat, in an order without any.
        let hits: Vec<_> = (0..1000u32).map(|row| Hit { score: (row * 7919 % 101) as f32, row }).collect();
        let mut all = hits.clone();
        all.sort_unstable_by_key(|hit| Reverse(*hit));
        for count in [0, 1, 2, 7, 499, 500, 501, 999, 1000, 1001] {
            let mut best = Best::new(count);
            for hit in &hits {
                if hit.score > best.least() {
                    best.offer(*hit);
                }
            }
            assert_eq!(best.sorted(), all[..count.min(1000)], "{count}");
        }
    }
}
