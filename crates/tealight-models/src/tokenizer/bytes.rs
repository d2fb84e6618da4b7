//! The bytes that the tokens of byte-level vocabularies decode to.

use tealight_core::{Error, Result};

/// Decodes a token of a byte-level vocabulary (<https://github.com/openai/gpt-2/blob/master/src/encoder.py>).
///
/// # Errors
/// A character does not represent a byte.
pub fn decode_byte_level(token: &str) -> Result<Vec<u8>> {
    // Bytes that are not printable Latin-1 characters are written as U+0100 and up, in order.
    let unprintable = |c: u32| (0u32..256).filter(|b| !is_printable(*b)).nth((c - 256) as usize);
    let byte = |c: char| match c as u32 {
        c @ 0..256 if is_printable(c) => Some(c as u8),
        c @ 256..324 => unprintable(c).map(|b| b as u8),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = token.chars().map(byte).collect();
    bytes.ok_or_else(|| Error::invalid_model(format!("the token {token:?} is not byte-level")))
}

fn is_printable(byte: u32) -> bool {
    matches!(byte, 33..=126 | 161..=172 | 174..=255)
}
