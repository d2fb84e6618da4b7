//! The library's engine and sinks, and the binary as command line, server and Lambda function.
//!
//! Tests that need downloaded weights are ignored: tests/run, tests/check_speech and tests/check_text download them and run these tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[cfg(feature = "lambda")]
mod api_key_secret;
mod cli;
mod configuration;
#[cfg(all(feature = "lambda", not(any(feature = "index", feature = "sinks", feature = "speech", feature = "text"))))]
mod disabled_features;
#[cfg(all(feature = "lambda", feature = "sinks"))]
mod document_events;
mod embeddings;
#[cfg(feature = "lambda")]
mod hub;
#[cfg(feature = "index")]
mod index;
#[path = "../../crates/tealight-kernels/tests/support/isas.rs"]
mod isas;
#[cfg(feature = "lambda")]
mod lambda;
#[cfg(feature = "text")]
mod llama;
#[cfg(all(feature = "lambda", feature = "sinks", feature = "text", feature = "ui"))]
mod observability;
#[cfg(all(feature = "lambda", feature = "otel"))]
mod otel;
#[cfg(all(feature = "index", feature = "lambda", feature = "speech"))]
mod s3;
mod server;
#[cfg(feature = "sinks")]
mod sinks;
#[cfg(all(feature = "lambda", feature = "speech", feature = "text"))]
mod streaming;
// The mock of the Runtime API is for tests of the function.
#[cfg_attr(not(feature = "lambda"), allow(dead_code))]
mod support;
#[cfg(feature = "speech")]
mod whisper;
