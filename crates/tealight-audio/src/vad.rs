//! Voice activity detection by a small neural network, for every 16 ms.

use crate::sample_rate::SAMPLE_RATE;
use earshot::Detector;
use std::ops::Range;

/// Samples per prediction.
const FRAME: usize = 256;
/// Speech ends where the score is this much below the threshold, so that a breath does not end it. No comparison with other
/// values is recorded.
const HYSTERESIS: f32 = 0.25;

/// Thresholds of voice activity detection.
///
/// The defaults of `speech_pad` and `min_silence_duration` are faster-whisper's. The default of `threshold` is meant to be above the
/// scores at the onset of noise; `vad_finds_speech_between_noise_and_silence` in tealight-models tests it. No comparison with
/// other values is recorded.
///
/// # Limitations
/// Sustained chords are misclassified as speech.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VadOptions {
    /// Speech starts where the score, from 0 to 1, is at least this.
    pub threshold: f32,
    /// Seconds to keep before and after speech.
    pub speech_pad: f32,
    /// Shorter pauses, in seconds, do not end speech.
    pub min_silence_duration: f32,
}

impl Default for VadOptions {
    fn default() -> Self {
        Self { threshold: 0.7, speech_pad: 0.4, min_silence_duration: 2.0 }
    }
}

/// Finds speech in samples at [`SAMPLE_RATE`], which are pushed in blocks of any length.
pub struct VoiceDetector {
    options: VadOptions,
    network: Box<Detector>,
    /// Samples of an incomplete frame.
    pending: Vec<f32>,
    /// Number of samples in complete frames so far.
    position: usize,
    /// Speech found so far, in samples, without padding.
    spans: Vec<Range<usize>>,
    is_speech: bool,
}

impl std::fmt::Debug for VoiceDetector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VoiceDetector").field("options", &self.options).finish_non_exhaustive()
    }
}

impl VoiceDetector {
    /// A detector at the start of a recording.
    pub fn new(options: VadOptions) -> Self {
        let network = Detector::default_boxed();
        Self { options, network, pending: vec![], position: 0, spans: vec![], is_speech: false }
    }

    /// Processes the next samples.
    pub fn push(&mut self, samples: &[f32]) {
        self.pending.extend_from_slice(samples);
        let complete = self.pending.len() / FRAME * FRAME;
        let mut frame = [0.0; FRAME];
        for i in (0..complete).step_by(FRAME) {
            frame.copy_from_slice(&self.pending[i..i + FRAME]);
            self.push_frame(frame);
        }
        self.pending.drain(..complete);
    }

    fn push_frame(&mut self, mut frame: [f32; FRAME]) {
        frame.iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0));
        let score = self.network.predict_f32(&frame);
        let threshold = self.options.threshold - if self.is_speech { HYSTERESIS } else { 0.0 };
        let (start, end) = (self.position, self.position + FRAME);
        self.position = end;
        self.is_speech = score >= threshold;
        if !self.is_speech {
            return;
        }
        let min_silence = to_samples(self.options.min_silence_duration);
        match self.spans.last_mut() {
            Some(last) if start - last.end < min_silence.max(1) => last.end = end,
            _ => self.spans.push(start..end),
        }
    }

    /// Ranges of samples with speech, padded, in ascending order and disjoint.
    pub fn finish(mut self) -> Vec<Range<usize>> {
        if !self.pending.is_empty() {
            let mut frame = [0.0; FRAME];
            frame[..self.pending.len()].copy_from_slice(&self.pending);
            let length = self.position + self.pending.len();
            self.push_frame(frame);
            self.spans.iter_mut().for_each(|span| span.end = span.end.min(length));
            self.position = length;
        }
        let (pad, length) = (to_samples(self.options.speech_pad), self.position);
        let mut padded: Vec<Range<usize>> = vec![];
        for span in self.spans {
            let (start, end) = (span.start.saturating_sub(pad), (span.end + pad).min(length));
            match padded.last_mut() {
                Some(last) if start <= last.end => last.end = end,
                _ => padded.push(start..end),
            }
        }
        padded
    }
}

fn to_samples(seconds: f32) -> usize {
    (seconds * SAMPLE_RATE as f32) as usize
}
