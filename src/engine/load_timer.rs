//! How long a request waits for models to be loaded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The total time that the jobs of one request waited for models to be loaded.
#[derive(Debug, Default)]
pub struct LoadTimer(AtomicU64);

impl LoadTimer {
    /// Adds a waiting time.
    pub fn add(&self, time: Duration) {
        self.0.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// The total so far.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}
