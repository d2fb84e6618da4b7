//! WordPiece on a vocabulary that is used in place.

use super::vocabulary::{WordPieceVocab, WordPosition};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tealight_core::{Error, Result};
use tokenizers::models::wordpiece::{WordPieceTrainer, WordPieceTrainerBuilder};
use tokenizers::{Model, Token};

/// Replaces a word that the vocabulary cannot represent.
pub const UNKNOWN: &str = "[UNK]";
/// A longer word becomes [`UNKNOWN`].
const MAX_CHARS_PER_WORD: usize = 100;

/// WordPiece (Wu et al. 2016, arXiv 1609.08144) as in BERT: greedy, the longest token that matches first.
#[derive(Debug, Clone)]
pub struct WordPiece {
    vocabulary: Arc<WordPieceVocab>,
    unknown: u32,
}

impl WordPiece {
    /// WordPiece with this vocabulary.
    ///
    /// # Errors
    /// The vocabulary has no `[UNK]`.
    pub fn new(vocabulary: Arc<WordPieceVocab>) -> Result<Self> {
        let unknown = vocabulary.id(UNKNOWN);
        let unknown = unknown.ok_or_else(|| Error::invalid_model(format!("the vocabulary has no {UNKNOWN} token")))?;
        Ok(Self { vocabulary, unknown })
    }

    /// The longest token at an offset of a word: its id and the offset of its end.
    fn longest_match(&self, word: &str, start: usize) -> Option<(u32, usize)> {
        let position = if start == 0 { WordPosition::Start } else { WordPosition::Continuation };
        let mut end = word.floor_char_boundary(start + self.vocabulary.max_token_len());
        while end > start {
            if let Some(id) = self.vocabulary.find(&word.as_bytes()[start..end], position) {
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
        if word.len() > MAX_CHARS_PER_WORD && word.chars().count() > MAX_CHARS_PER_WORD {
            return Ok(self.unknown(word));
        }
        let (mut tokens, mut start) = (vec![], 0);
        while start < word.len() {
            let Some((id, end)) = self.longest_match(word, start) else { return Ok(self.unknown(word)) };
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
        let word_piece = WordPiece::new(Arc::new(WordPieceVocab::from_tokens(TOKENS.into_iter()).unwrap())).unwrap();
        let map: ahash::AHashMap<_, _> = TOKENS.iter().enumerate().map(|(i, t)| (t.to_string(), i as u32)).collect();
        (word_piece, Reference::builder().vocab(map).unk_token(UNKNOWN.into()).build().unwrap())
    }

    #[test]
    fn tokenize_words_equals_tokenizers_crate() {
        let (word_piece, reference) = both();
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
            let (found, expected) = (word_piece.tokenize(word).unwrap(), reference.tokenize(word).unwrap());
            assert_eq!(found, expected, "{word:?}");
        }
    }

    #[test]
    fn token_and_id_lookups_are_inverse() {
        let (word_piece, reference) = both();
        for (id, token) in TOKENS.iter().enumerate() {
            assert_eq!(word_piece.token_to_id(token), Some(id as u32), "{token}");
            assert_eq!(word_piece.id_to_token(id as u32).as_deref(), Some(*token));
        }
        assert_eq!(word_piece.get_vocab(), reference.get_vocab());
        assert_eq!((word_piece.token_to_id("nothing"), word_piece.id_to_token(99)), (None, None));
    }

    #[test]
    fn lookup_of_duplicate_token_returns_last_id() {
        let vocabulary = WordPieceVocab::from_tokens(["[UNK]", "a", "b", "a"].into_iter()).unwrap();
        assert_eq!((vocabulary.id("a"), vocabulary.token(1)), (Some(3), Some("a".into())));
    }

    #[test]
    fn vocabulary_without_unknown_token_is_rejected() {
        let none = WordPieceVocab::from_tokens(std::iter::empty()).unwrap();
        assert!(WordPiece::new(Arc::new(none)).unwrap_err().message.contains("[UNK]"));
    }
}
