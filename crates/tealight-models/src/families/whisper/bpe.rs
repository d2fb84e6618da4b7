//! Text to tokens: byte-level byte pair encoding (Sennrich et al. 2016, arXiv 1508.07909) as in GPT-2.

use super::tokenizer::WhisperTokenizer;
use std::collections::HashMap;
use tealight_core::{Error, Result};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior};

/// GPT-2's pre-tokenization: <https://github.com/openai/gpt-2/blob/master/src/encoder.py>.
const WORD: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Only the last bytes of a text are encoded: more than the tokens of a prompt, and few enough for quadratic time in a very long
/// word.
const MAX_BYTES: usize = 4096;

/// Annotations of sounds (openai/whisper, `tokenizer.py`): the first token of " -" and " '", the [`SYMBOLS`] that are one token,
/// and the first token of [`NOTES`], with and without a space.
const SYMBOLS: &str = "\" # ( ) * + / : ; < = > @ [ \\ ] ^ _ ` { | } ~ 「 」 『 』 << >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪";
const NOTES: &str = "♩ ♪ ♫ ♬ ♭ ♮ ♯";

/// Encodes text with the tokens of a [`WhisperTokenizer`].
#[derive(Debug)]
pub(super) struct BpeEncoder<'a> {
    ids: HashMap<&'a [u8], u32>,
    pretokenizer: Split,
}

impl<'a> BpeEncoder<'a> {
    pub(super) fn new(tokenizer: &'a WhisperTokenizer) -> Result<Self> {
        let ids: HashMap<_, _> = (0..tokenizer.special.eot).map(|id| (tokenizer.token_bytes(id), id)).collect();
        if let Some(byte) = (0..=u8::MAX).find(|byte| !ids.contains_key(&[*byte][..])) {
            return Err(Error::invalid_model(format!("the tokenizer has no token for the byte {byte}")));
        }
        let pretokenizer = Split::new(SplitPattern::Regex(WORD.into()), SplitDelimiterBehavior::Isolated, false)
            .map_err(|e| Error::internal(format!("invalid pre-tokenizer: {e}")))?;
        Ok(Self { ids, pretokenizer })
    }

    /// The tokens of the last [`MAX_BYTES`] bytes of a text.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let text = &text[text.ceil_char_boundary(text.len().saturating_sub(MAX_BYTES))..];
        let mut pretokenized = PreTokenizedString::from(text);
        self.pretokenizer
            .pre_tokenize(&mut pretokenized)
            .map_err(|e| Error::internal(format!("pre-tokenization failed: {e}")))?;
        let words = pretokenized.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Ok(words.iter().flat_map(|(word, ..)| self.merge(word.as_bytes())).collect())
    }

    /// Byte pair encoding of a word: repeatedly merges the adjacent pair whose token has the lowest id.
    fn merge(&self, word: &[u8]) -> Vec<u32> {
        let mut boundaries: Vec<usize> = (0..=word.len()).collect();
        let rank = |(i, pair): (usize, &[usize])| Some((self.ids.get(&word[pair[0]..pair[2]])?, i));
        while let Some((_, i)) = boundaries.windows(3).enumerate().filter_map(rank).min() {
            boundaries.remove(i + 1);
        }
        boundaries.windows(2).filter_map(|token| self.ids.get(&word[token[0]..token[1]])).copied().collect()
    }

    /// Tokens that annotate sounds and are not spoken.
    pub(super) fn non_speech_tokens(&self) -> Result<Vec<u32>> {
        let with_and_without_space =
            |symbol: &str| -> Result<_> { Ok([self.encode(symbol)?, self.encode(&format!(" {symbol}"))?]) };
        let mut tokens = vec![];
        for start in [" -", " '"] {
            tokens.extend(self.encode(start)?.first());
        }
        for symbol in SYMBOLS.split(' ') {
            tokens.extend(with_and_without_space(symbol)?.iter().filter(|ids| ids.len() == 1).flatten());
        }
        for note in NOTES.split(' ') {
            tokens.extend(with_and_without_space(note)?.iter().filter_map(|ids| ids.first()));
        }
        tokens.sort_unstable();
        tokens.dedup();
        Ok(tokens)
    }
}
