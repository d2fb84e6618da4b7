//! The vocabulary of WordPiece, used in place, because building the hash maps of the `tokenizers` crate at each cold start takes
//! milliseconds (`tealight info --timing`).

use bytes::Bytes;
use std::ops::Range;
use tealight_core::{Error, Result};

/// The prefix of tokens that continue a word.
pub const CONTINUATION: &str = "##";

/// Token ids and their text, in both directions.
#[derive(Debug)]
pub struct WordPieceVocab {
    /// Contains the text of every token.
    text: Bytes,
    tokens: Vec<Entry>,
    /// Token ids, hashed with open addressing; a free slot is [`EMPTY`]. A power of two, at least twice the number of tokens.
    slots: Vec<u32>,
    /// Bytes of the longest token.
    max_token_len: usize,
}

const EMPTY: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    length: u32,
    position: WordPosition,
}

/// The part of a word that a token can match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WordPosition {
    /// The start of a word.
    Start,
    /// The rest of a word, after other tokens.
    Continuation,
}

impl WordPieceVocab {
    /// Tokens in the order of their ids, as ranges of `text`, which is UTF-8, without the prefix of continuations. If tokens are
    /// equal, the last one is found.
    ///
    /// # Errors
    /// There are more than 2^30 tokens or 2^32 bytes of text.
    pub fn new(text: Bytes, tokens: impl ExactSizeIterator<Item = (Range<usize>, WordPosition)>) -> Result<Self> {
        let count = tokens.len();
        if count > 1 << 30 || u32::try_from(text.len()).is_err() {
            return Err(Error::invalid_model(format!(
                "a vocabulary of {count} tokens in {} bytes is too large",
                text.len()
            )));
        }
        let slots = vec![EMPTY; (2 * count).next_power_of_two().max(2)];
        let mut this = Self { text, tokens: Vec::with_capacity(count), slots, max_token_len: 0 };
        for (range, position) in tokens {
            let slot = this.slot(&this.text[range.clone()], position);
            this.slots[slot] = this.tokens.len() as u32;
            this.max_token_len = this.max_token_len.max(range.len());
            this.tokens.push(Entry { start: range.start as u32, length: range.len() as u32, position });
        }
        Ok(this)
    }

    /// Tokens in the order of their ids, continuations with their prefix.
    ///
    /// # Errors
    /// As for [`WordPieceVocab::new`].
    pub fn from_tokens<'a>(tokens: impl Iterator<Item = &'a str>) -> Result<Self> {
        let (mut text, mut parts) = (String::new(), vec![]);
        for token in tokens {
            let (token, position) = split(token);
            parts.push((text.len()..text.len() + token.len(), position));
            text.push_str(token);
        }
        Self::new(text.into(), parts.into_iter())
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The token of an id, a continuation with its prefix.
    pub fn token(&self, id: u32) -> Option<String> {
        let entry = self.tokens.get(id as usize)?;
        let prefix = if entry.position == WordPosition::Continuation { CONTINUATION } else { "" };
        Some(format!("{prefix}{}", String::from_utf8_lossy(self.bytes(entry))))
    }

    /// The tokens in the order of their ids, continuations with their prefix.
    pub fn tokens(&self) -> impl Iterator<Item = String> {
        (0..self.tokens.len() as u32).filter_map(|id| self.token(id))
    }

    /// The id of a token, a continuation with its prefix.
    pub fn id(&self, token: &str) -> Option<u32> {
        let (text, position) = split(token);
        self.find(text.as_bytes(), position)
    }

    pub(super) fn find(&self, text: &[u8], position: WordPosition) -> Option<u32> {
        Some(self.slots[self.slot(text, position)]).filter(|id| *id != EMPTY)
    }

    /// The slot of a token, or the free slot for it.
    fn slot(&self, text: &[u8], position: WordPosition) -> usize {
        let last = self.slots.len() - 1;
        let mut slot = hash(text, position) as usize & last;
        while self.slots[slot] != EMPTY && !self.matches(self.slots[slot], text, position) {
            slot = (slot + 1) & last;
        }
        slot
    }

    fn matches(&self, id: u32, text: &[u8], position: WordPosition) -> bool {
        let entry = &self.tokens[id as usize];
        entry.position == position && self.bytes(entry) == text
    }

    /// Bytes of the longest token, without prefix.
    pub(super) fn max_token_len(&self) -> usize {
        self.max_token_len
    }

    fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.text[entry.start as usize..][..entry.length as usize]
    }
}

fn split(token: &str) -> (&str, WordPosition) {
    match token.strip_prefix(CONTINUATION) {
        Some(rest) if !rest.is_empty() => (rest, WordPosition::Continuation),
        _ => (token, WordPosition::Start),
    }
}

/// FNV-1a (Fowler, Noll, Vo), with the high bits folded into the low ones.
fn hash(text: &[u8], position: WordPosition) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ position as u64;
    let hash = text.iter().fold(start, |h, b| (h ^ *b as u64).wrapping_mul(0x0100_0000_01b3));
    hash ^ hash >> 32
}
