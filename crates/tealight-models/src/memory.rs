//! Whether a model fits into memory, asked before it is loaded: what does not would end the process without a word.

use tealight_core::{Error, ErrorKind, Result};

/// Bytes of a page of memory.
const PAGE: u64 = 4096;
/// Bytes that are not worth a look.
const SMALL: u64 = 8 << 20;
/// What a process needs besides weights: itself, a text and what is computed with it.
const BESIDES: u64 = 64 << 20;

/// Checks that so many bytes of weights fit.
///
/// # Errors
/// [`ErrorKind::ModelLoad`](tealight_core::ErrorKind), with need and limit.
pub(super) fn check(weights: u64) -> Result<()> {
    let (need, mib) = (weights + BESIDES, |bytes: u64| bytes.div_ceil(1 << 20));
    match available(0) {
        Some(limit) if need > limit => Err(Error::invalid_model(format!(
            "needs {} MiB of memory with what is computed, {} MiB are there",
            mib(need),
            mib(limit)
        ))),
        _ => Ok(()),
    }
}

/// Checks that so many bytes fit beside what is there, such as the keys and values of a text. What is small is not looked at.
///
/// # Errors
/// [`ErrorKind::InvalidValue`](tealight_core::ErrorKind), with need and limit.
pub(super) fn check_more(bytes: u64) -> Result<()> {
    if bytes < SMALL {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    // Pages that are in memory; those of mapped files are among them.
    let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(|text| text.split(' ').nth(1)?.parse().ok());
    match available(pages.unwrap_or(0) * PAGE) {
        Some(left) if bytes > left => {
            let message = format!("the text needs {} MiB of memory, {} MiB are left", mib(bytes), mib(left));
            Err(Error::new(ErrorKind::TooLong, message))
        }
        _ => Ok(()),
    }
}

/// What Lambda gives the function, without what is used of it, or what the machine and its control group have left.
fn available(used: u64) -> Option<u64> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let read = |path: &str| std::fs::read_to_string(path).ok();
    if let Some(mb) = std::env::var("AWS_LAMBDA_FUNCTION_MEMORY_SIZE").ok().and_then(|text| number(&text)) {
        return Some((mb << 20).saturating_sub(used));
    }
    let machine = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?.trim().strip_suffix("kB")?;
        number(line).map(|kb| kb << 10)
    });
    let limit = read("/sys/fs/cgroup/memory.max").and_then(|text| number(&text));
    let used = read("/sys/fs/cgroup/memory.current").and_then(|text| number(&text));
    let group = limit.map(|limit| limit.saturating_sub(used.unwrap_or(0)));
    machine.into_iter().chain(group).min()
}
