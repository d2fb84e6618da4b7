//! Model files against independent reference implementations, and damaged files.
//!
//! Tests that need downloaded weights or files are ignored; `tests/check_text` and `tests/check_speech` download them and run these tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod bert_damaged;
mod bert_pack;
mod bert_reference;
mod encoders;
#[cfg(feature = "text")]
mod llama_damaged;
#[cfg(feature = "text")]
mod llama_pack;
#[cfg(feature = "text")]
mod llama_reference;
#[cfg(feature = "text")]
mod llama_tokenizer;
#[cfg(feature = "speech")]
#[path = "../../../../tests/integration/support/recordings.rs"]
mod recordings;
// Some helpers are only for the tests of Llama.
#[cfg_attr(not(feature = "text"), allow(dead_code))]
mod support;
#[cfg(feature = "speech")]
mod whisper;
