//! Word timestamps, as in openai/whisper's `timing.py`.

use super::alignment::{alignment_weights, dtw_path};
use super::language::language_code;
use super::options::Task;
use super::segment::{Segment, Word};
use crate::families::whisper::Whisper;
use crate::families::whisper::decoder::CrossKv;
use tealight_kernels::CpuContext;

/// Encoder positions per second.
const POSITIONS_PER_SECOND: f32 = 50.0;
/// Maximum of the median word duration, in seconds.
const MAX_MEDIAN_DURATION: f32 = 0.7;
/// A segment's timestamp replaces that of a word if they differ by more than this, in seconds.
const MAX_TIMESTAMP_DIFFERENCE: f32 = 0.5;
/// Punctuation that is merged with the following word, or with the previous one.
const PREPEND_PUNCTUATIONS: &str = "\"'“¿([{-";
const APPEND_PUNCTUATIONS: &str = "\"'.。,，!！?？:：”)]}、";
const SENTENCE_END_MARKS: &str = ".。!！?？";
/// Languages that are written without spaces.
const UNSPACED_LANGUAGES: [&str; 6] = ["zh", "ja", "th", "lo", "my", "yue"];

/// A word during alignment.
struct WordTiming {
    /// Empty if it was merged with another word.
    text: String,
    token_count: usize,
    /// Seconds from the start of the window.
    start: f32,
    /// Seconds from the start of the window.
    end: f32,
}

/// The window to which words are aligned.
pub(super) struct AlignmentWindow<'a> {
    pub cross_kv: &'a CrossKv,
    pub language: Option<u32>,
    pub task: Task,
    /// Frames of the recording in the window.
    pub frame_count: usize,
    /// Start of the window, in seconds.
    pub time_offset: f32,
}

/// Adds words to the segments of a window, and moves the segments' timestamps to those of their words. `last_speech_timestamp` is
/// the end of the previous word.
pub(super) fn add_word_timestamps(
    model: &Whisper,
    cpu: &CpuContext,
    window: &AlignmentWindow,
    segments: &mut [Segment],
    last_speech_timestamp: &mut f32,
) {
    let is_text = |id: &u32| *id < model.tokenizer.special.eot;
    let counts: Vec<usize> = segments.iter().map(|s| s.tokens.iter().filter(|id| is_text(id)).count()).collect();
    let text_tokens: Vec<u32> = segments.iter().flat_map(|s| &s.tokens).copied().filter(is_text).collect();
    let mut words = find_alignment(model, cpu, window, &text_tokens);
    let durations = words.iter().map(|w| w.end - w.start).filter(|d| *d > 0.0);
    let median_duration = median(durations).min(MAX_MEDIAN_DURATION);
    shorten_words_at_sentence_ends(&mut words, 2.0 * median_duration);
    merge_punctuations(&mut words);
    let mut words = words.into_iter();
    for (segment, count) in segments.iter_mut().zip(counts) {
        let mut consumed = 0;
        while consumed < count
            && let Some(word) = words.next()
        {
            consumed += word.token_count;
            if !word.text.is_empty() {
                let (start, end) = (window.time_offset + word.start, window.time_offset + word.end);
                segment.words.push(Word { text: word.text, start, end });
            }
        }
        adjust_segment_boundaries(segment, median_duration, *last_speech_timestamp);
        *last_speech_timestamp = segment.words.last().map_or(*last_speech_timestamp, |w| w.end);
    }
    for i in 1..segments.len() {
        let next_start = segments[i].start;
        let previous = &mut segments[i - 1];
        if previous.start < next_start {
            previous.end = previous.end.min(next_start);
        }
    }
}

/// The words of text tokens, with their times in the window.
fn find_alignment(model: &Whisper, cpu: &CpuContext, window: &AlignmentWindow, text_tokens: &[u32]) -> Vec<WordTiming> {
    let special = &model.tokenizer.special;
    let mut tokens = vec![special.sot];
    if let Some(language) = window.language {
        let task = if window.task == Task::Translate { special.translate } else { special.transcribe };
        tokens.extend([language, task]);
    }
    // The attention at a position predicts the token after it, so the first row is that of `no_timestamps`.
    let first_row = tokens.len();
    tokens.push(special.no_timestamps);
    tokens.extend(text_tokens.iter().take(model.config.max_target_positions - first_row - 2));
    tokens.push(special.eot);
    let count = tokens.len();
    let positions = (window.frame_count / 2).clamp(1, model.config.max_source_positions);
    let weights = alignment_weights(model, cpu, window.cross_kv, &tokens, positions);
    let starts = dtw_path(&weights[first_row * positions..(count - 1) * positions], positions);
    let groups = split_to_word_tokens(model, &tokens[first_row + 1..count - 1], window.language);
    let mut index = 0;
    let time = |token: usize| starts.get(token).map_or(positions, |p| *p) as f32 / POSITIONS_PER_SECOND;
    let word_timing = |(text, token_count): (String, usize)| {
        let start = time(index);
        index += token_count;
        WordTiming { text, token_count, start, end: time(index) }
    };
    groups.into_iter().map(word_timing).collect()
}

/// Words of text tokens: their text and number of tokens.
fn split_to_word_tokens(model: &Whisper, tokens: &[u32], language: Option<u32>) -> Vec<(String, usize)> {
    let is_unspaced = UNSPACED_LANGUAGES.contains(&language_code(model, language));
    let mut words: Vec<(String, usize)> = vec![];
    for (text, count) in split_tokens_on_unicode(model, tokens) {
        let is_punctuation = text.trim().chars().all(|c| c.is_ascii_punctuation()) && !text.trim().is_empty();
        match words.last_mut() {
            Some(last) if !is_unspaced && !text.starts_with(' ') && !is_punctuation => {
                last.0.push_str(&text);
                last.1 += count;
            }
            _ => words.push((text, count)),
        }
    }
    words
}

/// The smallest groups of consecutive tokens whose bytes are complete characters: their text and number of tokens.
fn split_tokens_on_unicode(model: &Whisper, tokens: &[u32]) -> Vec<(String, usize)> {
    let (mut groups, mut bytes, mut count) = (vec![], vec![], 0);
    for id in tokens {
        bytes.extend_from_slice(model.tokenizer.token_bytes(*id));
        count += 1;
        // Invalid bytes also end a group, so that they do not delay the characters after them.
        let is_incomplete = std::str::from_utf8(&bytes).is_err_and(|e| e.error_len().is_none());
        if !is_incomplete {
            groups.push((String::from_utf8_lossy(&bytes).into_owned(), count));
            bytes.clear();
            count = 0;
        }
    }
    if count > 0 {
        groups.push((String::from_utf8_lossy(&bytes).into_owned(), count));
    }
    groups
}

fn median(values: impl Iterator<Item = f32>) -> f32 {
    let mut values: Vec<f32> = values.collect();
    values.sort_by(f32::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// Long words before or after the end of a sentence contain silence.
fn shorten_words_at_sentence_ends(words: &mut [WordTiming], max_duration: f32) {
    let is_sentence_end = |word: &WordTiming| !word.text.is_empty() && SENTENCE_END_MARKS.contains(word.text.trim());
    for i in 1..words.len() {
        if words[i].end - words[i].start > max_duration {
            if is_sentence_end(&words[i]) {
                words[i].end = words[i].start + max_duration;
            } else if is_sentence_end(&words[i - 1]) {
                words[i].start = words[i].end - max_duration;
            }
        }
    }
}

/// Merges punctuation with the word that it belongs to; the merged entry keeps an empty text.
fn merge_punctuations(words: &mut [WordTiming]) {
    let mut following = words.len().saturating_sub(1);
    for i in (0..following).rev() {
        let mark = words[i].text.trim();
        if words[i].text.starts_with(' ') && !mark.is_empty() && PREPEND_PUNCTUATIONS.contains(mark) {
            let (text, count) = (std::mem::take(&mut words[i].text), std::mem::take(&mut words[i].token_count));
            words[following].text.insert_str(0, &text);
            words[following].token_count += count;
        } else {
            following = i;
        }
    }
    let mut previous = 0;
    for j in 1..words.len() {
        let mark = &words[j].text;
        if !words[previous].text.ends_with(' ') && !mark.is_empty() && APPEND_PUNCTUATIONS.contains(mark.as_str()) {
            let (text, count) = (std::mem::take(&mut words[j].text), std::mem::take(&mut words[j].token_count));
            words[previous].text.push_str(&text);
            words[previous].token_count += count;
        } else {
            previous = j;
        }
    }
}

/// Reconciles the timestamps of a segment with those of its words. A word that is too long at either end of the segment contains
/// silence; the segment's own timestamp is then more accurate.
fn adjust_segment_boundaries(segment: &mut Segment, median_duration: f32, last_speech_timestamp: f32) {
    let original = (segment.start, segment.end);
    let max_duration = 2.0 * median_duration;
    let words = &mut segment.words;
    let Some(last) = words.len().checked_sub(1) else { return };
    let is_first_long = words[0].end - words[0].start > max_duration;
    let are_first_two_long = last > 0 && words[1].end - words[0].start > 2.0 * max_duration;
    let is_after_pause = words[0].end - last_speech_timestamp > 4.0 * median_duration;
    if is_after_pause && (is_first_long || are_first_two_long) {
        if last > 0 && words[1].end - words[1].start > max_duration {
            let boundary = (words[1].end / 2.0).max(words[1].end - max_duration);
            (words[0].end, words[1].start) = (boundary, boundary);
        }
        words[0].start = (words[0].end - max_duration).max(0.0);
    }
    if segment.start < words[0].end && segment.start - MAX_TIMESTAMP_DIFFERENCE > words[0].start {
        words[0].start = (words[0].end - median_duration).min(segment.start).max(0.0);
    } else {
        segment.start = words[0].start;
    }
    if segment.end > words[last].start && segment.end + MAX_TIMESTAMP_DIFFERENCE < words[last].end {
        words[last].end = (words[last].start + median_duration).max(segment.end);
    } else {
        segment.end = words[last].end;
    }
    // A single word may have no duration, but a subtitle needs one.
    if segment.start >= segment.end {
        (segment.start, segment.end) = original;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_even_count_is_mean_of_middle_values() {
        assert_eq!(
            (median([3.0, 1.0, 2.0].into_iter()), median([1.0, 2.0].into_iter()), median([].into_iter())),
            (2.0, 1.5, 0.0)
        );
    }

    #[test]
    fn segment_of_word_without_duration_keeps_its_timestamps() {
        let word = Word { text: " 3.".into(), start: 44.94, end: 44.94 };
        let mut segment = Segment {
            seek: 0,
            start: 44.4,
            end: 45.4,
            text: word.text.clone(),
            tokens: vec![],
            temperature: 0.0,
            avg_logprob: 0.0,
            compression_ratio: 1.0,
            no_speech_prob: 0.0,
            words: vec![word],
        };
        adjust_segment_boundaries(&mut segment, 0.3, 44.4);
        assert_eq!((segment.start, segment.end), (44.4, 45.4));
    }

    #[test]
    fn punctuation_is_merged_with_its_word() {
        let word = |text: &str| WordTiming { text: text.into(), token_count: 1, start: 0.0, end: 1.0 };
        let mut words: Vec<_> = [" \"", "Yes", ",", " said", " (", "he", ")", "."].map(word).into();
        merge_punctuations(&mut words);
        let merged = words.iter().filter(|w| !w.text.is_empty()).map(|w| (w.text.as_str(), w.token_count));
        assert_eq!(merged.collect::<Vec<_>>(), [(" \"Yes,", 3), (" said", 1), (" (he).", 4)]);
    }
}
