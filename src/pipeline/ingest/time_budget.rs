//! When there is no time for more.

use crate::engine::MAX_BATCH_TOKENS;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tealight_core::Deadline;

/// A tenth of the time, but no more than this, is left whatever was measured.
const MAX_RESERVE: Duration = Duration::from_secs(1);
/// Writes behind a group: its own, the one that waits, and the sink's last.
const RESERVED_WRITES: u32 = 3;
/// Bytes of the group that is the first to be measured.
const FIRST_BATCH_BYTES: usize = 2 << 10;
/// Bytes of the texts of a forward pass, which nothing ends before its time; most tokens are as long as this says, or longer.
const PASS_BYTES: usize = 4 * MAX_BATCH_TOKENS;
/// Bytes below which a group's time says little about more of them.
const MIN_MEASURED_BYTES: usize = 1 << 10;

/// Nanoseconds that a byte of a text took lately in this process; 0 before the first.
static RECENT_NS_PER_BYTE: AtomicU64 = AtomicU64::new(0);

/// How long texts and writes take, and so for how much more there is time.
#[derive(Debug)]
pub(super) struct TimeBudget {
    deadline: Deadline,
    reserve: Duration,
    costs: Mutex<Costs>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Costs {
    /// Of the last group, in nanoseconds.
    ns_per_byte: u64,
    /// The longest.
    write: Duration,
}

impl TimeBudget {
    pub fn new(deadline: Deadline) -> Self {
        let costs = Mutex::new(Costs { ns_per_byte: RECENT_NS_PER_BYTE.load(Ordering::Relaxed), ..Costs::default() });
        Self { deadline, reserve: deadline.remaining(10 * MAX_RESERVE) / 10, costs }
    }

    fn costs(&self) -> Costs {
        *self.costs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A group of so many bytes was read and embedded.
    pub fn record_embed(&self, bytes: usize, time: Duration) {
        let ns_per_byte = (time.as_nanos() as u64 / bytes.max(MIN_MEASURED_BYTES) as u64).max(1);
        RECENT_NS_PER_BYTE.store(ns_per_byte, Ordering::Relaxed);
        self.costs.lock().unwrap_or_else(PoisonError::into_inner).ns_per_byte = ns_per_byte;
    }

    /// A group was written.
    pub fn record_write(&self, time: Duration) {
        let mut costs = self.costs.lock().unwrap_or_else(PoisonError::into_inner);
        costs.write = costs.write.max(time);
    }

    /// Bytes of texts that there is time for, the next being perhaps slower by half.
    pub fn budget_bytes(&self) -> usize {
        let Some(end) = self.embed_deadline().0 else { return usize::MAX };
        let left = end.saturating_duration_since(Instant::now()) * 2 / 3;
        match self.costs().ns_per_byte {
            _ if left.is_zero() => 0,
            0 => FIRST_BATCH_BYTES,
            ns_per_byte => (left.as_nanos() as u64 / ns_per_byte) as usize,
        }
    }

    /// Whether there is time for a text by itself. A long one is stopped between two forward passes, if need be.
    pub fn allows(&self, bytes: usize) -> bool {
        let is_measured = self.costs().ns_per_byte > 0;
        self.budget_bytes() >= if is_measured { bytes.min(PASS_BYTES) } else { 1 }
    }

    /// When no forward pass may begin any more: there must be time for it, and for what the sink needs behind it.
    pub fn embed_deadline(&self) -> Deadline {
        let costs = self.costs();
        let reserve = RESERVED_WRITES * costs.write + self.reserve;
        let pass = Duration::from_nanos(costs.ns_per_byte * PASS_BYTES as u64);
        Deadline(self.deadline.0.map(|at| at.checked_sub(reserve + pass).unwrap_or_else(Instant::now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_decides() {
        let (seconds, ms) = (Duration::from_secs, Duration::from_millis);
        let budget = TimeBudget::new(Deadline(Some(Instant::now() + seconds(61))));
        budget.record_embed(10_000, seconds(1));
        // Two thirds of 60 s at 10,000 bytes each, less a forward pass.
        let room = budget.budget_bytes();
        assert!((370_000..400_000).contains(&room), "{room}");
        budget.record_write(seconds(10));
        assert!(budget.budget_bytes() < room / 2 + 10_000);
        budget.record_write(seconds(20));
        assert!(budget.budget_bytes() == 0 && !budget.allows(1), "60 s are the sink's");

        let budget = TimeBudget::new(Deadline(Some(Instant::now() + seconds(3))));
        budget.record_embed(16 << 10, ms(500));
        assert!(budget.allows(1 << 30), "for its first pass, and it is stopped then");
        budget.record_embed(16 << 10, ms(2000));
        assert!(!budget.allows(16 << 10));
        assert_eq!(TimeBudget::new(Deadline::NONE).budget_bytes(), usize::MAX);
    }
}
