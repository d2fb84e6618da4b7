//! Long texts in parts that end where sentences do.

use std::collections::VecDeque;
use std::ops::Range;
use tealight_core::{Error, Result};
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
    /// [`tealight_core::ErrorKind::InvalidValue`] of `chunk.tokens` or `chunk.overlap`.
    pub fn limit(self, most: usize) -> Result<usize> {
        let tokens = self.tokens.unwrap_or(most);
        if tokens > most || tokens < LEAST_TOKENS.min(most) {
            let least = LEAST_TOKENS.min(most);
            let message = format!("chunk.tokens is {tokens}, it must be {least} to {most} for this model");
            return Err(Error::invalid_value("chunk.tokens", message));
        }
        if self.overlap > tokens / 2 {
            let most = tokens / 2;
            let message = format!("chunk.overlap is {}, it must be 0 to {most}, half a chunk", self.overlap);
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
    /// The same in characters.
    pub characters: Range<usize>,
}

/// The chunks of a text: whole sentences, as many as `limit` tokens hold, each chunk beginning with the last `overlap` tokens of the
/// one before: whole sentences where they fit, else words. A sentence that leaves no room for that is cut between lines, words or,
/// at the last, characters. `count` gives the tokens of a text; a text has no more of them than bytes, so that short ones need not
/// be counted.
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
        split(text, sentence, limit - overlap, count, Unit::Line, &mut pieces)?;
    }
    let (mut ranges, mut open) = (vec![], VecDeque::new());
    while !pieces.is_empty() {
        let mut fresh = 0;
        while let Some(piece) = pieces.pop_front_if(|piece| fresh == 0 || sum(&open) + piece.tokens <= limit) {
            open.push_back(piece);
            fresh += 1;
        }
        // Together pieces may have more tokens than one by one.
        while open.len() > 1 && !fits(&trimmed(text, span(&open)))? {
            if fresh == 1 {
                shorten(text, &mut open);
            } else if let Some(piece) = open.pop_back() {
                pieces.push_front(piece);
                fresh -= 1;
            }
        }
        ranges.push(trimmed(text, span(&open)));
        open = shared(text, open, overlap, count)?;
    }
    ranges.retain(|range| !range.is_empty());
    Ok(with_characters(text, ranges))
}

/// Takes away from the front: all but the last piece before the one that must stay, and of that one half.
fn shorten(text: &str, open: &mut VecDeque<Piece>) {
    let Some(Piece { range, tokens }) = open.pop_front() else { return };
    if let (1, [first, _]) = (open.len(), &halves(&text[range.clone()])[..]) {
        open.push_front(Piece { range: range.start + first.len()..range.end, tokens: tokens.div_ceil(2) });
    }
}

/// What the next chunk has in common with this one.
fn shared(
    text: &str,
    mut open: VecDeque<Piece>,
    overlap: usize,
    count: &dyn Fn(&str) -> Result<usize>,
) -> Result<VecDeque<Piece>> {
    // White space is nothing that two chunks could have in common.
    while open.pop_back_if(|piece| text[piece.range.clone()].trim().is_empty()).is_some() {}
    let last = open.back().cloned();
    while sum(&open) > overlap {
        open.pop_front();
    }
    if let (0, true, Some(last)) = (open.len(), overlap > 0, last) {
        open.extend(tail(text, last.range, overlap, count)?);
    }
    Ok(open)
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

/// The last words of a part, as many as `most` tokens hold; of a word with more than that, its end.
fn tail(text: &str, range: Range<usize>, most: usize, count: &dyn Fn(&str) -> Result<usize>) -> Result<Option<Piece>> {
    let mut found = None;
    for (at, word) in text[range.clone()].split_word_bound_indices().rev() {
        let range = range.start + at..range.end;
        let tokens = count(&text[range.clone()])?;
        if tokens > most {
            return if found.is_some() { Ok(found) } else { end(text, range, most, count) };
        }
        if !word.trim().is_empty() {
            found = Some(Piece { range, tokens });
        }
    }
    Ok(found)
}

/// The last characters of a part, no more than `most` tokens hold.
fn end(
    text: &str,
    mut range: Range<usize>,
    most: usize,
    count: &dyn Fn(&str) -> Result<usize>,
) -> Result<Option<Piece>> {
    loop {
        let tokens = count(&text[range.clone()])?;
        if tokens <= most {
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
        let found = chunks("äöüäöüäöüä", 4, 2, &letters).unwrap();
        assert!(found.windows(2).all(|two| two[1].characters.start < two[0].characters.end), "{found:?}");
        // White space behind a word that is too long is no overlap.
        let found = chunks("aaaaaaaa bbbbbbbb cccccccc", 8, 2, &|text| Ok(text.trim().chars().count())).unwrap();
        assert!(found.windows(2).all(|two| two[1].characters.start < two[0].characters.end), "{found:?}");
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
        let found = chunks("äöüäöüäöüä", 4, 0, &letters).unwrap();
        assert_eq!(found.iter().map(|c| c.characters.clone()).collect::<Vec<_>>(), [0..2, 2..5, 5..7, 7..10]);
    }

    #[test]
    fn parts_of_a_word_that_is_one_token_as_a_whole_overlap() {
        // As WordPiece: what is too long is one token, its parts are many.
        let pieces = |text: &str| {
            let tokens = |word: &str| if word.chars().count() > 20 { 1 } else { word.chars().count().div_ceil(2) };
            Ok(text.split_whitespace().map(tokens).sum())
        };
        let text = format!("{} {} {}", "a".repeat(19), "b".repeat(60), "c d e f g h ".repeat(9));
        let found = chunks(&text, 12, 4, &pieces).unwrap();
        assert!(found.len() > 3 && found.iter().all(|c| pieces(&text[c.bytes.clone()]).unwrap() <= 12), "{found:?}");
        assert!(found.windows(2).all(|two| two[1].characters.start < two[0].characters.end), "{found:?}");
    }

    #[test]
    fn no_text_is_lost() {
        let text = "Erste Zeile, die\nlang ist. Zweite! \"Dritte?\" sagte er.\r\n\r\n# Titel\n\n* eins\n* zwei 日本語。次の文。 ".repeat(9);
        for (limit, overlap) in [(1, 0), (8, 0), (8, 3), (20, 10), (33, 20), (1000, 0)] {
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
        assert_eq!(of(Some(64), 32).unwrap(), 64);
        for (tokens, overlap, field) in
            [(Some(257), 0, "chunk.tokens"), (Some(7), 0, "chunk.tokens"), (Some(64), 33, "chunk.overlap")]
        {
            assert_eq!(of(tokens, overlap).unwrap_err().param.as_deref(), Some(field));
        }
    }
}
