//! What tokens spell: bytes, in the alphabets that vocabularies write them in.

use tealight_core::{Error, Result};

/// The space of SentencePiece's vocabularies.
pub const SPACE: char = '\u{2581}';

/// The bytes that a token of GPT-2's vocabulary spells: <https://github.com/openai/gpt-2/blob/master/src/encoder.py>.
pub fn of_alphabet(token: &str) -> Result<Vec<u8>> {
    // Bytes that are no visible Latin-1 characters stand behind U+0100, in order.
    let hidden = |c: u32| (0u32..256).filter(|b| !is_visible(*b)).nth((c - 256) as usize);
    let byte = |c: char| match c as u32 {
        c @ 0..256 if is_visible(c) => Some(c as u8),
        c @ 256..324 => hidden(c).map(|b| b as u8),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = token.chars().map(byte).collect();
    bytes.ok_or_else(|| Error::invalid_model(format!("the token {token:?} does not spell bytes")))
}

fn is_visible(byte: u32) -> bool {
    matches!(byte, 33..=126 | 161..=172 | 174..=255)
}

/// The bytes that a token of SentencePiece's vocabularies spells; `<0x0A>` is one byte.
pub fn of_piece(token: &str) -> Vec<u8> {
    let byte = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>')).filter(|t| t.len() == 2);
    match byte.and_then(|t| u8::from_str_radix(t, 16).ok()) {
        Some(byte) => vec![byte],
        None => token.replace(SPACE, " ").into_bytes(),
    }
}
