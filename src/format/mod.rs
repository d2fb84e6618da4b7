//! What comes out: vectors in their encodings, documents with vectors, transcripts.

pub mod document;
mod encoding;
pub mod npy;
pub mod packer;
pub mod transcript;

pub use encoding::{Encoded, Encoding, encode};
