//! A recording to segments: windows of 30 s that follow one another by the moments that the model writes.
//!
//! The steps and thresholds are openai/whisper's (`transcribe.py`).

mod decode;
mod logit_filters;
mod windows;
mod word_timestamps;

pub use windows::{Listener, Pieces, Window};
pub use word_timestamps::Word;

use crate::families::whisper::decoder::Heard;
use crate::families::whisper::{FRAMES, Whisper};
use decode::{Decoded, Decoding, Prompt, Search};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::io::Write;
use tealight_audio::VadOptions;
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;

/// Frames a second.
const FRAMES_A_SECOND: f32 = 100.0;
/// Frames of a step of timestamps.
const FRAMES_A_STEP: usize = 2;
/// A text that stays so many times as unlikely as what is tried again was not heard but made up: of tones, for one.
/// openai/whisper writes it.
const NOT_HEARD: f32 = 2.0;
/// Above it, the text before is no prompt for the next window.
const HOT: f32 = 0.5;

/// What is written of speech.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Task {
    /// What was said.
    #[default]
    Transcribe,
    /// The same in English.
    Translate,
}

/// How a recording is transcribed.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The code of the language, such as `en`; heard from the recording where it is missing.
    pub language: Option<String>,
    /// What to write.
    pub task: Task,
    /// Temperatures to try, until one gives a text that is likely and does not repeat itself.
    pub temperatures: Vec<f32>,
    /// Texts that are followed at once at temperature 0; 1 is greedy.
    pub beams: usize,
    /// Texts that are drawn at others.
    pub draws: usize,
    /// Whether words get times of their own.
    pub words: bool,
    /// What is listened to: voices alone, or everything.
    pub voices: Option<VadOptions>,
    /// Tokens of a text that came before the recording.
    pub prompt: Vec<u32>,
    /// Whether the text of a window is the prompt of the next.
    pub condition: bool,
    /// A text that compresses better than this repeats itself.
    pub most_compression: f32,
    /// A text that is less likely than this, as the mean logarithm of its tokens, is tried again.
    pub least_log_probability: f32,
    /// Where it is likelier than this that nobody speaks, and the text is not likely, there is none.
    pub most_no_speech: f32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            language: None,
            task: Task::Transcribe,
            temperatures: vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
            beams: 5,
            draws: 5,
            words: false,
            voices: None,
            prompt: vec![],
            condition: true,
            most_compression: 2.4,
            least_log_probability: -1.0,
            most_no_speech: 0.6,
        }
    }
}

/// A part of the text with its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Frame at which its window begins, hundredths of a second.
    pub seek: usize,
    /// Seconds.
    pub start: f32,
    /// Seconds.
    pub end: f32,
    /// With the space before the first word.
    pub text: String,
    /// Text and moments.
    pub tokens: Vec<u32>,
    /// At which it was decoded.
    pub temperature: f32,
    /// Mean natural logarithm of the probabilities of the window's tokens.
    pub log_probability: f32,
    /// How much better the window's text compresses than noise.
    pub compression: f32,
    /// How likely it is that nobody speaks in the window.
    pub no_speech: f32,
    /// With their times, where they are asked for.
    pub words: Vec<Word>,
}

/// What was said in a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// The code of the language.
    pub language: String,
    /// Seconds of the recording.
    pub duration: f32,
    /// In order.
    pub segments: Vec<Segment>,
}

impl Transcript {
    /// The whole text.
    pub fn text(&self) -> String {
        self.segments.iter().map(|s| s.text.as_str()).collect()
    }
}

/// A window's tokens and how good they are.
struct Tried {
    decoded: Decoded,
    temperature: f32,
    compression: f32,
    /// Whether no temperature gave a text that keeps to the thresholds.
    is_doubtful: bool,
}

impl Tried {
    /// Whether it is better than another one: repeats itself less than is allowed, or else is likelier.
    fn is_better(&self, other: &Self, options: &Options) -> bool {
        let repeats = |tried: &Self| tried.compression > options.most_compression;
        match (repeats(self), repeats(other)) {
            (false, true) => true,
            (true, false) => false,
            _ => self.decoded.log_probability > other.decoded.log_probability,
        }
    }
}

/// A transcription under way.
struct Transcribing<'a> {
    model: &'a Whisper,
    cpu: &'a CpuContext,
    options: &'a Options,
    heard: Heard,
    language: Option<u32>,
    /// Tokens of the prompt and of all segments, and from where on they are the prompt of the next window.
    text: Vec<u32>,
    prompt_from: usize,
    /// Where the last word ends, in seconds.
    spoken: f32,
}

impl Transcribing<'_> {
    /// The segments of a window of `size` frames from `seek` on, and by how many frames the next is later.
    fn window(&mut self, window: &Window, seek: usize, size: usize) -> (Vec<Segment>, usize) {
        if window.is_silent {
            return (vec![], size);
        }
        let Self { model, cpu, options, .. } = *self;
        let rows = cpu.install(|| model.encoder.encode(cpu, &window.frames));
        model.decoder.hear(cpu, &rows, &mut self.heard);
        if self.language.is_none() && model.vocabulary.is_multilingual() {
            self.language = Some(model.detect(cpu, &self.heard));
        }
        let (previous, language) = (&self.text[self.prompt_from..], self.language);
        let prompt = Prompt { previous, language, task: options.task, timestamps: true };
        let tried = cpu.install(|| model.decode(cpu, &self.heard, &prompt, options, seek as u64));
        let (decoded, least) = (&tried.decoded, options.least_log_probability);
        let nobody = decoded.no_speech > options.most_no_speech && decoded.log_probability <= least;
        // At a temperature that is asked for, unlikely texts are what was asked for.
        let drawn = options.temperatures.first().is_some_and(|t| *t > 0.0);
        if nobody || (!drawn && decoded.log_probability < NOT_HEARD * least) {
            return (vec![], size);
        }
        let (mut segments, mut advance) = model.split(&tried, seek, size);
        if options.words && !segments.is_empty() {
            let offset = seek as f32 / FRAMES_A_SECOND;
            let window =
                word_timestamps::Window { heard: &self.heard, language, task: options.task, frames: size, offset };
            model.time_words(cpu, &window, &mut segments, &mut self.spoken);
            // The next window begins where the last word ends.
            let end = (self.spoken * FRAMES_A_SECOND).round() as usize;
            if advance < size && end > seek {
                advance = end - seek;
            }
        }
        self.text.extend(segments.iter().flat_map(|s| &s.tokens));
        if !options.condition || tried.is_doubtful || tried.temperature > HOT {
            self.prompt_from = self.text.len();
        }
        (segments, advance)
    }
}

impl Whisper {
    /// Transcribes a recording; `on_segments` gets the segments of each window as it is done, and how far that is, in seconds.
    ///
    /// # Errors
    /// The recording cannot be read, the language is not one of the model's, a model of English alone is to translate, or
    /// `on_segments` gives up.
    pub fn transcribe(
        &self,
        cpu: &CpuContext,
        recording: &mut Listener,
        options: &Options,
        mut on_segments: impl FnMut(&[Segment], f32) -> Result<()>,
    ) -> Result<Transcript> {
        if options.task == Task::Translate && !self.vocabulary.is_multilingual() {
            return Err(Error::invalid_value(
                "model",
                "translation needs a multilingual model, this one knows en only",
            ));
        }
        let (language, text) = (self.language_token(options)?, options.prompt.clone());
        let heard = Heard::default();
        let mut run = Transcribing { model: self, cpu, options, heard, language, text, prompt_from: 0, spoken: 0.0 };
        let mut segments = vec![];
        for part in recording.parts() {
            let mut seek = part.start;
            while seek < part.end {
                let size = FRAMES.min(part.end - seek);
                let window = recording.window(seek, size)?;
                let (new, advance) = run.window(&window, seek, size);
                seek += advance;
                on_segments(&new, seek.min(part.end) as f32 / FRAMES_A_SECOND)?;
                segments.extend(new);
            }
        }
        let code = run.language.map_or("en", |id| {
            let index = id - self.vocabulary.special.start - 1;
            self.vocabulary.languages.get(index as usize).map_or("en", String::as_str)
        });
        Ok(Transcript { language: code.into(), duration: recording.seconds(), segments })
    }

    /// The token of the language that is asked for.
    fn language_token(&self, options: &Options) -> Result<Option<u32>> {
        let Some(code) = &options.language else { return Ok(None) };
        if !self.vocabulary.is_multilingual() {
            return match code.as_str() {
                "en" => Ok(None),
                other => {
                    Err(Error::invalid_value("language", format!("language is {other:?}, this model knows en only")))
                }
            };
        }
        self.vocabulary.language(code).map(Some).ok_or_else(|| {
            let known = self.vocabulary.languages.join(", ");
            Error::invalid_value("language", format!("language is {code:?}, this model knows {known}"))
        })
    }

    /// The language's token that is likeliest for a window.
    fn detect(&self, cpu: &CpuContext, heard: &Heard) -> u32 {
        let probabilities = self.languages(cpu, heard);
        let likelier = |best: (usize, f32), (i, p): (usize, &f32)| if *p > best.1 { (i, *p) } else { best };
        let (index, _) = probabilities.iter().enumerate().fold((0, 0.0), likelier);
        self.vocabulary.special.start + 1 + index as u32
    }

    fn decode(&self, cpu: &CpuContext, heard: &Heard, prompt: &Prompt, options: &Options, seed: u64) -> Tried {
        let mut decoding = Decoding::new(self, cpu, heard, prompt);
        let mut attempt = |temperature: f32| {
            let search = match (temperature, options.beams) {
                (0.0, 0..=1) => Search::Greedy,
                (0.0, beams) => Search::Beam(beams),
                _ => Search::Draw(options.draws.max(1), temperature),
            };
            let decoded = decoding.run(search, seed);
            let compression = compression(&self.vocabulary.text(&decoded.tokens));
            Tried { decoded, temperature, compression, is_doubtful: false }
        };
        let mut tried = attempt(options.temperatures.first().copied().unwrap_or(0.0));
        for temperature in options.temperatures.iter().skip(1) {
            let Decoded { log_probability, no_speech, .. } = tried.decoded;
            let unlikely = log_probability < options.least_log_probability;
            let silent = no_speech > options.most_no_speech && unlikely;
            if silent || !(unlikely || tried.compression > options.most_compression) {
                return tried;
            }
            let next = attempt(*temperature);
            // The last one is often the worst: faster-whisper, too, keeps the likeliest.
            if next.is_better(&tried, options) {
                tried = next;
            }
        }
        let Decoded { log_probability, .. } = tried.decoded;
        let unlikely = log_probability < options.least_log_probability;
        tried.is_doubtful =
            options.temperatures.len() > 1 && (unlikely || tried.compression > options.most_compression);
        tried
    }

    /// The segments of a window of `size` frames from `seek` on, and by how many frames the next is later.
    fn split(&self, tried: &Tried, seek: usize, size: usize) -> (Vec<Segment>, usize) {
        let first = self.vocabulary.special.first_timestamp();
        let tokens = &tried.decoded.tokens;
        let is_moment = |id: &u32| *id >= first;
        let moment = |id: u32| (id - first) as usize;
        let count = tokens.len();
        // A text that ends with one moment ends in silence: there is nothing more in the window.
        let ends_silent = count > 0 && is_moment(&tokens[count - 1]) && (count < 2 || !is_moment(&tokens[count - 2]));
        let mut cuts: Vec<usize> = (1..count).filter(|i| is_moment(&tokens[i - 1]) && is_moment(&tokens[*i])).collect();
        // From whole frames, so that one moment is one number, whichever window it is in.
        let seconds = |frame: usize| frame as f32 / FRAMES_A_SECOND;
        // Behind the recording stands silence, in which a moment may lie.
        let time = |id: u32| seconds(seek + (moment(id) * FRAMES_A_STEP).min(size));
        if cuts.is_empty() {
            let last = tokens.iter().rev().find(|id| is_moment(id)).filter(|id| **id != first);
            let end = last.map_or(seconds(seek + size), |id| time(*id));
            return (self.segment(tried, seek, seconds(seek), end, tokens).into_iter().collect(), size);
        }
        if ends_silent {
            cuts.push(count);
        }
        let (mut segments, mut from) = (vec![], 0);
        for cut in cuts {
            let part = &tokens[from..cut];
            segments.extend(self.segment(tried, seek, time(part[0]), time(part[part.len() - 1]), part));
            from = cut;
        }
        let advance = if ends_silent { size } else { moment(tokens[from - 1]) * FRAMES_A_STEP };
        // A window that ends where it begins would never end.
        (segments, if advance == 0 { size } else { advance })
    }

    /// A segment, unless it has no letter or digit (dots are what is often heard in noise), or no length.
    fn segment(&self, tried: &Tried, seek: usize, start: f32, end: f32, tokens: &[u32]) -> Option<Segment> {
        let text = self.vocabulary.text(tokens);
        if !text.contains(char::is_alphanumeric) || start >= end {
            return None;
        }
        Some(Segment {
            seek,
            start,
            end,
            text,
            tokens: tokens.to_vec(),
            temperature: tried.temperature,
            log_probability: tried.decoded.log_probability,
            compression: tried.compression,
            no_speech: tried.decoded.no_speech,
            words: vec![],
        })
    }
}

/// Bytes of a text for each byte that zlib makes of it.
fn compression(text: &str) -> f32 {
    let mut encoder = ZlibEncoder::new(vec![], Compression::default());
    // Writing to memory does not fail.
    let written = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    text.len() as f32 / written.map_or(1, |w| w.len().max(1)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_texts_that_fail_the_likeliest_that_does_not_repeat_itself_is_kept() {
        let tried = |log_probability, compression| {
            let decoded = Decoded { tokens: vec![], log_probability, no_speech: 0.0 };
            Tried { decoded, temperature: 0.0, compression, is_doubtful: false }
        };
        let options = Options::default();
        let better = |a: &Tried, b: &Tried| a.is_better(b, &options);
        assert!(better(&tried(-1.2, 1.0), &tried(-3.0, 1.0)) && !better(&tried(-3.0, 1.0), &tried(-1.2, 1.0)));
        assert!(better(&tried(-3.0, 1.0), &tried(-0.1, 9.0)) && !better(&tried(-0.1, 9.0), &tried(-3.0, 1.0)));
        assert!(better(&tried(-0.1, 9.0), &tried(-0.2, 9.0)));
    }
}
