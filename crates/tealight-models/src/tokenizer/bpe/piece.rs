//! The notation of SentencePiece's vocabularies.

/// SentencePiece writes a space as U+2581.
pub const SPACE: char = '\u{2581}';

/// Decodes a token of a SentencePiece vocabulary; `<0x0A>` is one byte.
pub fn decode_piece(token: &str) -> Vec<u8> {
    let byte = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>')).filter(|t| t.len() == 2);
    match byte.and_then(|t| u8::from_str_radix(t, 16).ok()) {
        Some(byte) => vec![byte],
        None => token.replace(SPACE, " ").into_bytes(),
    }
}
