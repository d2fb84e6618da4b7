//! When there is no time for more.

use crate::engine::MAX_BATCH_TOKENS;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tealight_core::Deadline;

/// A tenth of the time, but no more than this, is left whatever was measured.
const MOST_LEAST: Duration = Duration::from_secs(1);
/// Writes behind a group: its own, the one that waits, and the sink's last.
const WRITES: u32 = 3;
/// Bytes of the group that is the first to be measured.
const FIRST_BYTES: usize = 2 << 10;
/// Bytes of the texts of a forward pass, which nothing ends before its time; most tokens are as long as this says, or longer.
const PASS_BYTES: usize = 4 * MAX_BATCH_TOKENS;
/// Bytes below which a group's time says little about more of them.
const LEAST_BYTES: usize = 1 << 10;

/// Nanoseconds that a byte of a text took lately in this process; 0 before the first.
static LATELY: AtomicU64 = AtomicU64::new(0);

/// How long texts and writes take, and so for how much more there is time.
#[derive(Debug)]
pub(super) struct Pace {
    deadline: Deadline,
    least: Duration,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Taken {
    /// Of the last group, in nanoseconds.
    byte: u64,
    /// The longest.
    write: Duration,
}

impl Pace {
    pub fn new(deadline: Deadline) -> Self {
        let taken = Mutex::new(Taken { byte: LATELY.load(Ordering::Relaxed), ..Taken::default() });
        Self { deadline, least: deadline.remaining(10 * MOST_LEAST) / 10, taken }
    }

    fn taken(&self) -> Taken {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A group of so many bytes was read and embedded.
    pub fn embedded(&self, bytes: usize, time: Duration) {
        let byte = (time.as_nanos() as u64 / bytes.max(LEAST_BYTES) as u64).max(1);
        LATELY.store(byte, Ordering::Relaxed);
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).byte = byte;
    }

    /// A group was written.
    pub fn wrote(&self, time: Duration) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.write = taken.write.max(time);
    }

    /// Bytes of texts that there is time for, the next being perhaps slower by half.
    pub fn room(&self) -> usize {
        let Some(end) = self.embedding().0 else { return usize::MAX };
        let left = end.saturating_duration_since(Instant::now()) * 2 / 3;
        match self.taken().byte {
            _ if left.is_zero() => 0,
            0 => FIRST_BYTES,
            byte => (left.as_nanos() as u64 / byte) as usize,
        }
    }

    /// Whether there is time for a text by itself. A long one is stopped between two forward passes, if need be.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        let is_measured = self.taken().byte > 0;
        self.room() >= if is_measured { bytes.min(PASS_BYTES) } else { 1 }
    }

    /// When no forward pass may begin any more: there must be time for it, and for what the sink needs behind it.
    pub fn embedding(&self) -> Deadline {
        let taken = self.taken();
        let reserve = WRITES * taken.write + self.least;
        let pass = Duration::from_nanos(taken.byte * PASS_BYTES as u64);
        Deadline(self.deadline.0.map(|at| at.checked_sub(reserve + pass).unwrap_or_else(Instant::now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_decides() {
        let (seconds, ms) = (Duration::from_secs, Duration::from_millis);
        let pace = Pace::new(Deadline(Some(Instant::now() + seconds(61))));
        pace.embedded(10_000, seconds(1));
        // Two thirds of 60 s at 10,000 bytes each, less a forward pass.
        let room = pace.room();
        assert!((370_000..400_000).contains(&room), "{room}");
        pace.wrote(seconds(10));
        assert!(pace.room() < room / 2 + 10_000);
        pace.wrote(seconds(20));
        assert!(pace.room() == 0 && !pace.has_room_for(1), "60 s are the sink's");

        let pace = Pace::new(Deadline(Some(Instant::now() + seconds(3))));
        pace.embedded(16 << 10, ms(500));
        assert!(pace.has_room_for(1 << 30), "for its first pass, and it is stopped then");
        pace.embedded(16 << 10, ms(2000));
        assert!(!pace.has_room_for(16 << 10));
        assert_eq!(Pace::new(Deadline::NONE).room(), usize::MAX);
    }
}
