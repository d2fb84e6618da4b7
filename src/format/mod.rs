//! What vectors look like outside: encodings of one vector, files of many.

mod encoding;
pub mod npy;

pub use encoding::{Encoded, Encoding, encode};
