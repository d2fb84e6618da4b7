//! Functions that the benchmarks share.

use super::super::output::{json_line, print};
use serde::Serialize;
use std::fmt::Display;
use tealight_core::Result;

/// Prints a result as a line of JSON or text.
pub(super) fn print_row(row: &(impl Serialize + Display), as_json: bool) -> Result<()> {
    let line = if as_json { json_line(row)? } else { row.to_string() };
    print(|out| writeln!(out, "{line}"))
}

/// A linear congruential generator (Knuth, MMIX) with a fixed seed, so that every run measures the same.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new() -> Self {
        Self(1)
    }

    /// A number below `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}
