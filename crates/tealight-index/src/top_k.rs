//! Selection of the best rows.

use std::cmp::{Ordering, Reverse};

/// A row and its score. If scores are equal, the row with the smaller number is better, so that results do not depend on threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ScoredRow {
    pub score: f32,
    pub row: u32,
}

impl Eq for ScoredRow {}

impl Ord for ScoredRow {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.row.cmp(&self.row))
    }
}

impl PartialOrd for ScoredRow {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The best `k` rows pushed so far. Rows are collected, and the worse half is dropped whenever there are `2 k`. This takes
/// amortized constant time per row, where a heap takes O(log k).
#[derive(Debug)]
pub(crate) struct TopK {
    k: usize,
    rows: Vec<ScoredRow>,
    threshold: f32,
}

impl TopK {
    pub(crate) fn new(k: usize) -> Self {
        Self { k, rows: Vec::with_capacity(2 * k), threshold: f32::NEG_INFINITY }
    }

    /// The score that a later row must exceed to be among the best: the score of the best row dropped so far.
    pub(crate) fn threshold(&self) -> f32 {
        self.threshold
    }

    pub(crate) fn push(&mut self, row: ScoredRow) {
        self.rows.push(row);
        if self.rows.len() >= 2 * self.k {
            self.drop_worse();
        }
    }

    fn drop_worse(&mut self) {
        if self.rows.len() > self.k {
            let (.., dropped, _) = self.rows.select_nth_unstable_by_key(self.k, |row| Reverse(*row));
            self.threshold = dropped.score;
            self.rows.truncate(self.k);
        }
    }

    /// The best rows in any order.
    pub(crate) fn into_unsorted(mut self) -> Vec<ScoredRow> {
        self.drop_worse();
        self.rows
    }

    /// The best rows, the best first.
    pub(crate) fn into_sorted(self) -> Vec<ScoredRow> {
        let mut rows = self.into_unsorted();
        rows.sort_unstable_by_key(|row| Reverse(*row));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_are_ordered_by_row() {
        let mut best = TopK::new(3);
        assert_eq!(best.threshold(), f32::NEG_INFINITY);
        for (row, score) in [(4, 1.0), (1, 2.0), (7, 2.0), (0, 2.0), (2, -1.0), (3, 3.0)] {
            best.push(ScoredRow { score, row });
        }
        assert_eq!(best.threshold(), 2.0);
        assert_eq!(best.into_sorted().iter().map(|row| row.row).collect::<Vec<_>>(), [3, 0, 1]);
    }

    #[test]
    fn selection_equals_sorting_for_any_k() {
        // Repeated scores in arbitrary order.
        let rows: Vec<_> = (0..1000u32).map(|row| ScoredRow { score: (row * 7919 % 101) as f32, row }).collect();
        let mut sorted = rows.clone();
        sorted.sort_unstable_by_key(|row| Reverse(*row));
        for k in [0, 1, 2, 7, 499, 500, 501, 999, 1000, 1001] {
            let mut best = TopK::new(k);
            for row in &rows {
                if row.score > best.threshold() {
                    best.push(*row);
                }
            }
            assert_eq!(best.into_sorted(), sorted[..k.min(1000)], "{k}");
        }
    }
}
