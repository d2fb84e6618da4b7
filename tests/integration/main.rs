//! The library's engine and sinks, and the binary as command line, server and Lambda function.
//!
//! Tests that need downloaded weights are ignored: tests/run, tests/check_speech and tests/check_text download them and run these tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod cli;
mod configuration;
mod embeddings;
mod events;
mod hub;
mod index;
#[path = "../../crates/tealight-kernels/tests/support/isas.rs"]
mod isas;
mod lambda;
mod llama;
mod observe;
#[cfg(feature = "otel")]
mod otel;
mod s3;
mod secret;
mod server;
mod sinks;
mod stream;
mod support;
mod whisper;
