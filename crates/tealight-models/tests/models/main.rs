//! Model files against independent reference implementations, and damaged files.
//!
//! Tests that need downloaded weights or files are ignored; `tests/check_text` and `tests/check_speech` download them and run these tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod bert_damaged;
mod bert_pack;
mod bert_reference;
mod llama_damaged;
mod llama_pack;
mod llama_reference;
mod llama_tokenizer;
#[path = "../../../../tests/integration/support/recordings.rs"]
#[allow(dead_code)]
mod recordings;
mod support;
mod whisper;
