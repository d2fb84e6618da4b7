//! Decodes a window at rising temperatures until the result is probable and not repetitive.

use super::decode::{DecodingOptions, DecodingResult, DecodingTask, Strategy};
use super::options::TranscribeOptions;
use crate::families::whisper::Whisper;
use crate::families::whisper::decoder::CrossKv;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::io::Write;
use tealight_kernels::CpuContext;

/// The result of decoding a window at one temperature.
pub(super) struct Attempt {
    pub result: DecodingResult,
    pub temperature: f32,
    pub compression_ratio: f32,
    /// Whether fallback temperatures were tried, and no attempt met the thresholds.
    pub is_doubtful: bool,
}

impl Attempt {
    fn is_improbable(&self, options: &TranscribeOptions) -> bool {
        self.result.avg_logprob < options.logprob_threshold
    }

    fn is_repetitive(&self, options: &TranscribeOptions) -> bool {
        self.compression_ratio > options.compression_ratio_threshold
    }

    fn needs_fallback(&self, options: &TranscribeOptions) -> bool {
        let is_improbable = self.is_improbable(options);
        let is_silence = self.result.no_speech_prob > options.no_speech_threshold && is_improbable;
        !is_silence && (is_improbable || self.is_repetitive(options))
    }

    /// Whether only the other attempt is repetitive; if both are repetitive or neither is, whether this one is more probable.
    fn is_better_than(&self, other: &Self, options: &TranscribeOptions) -> bool {
        match (self.is_repetitive(options), other.is_repetitive(options)) {
            (false, true) => true,
            (true, false) => false,
            _ => self.result.avg_logprob > other.result.avg_logprob,
        }
    }
}

/// Decodes a window; `seed` makes sampling reproducible.
pub(super) fn decode_with_fallback(
    model: &Whisper,
    cpu: &CpuContext,
    cross_kv: &CrossKv,
    decoding: &DecodingOptions,
    options: &TranscribeOptions,
    seed: u64,
) -> Attempt {
    let mut task = DecodingTask::new(model, cpu, cross_kv, decoding);
    let mut decode = |temperature: f32| {
        let strategy = match (temperature, options.beam_size) {
            (0.0, 0..=1) => Strategy::Greedy,
            (0.0, beam_size) => Strategy::Beam { beam_size },
            _ => Strategy::Sample { best_of: options.best_of.max(1), temperature },
        };
        let result = task.run(strategy, seed);
        let compression_ratio = compression_ratio(&model.tokenizer.decode(&result.tokens));
        Attempt { result, temperature, compression_ratio, is_doubtful: false }
    };
    let mut best = decode(options.temperatures.first().copied().unwrap_or(0.0));
    for temperature in options.temperatures.iter().skip(1) {
        if !best.needs_fallback(options) {
            return best;
        }
        let next = decode(*temperature);
        // openai/whisper keeps the last attempt, which is often the worst; faster-whisper also keeps the most probable.
        if next.is_better_than(&best, options) {
            best = next;
        }
    }
    best.is_doubtful = options.temperatures.len() > 1 && (best.is_improbable(options) || best.is_repetitive(options));
    best
}

/// Length of a text divided by its length after zlib compression.
fn compression_ratio(text: &str) -> f32 {
    let mut encoder = ZlibEncoder::new(vec![], Compression::default());
    let compressed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    // Writing to memory cannot fail.
    text.len() as f32 / compressed.map_or(1, |bytes| bytes.len().max(1)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempt_that_is_not_repetitive_or_more_probable_is_better() {
        let attempt = |avg_logprob, compression_ratio| {
            let result = DecodingResult { tokens: vec![], avg_logprob, no_speech_prob: 0.0 };
            Attempt { result, temperature: 0.0, compression_ratio, is_doubtful: false }
        };
        let options = TranscribeOptions::default();
        let better = |a: &Attempt, b: &Attempt| a.is_better_than(b, &options);
        assert!(better(&attempt(-1.2, 1.0), &attempt(-3.0, 1.0)) && !better(&attempt(-3.0, 1.0), &attempt(-1.2, 1.0)));
        assert!(better(&attempt(-3.0, 1.0), &attempt(-0.1, 9.0)) && !better(&attempt(-0.1, 9.0), &attempt(-3.0, 1.0)));
        assert!(better(&attempt(-0.1, 9.0), &attempt(-0.2, 9.0)));
    }
}
