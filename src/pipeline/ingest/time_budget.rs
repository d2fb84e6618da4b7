//! Estimates whether another batch fits before the deadline.

use crate::engine::MAX_BATCH_TOKENS;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tealight_core::Deadline;

/// A tenth of the time is always reserved, but at most this much.
const MAX_RESERVE: Duration = Duration::from_secs(1);
/// Writes after a batch is embedded: the batch itself, the batch in the queue, and the last write of the sink.
const RESERVED_WRITES: u32 = 3;
/// Maximum bytes of the first batch, before the first measurement.
const FIRST_BATCH_BYTES: usize = 2 << 10;
/// Bytes of text per forward pass, which cannot be interrupted; a token has about four bytes.
const PASS_BYTES: usize = 4 * MAX_BATCH_TOKENS;
/// Batches below this size are measured as if they had this many bytes, because fixed costs dominate their time.
const MIN_MEASURED_BYTES: usize = 1 << 10;

/// Latest measurement in this process, in nanoseconds per byte of text; 0 before the first.
static RECENT_NS_PER_BYTE: AtomicU64 = AtomicU64::new(0);

/// Measures the time of embedding and writing, and estimates how much text fits before the deadline.
#[derive(Debug)]
pub(super) struct TimeBudget {
    deadline: Deadline,
    /// Time reserved before the deadline, regardless of measurements.
    reserve: Duration,
    costs: Mutex<Costs>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Costs {
    /// Time per byte of the last batch; 0 before the first batch.
    ns_per_byte: u64,
    /// Time of the longest write.
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

    /// Records the time for reading and embedding a batch with this many bytes of text.
    pub fn record_embed(&self, bytes: usize, time: Duration) {
        let ns_per_byte = (time.as_nanos() as u64 / bytes.max(MIN_MEASURED_BYTES) as u64).max(1);
        RECENT_NS_PER_BYTE.store(ns_per_byte, Ordering::Relaxed);
        self.costs.lock().unwrap_or_else(PoisonError::into_inner).ns_per_byte = ns_per_byte;
    }

    /// Records the time for writing a batch.
    pub fn record_write(&self, time: Duration) {
        let mut costs = self.costs.lock().unwrap_or_else(PoisonError::into_inner);
        costs.write = costs.write.max(time);
    }

    /// Bytes of text that can be embedded before the deadline, even if they take one and a half times as long as the last ones.
    pub fn remaining_bytes(&self) -> usize {
        let Some(end) = self.embed_deadline().0 else { return usize::MAX };
        let remaining = end.saturating_duration_since(Instant::now()) * 2 / 3;
        match self.costs().ns_per_byte {
            _ if remaining.is_zero() => 0,
            0 => FIRST_BATCH_BYTES,
            ns_per_byte => (remaining.as_nanos() as u64 / ns_per_byte) as usize,
        }
    }

    /// Whether to try a single text. A long text needs time for one forward pass only: it is stopped between passes if time runs
    /// out.
    pub fn has_time_for_first_pass(&self, bytes: usize) -> bool {
        let is_measured = self.costs().ns_per_byte > 0;
        self.remaining_bytes() >= if is_measured { bytes.min(PASS_BYTES) } else { 1 }
    }

    /// The deadline for starting a forward pass, which leaves time for the pass and for writing its points.
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
    fn budget_follows_measured_costs() {
        let (seconds, ms) = (Duration::from_secs, Duration::from_millis);
        let budget = TimeBudget::new(Deadline(Some(Instant::now() + seconds(61))));
        budget.record_embed(10_000, seconds(1));
        // Two thirds of 60 s at 10,000 bytes each, less a forward pass.
        let room = budget.remaining_bytes();
        assert!((370_000..400_000).contains(&room), "{room}");
        budget.record_write(seconds(10));
        assert!(budget.remaining_bytes() < room / 2 + 10_000);
        budget.record_write(seconds(20));
        assert!(budget.remaining_bytes() == 0 && !budget.has_time_for_first_pass(1), "the writes need all 60 s");

        let budget = TimeBudget::new(Deadline(Some(Instant::now() + seconds(3))));
        budget.record_embed(16 << 10, ms(500));
        assert!(budget.has_time_for_first_pass(1 << 30), "there is time for its first pass");
        budget.record_embed(16 << 10, ms(2000));
        assert!(!budget.has_time_for_first_pass(16 << 10));
        assert_eq!(TimeBudget::new(Deadline::NONE).remaining_bytes(), usize::MAX);
    }
}
