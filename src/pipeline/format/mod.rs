//! What comes out: vectors in their encodings, documents with vectors, transcripts.

pub mod document;
mod encoding;
pub mod npy;
mod packer;
mod payload;
mod stores;
#[cfg(feature = "arrow")]
pub mod table;
pub mod transcript;

pub use document::Format;
pub use encoding::{Encoded, Encoding, encode};
pub use packer::{Item, Packer};
