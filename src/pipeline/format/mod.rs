//! What comes out: vectors in their encodings, documents with vectors, transcripts.

mod body;
#[cfg(feature = "arrow")]
pub mod columnar;
mod encoding;
mod metadata;
pub mod npy;
pub mod records;
mod stores;
pub mod transcript;

pub use body::{BodyBuilder, EncodedPoint};
pub use encoding::{Encoded, Encoding, encode};
pub use records::Format;
