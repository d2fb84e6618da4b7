//! Tokens and their log probabilities in responses.

use tealight_models::tokenizer::LlamaTokenizer;

/// A token as text. Bytes that are not whole characters become U+FFFD.
pub fn token_text(tokenizer: &LlamaTokenizer, id: u32) -> String {
    let bytes = tokenizer.token_bytes(id);
    tokenizer.special_token(id).map_or_else(|| String::from_utf8_lossy(bytes).into_owned(), str::to_string)
}

/// JSON has no infinity. OpenAI reports -9999 for impossible tokens.
pub fn finite(logprob: f32) -> f32 {
    logprob.max(-9999.0)
}
