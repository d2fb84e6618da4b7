//! The log-mel spectrogram that Whisper hears (openai/whisper, `audio.py`): 25 ms windows every 10 ms, Slaney's mel scale.

use crate::RATE;
use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};
use std::sync::Arc;

/// Samples of a window.
pub const WINDOW: usize = 400;
/// Samples from one frame to the next.
pub const HOP: usize = 160;
/// Powers below this count as it.
const SMALLEST: f32 = 1e-10;
/// What the smallest power becomes.
pub const SILENCE: f32 = -10.0;
/// Nothing is quieter than the loudest by more than this, in powers of ten.
const RANGE: f32 = 8.0;
const BINS: usize = WINDOW / 2 + 1;

/// Turns windows of samples into frames.
pub struct Spectrogram {
    fft: Arc<dyn RealToComplex<f32>>,
    /// Hann's window, periodic.
    window: Vec<f32>,
    bands: Vec<Band>,
    samples: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    powers: Vec<f32>,
}

impl std::fmt::Debug for Spectrogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Spectrogram of {} bands", self.bands.len())
    }
}

/// A triangle over neighbouring bins.
#[derive(Debug)]
struct Band {
    first: usize,
    weights: Vec<f32>,
}

impl Spectrogram {
    /// For so many mel bands: 80, or 128 of large-v3.
    pub fn new(bands: usize) -> Self {
        let fft = RealFftPlanner::new().plan_fft_forward(WINDOW);
        let angle = |i: usize| std::f64::consts::TAU * i as f64 / WINDOW as f64;
        Self {
            window: (0..WINDOW).map(|i| (0.5 - 0.5 * angle(i).cos()) as f32).collect(),
            bands: filters(bands),
            samples: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            scratch: fft.make_scratch_vec(),
            powers: vec![0.0; BINS],
            fft,
        }
    }

    /// How many bands a frame has.
    pub fn bands(&self) -> usize {
        self.bands.len()
    }

    /// The frame of [`WINDOW`] samples, as logarithms to the base 10 of mel powers, `[bands]`; returns the largest.
    ///
    /// # Panics
    /// If there are not so many samples or bands.
    pub fn frame(&mut self, samples: &[f32], out: &mut [f32]) -> f32 {
        assert!(samples.len() == WINDOW && out.len() == self.bands.len());
        self.samples.iter_mut().zip(samples).zip(&self.window).for_each(|((s, x), w)| *s = x * w);
        let done = self.fft.process_with_scratch(&mut self.samples, &mut self.spectrum, &mut self.scratch);
        debug_assert!(done.is_ok());
        self.powers.iter_mut().zip(&self.spectrum).for_each(|(p, c)| *p = c.norm_sqr());
        let mut largest = SILENCE;
        for (out, band) in out.iter_mut().zip(&self.bands) {
            let powers = &self.powers[band.first..][..band.weights.len()];
            let power: f32 = powers.iter().zip(&band.weights).map(|(p, w)| p * w).sum();
            *out = power.max(SMALLEST).log10();
            largest = largest.max(*out);
        }
        largest
    }
}

/// What the network reads: logarithms bounded below by the loudest of the recording, around 0.
pub fn normalise(frames: &mut [f32], loudest: f32) {
    frames.iter_mut().for_each(|v| *v = (v.max(loudest - RANGE) + 4.0) / 4.0);
}

/// Triangles of equal area, evenly spaced on Slaney's scale: linear below 1000 Hz, logarithmic above (Auditory Toolbox, 1998).
fn filters(bands: usize) -> Vec<Band> {
    let top = 15.0 + (RATE as f64 / 2.0 / 1000.0).ln() / STEP;
    let edges: Vec<f64> = (0..bands + 2).map(|i| hertz(top * i as f64 / (bands + 1) as f64)).collect();
    edges.windows(3).map(|e| triangle(e[0], e[1], e[2])).collect()
}

/// Of a mel, above 1000 Hz, in natural logarithms.
const STEP: f64 = 0.068_751_777_420_949_12;

fn hertz(mel: f64) -> f64 {
    if mel < 15.0 { 200.0 / 3.0 * mel } else { 1000.0 * (STEP * (mel - 15.0)).exp() }
}

fn triangle(low: f64, centre: f64, high: f64) -> Band {
    let weight = |bin: usize| {
        let hertz = bin as f64 * RATE as f64 / WINDOW as f64;
        let side = ((hertz - low) / (centre - low)).min((high - hertz) / (high - centre));
        (side.max(0.0) * 2.0 / (high - low)) as f32
    };
    let first = (0..BINS).find(|b| weight(*b) > 0.0).unwrap_or(0);
    let count = (first..BINS).take_while(|b| weight(*b) > 0.0).count();
    Band { first, weights: (first..first + count).map(weight).collect() }
}
