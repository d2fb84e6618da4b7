//! Time limits of jobs.

use crate::{Error, ErrorKind, Result};
use std::time::{Duration, Instant};

/// The time by which a job must finish; `None` means that it has no limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deadline(pub Option<Instant>);

impl Deadline {
    /// A deadline without limit.
    pub const NONE: Deadline = Deadline(None);

    /// Whether at most `time` remains.
    pub fn expires_within(self, time: Duration) -> bool {
        self.0.is_some_and(|at| at.saturating_duration_since(Instant::now()) <= time)
    }

    /// The remaining time, at most `limit`.
    pub fn remaining(self, limit: Duration) -> Duration {
        self.0.map_or(limit, |at| at.saturating_duration_since(Instant::now()).min(limit))
    }

    /// Fails once the deadline has passed.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`].
    pub fn check(self) -> Result<()> {
        match self.0 {
            Some(at) if Instant::now() >= at => Err(Error::new(
                ErrorKind::Timeout,
                "deadline exceeded; send less per request or raise the function's timeout",
            )),
            _ => Ok(()),
        }
    }
}
