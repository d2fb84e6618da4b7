//! Another rate to 16 kHz, by a band-limited resampler of the `rubato` crate.

use super::{RATE, invalid};
use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _};
use tealight_core::{Error, Result};

/// Samples that are resampled at once, at least: fewer have a wider transition band.
const CHUNK: usize = 2048;

/// What is resampled piece by piece.
pub(super) struct Resampler {
    inner: Fft<f32>,
    rate: usize,
    /// Samples that are not yet a chunk.
    waiting: Vec<f32>,
    /// Samples of the delay that are still to be dropped.
    delay: usize,
    taken: usize,
    given: usize,
}

impl std::fmt::Debug for Resampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resampler from {} to {RATE}", self.rate)
    }
}

impl Resampler {
    pub(super) fn new(rate: usize) -> Result<Self> {
        let window = rubato::WindowFunction::BlackmanHarris2;
        // An even number of the shortest blocks has an even number of samples, and so a delay of whole ones.
        let shortest = rate / gcd(rate, RATE);
        let chunk = shortest * CHUNK.div_ceil(shortest).next_multiple_of(2);
        let inner = Fft::new_custom(rate, RATE, chunk, 1, 1, window, FixedSync::Both)
            .map_err(|e| invalid(format!("of {rate} samples a second cannot be resampled: {e}")))?;
        let delay = inner.output_delay();
        Ok(Self { inner, rate, waiting: vec![], delay, taken: 0, given: 0 })
    }

    /// What comes out when more goes in.
    pub(super) fn push(&mut self, samples: &[f32]) -> Result<Vec<f32>> {
        self.taken += samples.len();
        self.waiting.extend_from_slice(samples);
        let (chunk, mut out, mut from) = (self.inner.input_frames_next(), vec![], 0);
        while self.waiting.len() - from >= chunk {
            let input = &self.waiting[from..from + chunk];
            process(&mut self.inner, input, &mut out)?;
            from += chunk;
        }
        self.waiting.drain(..from);
        let dropped = self.delay.min(out.len());
        self.delay -= dropped;
        out.drain(..dropped);
        self.given += out.len();
        Ok(out)
    }

    /// What is left, as many samples as the recording is long.
    pub(super) fn finish(mut self) -> Result<Vec<f32>> {
        let expected = (self.taken as u64 * RATE as u64).div_ceil(self.rate as u64) as usize;
        let (given, chunk) = (self.given, self.inner.input_frames_next());
        let mut out = vec![];
        while given + out.len() < expected {
            out.extend(self.push(&vec![0.0; chunk])?);
        }
        out.truncate(expected - given);
        Ok(out)
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn process(inner: &mut Fft<f32>, input: &[f32], out: &mut Vec<f32>) -> Result<()> {
    let frames = inner.output_frames_next();
    let start = out.len();
    out.resize(start + frames, 0.0);
    let failed = |e: &dyn std::fmt::Display| Error::internal(format!("resampling failed: {e}"));
    let from = InterleavedSlice::new(input, 1, input.len()).map_err(|e| failed(&e))?;
    let mut to = InterleavedSlice::new_mut(&mut out[start..], 1, frames).map_err(|e| failed(&e))?;
    inner.process_into_buffer(&from, &mut to, None).map_err(|e| failed(&e))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_length_give_the_same() {
        let samples: Vec<f32> = (0..30_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e7).collect();
        for rate in [8_000, 11_025, 44_100, 48_000, 44_099] {
            let resampled = |length: usize| {
                let mut resampler = Resampler::new(rate).unwrap();
                let mut out: Vec<f32> = samples.chunks(length).flat_map(|s| resampler.push(s).unwrap()).collect();
                out.extend(resampler.finish().unwrap());
                out
            };
            let whole = resampled(samples.len());
            assert_eq!(whole.len(), (samples.len() * RATE).div_ceil(rate));
            assert!(whole == resampled(7) && whole == resampled(4096), "{rate}");
        }
    }
}
