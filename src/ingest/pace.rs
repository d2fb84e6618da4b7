//! When there is no time for more.

use crate::engine::Deadline;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A tenth of the time, but no more than this, is left whatever was measured.
const MOST_LEAST: Duration = Duration::from_secs(1);
/// Writes behind a group: its own, the one that waits, and the sink's last.
const WRITES: u32 = 3;

/// How long groups and writes take, and so whether there is time for another.
#[derive(Debug)]
pub(super) struct Pace {
    deadline: Deadline,
    least: Duration,
    longest: Mutex<Longest>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Longest {
    group: Duration,
    write: Duration,
}

impl Pace {
    pub fn new(deadline: Deadline) -> Self {
        Self { deadline, least: deadline.left(10 * MOST_LEAST) / 10, longest: Mutex::default() }
    }

    fn longest(&self) -> Longest {
        *self.longest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A group was read and embedded.
    pub fn embedded(&self, time: Duration) {
        let mut longest = self.longest.lock().unwrap_or_else(PoisonError::into_inner);
        longest.group = longest.group.max(time);
    }

    /// A group was written.
    pub fn wrote(&self, time: Duration) {
        let mut longest = self.longest.lock().unwrap_or_else(PoisonError::into_inner);
        longest.write = longest.write.max(time);
    }

    /// Whether another group would come too late.
    pub fn is_over(&self) -> bool {
        self.deadline.is_within(self.longest().group + self.reserve())
    }

    /// What the sink needs behind the last group.
    fn reserve(&self) -> Duration {
        WRITES * self.longest().write + self.least
    }

    /// When a group must be embedded.
    pub fn embedding(&self) -> Deadline {
        Deadline(self.deadline.0.map(|at| at.checked_sub(self.reserve()).unwrap_or(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn what_was_measured_decides() {
        let seconds = Duration::from_secs;
        let pace = Pace::new(Deadline(Some(Instant::now() + seconds(60))));
        assert!(!pace.is_over());
        pace.embedded(seconds(30));
        assert!(!pace.is_over());
        pace.wrote(seconds(9));
        assert!(!pace.is_over());
        pace.wrote(seconds(10));
        assert!(pace.is_over(), "30 + 3 * 10 s, and what is always left");
        assert!(!Pace::new(Deadline::NONE).is_over());
    }
}
