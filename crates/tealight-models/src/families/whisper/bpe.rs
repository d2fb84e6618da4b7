//! From text to tokens: byte pairs (Sennrich et al. 2016, arXiv 1508.07909), joined in the order of the ids, as GPT-2's are.

use super::tokenizer::Vocabulary;
use std::collections::HashMap;
use tealight_core::{Error, Result};
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior};

/// Where text is cut before bytes are joined: <https://github.com/openai/gpt-2/blob/master/src/encoder.py>.
const WORD: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Bytes of a text that are looked at, from its end: more than a prompt's tokens spell, and few enough for a word without end.
const MOST_BYTES: usize = 4096;

/// Marks that people write about sounds: the first token of " -" and " '", those of [`SYMBOLS`] that are one token, and the
/// first of [`NOTES`], with and without a space (openai/whisper, `tokenizer.py`).
const SYMBOLS: &str = "\" # ( ) * + / : ; < = > @ [ \\ ] ^ _ ` { | } ~ 「 」 『 』 << >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪";
const NOTES: &str = "♩ ♪ ♫ ♬ ♭ ♮ ♯";

/// The way from text to tokens.
#[derive(Debug)]
pub(super) struct Bpe<'a> {
    ids: HashMap<&'a [u8], u32>,
    words: Split,
}

impl<'a> Bpe<'a> {
    pub(super) fn new(vocabulary: &'a Vocabulary) -> Result<Self> {
        let ids: HashMap<_, _> = (0..vocabulary.special.end).map(|id| (vocabulary.bytes(id), id)).collect();
        if let Some(byte) = (0..=u8::MAX).find(|byte| !ids.contains_key(&[*byte][..])) {
            return Err(Error::invalid_model(format!("there is no token of the byte {byte}")));
        }
        let words = Split::new(SplitPattern::Regex(WORD.into()), SplitDelimiterBehavior::Isolated, false);
        Ok(Self { ids, words: words.map_err(|e| Error::internal(format!("a pattern does not parse: {e}")))? })
    }

    /// The tokens of the end of a text.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let text = &text[text.ceil_char_boundary(text.len().saturating_sub(MOST_BYTES))..];
        let mut parts = PreTokenizedString::from(text);
        self.words.pre_tokenize(&mut parts).map_err(|e| Error::internal(format!("a text cannot be cut: {e}")))?;
        let words = parts.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Ok(words.iter().flat_map(|(word, ..)| self.join(word.as_bytes())).collect())
    }

    /// The tokens of a word: of all neighbours, those whose token comes first are joined first.
    fn join(&self, word: &[u8]) -> Vec<u32> {
        let mut cuts: Vec<usize> = (0..=word.len()).collect();
        let rank = |(i, cut): (usize, &[usize])| Some((self.ids.get(&word[cut[0]..cut[2]])?, i));
        while let Some((_, i)) = cuts.windows(3).enumerate().filter_map(rank).min() {
            cuts.remove(i + 1);
        }
        cuts.windows(2).filter_map(|cut| self.ids.get(&word[cut[0]..cut[1]])).copied().collect()
    }

    /// Tokens that are never what somebody said.
    pub(super) fn annotations(&self) -> Result<Vec<u32>> {
        let both = |symbol: &str| -> Result<_> { Ok([self.encode(symbol)?, self.encode(&format!(" {symbol}"))?]) };
        let mut found = vec![];
        for start in [" -", " '"] {
            found.extend(self.encode(start)?.first());
        }
        for symbol in SYMBOLS.split(' ') {
            found.extend(both(symbol)?.iter().filter(|ids| ids.len() == 1).flatten());
        }
        for note in NOTES.split(' ') {
            found.extend(both(note)?.iter().filter_map(|ids| ids.first()));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}
