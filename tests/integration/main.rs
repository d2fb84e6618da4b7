//! The library's engine and sinks, and the binary as command line, server and Lambda function.
//!
//! Tests that need downloaded weights are ignored: tests/run, tests/check_speech and tests/check_text download them and run these tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[cfg(all(feature = "cli", feature = "lambda"))]
mod api_key_secret;
#[cfg(feature = "cli")]
mod cli;
mod configuration;
#[cfg(all(feature = "lambda", not(any(feature = "index", feature = "sinks", feature = "speech", feature = "text"))))]
mod disabled_features;
#[cfg(all(feature = "lambda", feature = "sinks"))]
mod document_events;
mod embeddings;
#[cfg(all(feature = "cli", feature = "lambda"))]
mod hub;
#[cfg(all(feature = "cli", feature = "index"))]
mod index;
#[path = "../../crates/tealight-kernels/tests/support/isas.rs"]
mod isas;
#[cfg(feature = "lambda")]
mod lambda;
#[cfg(feature = "text")]
mod llama;
#[cfg(all(feature = "cli", feature = "lambda", feature = "sinks", feature = "text", feature = "ui"))]
mod observability;
#[cfg(all(feature = "cli", feature = "lambda", feature = "otel"))]
mod otel;
#[cfg(all(feature = "cli", feature = "index", feature = "lambda", feature = "speech"))]
mod s3;
#[cfg(feature = "cli")]
mod server;
#[cfg(feature = "sinks")]
mod sinks;
#[cfg(all(feature = "cli", feature = "lambda", feature = "speech", feature = "text"))]
mod streaming;
// Some helpers are for tests of the function or of the command line only.
#[cfg_attr(not(all(feature = "cli", feature = "lambda")), allow(dead_code))]
mod support;
#[cfg(feature = "speech")]
mod whisper;
