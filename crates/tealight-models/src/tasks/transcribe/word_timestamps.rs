//! When each word was said: by the heads of the decoder that follow the audio, and dynamic time warping.
//!
//! The steps are openai/whisper's (`timing.py`).

use super::{Segment, Task};
use crate::families::whisper::Whisper;
use crate::families::whisper::decoder::{Heard, Scratch};
use tealight_kernels::CpuContext;
use tealight_kernels::rowwise;

/// Encoder rows a second.
const ROWS_A_SECOND: f32 = 50.0;
/// Rows that the median filter looks at.
const FILTER: usize = 7;
/// No word is taken to be usually longer, in seconds.
const LONGEST_MEDIAN: f32 = 0.7;
/// A moment of the model is believed where a word is off by more, in seconds.
const SLACK: f32 = 0.5;
/// What belongs to the word behind it, and to the one before it.
const OPENING: &str = "\"'“¿([{-";
const CLOSING: &str = "\"'.。,，!！?？:：”)]}、";
const SENTENCE_ENDS: &str = ".。!！?？";
/// Languages that are written without spaces.
const UNSPACED: [&str; 6] = ["zh", "ja", "th", "lo", "my", "yue"];

/// A word with its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// With the space before it, and punctuation.
    pub text: String,
    /// Seconds.
    pub start: f32,
    /// Seconds.
    pub end: f32,
}

/// A word while it is made: tokens, and seconds from the beginning of the window.
struct Timed {
    text: String,
    tokens: usize,
    start: f32,
    end: f32,
}

/// What the words of a window are found with.
pub(super) struct Window<'a> {
    pub heard: &'a Heard,
    pub language: Option<u32>,
    pub task: Task,
    /// Frames of the recording in it.
    pub frames: usize,
    /// Where it begins, in seconds.
    pub offset: f32,
}

impl Whisper {
    /// Gives the segments of a window their words, and takes their ends from those; `spoken` is where the words before end.
    pub(super) fn time_words(&self, cpu: &CpuContext, window: &Window, segments: &mut [Segment], spoken: &mut f32) {
        let is_text = |id: &u32| *id < self.vocabulary.special.end;
        let counts: Vec<usize> = segments.iter().map(|s| s.tokens.iter().filter(|id| is_text(id)).count()).collect();
        let tokens: Vec<u32> = segments.iter().flat_map(|s| &s.tokens).copied().filter(is_text).collect();
        let mut words = self.align(cpu, window, &tokens);
        let median = median(words.iter().map(|w| w.end - w.start).filter(|d| *d > 0.0)).min(LONGEST_MEDIAN);
        shorten_at_sentences(&mut words, 2.0 * median);
        merge_punctuation(&mut words);
        let mut words = words.into_iter();
        for (segment, count) in segments.iter_mut().zip(counts) {
            let mut taken = 0;
            while taken < count
                && let Some(word) = words.next()
            {
                taken += word.tokens;
                if !word.text.is_empty() {
                    let (start, end) = (window.offset + word.start, window.offset + word.end);
                    segment.words.push(Word { text: word.text, start, end });
                }
            }
            fit(segment, median, *spoken);
            *spoken = segment.words.last().map_or(*spoken, |w| w.end);
        }
        for i in 1..segments.len() {
            let next = segments[i].start;
            let before = &mut segments[i - 1];
            if before.start < next {
                before.end = before.end.min(next);
            }
        }
    }

    /// The words of text tokens with their times in the window.
    fn align(&self, cpu: &CpuContext, window: &Window, text: &[u32]) -> Vec<Timed> {
        let special = &self.vocabulary.special;
        let mut tokens = vec![special.start];
        if let Some(language) = window.language {
            tokens.extend([
                language,
                if window.task == Task::Translate { special.translate } else { special.transcribe },
            ]);
        }
        let before = tokens.len();
        tokens.push(special.no_timestamps);
        tokens.extend(text.iter().take(self.config.text_tokens - before - 2));
        tokens.push(special.end);
        let (count, rows) = (tokens.len(), (window.frames / 2).clamp(1, self.config.audio_rows));
        let weights = self.attention(cpu, window.heard, &tokens, rows);
        let matrix = &weights[before * rows..(count - 1) * rows];
        let jumps = warp(matrix, rows);
        let groups = self.split_words(&tokens[before + 1..count - 1], window.language);
        let mut at = 0;
        let time = |token: usize| jumps.get(token).map_or(rows, |row| *row) as f32 / ROWS_A_SECOND;
        let timed = |(text, tokens): (String, usize)| {
            let start = time(at);
            at += tokens;
            Timed { text, tokens, start, end: time(at) }
        };
        groups.into_iter().map(timed).collect()
    }

    /// `[tokens, rows]`: how much each token attends to each of the first `rows` rows of the encoder, in standard deviations
    /// of that row, smoothed, the mean of the heads that follow the audio.
    fn attention(&self, cpu: &CpuContext, heard: &Heard, tokens: &[u32], rows: usize) -> Vec<f32> {
        let mut scratch = Scratch::default();
        let queries = self.decoder.queries(cpu, heard, tokens, &mut scratch);
        let width = self.config.width / self.config.heads;
        let mut mean = vec![0.0; tokens.len() * rows];
        let heads = self.alignment();
        for (layer, head) in &heads {
            let keys = self.decoder.keys(cpu, heard, *layer, *head, rows);
            let part: Vec<f32> = queries[*layer]
                .chunks_exact(self.config.width)
                .flat_map(|q| &q[head * width..(head + 1) * width])
                .copied()
                .collect();
            let mut weights = vec![0.0; tokens.len() * rows];
            rowwise::matmul(cpu.isa, &part, &keys, width, &mut weights);
            let scale = 1.0 / (width as f32).sqrt();
            for row in weights.chunks_exact_mut(rows) {
                row.iter_mut().for_each(|v| *v *= scale);
                rowwise::softmax(cpu.isa, row);
            }
            standardise(&mut weights, rows);
            weights.chunks_exact_mut(rows).for_each(filter);
            mean.iter_mut().zip(&weights).for_each(|(m, w)| *m += w / heads.len() as f32);
        }
        mean
    }

    /// The heads that follow the audio; where a file does not say, those of the later half of the layers.
    fn alignment(&self) -> Vec<(usize, usize)> {
        if !self.config.alignment.is_empty() {
            return self.config.alignment.clone();
        }
        let layers = self.config.decoder_layers / 2..self.config.decoder_layers;
        layers.flat_map(|layer| (0..self.config.heads).map(move |head| (layer, head))).collect()
    }

    /// Text tokens as words: text, and how many tokens.
    fn split_words(&self, tokens: &[u32], language: Option<u32>) -> Vec<(String, usize)> {
        let index = language.map(|id| (id - self.vocabulary.special.start - 1) as usize);
        let code = index.and_then(|i| self.vocabulary.languages.get(i)).map_or("en", String::as_str);
        let mut words: Vec<(String, usize)> = vec![];
        for (text, count) in self.characters(tokens) {
            let punctuation = text.trim().chars().all(|c| c.is_ascii_punctuation()) && !text.trim().is_empty();
            match words.last_mut() {
                Some(last) if !UNSPACED.contains(&code) && !text.starts_with(' ') && !punctuation => {
                    last.0.push_str(&text);
                    last.1 += count;
                }
                _ => words.push((text, count)),
            }
        }
        words
    }

    /// The fewest tokens that spell whole characters, one group after another.
    fn characters(&self, tokens: &[u32]) -> Vec<(String, usize)> {
        let (mut groups, mut bytes, mut count) = (vec![], vec![], 0);
        for id in tokens {
            bytes.extend_from_slice(self.vocabulary.bytes(*id));
            count += 1;
            let is_begun = std::str::from_utf8(&bytes).is_err_and(|e| e.error_len().is_none());
            if !is_begun {
                // Bytes that are no character do not keep those behind them waiting.
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
}

/// Each column less its mean, over its standard deviation.
fn standardise(weights: &mut [f32], columns: usize) {
    let rows = (weights.len() / columns) as f32;
    for c in 0..columns {
        let column = || weights.iter().skip(c).step_by(columns);
        let mean = column().sum::<f32>() / rows;
        let deviation = (column().map(|v| (v - mean) * (v - mean)).sum::<f32>() / rows).sqrt().max(f32::MIN_POSITIVE);
        weights.iter_mut().skip(c).step_by(columns).for_each(|v| *v = (*v - mean) / deviation);
    }
}

/// The median of each value and its neighbours, mirrored at the ends.
fn filter(row: &mut [f32]) {
    let (half, last) = ((FILTER / 2) as isize, row.len() as isize - 1);
    if last < half {
        return;
    }
    let before = row.to_vec();
    for (i, v) in row.iter_mut().enumerate() {
        let mut near: [f32; FILTER] = std::array::from_fn(|k| {
            let at = (i as isize + k as isize - half).abs();
            before[(if at > last { 2 * last - at } else { at }) as usize]
        });
        near.sort_by(f32::total_cmp);
        *v = near[FILTER / 2];
    }
}

/// The column at which each row begins, on the path through `matrix [rows, columns]` whose sum is the largest (dynamic time
/// warping, Sakoe and Chiba 1978).
fn warp(matrix: &[f32], columns: usize) -> Vec<usize> {
    let rows = matrix.len() / columns;
    let at = |r: usize, c: usize| r * (columns + 1) + c;
    let mut cost = vec![f32::INFINITY; (rows + 1) * (columns + 1)];
    let mut step = vec![0u8; cost.len()];
    cost[0] = 0.0;
    for c in 1..=columns {
        for r in 1..=rows {
            let (both, row, column) = (cost[at(r - 1, c - 1)], cost[at(r - 1, c)], cost[at(r, c - 1)]);
            let (least, how) = match () {
                () if both < row && both < column => (both, 0),
                () if row < both && row < column => (row, 1),
                () => (column, 2),
            };
            cost[at(r, c)] = least - matrix[(r - 1) * columns + c - 1];
            step[at(r, c)] = how;
        }
    }
    let (mut r, mut c, mut begins) = (rows, columns, vec![0; rows]);
    while r > 0 && c > 0 {
        begins[r - 1] = c - 1;
        match step[at(r, c)] {
            0 => (r, c) = (r - 1, c - 1),
            1 => r -= 1,
            _ => c -= 1,
        }
    }
    begins
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

/// Long words beside the end of a sentence have silence in them.
fn shorten_at_sentences(words: &mut [Timed], longest: f32) {
    let ends = |word: &Timed| !word.text.is_empty() && SENTENCE_ENDS.contains(word.text.trim());
    for i in 1..words.len() {
        if words[i].end - words[i].start > longest {
            if ends(&words[i]) {
                words[i].end = words[i].start + longest;
            } else if ends(&words[i - 1]) {
                words[i].start = words[i].end - longest;
            }
        }
    }
}

/// Punctuation goes with the word that it belongs to; what is left of it has no text.
fn merge_punctuation(words: &mut [Timed]) {
    let mut following = words.len().saturating_sub(1);
    for i in (0..following).rev() {
        let mark = words[i].text.trim();
        if words[i].text.starts_with(' ') && !mark.is_empty() && OPENING.contains(mark) {
            let (text, tokens) = (std::mem::take(&mut words[i].text), std::mem::take(&mut words[i].tokens));
            words[following].text.insert_str(0, &text);
            words[following].tokens += tokens;
        } else {
            following = i;
        }
    }
    let mut previous = 0;
    for j in 1..words.len() {
        let mark = &words[j].text;
        if !words[previous].text.ends_with(' ') && !mark.is_empty() && CLOSING.contains(mark.as_str()) {
            let (text, tokens) = (std::mem::take(&mut words[j].text), std::mem::take(&mut words[j].tokens));
            words[previous].text.push_str(&text);
            words[previous].tokens += tokens;
        } else {
            previous = j;
        }
    }
}

/// Words at the ends of a segment that are too long have silence in them; the segment's moments then know better.
fn fit(segment: &mut Segment, median: f32, spoken: f32) {
    let moments = (segment.start, segment.end);
    let longest = 2.0 * median;
    let words = &mut segment.words;
    let Some(last) = words.len().checked_sub(1) else { return };
    let first_long = words[0].end - words[0].start > longest;
    let two_long = last > 0 && words[1].end - words[0].start > 2.0 * longest;
    if words[0].end - spoken > 4.0 * median && (first_long || two_long) {
        if last > 0 && words[1].end - words[1].start > longest {
            let boundary = (words[1].end / 2.0).max(words[1].end - longest);
            (words[0].end, words[1].start) = (boundary, boundary);
        }
        words[0].start = (words[0].end - longest).max(0.0);
    }
    if segment.start < words[0].end && segment.start - SLACK > words[0].start {
        words[0].start = (words[0].end - median).min(segment.start).max(0.0);
    } else {
        segment.start = words[0].start;
    }
    if segment.end > words[last].start && segment.end + SLACK < words[last].end {
        words[last].end = (words[last].start + median).max(segment.end);
    } else {
        segment.end = words[last].end;
    }
    // A word alone may have no length; a subtitle must.
    if segment.start >= segment.end {
        (segment.start, segment.end) = moments;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_follows_the_largest_values() {
        // Three tokens over six rows: the first is said in 0..2, the second in 2..3, the third from 3 on.
        let mut matrix = vec![-1.0; 18];
        for (token, row) in [(0, 0), (0, 1), (1, 2), (2, 3), (2, 4), (2, 5)] {
            matrix[token * 6 + row] = 1.0;
        }
        assert_eq!(warp(&matrix, 6), [0, 2, 3]);
    }

    #[test]
    fn medians_are_mirrored_at_the_ends() {
        let mut row = [9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0];
        filter(&mut row);
        // Around 0: 3 2 1 9 1 2 3; around 3: 9 1 2 3 4 5 6.
        assert_eq!((row[0], row[3]), (2.0, 4.0));
        assert_eq!(
            (median([3.0, 1.0, 2.0].into_iter()), median([1.0, 2.0].into_iter()), median([].into_iter())),
            (2.0, 1.5, 0.0)
        );
    }

    #[test]
    fn a_segment_of_a_word_without_length_keeps_its_moments() {
        let word = Word { text: " 3.".into(), start: 44.94, end: 44.94 };
        let mut segment = Segment {
            seek: 0,
            start: 44.4,
            end: 45.4,
            text: word.text.clone(),
            tokens: vec![],
            temperature: 0.0,
            log_probability: 0.0,
            compression: 1.0,
            no_speech: 0.0,
            words: vec![word],
        };
        fit(&mut segment, 0.3, 44.4);
        assert_eq!((segment.start, segment.end), (44.4, 45.4));
    }

    #[test]
    fn punctuation_goes_with_its_word() {
        let word = |text: &str| Timed { text: text.into(), tokens: 1, start: 0.0, end: 1.0 };
        let mut words: Vec<_> = [" \"", "Yes", ",", " said", " (", "he", ")", "."].map(word).into();
        merge_punctuation(&mut words);
        let texts: Vec<_> = words.iter().filter(|w| !w.text.is_empty()).map(|w| (w.text.as_str(), w.tokens)).collect();
        assert_eq!(texts, [(" \"Yes,", 3), (" said", 1), (" (he).", 4)]);
    }
}
