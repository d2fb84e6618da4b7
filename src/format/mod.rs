//! What vectors look like outside, encodings of one and files of many; and transcripts.

mod encoding;
pub mod npy;
pub mod transcript;

pub use encoding::{Encoded, Encoding, encode};
