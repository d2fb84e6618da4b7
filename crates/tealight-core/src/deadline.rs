//! The time by which work must end.

use crate::{Error, ErrorKind, Result};
use std::time::{Duration, Instant};

/// The time by which a job must end, if any.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deadline(pub Option<Instant>);

impl Deadline {
    /// No limit.
    pub const NONE: Deadline = Deadline(None);

    /// Whether no more than this is left.
    pub fn expires_within(self, time: Duration) -> bool {
        self.0.is_some_and(|at| at.saturating_duration_since(Instant::now()) <= time)
    }

    /// What is left, but no more than `most`.
    pub fn remaining(self, most: Duration) -> Duration {
        self.0.map_or(most, |at| at.saturating_duration_since(Instant::now()).min(most))
    }

    /// Fails once the time is over.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`].
    pub fn check(self) -> Result<()> {
        match self.0 {
            Some(at) if Instant::now() >= at => {
                Err(Error::new(ErrorKind::Timeout, "the time for this request ran out before it was done"))
            }
            _ => Ok(()),
        }
    }
}
