//! Long texts in parts that end where sentences do.

use std::collections::VecDeque;
use std::ops::Range;
use tealight_core::{Error, Result};
use unicode_segmentation::UnicodeSegmentation;

/// The smallest chunk, in tokens.
const MIN_CHUNK_TOKENS: usize = 8;

/// How documents are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chunking {
    /// Tokens of a chunk at model_limit; as many as the model reads where it is missing.
    pub tokens: Option<usize>,
    /// Tokens that a chunk may have in common with the one before it; whole sentences.
    pub overlap: usize,
}

impl Chunking {
    /// The tokens of a chunk for a model that reads `model_limit`.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::InvalidValue`] of `chunk.tokens` or `chunk.overlap`.
    pub fn max_tokens(self, model_limit: usize) -> Result<usize> {
        let tokens = self.tokens.unwrap_or(model_limit);
        if tokens > model_limit || tokens < MIN_CHUNK_TOKENS.min(model_limit) {
            let min = MIN_CHUNK_TOKENS.min(model_limit);
            let message = format!("chunk.tokens is {tokens}, it must be {min} to {model_limit} for this model");
            return Err(Error::invalid_value("chunk.tokens", message));
        }
        if self.overlap > tokens / 2 {
            let limit = tokens / 2;
            let message = format!("chunk.overlap is {}, it must be 0 to {limit}, half a chunk", self.overlap);
            return Err(Error::invalid_value("chunk.overlap", message));
        }
        Ok(tokens)
    }
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// In bytes, without the white space around it.
    pub bytes: Range<usize>,
    /// The same in chars.
    pub chars: Range<usize>,
}

/// The chunks of a text: whole sentences, as many as `limit` tokens hold, each chunk beginning with the last `overlap` tokens of the
/// one before: whole sentences where they fit, else words. A sentence that leaves no room for that is cut between lines, words or,
/// at the last, chars. `count` gives the tokens of a text; a text has no more of them than bytes, so that short ones need not
/// be counted.
///
/// Sentences are those of UAX #29 (<https://unicode.org/reports/tr29/#Sentence_Boundaries>), but that a single line break within a
/// paragraph ends none.
///
/// # Errors
/// Those of `count`.
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
        let mut fresh = 0;
        while let Some(piece) =
            pieces.pop_front_if(|piece| fresh == 0 || total_tokens(&current) + piece.tokens <= limit)
        {
            current.push_back(piece);
            fresh += 1;
        }
        // Together pieces may have more tokens than one by one.
        while current.len() > 1 && !fits(&trim_range(text, span(&current)))? {
            if fresh == 1 {
                drop_leading_text(text, &mut current);
            } else if let Some(piece) = current.pop_back() {
                pieces.push_front(piece);
                fresh -= 1;
            }
        }
        ranges.push(trim_range(text, span(&current)));
        current = overlap_pieces(text, current, overlap, count)?;
    }
    ranges.retain(|range| !range.is_empty());
    Ok(with_char_ranges(text, ranges))
}

/// Takes away from the front: all but the last piece before the one that must stay, and of that one half.
fn drop_leading_text(text: &str, current: &mut VecDeque<Piece>) {
    let Some(Piece { range, tokens }) = current.pop_front() else { return };
    if let (1, [first, _]) = (current.len(), &halves(&text[range.clone()])[..]) {
        current.push_front(Piece { range: range.start + first.len()..range.end, tokens: tokens.div_ceil(2) });
    }
}

/// What the next chunk has in common with this one.
fn overlap_pieces(
    text: &str,
    mut current: VecDeque<Piece>,
    overlap: usize,
    count: &dyn Fn(&str) -> Result<usize>,
) -> Result<VecDeque<Piece>> {
    // White space is nothing that two chunks could have in common.
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

fn total_tokens(pieces: &VecDeque<Piece>) -> usize {
    pieces.iter().map(|piece| piece.tokens).sum()
}

/// Sentences, which together are all of the text.
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

/// Whether a line goes on in the next one, as in a paragraph that was wrapped.
fn continues_paragraph(before: &str, next: &str) -> bool {
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
        // One character, or several that a tokenizer takes apart further than this, stand as they are.
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

/// The last words of a part, as many as `max_tokens` tokens hold; of a word with more than that, its end.
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

/// The last characters of a part, no more than `max_tokens` tokens hold.
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

/// A text in two between characters, or in one.
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
    // Chunks begin in order, but may overlap: what was counted up to the last beginning is kept.
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

    /// Tokens as of a tokenizer that knows only words and marks.
    fn words(text: &str) -> Result<usize> {
        Ok(text.split_word_bounds().filter(|word| !word.trim().is_empty()).count())
    }

    fn cut(text: &str, limit: usize, overlap: usize) -> Vec<&str> {
        let found = split_into_chunks(text, limit, overlap, &words).unwrap();
        for chunk in &found {
            let chars: String = text.chars().skip(chunk.chars.start).take(chunk.chars.len()).collect();
            assert_eq!(chars, text[chunk.bytes.clone()]);
            assert!(words(&chars).unwrap() <= limit || chars.chars().count() == 1, "{chars:?}");
        }
        found.into_iter().map(|chunk| &text[chunk.bytes]).collect()
    }

    #[test]
    fn chunks_end_where_sentences_do() {
        let text = "One two three. Four five six! Seven eight nine? Ten.";
        assert_eq!(cut(text, 8, 0), ["One two three. Four five six!", "Seven eight nine? Ten."]);
        assert_eq!(cut(text, 100, 0), [text]);
        assert_eq!(cut("  spaces around  ", 100, 0), ["spaces around"]);
        assert_eq!(cut("", 8, 0), [""]);
    }

    #[test]
    fn chunks_overlap_by_whole_sentences() {
        let text = "One two three. Four five. Six seven eight. Nine ten eleven.";
        assert_eq!(
            cut(text, 11, 4),
            ["One two three. Four five. Six seven eight.", "Six seven eight. Nine ten eleven."]
        );
        let letters = |text: &str| Ok(text.chars().count());
        let found = split_into_chunks("äöüäöüäöüä", 4, 2, &letters).unwrap();
        assert!(found.windows(2).all(|two| two[1].chars.start < two[0].chars.end), "{found:?}");
        // White space behind a word that is too long is no overlap.
        let found =
            split_into_chunks("aaaaaaaa bbbbbbbb cccccccc", 8, 2, &|text| Ok(text.trim().chars().count())).unwrap();
        assert!(found.windows(2).all(|two| two[1].chars.start < two[0].chars.end), "{found:?}");
        // Of a sentence that is longer than that, the last words.
        let words = ["One two three. Four five.", "Four five. Six seven eight.", "seven eight. Nine ten eleven."];
        assert_eq!(cut(text, 7, 3), words);
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
        let found = split_into_chunks("äöüäöüäöüä", 4, 0, &letters).unwrap();
        assert_eq!(found.iter().map(|c| c.chars.clone()).collect::<Vec<_>>(), [0..2, 2..5, 5..7, 7..10]);
    }

    #[test]
    fn parts_of_a_word_that_is_one_token_as_a_whole_overlap() {
        // As WordPiece: what is too long is one token, its parts are many.
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
    fn no_text_is_lost() {
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
    fn limits_are_the_models() {
        let of = |tokens, overlap| Chunking { tokens, overlap }.max_tokens(256);
        assert_eq!(of(None, 0).unwrap(), 256);
        assert_eq!(of(Some(64), 32).unwrap(), 64);
        for (tokens, overlap, field) in
            [(Some(257), 0, "chunk.tokens"), (Some(7), 0, "chunk.tokens"), (Some(64), 33, "chunk.overlap")]
        {
            assert_eq!(of(tokens, overlap).unwrap_err().param.as_deref(), Some(field));
        }
    }
}
