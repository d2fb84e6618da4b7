//! WordPiece's vocabulary, read where it lies: building the maps of the `tokenizers` crate would take a third of a cold start.

use bytes::Bytes;
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tealight_core::{Error, Result};
use tokenizers::models::wordpiece::{WordPieceTrainer, WordPieceTrainerBuilder};
use tokenizers::{Model, Token};

/// What the tokens begin with that go on a word.
pub const CONTINUATION: &str = "##";
/// What stands for a word that the vocabulary cannot spell.
pub const UNKNOWN: &str = "[UNK]";
/// A longer word is not looked up.
const MAX_CHARS_OF_WORD: usize = 100;

/// Tokens by id, and ids by token.
#[derive(Debug)]
pub struct Vocabulary {
    /// What the tokens are parts of.
    text: Bytes,
    tokens: Vec<Entry>,
    /// Ids by hash, open addressing; [`EMPTY`] where there is none. At least twice as many as tokens, a power of two.
    slots: Vec<u32>,
    longest: usize,
}

const EMPTY: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    length: u32,
    place: Place,
}

/// Where in a word a token may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At the beginning.
    Start,
    /// After other tokens.
    Continuation,
}

impl Vocabulary {
    /// Tokens in the order of their ids, each a part of `text`, which is UTF-8, without the prefix of continuations. Of equal
    /// ones the last counts.
    ///
    /// # Errors
    /// There are more than 2^30 tokens or 2^32 bytes of text.
    pub fn new(text: Bytes, tokens: impl ExactSizeIterator<Item = (Range<usize>, Place)>) -> Result<Self> {
        let count = tokens.len();
        if count > 1 << 30 || u32::try_from(text.len()).is_err() {
            return Err(Error::invalid_model(format!(
                "a vocabulary of {count} tokens in {} bytes is too large",
                text.len()
            )));
        }
        let slots = vec![EMPTY; (2 * count).next_power_of_two().max(2)];
        let mut this = Self { text, tokens: Vec::with_capacity(count), slots, longest: 0 };
        for (range, place) in tokens {
            let slot = this.slot(&this.text[range.clone()], place);
            this.slots[slot] = this.tokens.len() as u32;
            this.longest = this.longest.max(range.len());
            this.tokens.push(Entry { start: range.start as u32, length: range.len() as u32, place });
        }
        Ok(this)
    }

    /// Tokens as they are written, continuations with their prefix.
    ///
    /// # Errors
    /// As [`Vocabulary::new`].
    pub fn of<'a>(tokens: impl Iterator<Item = &'a str>) -> Result<Self> {
        let (mut text, mut parts) = (String::new(), vec![]);
        for token in tokens {
            let (token, place) = split(token);
            parts.push((text.len()..text.len() + token.len(), place));
            text.push_str(token);
        }
        Self::new(text.into(), parts.into_iter())
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The token of an id, as it is written.
    pub fn token(&self, id: u32) -> Option<String> {
        let entry = self.tokens.get(id as usize)?;
        let prefix = if entry.place == Place::Continuation { CONTINUATION } else { "" };
        Some(format!("{prefix}{}", String::from_utf8_lossy(self.bytes(entry))))
    }

    /// The tokens in the order of their ids, as they are written.
    pub fn tokens(&self) -> impl Iterator<Item = String> {
        (0..self.tokens.len() as u32).filter_map(|id| self.token(id))
    }

    /// The id of a token, as it is written.
    pub fn id(&self, token: &str) -> Option<u32> {
        let (text, place) = split(token);
        self.find(text.as_bytes(), place)
    }

    fn find(&self, text: &[u8], place: Place) -> Option<u32> {
        Some(self.slots[self.slot(text, place)]).filter(|id| *id != EMPTY)
    }

    /// The slot of a token, or the empty one where it belongs.
    fn slot(&self, text: &[u8], place: Place) -> usize {
        let last = self.slots.len() - 1;
        let mut slot = hash(text, place) as usize & last;
        while self.slots[slot] != EMPTY && !self.is(self.slots[slot], text, place) {
            slot = (slot + 1) & last;
        }
        slot
    }

    fn is(&self, id: u32, text: &[u8], place: Place) -> bool {
        let entry = &self.tokens[id as usize];
        entry.place == place && self.bytes(entry) == text
    }

    fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.text[entry.start as usize..][..entry.length as usize]
    }
}

fn split(token: &str) -> (&str, Place) {
    match token.strip_prefix(CONTINUATION) {
        Some(rest) if !rest.is_empty() => (rest, Place::Continuation),
        _ => (token, Place::Start),
    }
}

/// FNV-1a (Fowler, Noll, Vo), whose high bits are folded into the low ones.
fn hash(text: &[u8], place: Place) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ place as u64;
    let hash = text.iter().fold(start, |h, b| (h ^ *b as u64).wrapping_mul(0x0100_0000_01b3));
    hash ^ hash >> 32
}

/// WordPiece (Wu et al. 2016, arXiv 1609.08144, as BERT has it): the longest token that a word begins with, then the longest
/// that it goes on with.
#[derive(Debug, Clone)]
pub struct WordPiece {
    vocabulary: Arc<Vocabulary>,
    unknown: u32,
}

impl WordPiece {
    /// The model of a vocabulary.
    ///
    /// # Errors
    /// The vocabulary has no `[UNK]`.
    pub fn new(vocabulary: Arc<Vocabulary>) -> Result<Self> {
        let unknown = vocabulary.id(UNKNOWN);
        let unknown = unknown.ok_or_else(|| Error::invalid_model(format!("the vocabulary has no {UNKNOWN} token")))?;
        Ok(Self { vocabulary, unknown })
    }

    /// The longest token at a place of a word: its id and where it ends.
    fn longest(&self, word: &str, start: usize) -> Option<(u32, usize)> {
        let place = if start == 0 { Place::Start } else { Place::Continuation };
        let mut end = word.floor_char_boundary(start + self.vocabulary.longest);
        while end > start {
            if let Some(id) = self.vocabulary.find(&word.as_bytes()[start..end], place) {
                return Some((id, end));
            }
            end = word.floor_char_boundary(end - 1);
        }
        None
    }

    fn unknown(&self, word: &str) -> Vec<Token> {
        vec![Token { id: self.unknown, value: UNKNOWN.to_string(), offsets: (0, word.len()) }]
    }
}

impl Model for WordPiece {
    type Trainer = WordPieceTrainer;

    fn tokenize(&self, word: &str) -> tokenizers::Result<Vec<Token>> {
        if word.len() > MAX_CHARS_OF_WORD && word.chars().count() > MAX_CHARS_OF_WORD {
            return Ok(self.unknown(word));
        }
        let (mut tokens, mut start) = (vec![], 0);
        while start < word.len() {
            let Some((id, end)) = self.longest(word, start) else { return Ok(self.unknown(word)) };
            let value = self.vocabulary.token(id).unwrap_or_default();
            tokens.push(Token { id, value, offsets: (start, end) });
            start = end;
        }
        Ok(tokens)
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.vocabulary.id(token)
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.vocabulary.token(id)
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        self.vocabulary.tokens().zip(0..).collect()
    }

    fn get_vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    fn save(&self, folder: &Path, prefix: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        let path = folder.join(prefix.map_or("vocab.txt".to_string(), |prefix| format!("{prefix}-vocab.txt")));
        std::fs::write(&path, self.vocabulary.tokens().map(|token| token + "\n").collect::<String>())?;
        Ok(vec![path])
    }

    fn get_trainer(&self) -> WordPieceTrainer {
        WordPieceTrainerBuilder::default().build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::models::wordpiece::WordPiece as Reference;

    const TOKENS: [&str; 14] =
        ["[PAD]", "[UNK]", "un", "##aff", "##able", "##a", "##b", "a", "é", "##é", "##", "#", "中", "##x"];

    fn both() -> (WordPiece, Reference) {
        let ours = WordPiece::new(Arc::new(Vocabulary::of(TOKENS.into_iter()).unwrap())).unwrap();
        let map: ahash::AHashMap<_, _> = TOKENS.iter().enumerate().map(|(i, t)| (t.to_string(), i as u32)).collect();
        (ours, Reference::builder().vocab(map).unk_token(UNKNOWN.into()).build().unwrap())
    }

    #[test]
    fn words_are_split_as_by_the_tokenizers_crate() {
        let (ours, reference) = both();
        let long = "a".repeat(101);
        let words = [
            "",
            "unaffable",
            "unaffablex",
            "una",
            "un",
            "x",
            "aé",
            "éa",
            "éé",
            "aé中",
            "中",
            "##",
            "#",
            "aaab",
            "b",
            &long,
        ];
        for word in words {
            let (found, expected) = (ours.tokenize(word).unwrap(), reference.tokenize(word).unwrap());
            assert_eq!(found, expected, "{word:?}");
        }
    }

    #[test]
    fn tokens_and_ids_lead_to_each_other() {
        let (ours, reference) = both();
        for (id, token) in TOKENS.iter().enumerate() {
            assert_eq!(ours.token_to_id(token), Some(id as u32), "{token}");
            assert_eq!(ours.id_to_token(id as u32).as_deref(), Some(*token));
        }
        assert_eq!(ours.get_vocab(), reference.get_vocab());
        assert_eq!((ours.token_to_id("nothing"), ours.id_to_token(99)), (None, None));
    }

    #[test]
    fn of_equal_tokens_the_last_counts() {
        let vocabulary = Vocabulary::of(["[UNK]", "a", "b", "a"].into_iter()).unwrap();
        assert_eq!((vocabulary.id("a"), vocabulary.token(1)), (Some(3), Some("a".into())));
    }

    #[test]
    fn a_vocabulary_without_the_unknown_token_is_an_error() {
        let none = Vocabulary::of(std::iter::empty()).unwrap();
        assert!(WordPiece::new(Arc::new(none)).unwrap_err().message.contains("[UNK]"));
    }
}
