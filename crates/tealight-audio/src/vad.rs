//! Where somebody speaks, told by a small network for every 16 ms.

use super::RATE;
use earshot::Detector;
use std::ops::Range;

/// Samples that the network looks at together.
const FRAME: usize = 256;
/// A voice ends where its score is so much lower than where it begins, so that it does not end at every breath.
const HYSTERESIS: f32 = 0.25;

/// What is a voice and what a pause. Padding and pause are faster-whisper's; the threshold is above what noise gets from the
/// network when it begins. A chord that stays as it is passes for a voice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Voices {
    /// From 0 to 1: a voice begins above it.
    pub threshold: f32,
    /// Seconds that are kept before and after a voice.
    pub padding: f32,
    /// Shorter pauses, in seconds, do not end it.
    pub pause: f32,
}

impl Default for Voices {
    fn default() -> Self {
        Self { threshold: 0.7, padding: 0.4, pause: 2.0 }
    }
}

/// Listens to samples at [`RATE`] in pieces of any length.
pub struct VoiceDetector {
    options: Voices,
    network: Box<Detector>,
    /// Samples that are not a frame yet.
    rest: Vec<f32>,
    /// Samples that were looked at.
    heard: usize,
    spans: Vec<Range<usize>>,
    speaking: bool,
}

impl std::fmt::Debug for VoiceDetector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VoiceDetector").field("options", &self.options).finish_non_exhaustive()
    }
}

impl VoiceDetector {
    /// A detector that has read nothing.
    pub fn new(options: Voices) -> Self {
        let network = Detector::default_boxed();
        Self { options, network, rest: vec![], heard: 0, spans: vec![], speaking: false }
    }

    /// Reads the next samples, of any number.
    pub fn push(&mut self, samples: &[f32]) {
        self.rest.extend_from_slice(samples);
        let whole = self.rest.len() / FRAME * FRAME;
        let mut frame = [0.0; FRAME];
        for i in (0..whole).step_by(FRAME) {
            frame.copy_from_slice(&self.rest[i..i + FRAME]);
            self.look(frame);
        }
        self.rest.drain(..whole);
    }

    fn look(&mut self, mut frame: [f32; FRAME]) {
        frame.iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0));
        let score = self.network.predict_f32(&frame);
        let least = self.options.threshold - if self.speaking { HYSTERESIS } else { 0.0 };
        let (start, end) = (self.heard, self.heard + FRAME);
        self.heard = end;
        self.speaking = score >= least;
        if !self.speaking {
            return;
        }
        let pause = samples(self.options.pause);
        match self.spans.last_mut() {
            Some(last) if start - last.end < pause.max(1) => last.end = end,
            _ => self.spans.push(start..end),
        }
    }

    /// Where somebody speaks, in samples, in order and apart from each other.
    pub fn finish(mut self) -> Vec<Range<usize>> {
        if !self.rest.is_empty() {
            let mut frame = [0.0; FRAME];
            frame[..self.rest.len()].copy_from_slice(&self.rest);
            let length = self.heard + self.rest.len();
            self.look(frame);
            self.spans.iter_mut().for_each(|span| span.end = span.end.min(length));
            self.heard = length;
        }
        let (padding, length) = (samples(self.options.padding), self.heard);
        let mut padded: Vec<Range<usize>> = vec![];
        for span in self.spans {
            let (start, end) = (span.start.saturating_sub(padding), (span.end + padding).min(length));
            match padded.last_mut() {
                Some(last) if start <= last.end => last.end = end,
                _ => padded.push(start..end),
            }
        }
        padded
    }
}

fn samples(seconds: f32) -> usize {
    (seconds * RATE as f32) as usize
}
