//! Whether a model fits into memory, asked before it is loaded: what does not would end the process without a word.

use crate::error::{Error, Result};

/// What a process needs besides weights: itself, a text and what is computed with it.
const BESIDES: u64 = 64 << 20;

/// Checks that so many bytes of weights fit.
///
/// # Errors
/// [`Kind::ModelLoad`](crate::Kind), with need and limit.
pub(super) fn check(weights: u64) -> Result<()> {
    let (need, mib) = (weights + BESIDES, |bytes: u64| bytes.div_ceil(1 << 20));
    match available() {
        Some(limit) if need > limit => Err(Error::model(format!(
            "needs {} MiB of memory with what is computed, {} MiB are there",
            mib(need),
            mib(limit)
        ))),
        _ => Ok(()),
    }
}

/// What Lambda gives the function, or what the machine and its control group have left.
fn available() -> Option<u64> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    if let Some(mb) = std::env::var("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").ok().and_then(|text| number(&text)) {
        return Some(mb << 20);
    }
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?.trim().strip_suffix("kB")?;
        number(line).map(|kb| kb << 10)
    });
    let limit = read("/sys/fs/cgroup/memory.max").and_then(|text| number(&text));
    let used = read("/sys/fs/cgroup/memory.current").and_then(|text| number(&text));
    let group = limit.map(|limit| limit.saturating_sub(used.unwrap_or(0)));
    machine.into_iter().chain(group).min()
}
