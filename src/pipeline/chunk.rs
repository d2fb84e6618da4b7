//! Splits long texts into chunks at sentence boundaries.

use std::collections::VecDeque;
use std::ops::Range;
use tealight_core::{Error, Result};
use unicode_segmentation::UnicodeSegmentation;

/// The smallest limit that a request can set, in tokens.
const MIN_CHUNK_TOKENS: usize = 8;

/// How documents are split into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chunking {
    /// Maximum tokens per chunk; default: the limit of the model.
    pub tokens: Option<usize>,
    /// Maximum tokens that adjacent chunks share; whole sentences if they fit.
    pub overlap: usize,
}

impl Chunking {
    /// Maximum tokens per chunk for a model that accepts `model_limit` tokens.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::InvalidValue`] for `chunk.tokens` or `chunk.overlap`.
    pub fn max_tokens(self, model_limit: usize) -> Result<usize> {
        let tokens = self.tokens.unwrap_or(model_limit);
        if tokens > model_limit || tokens < MIN_CHUNK_TOKENS.min(model_limit) {
            let min = MIN_CHUNK_TOKENS.min(model_limit);
            let message = format!("chunk.tokens is {tokens}; expected {min} to {model_limit} for this model");
            return Err(Error::invalid_value("chunk.tokens", message));
        }
        if self.overlap > tokens / 2 {
            let limit = tokens / 2;
            let message = format!("chunk.overlap is {}; expected 0 to {limit}, half a chunk", self.overlap);
            return Err(Error::invalid_value("chunk.overlap", message));
        }
        Ok(tokens)
    }
}

/// A part of a text, as ranges without the white space around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Range in the text, in bytes.
    pub bytes: Range<usize>,
    /// Range in the text, in characters.
    pub chars: Range<usize>,
}

/// Splits a text into chunks of whole sentences with at most `limit` tokens. Each chunk starts with the last sentences of the chunk
/// before it that fit into `overlap` tokens, or with its last words if no sentence fits. A sentence above the limit is split at
/// line breaks, then at words, then at characters.
///
/// `count` returns the number of tokens of a text. It is not called for a text of at most `limit` bytes, because a token has at
/// least one byte.
///
/// Sentences are those of UAX #29 (<https://unicode.org/reports/tr29/#Sentence_Boundaries>), except that a single line break within
/// a paragraph does not end a sentence.
///
/// # Errors
/// The errors of `count`.
pub fn split_into_chunks(
    text: &str,
    limit: usize,
    overlap: usize,
    count: &dyn Fn(&str) -> Result<usize>,
) -> Result<Vec<Chunk>> {
    let fits =
        |range: &Range<usize>| -> Result<bool> { Ok(range.len() <= limit || count(&text[range.clone()])? <= limit) };
    let whole = trim_range(text, 0..text.len());
    if fits(&whole)? {
        return Ok(with_char_ranges(text, vec![whole]));
    }
    let mut pieces = VecDeque::new();
    for sentence in sentences(text) {
        split_range(text, sentence, limit - overlap, count, Unit::Line, &mut pieces)?;
    }
    let (mut ranges, mut current) = (vec![], VecDeque::new());
    while !pieces.is_empty() {
        // Pieces of `current` that the chunk before does not contain; at least one, so that the loop advances.
        let mut new_pieces = 0;
        while let Some(piece) =
            pieces.pop_front_if(|piece| new_pieces == 0 || total_tokens(&current) + piece.tokens <= limit)
        {
            current.push_back(piece);
            new_pieces += 1;
        }
        // The tokens of joined pieces can exceed the sum of the tokens of each.
        while current.len() > 1 && !fits(&trim_range(text, span(&current)))? {
            if new_pieces == 1 {
                drop_leading_text(text, &mut current);
            } else if let Some(piece) = current.pop_back() {
                pieces.push_front(piece);
                new_pieces -= 1;
            }
        }
        ranges.push(trim_range(text, span(&current)));
        current = overlap_pieces(text, current, overlap, count)?;
    }
    ranges.retain(|range| !range.is_empty());
    Ok(with_char_ranges(text, ranges))
}

/// Makes room for the last piece by dropping the first piece, or its first half if only these two are left.
fn drop_leading_text(text: &str, current: &mut VecDeque<Piece>) {
    let Some(Piece { range, tokens }) = current.pop_front() else { return };
    if let (1, [first, _]) = (current.len(), &halves(&text[range.clone()])[..]) {
        current.push_front(Piece { range: range.start + first.len()..range.end, tokens: tokens.div_ceil(2) });
    }
}

/// The pieces at the end of a chunk that the next chunk repeats.
fn overlap_pieces(
    text: &str,
    mut current: VecDeque<Piece>,
    overlap: usize,
    count: &dyn Fn(&str) -> Result<usize>,
) -> Result<VecDeque<Piece>> {
    // Chunks are trimmed, so white space at the end cannot be repeated.
    while current.pop_back_if(|piece| text[piece.range.clone()].trim().is_empty()).is_some() {}
    let last = current.back().cloned();
    while total_tokens(&current) > overlap {
        current.pop_front();
    }
    if let (0, true, Some(last)) = (current.len(), overlap > 0, last) {
        current.extend(last_words(text, last.range, overlap, count)?);
    }
    Ok(current)
}

/// A part of the text that is not split further, with its number of tokens.
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

fn total_tokens(pieces: &VecDeque<Piece>) -> usize {
    pieces.iter().map(|piece| piece.tokens).sum()
}

/// Sentences with the white space after them; together they cover the whole text.
fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = vec![];
    for (start, sentence) in text.split_sentence_bound_indices() {
        let range = start..start + sentence.len();
        match found.last_mut() {
            Some(last) if continues_paragraph(&text[last.clone()], sentence) => last.end = range.end,
            _ => found.push(range),
        }
    }
    found
}

/// Whether a line continues in the next one, as in a hard-wrapped paragraph.
fn continues_paragraph(before: &str, next: &str) -> bool {
    let Some(line) = before.strip_suffix('\n') else { return false };
    let line = line.strip_suffix('\r').unwrap_or(line);
    let is_complete = line.trim_end().ends_with(['.', '!', '?', ':', '。', '！', '？', '…', '"', '”', '»', ')']);
    // Lists, headings, quotations and tables of Markdown start a new paragraph.
    let starts_block = next.trim_start().starts_with(['-', '*', '+', '#', '>', '|']);
    !is_complete && !starts_block && !line.ends_with('\n') && !line.trim().is_empty() && !next.trim().is_empty()
}

/// Where a piece above the limit is split.
#[derive(Clone, Copy)]
enum Unit {
    Line,
    Word,
    Character,
}

/// Splits a range into pieces of at most `limit` tokens: at `unit` first, then at the smaller units.
fn split_range(
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
        // A single character stays whole even if it has more tokens than the limit.
        Unit::Character => (halves(part), Unit::Character),
    };
    if parts.len() == 1 && matches!(unit, Unit::Character) {
        pieces.push_back(Piece { range, tokens });
        return Ok(());
    }
    let mut at = range.start;
    for part in parts {
        split_range(text, at..at + part.len(), limit, count, next, pieces)?;
        at += part.len();
    }
    Ok(())
}

/// The last words of a range that fit into `max_tokens`, or the end of the last word if it does not fit.
fn last_words(
    text: &str,
    range: Range<usize>,
    max_tokens: usize,
    count: &dyn Fn(&str) -> Result<usize>,
) -> Result<Option<Piece>> {
    let mut found = None;
    for (at, word) in text[range.clone()].split_word_bound_indices().rev() {
        let range = range.start + at..range.end;
        let tokens = count(&text[range.clone()])?;
        if tokens > max_tokens {
            return if found.is_some() { Ok(found) } else { last_chars(text, range, max_tokens, count) };
        }
        if !word.trim().is_empty() {
            found = Some(Piece { range, tokens });
        }
    }
    Ok(found)
}

/// The last characters of a range that fit into `max_tokens`.
fn last_chars(
    text: &str,
    mut range: Range<usize>,
    max_tokens: usize,
    count: &dyn Fn(&str) -> Result<usize>,
) -> Result<Option<Piece>> {
    loop {
        let tokens = count(&text[range.clone()])?;
        if tokens <= max_tokens {
            return Ok(Some(Piece { range, tokens }));
        }
        let [first, _] = halves(&text[range.clone()])[..] else { return Ok(None) };
        range.start += first.len();
    }
}

/// The two halves of a text, split between characters; or the text itself if it has one character.
fn halves(text: &str) -> Vec<&str> {
    let middle = text.chars().count() / 2;
    match text.char_indices().nth(middle) {
        Some((at, _)) if at > 0 => vec![&text[..at], &text[at..]],
        _ => vec![text],
    }
}

fn trim_range(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.start + (part.len() - part.trim_start().len());
    start..start + part.trim().len()
}

fn with_char_ranges(text: &str, ranges: Vec<Range<usize>>) -> Vec<Chunk> {
    // Chunks start in order but may overlap, so counting continues at the start of the previous chunk.
    let (mut byte, mut character) = (0, 0);
    let chunk = |bytes: Range<usize>| {
        character += text[byte..bytes.start].chars().count();
        byte = bytes.start;
        let end = character + text[bytes.clone()].chars().count();
        Chunk { bytes, chars: character..end }
    };
    ranges.into_iter().map(chunk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts tokens as a tokenizer of words and punctuation does.
    fn words(text: &str) -> Result<usize> {
        Ok(text.split_word_bounds().filter(|word| !word.trim().is_empty()).count())
    }

    fn split(text: &str, limit: usize, overlap: usize) -> Vec<&str> {
        let found = split_into_chunks(text, limit, overlap, &words).unwrap();
        for chunk in &found {
            let chars: String = text.chars().skip(chunk.chars.start).take(chunk.chars.len()).collect();
            assert_eq!(chars, text[chunk.bytes.clone()]);
            assert!(words(&chars).unwrap() <= limit || chars.chars().count() == 1, "{chars:?}");
        }
        found.into_iter().map(|chunk| &text[chunk.bytes]).collect()
    }

    #[test]
    fn chunks_end_at_sentence_boundaries() {
        let text = "One two three. Four five six! Seven eight nine? Ten.";
        assert_eq!(split(text, 8, 0), ["One two three. Four five six!", "Seven eight nine? Ten."]);
        assert_eq!(split(text, 100, 0), [text]);
        assert_eq!(split("  spaces around  ", 100, 0), ["spaces around"]);
        assert_eq!(split("", 8, 0), [""]);
    }

    #[test]
    fn chunks_overlap_by_whole_sentences() {
        let text = "One two three. Four five. Six seven eight. Nine ten eleven.";
        assert_eq!(
            split(text, 11, 4),
            ["One two three. Four five. Six seven eight.", "Six seven eight. Nine ten eleven."]
        );
        let letters = |text: &str| Ok(text.chars().count());
        let found = split_into_chunks("äöüäöüäöüä", 4, 2, &letters).unwrap();
        assert!(found.windows(2).all(|two| two[1].chars.start < two[0].chars.end), "{found:?}");
        // White space after a word above the limit is not an overlap.
        let found =
            split_into_chunks("aaaaaaaa bbbbbbbb cccccccc", 8, 2, &|text| Ok(text.trim().chars().count())).unwrap();
        assert!(found.windows(2).all(|two| two[1].chars.start < two[0].chars.end), "{found:?}");
        // If the last sentence exceeds the overlap, its last words are repeated.
        let words = ["One two three. Four five.", "Four five. Six seven eight.", "seven eight. Nine ten eleven."];
        assert_eq!(split(text, 7, 3), words);
    }

    #[test]
    fn wrapped_paragraph_is_one_sentence_and_list_is_not() {
        let found = |text| sentences(text).into_iter().map(|range| &text[range]).collect::<Vec<_>>();
        assert_eq!(found("A line that\nis wrapped\n\nNext"), ["A line that\nis wrapped\n", "\n", "Next"]);
        assert_eq!(found("- first\n- second\n"), ["- first\n", "- second\n"]);
        assert_eq!(found("It ends.\nThen more"), ["It ends.\n", "Then more"]);
    }

    #[test]
    fn sentence_above_limit_is_split_at_words_and_word_at_characters() {
        assert_eq!(split("a b c d e f g h i j", 4, 0), ["a b c d", "e f g h", "i j"]);
        let letters = |text: &str| Ok(text.chars().count());
        let found = split_into_chunks("äöüäöüäöüä", 4, 0, &letters).unwrap();
        assert_eq!(found.iter().map(|c| c.chars.clone()).collect::<Vec<_>>(), [0..2, 2..5, 5..7, 7..10]);
    }

    #[test]
    fn parts_of_single_token_word_overlap() {
        // As in WordPiece, a long word is one (unknown) token, while its parts are several.
        let pieces = |text: &str| {
            let tokens = |word: &str| if word.chars().count() > 20 { 1 } else { word.chars().count().div_ceil(2) };
            Ok(text.split_whitespace().map(tokens).sum())
        };
        let text = format!("{} {} {}", "a".repeat(19), "b".repeat(60), "c d e f g h ".repeat(9));
        let found = split_into_chunks(&text, 12, 4, &pieces).unwrap();
        assert!(found.len() > 3 && found.iter().all(|c| pieces(&text[c.bytes.clone()]).unwrap() <= 12), "{found:?}");
        assert!(found.windows(2).all(|two| two[1].chars.start < two[0].chars.end), "{found:?}");
    }

    #[test]
    fn chunks_cover_whole_text() {
        let text = "Erste Zeile, die\nlang ist. Zweite! \"Dritte?\" sagte er.\r\n\r\n# Titel\n\n* eins\n* zwei 日本語。次の文。 ".repeat(9);
        for (limit, overlap) in [(1, 0), (8, 0), (8, 3), (20, 10), (33, 20), (1000, 0)] {
            let mut covered = vec![false; text.len()];
            for chunk in split_into_chunks(&text, limit, overlap, &words).unwrap() {
                covered[chunk.bytes].fill(true);
            }
            for (at, character) in text.char_indices() {
                assert!(covered[at] || character.is_whitespace(), "{at} {limit} {overlap}");
            }
        }
    }

    #[test]
    fn chunk_limits_depend_on_model() {
        let max_tokens = |tokens, overlap| Chunking { tokens, overlap }.max_tokens(256);
        assert_eq!(max_tokens(None, 0).unwrap(), 256);
        assert_eq!(max_tokens(Some(64), 32).unwrap(), 64);
        for (tokens, overlap, field) in
            [(Some(257), 0, "chunk.tokens"), (Some(7), 0, "chunk.tokens"), (Some(64), 33, "chunk.overlap")]
        {
            assert_eq!(max_tokens(tokens, overlap).unwrap_err().param.as_deref(), Some(field));
        }
    }
}
