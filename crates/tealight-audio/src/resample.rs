//! Band-limited resampling of any sample rate to [`SAMPLE_RATE`] with a polyphase filter: a sinc with a Kaiser window (Smith, Digital
//! Audio Resampling, 2002; Kaiser and Schafer, On the use of the I0-sinh window for spectrum analysis, 1980).
//!
//! The lower of the two sample rates limits the bandwidth; below, its half is called the Nyquist frequency.

use crate::sample_rate::SAMPLE_RATE;
use std::f64::consts::PI;
use tealight_kernels::{Isa, fir};

/// Zero crossings of the sinc on each side of its center. More of them narrow the transition band.
const ZERO_CROSSINGS: usize = 112;
/// β of the Kaiser window for a stopband attenuation of A = 80 dB, which is also the dynamic range of Whisper's spectrograms: Kaiser's
/// formula is β = 0.1102 (A - 8.7). `tests/audio.rs` checks that tones above the Nyquist frequency are attenuated by 75 dB.
const KAISER_BETA: f64 = 7.86;
/// Where the filter halves the amplitude, relative to the Nyquist frequency. The stopband starts at the Nyquist frequency, so that
/// nothing aliases; the passband ends as far below the cutoff: at 7.64 kHz for an output of 16 kHz.
const CUTOFF: f64 = 0.9775;
/// Filters per zero crossing. Linear interpolation between two of them changes a coefficient by at most h²/8 · π²/3 = 1.0e-6 of the
/// largest one (-120 dB), where h = 1/640 and π²/3 is the largest second derivative of a sinc with zeros at the integers.
const PHASES_PER_CROSSING: f64 = 640.0;
/// Terms of the series of the Bessel function I0 that matter for arguments up to β.
const BESSEL_TERMS: usize = 24;

/// Resamples consecutive blocks of any length.
pub(crate) struct Resampler {
    isa: Isa,
    rate: usize,
    /// Output samples and input samples per period: the two sample rates without their common divisors.
    up: usize,
    down: usize,
    /// Number of filters for equidistant fractions of an input sample. If it is less than `up`, two filters are interpolated.
    phases: usize,
    /// Length of a filter: the number of input samples that an output sample is computed from, a multiple of [`fir::TAPS_ALIGN`].
    taps: usize,
    /// `[phases + 1, taps]`; the last filter is for the fraction 1.
    filters: Vec<f32>,
    /// Input samples that later outputs need.
    pending: Vec<f32>,
    /// Position of the first pending sample in the input, which is preceded by `taps / 2 - 1` samples of silence.
    pending_start: u64,
    samples_in: u64,
    samples_out: u64,
}

impl std::fmt::Debug for Resampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resampler from {} to {SAMPLE_RATE}", self.rate)
    }
}

impl Resampler {
    /// A resampler from `rate`, in Hz, at the start of a signal.
    pub(crate) fn new(isa: Isa, rate: usize) -> Self {
        let divisor = gcd(rate, SAMPLE_RATE);
        let (up, down) = (SAMPLE_RATE / divisor, rate / divisor);
        // Input samples per zero crossing.
        let scale = (rate as f64 / SAMPLE_RATE as f64).max(1.0);
        let half_len = ((ZERO_CROSSINGS as f64 * scale).ceil() as usize).next_multiple_of(fir::TAPS_ALIGN / 2);
        let phases = up.min((PHASES_PER_CROSSING / scale).ceil() as usize);
        let taps = 2 * half_len;
        let mut filters = vec![0.0; (phases + 1) * taps];
        for phase in 0..=phases / 2 {
            let filter = windowed_sinc(phase as f64 / phases as f64, half_len, CUTOFF / scale);
            // The filter of the opposite fraction is its mirror image.
            let mirror = filters[(phases - phase) * taps..][..taps].iter_mut().rev();
            mirror.zip(&filter).for_each(|(to, from)| *to = *from);
            filters[phase * taps..][..taps].copy_from_slice(&filter);
        }
        Self {
            isa,
            rate,
            up,
            down,
            phases,
            taps,
            filters,
            pending: vec![0.0; half_len - 1],
            pending_start: 0,
            samples_in: 0,
            samples_out: 0,
        }
    }

    /// Consumes samples; returns output in whole periods, in which every filter computes whole tiles of outputs.
    pub(crate) fn push(&mut self, samples: &[f32]) -> Vec<f32> {
        self.samples_in += samples.len() as u64;
        self.pending.extend_from_slice(samples);
        let ready = self.ready();
        self.next_outputs(ready - ready % (self.up * fir::TILE_OUTPUTS))
    }

    /// Returns the remaining output; the total output then has the duration of the input.
    pub(crate) fn finish(mut self) -> Vec<f32> {
        let expected = (self.samples_in * self.up as u64).div_ceil(self.down as u64);
        self.pending.resize(self.pending.len() + self.taps, 0.0);
        self.next_outputs((expected - self.samples_out) as usize)
    }

    /// Position of the output sample `index` in the input: whole samples, and a fraction in units of 1 / `up`.
    fn position(&self, index: u64) -> (u64, usize) {
        let position = index * self.down as u64;
        (position / self.up as u64, (position % self.up as u64) as usize)
    }

    /// Number of output samples for which all input is pending.
    fn ready(&self) -> usize {
        let end = self.pending_start + self.pending.len() as u64;
        // Outputs whose whole position is below this; the fraction does not matter.
        let starts = (end + 1).saturating_sub(self.taps as u64);
        ((starts * self.up as u64).div_ceil(self.down as u64)).saturating_sub(self.samples_out) as usize
    }

    /// Computes the next `count` output samples, which must be ready, and drops the input before the next one.
    fn next_outputs(&mut self, count: usize) -> Vec<f32> {
        let mut out = vec![0.0; count];
        if self.phases == self.up {
            // One filter for all outputs with the same fraction, which are `up` apart.
            let mut column = vec![0.0; count.div_ceil(self.up)];
            for first in 0..count.min(self.up) {
                let column = &mut column[..(count - first).div_ceil(self.up)];
                let (start, fraction) = self.position(self.samples_out + first as u64);
                self.filter(start, fraction, column);
                out[first..].iter_mut().step_by(self.up).zip(column).for_each(|(out, value)| *out = *value);
            }
        } else {
            for (i, out) in out.iter_mut().enumerate() {
                let (start, fraction) = self.position(self.samples_out + i as u64);
                let phase = fraction * self.phases;
                let mut values = [[0.0]; 2];
                self.filter(start, phase / self.up, &mut values[0]);
                self.filter(start, phase / self.up + 1, &mut values[1]);
                let [[value], [next]] = values;
                *out = value + (next - value) * ((phase % self.up) as f32 / self.up as f32);
            }
        }
        self.samples_out += count as u64;
        let (start, _) = self.position(self.samples_out);
        let consumed = (start - self.pending_start).min(self.pending.len() as u64);
        self.pending.drain(..consumed as usize);
        self.pending_start += consumed;
        out
    }

    /// Outputs of one filter, `down` input samples apart, the first of which needs the input from `start`.
    fn filter(&self, start: u64, phase: usize, out: &mut [f32]) {
        let filter = &self.filters[phase * self.taps..][..self.taps];
        fir::decimate(self.isa, filter, &self.pending[(start - self.pending_start) as usize..], self.down, out);
    }
}

/// Values of a windowed sinc with a sum of 1, at `2 * half_len` taps. Its center is `fraction` (0 to 1) of a sample after the last tap
/// of the first half. `cutoff` is relative to half the sample rate of the input.
fn windowed_sinc(fraction: f64, half_len: usize, cutoff: f64) -> Vec<f32> {
    let position = |tap: usize| tap as f64 - (half_len - 1) as f64 - fraction;
    let sinc = |x: f64| if x == 0.0 { cutoff } else { (PI * cutoff * x).sin() / (PI * x) };
    let mut values: Vec<f64> = (0..2 * half_len).map(|tap| position(tap) / half_len as f64).collect();
    kaiser_window(&mut values);
    values.iter_mut().enumerate().for_each(|(tap, value)| *value *= sinc(position(tap)));
    let sum: f64 = values.iter().sum();
    values.iter().map(|value| (value / sum) as f32).collect()
}

/// Replaces positions from -1 to 1 by the values of a Kaiser window, which is not normalized: I0(β √(1 - x²)), where I0 is the modified
/// Bessel function with the power series Σ (y / 2)^2k / k!².
fn kaiser_window(values: &mut [f64]) {
    let squares: Vec<f64> = values.iter().map(|x| (KAISER_BETA / 2.0).powi(2) * (1.0 - x * x).max(0.0)).collect();
    values.fill(1.0);
    // Horner's method, one term for all values at a time.
    for k in (1..=BESSEL_TERMS).rev() {
        let factor = 1.0 / (k * k) as f64;
        values.iter_mut().zip(&squares).for_each(|(value, square)| *value = 1.0 + *value * square * factor);
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resampling_is_identical_on_all_instruction_sets() {
        let samples: Vec<f32> = (0..9_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e7).collect();
        for rate in [8_000, 44_100, 44_099] {
            let resampled = |isa: Isa| {
                let mut resampler = Resampler::new(isa, rate);
                let mut out = resampler.push(&samples);
                out.extend(resampler.finish());
                out
            };
            let expected = resampled(Isa::Scalar);
            assert!(Isa::available().into_iter().all(|isa| resampled(isa) == expected), "{rate}");
        }
    }

    #[test]
    fn resampling_is_independent_of_block_length() {
        let samples: Vec<f32> = (0..30_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e7).collect();
        for rate in [8_000, 11_025, 44_100, 48_000, 44_099] {
            let resampled = |length: usize| {
                let mut resampler = Resampler::new(Isa::detect(), rate);
                let mut out: Vec<f32> = samples.chunks(length).flat_map(|s| resampler.push(s)).collect();
                out.extend(resampler.finish());
                out
            };
            let at_once = resampled(samples.len());
            assert_eq!(at_once.len(), (samples.len() * SAMPLE_RATE).div_ceil(rate));
            assert!(at_once == resampled(7) && at_once == resampled(4096), "{rate}");
        }
    }
}
