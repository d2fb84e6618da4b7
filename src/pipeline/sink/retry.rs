//! The retry policy of all sinks: exponential backoff with full jitter, so that many functions do not retry at the same time
//! (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};
use tealight_core::{Deadline, Error, ErrorKind, Result};

const MAX_ATTEMPTS: u32 = 8;
/// Maximum delay before the second attempt; doubles with each attempt up to [`MAX_DELAY`].
const BASE_DELAY: Duration = Duration::from_millis(200);
const MAX_DELAY: Duration = Duration::from_secs(8);
/// Time for all attempts.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for one attempt, so that a response that never arrives leaves time for another attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// The error of one attempt, with the policy for retrying it.
#[derive(Debug)]
pub(super) struct AttemptError {
    pub error: Error,
    /// Whether the same request can succeed later.
    pub is_retryable: bool,
    /// Minimum delay, as requested by the server.
    pub wait: Duration,
}

impl AttemptError {
    /// A failure that may be temporary.
    pub fn retryable(error: Error) -> Self {
        Self { error, is_retryable: true, wait: Duration::ZERO }
    }
}

/// Other errors are permanent.
impl From<Error> for AttemptError {
    fn from(error: Error) -> Self {
        Self { error, is_retryable: false, wait: Duration::ZERO }
    }
}

/// Repeats `attempt` until it succeeds or fails permanently, or time or attempts run out. It gets the time that it may take.
///
/// # Errors
/// The error of the last attempt; [`ErrorKind::Timeout`] if there was no time for any.
pub(super) fn run<T>(deadline: Deadline, mut attempt: impl FnMut(Duration) -> Result<T, AttemptError>) -> Result<T> {
    let end = Instant::now() + deadline.remaining(TOTAL_TIMEOUT);
    let remaining = || end.saturating_duration_since(Instant::now());
    if remaining().is_zero() {
        return Err(Error::new(ErrorKind::Timeout, "deadline exceeded before writing to the sink"));
    }
    for count in 1.. {
        let failure = match attempt(remaining().min(ATTEMPT_TIMEOUT)) {
            Ok(value) => return Ok(value),
            Err(failure) => failure,
        };
        let backoff = backoff(count, RandomState::new().hash_one(count)).max(failure.wait);
        if !failure.is_retryable {
            return Err(failure.error);
        }
        if count == MAX_ATTEMPTS || backoff >= remaining() {
            return Err(exhausted(failure, count));
        }
        std::thread::sleep(backoff);
    }
    Err(Error::internal("the retry loop ended"))
}

fn exhausted(AttemptError { mut error, wait, .. }: AttemptError, count: u32) -> Error {
    let times = if count == 1 { "once".into() } else { format!("{count} times") };
    error.message += &format!(" (tried {times}");
    if !wait.is_zero() {
        error.message += &format!(", server requested a delay of {} s", wait.as_secs());
    }
    error.message.push(')');
    error
}

/// The delay after an attempt; `random` is a random number.
fn backoff(count: u32, random: u64) -> Duration {
    let max_delay = BASE_DELAY.saturating_mul(1 << (count - 1).min(16)).min(MAX_DELAY);
    max_delay.mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retryable() -> AttemptError {
        AttemptError::retryable(Error::new(ErrorKind::Upstream, "busy"))
    }

    #[test]
    fn backoff_doubles_up_to_maximum() {
        let delays = [1, 2, 3, 6, 7, 40].map(|count| backoff(count, u64::MAX).as_millis());
        assert_eq!(delays, [200, 400, 800, 6400, 8000, 8000]);
        assert_eq!(backoff(3, 0), Duration::ZERO);
        assert_eq!(backoff(3, u64::MAX / 2).as_millis(), 400);
    }

    #[test]
    fn retryable_error_is_retried_and_permanent_error_is_not() {
        let mut count = 0;
        let mut third = |_| {
            count += 1;
            if count < 3 { Err(retryable()) } else { Ok(count) }
        };
        assert_eq!(run(Deadline::NONE, &mut third).unwrap(), 3);
        let mut count = 0;
        let permanent: Result<()> = run(Deadline::NONE, |_| {
            count += 1;
            Err(Error::new(ErrorKind::Upstream, "no").into())
        });
        assert_eq!((permanent.unwrap_err().message.as_str(), count), ("no", 1));
    }

    #[test]
    fn delay_beyond_deadline_fails_at_once() {
        let deadline = Deadline(Some(Instant::now() + Duration::from_secs(5)));
        let start = Instant::now();
        let outcome: Result<()> = run(deadline, |time| {
            assert!(time <= Duration::from_secs(5));
            Err(AttemptError { wait: Duration::from_secs(7), ..retryable() })
        });
        let message = outcome.unwrap_err().message;
        assert!(message.contains("once") && message.contains("7 s"), "{message}");
        assert!(start.elapsed() < Duration::from_secs(1));
        let past = Deadline(Some(Instant::now()));
        assert_eq!(run(past, |_| Ok(1)).unwrap_err().kind, ErrorKind::Timeout);
    }
}
