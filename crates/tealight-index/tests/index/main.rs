//! Searches compared with float64, with and without a graph; limits; damaged files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[cfg(feature = "graph")]
mod graph;
mod search;
mod support;
