//! GGUF, ggml's format of one file per model: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! The reader works on a memory-mapped file, checks every number before using it, and copies neither strings nor tensors.

mod constants;
mod cursor;
mod metadata;
mod parse;
mod write;

pub use constants::{ARCHITECTURE_KEY, MAGIC, token_type};
pub use metadata::{Array, ParsedValue};
pub use parse::{Gguf, missing_key, read_architecture};
pub use write::{MetadataValue, write};
