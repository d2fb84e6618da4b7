//! Log-mel spectrograms as in openai/whisper (`audio.py`): frames of 25 ms every 10 ms, on Slaney's mel scale.

use crate::fft::{self, BINS, RealFft};
use crate::sample_rate::SAMPLE_RATE;
use std::f32::consts::LOG10_2;

/// Samples per frame.
pub const N_FFT: usize = fft::LENGTH;
/// Samples from the start of a frame to the start of the next.
pub const HOP_LENGTH: usize = 160;
/// Minimum mel power; smaller ones are raised to it.
const MIN_POWER: f32 = 1e-10;
/// Base-10 logarithm of the minimum mel power, which all mel bins of digital silence have.
pub const SILENCE: f32 = -10.0;
/// Values are clamped to this far below the maximum of the recording, as a base-10 logarithm (80 dB).
const DYNAMIC_RANGE: f32 = 8.0;

/// Computes log-mel frames.
pub struct Spectrogram {
    fft: RealFft,
    /// Periodic Hann window.
    window: [f32; N_FFT],
    filters: Vec<MelFilter>,
}

impl std::fmt::Debug for Spectrogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Spectrogram of {} mel bins", self.filters.len())
    }
}

/// A triangular filter over neighboring FFT bins.
#[derive(Debug)]
struct MelFilter {
    first_bin: usize,
    weights: Vec<f32>,
}

impl Spectrogram {
    /// `n_mels` is the number of mel bins: 80, or 128 for Whisper large-v3.
    pub fn new(n_mels: usize) -> Self {
        let angle = |i: usize| std::f64::consts::TAU * i as f64 / N_FFT as f64;
        Self {
            fft: RealFft::new(),
            window: std::array::from_fn(|i| (0.5 - 0.5 * angle(i).cos()) as f32),
            filters: mel_filters(n_mels),
        }
    }

    /// Number of mel bins.
    pub fn n_mels(&self) -> usize {
        self.filters.len()
    }

    /// Computes the base-10 logarithms of the mel powers of [`N_FFT`] samples; returns their maximum. `out` has [`Spectrogram::n_mels`]
    /// values.
    ///
    /// # Panics
    /// `samples` or `out` has a different length.
    pub fn frame(&self, samples: &[f32], out: &mut [f32]) -> f32 {
        assert!(samples.len() == N_FFT && out.len() == self.filters.len());
        let windowed = std::array::from_fn(|i| samples[i] * self.window[i]);
        let mut powers = [0.0; BINS];
        self.fft.power_spectrum(&windowed, &mut powers);
        let mut max = SILENCE;
        for (out, filter) in out.iter_mut().zip(&self.filters) {
            let powers = &powers[filter.first_bin..][..filter.weights.len()];
            let power: f32 = powers.iter().zip(&filter.weights).map(|(p, w)| p * w).sum();
            // Equals `power.log10()` except for rounding.
            *out = if power > MIN_POWER { power.log2() * LOG10_2 } else { SILENCE };
            max = max.max(*out);
        }
        max
    }
}

/// Scales log-mel values for the network: clamps them to 80 dB below `max`, the maximum of the whole recording, and maps that range
/// around 0.
pub fn normalize(frames: &mut [f32], max: f32) {
    frames.iter_mut().for_each(|v| *v = (v.max(max - DYNAMIC_RANGE) + 4.0) / 4.0);
}

/// Triangles of equal area, evenly spaced on Slaney's mel scale: linear below 1000 Hz, logarithmic above (Auditory Toolbox, 1998).
fn mel_filters(n_mels: usize) -> Vec<MelFilter> {
    let max_mel = 15.0 + (SAMPLE_RATE as f64 / 2.0 / 1000.0).ln() / LOG_STEP;
    let edges: Vec<f64> = (0..n_mels + 2).map(|i| mel_to_hz(max_mel * i as f64 / (n_mels + 1) as f64)).collect();
    edges.windows(3).map(|e| triangle(e[0], e[1], e[2])).collect()
}

/// Natural logarithm of the frequency ratio of adjacent mels above 1000 Hz: ln(6.4) / 27.
const LOG_STEP: f64 = 0.068_751_777_420_949_12;

fn mel_to_hz(mel: f64) -> f64 {
    if mel < 15.0 { 200.0 / 3.0 * mel } else { 1000.0 * (LOG_STEP * (mel - 15.0)).exp() }
}

fn triangle(low: f64, center: f64, high: f64) -> MelFilter {
    let weight = |bin: usize| {
        let hz = bin as f64 * SAMPLE_RATE as f64 / N_FFT as f64;
        let side = ((hz - low) / (center - low)).min((high - hz) / (high - center));
        (side.max(0.0) * 2.0 / (high - low)) as f32
    };
    let first_bin = (0..BINS).find(|b| weight(*b) > 0.0).unwrap_or(0);
    let count = (first_bin..BINS).take_while(|b| weight(*b) > 0.0).count();
    MelFilter { first_bin, weights: (first_bin..first_bin + count).map(weight).collect() }
}
