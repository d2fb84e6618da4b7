//! Checks whether a model or a KV cache fits into memory before it is allocated, because Lambda or
//! the out-of-memory killer would kill the process otherwise.

use tealight_core::{Error, ErrorKind, Result};

const PAGE_BYTES: u64 = 4096;
/// Smaller KV caches are not checked.
const MIN_CHECKED_BYTES: u64 = 8 << 20;
/// Memory that a process needs in addition to weights, in bytes: the program, a KV cache and activations.
const RESERVED_BYTES: u64 = 64 << 20;

/// Checks that weights of this size fit.
///
/// # Errors
/// [`ErrorKind::ModelLoad`](tealight_core::ErrorKind), with required and available memory.
pub(crate) fn check_weights(bytes: u64) -> Result<()> {
    let need = bytes + RESERVED_BYTES;
    match available(0) {
        Some(limit) if need > limit => Err(Error::invalid_model(format!(
            "model needs {} MiB including working memory; {} MiB are available. Increase memory",
            mib(need),
            mib(limit)
        ))),
        _ => Ok(()),
    }
}

/// Checks that a KV cache of this size fits in addition to the memory in use.
///
/// # Errors
/// [`ErrorKind::TooLong`](tealight_core::ErrorKind), with required and available memory.
pub(crate) fn check_kv_cache(bytes: u64) -> Result<()> {
    if bytes < MIN_CHECKED_BYTES {
        return Ok(());
    }
    // Resident pages, including those of mapped files.
    let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(|text| text.split(' ').nth(1)?.parse().ok());
    match available(pages.unwrap_or(0) * PAGE_BYTES) {
        Some(free) if bytes > free => {
            let message = format!(
                "prompt needs {} MiB for its KV cache; {} MiB are free. Shorten the prompt",
                mib(bytes),
                mib(free)
            );
            Err(Error::new(ErrorKind::TooLong, message))
        }
        _ => Ok(()),
    }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// On Lambda, the function's memory without the `used` bytes; elsewhere the unused memory of the machine or the control group.
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
    let group_used = read("/sys/fs/cgroup/memory.current").and_then(|text| number(&text));
    let control_group = limit.map(|limit| limit.saturating_sub(group_used.unwrap_or(0)));
    machine.into_iter().chain(control_group).min()
}
