//! Long texts in parts that end where sentences do.

use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::ops::Range;
use unicode_segmentation::UnicodeSegmentation;

/// The smallest chunk, in tokens.
const LEAST_TOKENS: usize = 8;

/// How documents are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chunking {
    /// Tokens of a chunk at most; as many as the model reads where it is missing.
    pub tokens: Option<usize>,
    /// Tokens that a chunk may have in common with the one before it; whole sentences.
    pub overlap: usize,
}

impl Chunking {
    /// The tokens of a chunk for a model that reads `most`.
    ///
    /// # Errors
    /// [`crate::Kind::InvalidValue`] of `chunk.tokens` or `chunk.overlap`.
    pub fn limit(self, most: usize) -> Result<usize> {
        let tokens = self.tokens.unwrap_or(most);
        if tokens > most || tokens < LEAST_TOKENS.min(most) {
            let least = LEAST_TOKENS.min(most);
            let message = format!("chunk.tokens is {tokens}, it must be {least} to {most} for this model");
            return Err(Error::value("chunk.tokens", message));
        }
        if self.overlap >= tokens {
            let message = format!("chunk.overlap is {}, it must be below the {tokens} tokens of a chunk", self.overlap);
            return Err(Error::value("chunk.overlap", message));
        }
        Ok(tokens)
    }
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// In bytes, without the white space around it.
    pub bytes: Range<usize>,
    /// The same in characters.
    pub characters: Range<usize>,
}

/// The chunks of a text: whole sentences, as many as `limit` tokens hold, each chunk beginning with up to `overlap` tokens of the
/// one before. A sentence that is longer by itself is cut between lines, words or, at the last, characters. `count` gives the
/// tokens of a text; a text has no more of them than bytes, so that short ones need not be counted.
///
/// Sentences are those of UAX #29 (<https://unicode.org/reports/tr29/#Sentence_Boundaries>), but that a single line break within a
/// paragraph ends none.
///
/// # Errors
/// Those of `count`.
pub fn chunks(text: &str, limit: usize, overlap: usize, count: &dyn Fn(&str) -> Result<usize>) -> Result<Vec<Chunk>> {
    let fits =
        |range: &Range<usize>| -> Result<bool> { Ok(range.len() <= limit || count(&text[range.clone()])? <= limit) };
    let whole = trimmed(text, 0..text.len());
    if fits(&whole)? {
        return Ok(with_characters(text, vec![whole]));
    }
    let mut pieces = VecDeque::new();
    for sentence in sentences(text) {
        split(text, sentence, limit, count, Unit::Line, &mut pieces)?;
    }
    let mut ranges: Vec<Range<usize>> = vec![];
    let mut open: VecDeque<Piece> = VecDeque::new();
    while let Some(piece) = pieces.pop_front() {
        let begins = !open.is_empty();
        open.push_back(piece);
        let joined = trimmed(text, span(&open));
        if !begins || (sum(&open) <= limit && fits(&joined)?) {
            continue;
        }
        let Some(piece) = open.pop_back() else { continue };
        ranges.push(trimmed(text, span(&open)));
        // What the next chunk has in common with this one, as far as the next piece leaves room for it.
        while !open.is_empty() && (sum(&open) > overlap || sum(&open) + piece.tokens > limit) {
            open.pop_front();
        }
        open.push_back(piece);
        while open.len() > 1 && !fits(&trimmed(text, span(&open)))? {
            open.pop_front();
        }
    }
    if !open.is_empty() {
        ranges.push(trimmed(text, span(&open)));
    }
    ranges.retain(|range| !range.is_empty());
    Ok(with_characters(text, ranges))
}

/// A part that is not cut any more, and how many tokens it has by itself.
#[derive(Debug, Clone)]
struct Piece {
    range: Range<usize>,
    tokens: usize,
}

fn span(pieces: &VecDeque<Piece>) -> Range<usize> {
    match (pieces.front(), pieces.back()) {
        (Some(first), Some(last)) => first.range.start..last.range.end,
        _ => 0..0,
    }
}

fn sum(pieces: &VecDeque<Piece>) -> usize {
    pieces.iter().map(|piece| piece.tokens).sum()
}

/// Sentences, which together are all of the text.
fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = vec![];
    for (start, sentence) in text.split_sentence_bound_indices() {
        let range = start..start + sentence.len();
        match found.last_mut() {
            Some(last) if goes_on(&text[last.clone()], sentence) => last.end = range.end,
            _ => found.push(range),
        }
    }
    found
}

/// Whether a line goes on in the next one, as in a paragraph that was wrapped.
fn goes_on(before: &str, next: &str) -> bool {
    let Some(line) = before.strip_suffix('\n') else { return false };
    let line = line.strip_suffix('\r').unwrap_or(line);
    let ended = line.trim_end().ends_with(['.', '!', '?', ':', '。', '！', '？', '…', '"', '”', '»', ')']);
    // A list, a heading, a quotation or a table of Markdown is no paragraph that goes on.
    let begins = next.trim_start().starts_with(['-', '*', '+', '#', '>', '|']);
    !ended && !begins && !line.ends_with('\n') && !line.trim().is_empty() && !next.trim().is_empty()
}

/// Where a piece that is too long is cut.
#[derive(Clone, Copy)]
enum Unit {
    Line,
    Word,
    Character,
}

fn split(
    text: &str,
    range: Range<usize>,
    limit: usize,
    count: &dyn Fn(&str) -> Result<usize>,
    unit: Unit,
    pieces: &mut VecDeque<Piece>,
) -> Result<()> {
    let part = &text[range.clone()];
    let tokens = count(part)?;
    if tokens <= limit {
        pieces.push_back(Piece { range, tokens });
        return Ok(());
    }
    let (parts, next): (Vec<&str>, Unit) = match unit {
        Unit::Line => (part.split_inclusive('\n').collect(), Unit::Word),
        Unit::Word => (part.split_word_bounds().collect(), Unit::Character),
        // One character, or several that a tokenizer takes apart further than this, stand as they are.
        Unit::Character => (halves(part), Unit::Character),
    };
    if parts.len() == 1 && matches!(unit, Unit::Character) {
        pieces.push_back(Piece { range, tokens });
        return Ok(());
    }
    let mut at = range.start;
    for part in parts {
        split(text, at..at + part.len(), limit, count, next, pieces)?;
        at += part.len();
    }
    Ok(())
}

/// A text in two between characters, or in one.
fn halves(text: &str) -> Vec<&str> {
    let middle = text.chars().count() / 2;
    match text.char_indices().nth(middle) {
        Some((at, _)) if at > 0 => vec![&text[..at], &text[at..]],
        _ => vec![text],
    }
}

fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.start + (part.len() - part.trim_start().len());
    start..start + part.trim().len()
}

fn with_characters(text: &str, ranges: Vec<Range<usize>>) -> Vec<Chunk> {
    // Chunks begin in order, but may overlap: what was counted up to the last beginning is kept.
    let (mut byte, mut character) = (0, 0);
    let chunk = |bytes: Range<usize>| {
        character += text[byte..bytes.start].chars().count();
        byte = bytes.start;
        let end = character + text[bytes.clone()].chars().count();
        Chunk { bytes, characters: character..end }
    };
    ranges.into_iter().map(chunk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens as of a tokenizer that knows only words and marks.
    fn words(text: &str) -> Result<usize> {
        Ok(text.split_word_bounds().filter(|word| !word.trim().is_empty()).count())
    }

    fn cut(text: &str, limit: usize, overlap: usize) -> Vec<&str> {
        let found = chunks(text, limit, overlap, &words).unwrap();
        for chunk in &found {
            let characters: String = text.chars().skip(chunk.characters.start).take(chunk.characters.len()).collect();
            assert_eq!(characters, text[chunk.bytes.clone()]);
            assert!(words(&characters).unwrap() <= limit || characters.chars().count() == 1, "{characters:?}");
        }
        found.into_iter().map(|chunk| &text[chunk.bytes]).collect()
    }

    #[test]
    fn chunks_end_where_sentences_do() {
        let text = "One two three. Four five six! Seven eight nine? Ten.";
        assert_eq!(cut(text, 8, 0), ["One two three. Four five six!", "Seven eight nine? Ten."]);
        assert_eq!(cut(text, 100, 0), [text]);
        assert_eq!(cut("  spaces around  ", 100, 0), ["spaces around"]);
        assert_eq!(cut("", 8, 0), Vec::<&str>::new());
    }

    #[test]
    fn chunks_overlap_by_whole_sentences() {
        let text = "One two three. Four five. Six seven eight. Nine ten eleven.";
        assert_eq!(
            cut(text, 11, 4),
            ["One two three. Four five. Six seven eight.", "Six seven eight. Nine ten eleven."]
        );
        // The sentence before does not fit beside the next one.
        assert_eq!(cut(text, 7, 4), ["One two three. Four five.", "Four five. Six seven eight.", "Nine ten eleven."]);
    }

    #[test]
    fn a_wrapped_paragraph_goes_on_and_a_list_does_not() {
        let found = |text| sentences(text).into_iter().map(|range| &text[range]).collect::<Vec<_>>();
        assert_eq!(found("A line that\nis wrapped\n\nNext"), ["A line that\nis wrapped\n", "\n", "Next"]);
        assert_eq!(found("- first\n- second\n"), ["- first\n", "- second\n"]);
        assert_eq!(found("It ends.\nThen more"), ["It ends.\n", "Then more"]);
    }

    #[test]
    fn a_sentence_without_end_is_cut_between_words_and_a_word_between_characters() {
        assert_eq!(cut("a b c d e f g h i j", 4, 0), ["a b c d", "e f g h", "i j"]);
        let letters = |text: &str| Ok(text.chars().count());
        let found = chunks("äöüäöüäöüä", 4, 0, &letters).unwrap();
        assert_eq!(found.iter().map(|c| c.characters.clone()).collect::<Vec<_>>(), [0..3, 3..5, 5..8, 8..10]);
    }

    #[test]
    fn no_text_is_lost() {
        let text = "Erste Zeile, die\nlang ist. Zweite! \"Dritte?\" sagte er.\r\n\r\n# Titel\n\n* eins\n* zwei 日本語。次の文。 ".repeat(9);
        for (limit, overlap) in [(1, 0), (8, 0), (8, 3), (20, 10), (33, 32), (1000, 0)] {
            let mut covered = vec![false; text.len()];
            for chunk in chunks(&text, limit, overlap, &words).unwrap() {
                covered[chunk.bytes].fill(true);
            }
            for (at, character) in text.char_indices() {
                assert!(covered[at] || character.is_whitespace(), "{at} {limit} {overlap}");
            }
        }
    }

    #[test]
    fn limits_are_the_models() {
        let of = |tokens, overlap| Chunking { tokens, overlap }.limit(256);
        assert_eq!(of(None, 0).unwrap(), 256);
        assert_eq!(of(Some(64), 63).unwrap(), 64);
        for (tokens, overlap, field) in
            [(Some(257), 0, "chunk.tokens"), (Some(7), 0, "chunk.tokens"), (Some(64), 64, "chunk.overlap")]
        {
            assert_eq!(of(tokens, overlap).unwrap_err().param.as_deref(), Some(field));
        }
    }
}
