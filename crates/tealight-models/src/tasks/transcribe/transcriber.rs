//! Transcribes a recording window by window. A window starts at the last timestamp of the previous one.

use super::decode::DecodingOptions;
use super::fallback::{Attempt, decode_with_fallback};
use super::language::{detect_language, language_code, requested_language};
use super::options::{Task, TranscribeOptions};
use super::segment::{Segment, Transcript};
use super::split::{FRAMES_PER_SECOND, split_into_segments};
use super::windows::{MelWindow, WindowReader};
use super::word_timestamps::{AlignmentWindow, add_word_timestamps};
use crate::families::whisper::decoder::CrossKv;
use crate::families::whisper::{N_FRAMES, Whisper};
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;

/// The text of a window is dropped as hallucinated, for example on tones, if after all fallbacks its mean log probability is below
/// this multiple of `logprob_threshold`. openai/whisper does not drop it.
/// `silence_and_noise_give_little_or_no_text` in tests/integration/whisper.rs tests it on tones. No comparison with other values is
/// recorded.
const HALLUCINATION_RATIO: f32 = 2.0;
/// Text decoded at a higher temperature is not used as the prompt of the next window, as in openai/whisper.
const PROMPT_RESET_TEMPERATURE: f32 = 0.5;

/// Transcribes a recording. `on_segments` is called after each window with its segments and the transcribed time so far, in
/// seconds.
///
/// # Errors
/// The recording cannot be decoded, the language is not supported by the model, an English-only model is asked to translate, or
/// `on_segments` failed.
pub fn transcribe(
    model: &Whisper,
    cpu: &CpuContext,
    recording: &mut WindowReader,
    options: &TranscribeOptions,
    mut on_segments: impl FnMut(&[Segment], f32) -> Result<()>,
) -> Result<Transcript> {
    if options.task == Task::Translate && !model.tokenizer.is_multilingual() {
        return Err(Error::invalid_value(
            "model",
            "translation needs a multilingual model; this model supports en only",
        ));
    }
    let mut transcriber = Transcriber::new(model, cpu, options)?;
    let mut segments = vec![];
    for range in recording.speech_ranges() {
        let mut seek = range.start;
        while seek < range.end {
            let size = N_FRAMES.min(range.end - seek);
            let window = recording.read_window(seek, size)?;
            let (new_segments, advance) = transcriber.transcribe_window(&window, seek, size);
            seek += advance;
            on_segments(&new_segments, seek.min(range.end) as f32 / FRAMES_PER_SECOND)?;
            segments.extend(new_segments);
        }
    }
    let language = language_code(model, transcriber.language).into();
    Ok(Transcript { language, duration: recording.duration(), segments })
}

/// State that is carried from window to window.
struct Transcriber<'a> {
    model: &'a Whisper,
    cpu: &'a CpuContext,
    options: &'a TranscribeOptions,
    cross_kv: CrossKv,
    /// Token of the language, once it is known; `None` for English-only models.
    language: Option<u32>,
    /// Tokens of the initial prompt and of all segments.
    all_tokens: Vec<u32>,
    /// Index into `all_tokens` where the prompt of the next window starts.
    prompt_reset_since: usize,
    /// End of the last word, in seconds.
    last_speech_timestamp: f32,
}

impl<'a> Transcriber<'a> {
    fn new(model: &'a Whisper, cpu: &'a CpuContext, options: &'a TranscribeOptions) -> Result<Self> {
        Ok(Self {
            model,
            cpu,
            options,
            cross_kv: CrossKv::default(),
            language: requested_language(model, options)?,
            all_tokens: options.initial_prompt.clone(),
            prompt_reset_since: 0,
            last_speech_timestamp: 0.0,
        })
    }

    /// The segments of a window of `size` frames from `seek` on, and the number of frames to the start of the next window.
    fn transcribe_window(&mut self, window: &MelWindow, seek: usize, size: usize) -> (Vec<Segment>, usize) {
        if window.is_silent {
            return (vec![], size);
        }
        let attempt = self.decode_window(window, seek);
        if self.is_skipped(&attempt) {
            return (vec![], size);
        }
        let (mut segments, mut advance) = split_into_segments(self.model, &attempt, seek, size);
        if self.options.word_timestamps && !segments.is_empty() {
            self.add_words(&mut segments, seek, size);
            // The next window starts at the end of the last word.
            let end = (self.last_speech_timestamp * FRAMES_PER_SECOND).round() as usize;
            if advance < size && end > seek {
                advance = end - seek;
            }
        }
        self.all_tokens.extend(segments.iter().flat_map(|s| &s.tokens));
        let resets_prompt = attempt.temperature > PROMPT_RESET_TEMPERATURE;
        if !self.options.condition_on_previous_text || attempt.is_doubtful || resets_prompt {
            self.prompt_reset_since = self.all_tokens.len();
        }
        (segments, advance)
    }

    fn decode_window(&mut self, window: &MelWindow, seek: usize) -> Attempt {
        let Self { model, cpu, options, .. } = *self;
        let audio_features = cpu.install(|| model.encoder.encode(cpu, &window.mel));
        model.decoder.encode_cross_kv(cpu, &audio_features, &mut self.cross_kv);
        if self.language.is_none() && model.tokenizer.is_multilingual() {
            self.language = Some(detect_language(model, cpu, &self.cross_kv));
        }
        let decoding = DecodingOptions {
            prompt: &self.all_tokens[self.prompt_reset_since..],
            language: self.language,
            task: options.task,
        };
        cpu.install(|| decode_with_fallback(model, cpu, &self.cross_kv, &decoding, options, seek as u64))
    }

    /// Whether the window has no speech, or its text is hallucinated.
    fn is_skipped(&self, attempt: &Attempt) -> bool {
        let (result, options) = (&attempt.result, self.options);
        let is_silence =
            result.no_speech_prob > options.no_speech_threshold && result.avg_logprob <= options.logprob_threshold;
        // A caller who sets a temperature wants improbable text.
        let is_sampled = options.temperatures.first().is_some_and(|t| *t > 0.0);
        is_silence || (!is_sampled && result.avg_logprob < HALLUCINATION_RATIO * options.logprob_threshold)
    }

    fn add_words(&mut self, segments: &mut [Segment], seek: usize, size: usize) {
        let window = AlignmentWindow {
            cross_kv: &self.cross_kv,
            language: self.language,
            task: self.options.task,
            frame_count: size,
            time_offset: seek as f32 / FRAMES_PER_SECOND,
        };
        add_word_timestamps(self.model, self.cpu, &window, segments, &mut self.last_speech_timestamp);
    }
}
