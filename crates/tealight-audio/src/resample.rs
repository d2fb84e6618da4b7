//! Band-limited resampling of any sample rate to [`SAMPLE_RATE`].

use crate::error::invalid_file;
use crate::sample_rate::SAMPLE_RATE;
use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _};
use tealight_core::{Error, Result};

/// Minimum number of samples per FFT: shorter ones have a wider transition band.
const MIN_FFT_LEN: usize = 2048;

/// Resamples consecutive blocks of any length.
pub(crate) struct Resampler {
    inner: Fft<f32>,
    rate: usize,
    /// Input samples of an incomplete FFT block.
    pending: Vec<f32>,
    /// Output samples still to be dropped, because the filter delays its output.
    delay: usize,
    samples_in: usize,
    samples_out: usize,
}

impl std::fmt::Debug for Resampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resampler from {} to {SAMPLE_RATE}", self.rate)
    }
}

impl Resampler {
    pub(crate) fn new(rate: usize) -> Result<Self> {
        let window = rubato::WindowFunction::BlackmanHarris2;
        // An even multiple of the shortest possible FFT has an even length, and therefore a delay of whole samples.
        let shortest = rate / gcd(rate, SAMPLE_RATE);
        let fft_len = shortest * MIN_FFT_LEN.div_ceil(shortest).next_multiple_of(2);
        let inner = Fft::new_custom(rate, SAMPLE_RATE, fft_len, 1, 1, window, FixedSync::Both)
            .map_err(|e| invalid_file(format!("has a sample rate of {rate} Hz, which cannot be resampled: {e}")))?;
        let delay = inner.output_delay();
        Ok(Self { inner, rate, pending: vec![], delay, samples_in: 0, samples_out: 0 })
    }

    /// Consumes samples; returns all output that is ready.
    pub(crate) fn push(&mut self, samples: &[f32]) -> Result<Vec<f32>> {
        self.samples_in += samples.len();
        self.pending.extend_from_slice(samples);
        let (fft_len, mut out, mut start) = (self.inner.input_frames_next(), vec![], 0);
        while self.pending.len() - start >= fft_len {
            let input = &self.pending[start..start + fft_len];
            process(&mut self.inner, input, &mut out)?;
            start += fft_len;
        }
        self.pending.drain(..start);
        let dropped = self.delay.min(out.len());
        self.delay -= dropped;
        out.drain(..dropped);
        self.samples_out += out.len();
        Ok(out)
    }

    /// Returns the remaining output; the total output then has the duration of the input.
    pub(crate) fn finish(mut self) -> Result<Vec<f32>> {
        let expected = (self.samples_in as u64 * SAMPLE_RATE as u64).div_ceil(self.rate as u64) as usize;
        let (samples_out, fft_len) = (self.samples_out, self.inner.input_frames_next());
        let mut out = vec![];
        while samples_out + out.len() < expected {
            out.extend(self.push(&vec![0.0; fft_len])?);
        }
        out.truncate(expected - samples_out);
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
    let resampling_error = |e: &dyn std::fmt::Display| Error::internal(format!("resampling failed: {e}"));
    let from = InterleavedSlice::new(input, 1, input.len()).map_err(|e| resampling_error(&e))?;
    let mut to = InterleavedSlice::new_mut(&mut out[start..], 1, frames).map_err(|e| resampling_error(&e))?;
    inner.process_into_buffer(&from, &mut to, None).map_err(|e| resampling_error(&e))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resampling_is_independent_of_block_length() {
        let samples: Vec<f32> = (0..30_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e7).collect();
        for rate in [8_000, 11_025, 44_100, 48_000, 44_099] {
            let resampled = |length: usize| {
                let mut resampler = Resampler::new(rate).unwrap();
                let mut out: Vec<f32> = samples.chunks(length).flat_map(|s| resampler.push(s).unwrap()).collect();
                out.extend(resampler.finish().unwrap());
                out
            };
            let at_once = resampled(samples.len());
            assert_eq!(at_once.len(), (samples.len() * SAMPLE_RATE).div_ceil(rate));
            assert!(at_once == resampled(7) && at_once == resampled(4096), "{rate}");
        }
    }
}
