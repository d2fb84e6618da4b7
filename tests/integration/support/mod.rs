//! Helpers for tests of the binary: HTTP clients and mocks, processes, and fixtures.

pub mod aws;
pub mod http;
pub mod lambda_runtime;
pub mod process;
#[cfg(feature = "speech")]
pub mod recordings;
pub mod server;

use std::path::PathBuf;
use std::time::Duration;

/// When a test gives up. Only something that hangs takes this long, even on a slow machine.
pub const TIMEOUT: Duration = Duration::from_secs(300);

/// A small sentence-transformers model of dimension 16, with prompts.
pub const TINY: &str = "tests/fixtures/models/tiny-st-old";

/// A path in the repository.
pub fn path(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// Every instruction set of this CPU except the slow scalar one.
#[cfg(any(feature = "speech", feature = "text"))]
pub fn simd_isas() -> Vec<tealight_kernels::Isa> {
    tealight_kernels::Isa::available().into_iter().filter(|isa| isa.as_str() != "scalar").collect()
}

/// Parses an embedding.
pub fn floats(value: &serde_json::Value) -> Vec<f32> {
    let number = |v: &serde_json::Value| v.as_f64().unwrap_or_else(|| panic!("not a number: {v}")) as f32;
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}")).iter().map(number).collect()
}

/// Calls a function until it returns a value.
pub fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < TIMEOUT, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
