//! FFT of real frames of 400 samples, which Whisper's spectrograms are made of. rustfft, the usual library, has planners for every
//! length, which added 1.4 MB to the binary.
//!
//! With 400 = 16 · 25, the Cooley–Tukey algorithm turns the FFT into 16 FFTs of length 25 and 25 FFTs of length 16. Four of them are
//! computed at once, one per lane of a vector, so that no operation crosses lanes except for the transposition in between. Samples are
//! real, so only 13 of the 25 FFTs of length 16 are computed: the others give complex conjugates.

use std::f64::consts::TAU;

/// Samples per frame.
pub(crate) const LENGTH: usize = 400;
/// Frequency bins, from 0 Hz to half the sample rate.
pub(crate) const BINS: usize = LENGTH / 2 + 1;
/// Lengths of the two kinds of FFTs.
const ROWS: usize = 16;
const COLUMNS: usize = 25;
/// Number of FFTs that are computed at once.
const FFTS_AT_ONCE: usize = 4;
/// Outputs of the FFTs of length 25 that are not complex conjugates of others, in the order in which [`RealFft::real_dft25`] returns them.
const OUTPUTS_25: [usize; 13] = [0, 5, 10, 1, 6, 11, 16, 21, 2, 7, 12, 17, 22];

type Lanes = [f32; FFTS_AT_ONCE];
/// Real parts and imaginary parts.
type Complex = [Lanes; 2];
/// Real part and imaginary part of e^(-2πik/n).
type Twiddle = [f32; 2];

/// Twiddle factors of the FFT, and a table of its outputs.
pub(crate) struct RealFft {
    /// Between the radix-5 stages, for outputs 1 and 2 of the first stage: e^(-2πibc/25).
    twiddles_25: [[Twiddle; 5]; 2],
    /// Between the radix-4 stages: e^(-2πibc/16).
    twiddles_16: [[Twiddle; 4]; 4],
    /// Between the FFTs of lengths 25 and 16, for groups of lanes n and each entry k of [`OUTPUTS_25`]: e^(-2πikn/400).
    twiddles_400: [[Complex; OUTPUTS_25.len()]; ROWS / FFTS_AT_ONCE],
    /// For each output of the FFTs of length 16 and each entry of [`OUTPUTS_25`], its frequency bin.
    bins: [[usize; OUTPUTS_25.len()]; ROWS],
}

impl RealFft {
    pub(crate) fn new() -> Self {
        let lanes = |k: usize, n: usize, part: usize| std::array::from_fn(|lane| twiddle(k * (n + lane), LENGTH)[part]);
        let bin = |k: usize| k.min(LENGTH - k);
        Self {
            twiddles_25: [1, 2].map(|c| std::array::from_fn(|b| twiddle(b * c, COLUMNS))),
            twiddles_16: std::array::from_fn(|c| std::array::from_fn(|b| twiddle(b * c, ROWS))),
            twiddles_400: std::array::from_fn(|group| {
                OUTPUTS_25.map(|k| [lanes(k, group * FFTS_AT_ONCE, 0), lanes(k, group * FFTS_AT_ONCE, 1)])
            }),
            bins: std::array::from_fn(|k1| OUTPUTS_25.map(|k2| bin(k2 + COLUMNS * k1))),
        }
    }

    /// Computes the power spectrum of a frame: the squared magnitude of each frequency bin.
    pub(crate) fn power_spectrum(&self, samples: &[f32; LENGTH], powers: &mut [f32; BINS]) {
        // Real and imaginary parts of `[ROWS, OUTPUTS_25]`, padded to whole vectors.
        let mut transposed = [[[0.0; ROWS]; ROWS]; 2];
        for (group, twiddles) in self.twiddles_400.iter().enumerate() {
            let column_values =
                |column: usize| std::array::from_fn(|lane| samples[ROWS * column + FFTS_AT_ONCE * group + lane]);
            let values = self.real_dft25(&std::array::from_fn(column_values));
            for (column, (value, twiddles)) in values.iter().zip(twiddles).enumerate() {
                let [re, im] = mul(value, twiddles);
                for lane in 0..FFTS_AT_ONCE {
                    transposed[0][FFTS_AT_ONCE * group + lane][column] = re[lane];
                    transposed[1][FFTS_AT_ONCE * group + lane][column] = im[lane];
                }
            }
        }
        for first in (0..OUTPUTS_25.len()).step_by(FFTS_AT_ONCE) {
            let part = |part: usize, row: usize| std::array::from_fn(|lane| transposed[part][row][first + lane]);
            let values = self.dft16(&std::array::from_fn(|row| [part(0, row), part(1, row)]));
            for ([re, im], bins) in values.iter().zip(&self.bins) {
                let power: Lanes = std::array::from_fn(|lane| re[lane] * re[lane] + im[lane] * im[lane]);
                bins[first..].iter().zip(power).for_each(|(bin, power)| powers[*bin] = power);
            }
        }
    }

    /// DFTs of 25 real values in each lane; returns the outputs [`OUTPUTS_25`].
    #[inline(always)]
    fn real_dft25(&self, values: &[Lanes; COLUMNS]) -> [Complex; OUTPUTS_25.len()] {
        let first: [[Complex; 3]; 5] = std::array::from_fn(|b| real_dft5(std::array::from_fn(|a| values[5 * a + b])));
        let [twiddles1, twiddles2] = &self.twiddles_25;
        let [a, b, c] = real_dft5(std::array::from_fn(|b| first[b][0][0]));
        let [d, e, f, g, h] = dft5(std::array::from_fn(|b| rotate(&first[b][1], twiddles1[b])));
        let [i, j, k, l, m] = dft5(std::array::from_fn(|b| rotate(&first[b][2], twiddles2[b])));
        [a, b, c, d, e, f, g, h, i, j, k, l, m]
    }

    /// DFTs of 16 complex values in each lane.
    #[inline(always)]
    fn dft16(&self, rows: &[Complex; ROWS]) -> [Complex; ROWS] {
        let first: [[Complex; 4]; 4] = std::array::from_fn(|b| dft4(std::array::from_fn(|a| rows[4 * a + b])));
        let mut out = [[[0.0; FFTS_AT_ONCE]; 2]; ROWS];
        for (c, twiddles) in self.twiddles_16.iter().enumerate() {
            let outputs = dft4(std::array::from_fn(|b| rotate(&first[b][c], twiddles[b])));
            outputs.into_iter().enumerate().for_each(|(d, output)| out[c + 4 * d] = output);
        }
        out
    }
}

fn twiddle(k: usize, n: usize) -> Twiddle {
    let angle = -TAU * k as f64 / n as f64;
    [angle.cos() as f32, angle.sin() as f32]
}

#[inline(always)]
fn add_lanes(a: &Lanes, b: &Lanes) -> Lanes {
    std::array::from_fn(|lane| a[lane] + b[lane])
}

#[inline(always)]
fn sub_lanes(a: &Lanes, b: &Lanes) -> Lanes {
    std::array::from_fn(|lane| a[lane] - b[lane])
}

/// a·x + b·y
#[inline(always)]
fn combine(a: f32, x: &Lanes, b: f32, y: &Lanes) -> Lanes {
    std::array::from_fn(|lane| a * x[lane] + b * y[lane])
}

#[inline(always)]
fn add([a, b]: &Complex, [c, d]: &Complex) -> Complex {
    [add_lanes(a, c), add_lanes(b, d)]
}

#[inline(always)]
fn sub([a, b]: &Complex, [c, d]: &Complex) -> Complex {
    [sub_lanes(a, c), sub_lanes(b, d)]
}

#[inline(always)]
fn mul([a, b]: &Complex, [c, d]: &Complex) -> Complex {
    let re = std::array::from_fn(|lane| a[lane] * c[lane] - b[lane] * d[lane]);
    let im = std::array::from_fn(|lane| a[lane] * d[lane] + b[lane] * c[lane]);
    [re, im]
}

/// Multiplies all lanes by the same twiddle factor.
#[inline(always)]
fn rotate([re, im]: &Complex, [cos, sin]: Twiddle) -> Complex {
    [combine(cos, re, -sin, im), combine(sin, re, cos, im)]
}

/// DFTs of 4 values.
#[inline(always)]
fn dft4([a, b, c, d]: [Complex; 4]) -> [Complex; 4] {
    let (a_plus_c, b_plus_d, a_minus_c) = (add(&a, &c), add(&b, &d), sub(&a, &c));
    let [re, im] = sub(&b, &d);
    // b - d multiplied by -i.
    let rotated = [im, re.map(|v| -v)];
    [add(&a_plus_c, &b_plus_d), add(&a_minus_c, &rotated), sub(&a_plus_c, &b_plus_d), sub(&a_minus_c, &rotated)]
}

/// Cosine and sine of 2π/5 and of 4π/5.
const COS1: f32 = 0.309_017;
const SIN1: f32 = 0.951_056_5;
const COS2: f32 = -0.809_017;
const SIN2: f32 = 0.587_785_25;

/// DFTs of 5 values.
#[inline(always)]
fn dft5([a, b, c, d, e]: [Complex; 5]) -> [Complex; 5] {
    let (b_plus_e, c_plus_d, b_minus_e, c_minus_d) = (add(&b, &e), add(&c, &d), sub(&b, &e), sub(&c, &d));
    let sum = |x: f32, y: f32| -> Complex {
        std::array::from_fn(|part| add_lanes(&a[part], &combine(x, &b_plus_e[part], y, &c_plus_d[part])))
    };
    // Multiplied by -i.
    let difference = |x: f32, y: f32| -> Complex {
        [combine(x, &b_minus_e[1], y, &c_minus_d[1]), combine(-x, &b_minus_e[0], -y, &c_minus_d[0])]
    };
    let (even1, even2, odd1, odd2) =
        (sum(COS1, COS2), sum(COS2, COS1), difference(SIN1, SIN2), difference(SIN2, -SIN1));
    [sum(1.0, 1.0), add(&even1, &odd1), add(&even2, &odd2), sub(&even2, &odd2), sub(&even1, &odd1)]
}

/// DFTs of 5 real values: the outputs 0, 1 and 2. The others are complex conjugates.
#[inline(always)]
fn real_dft5([a, b, c, d, e]: [Lanes; 5]) -> [Complex; 3] {
    let (b_plus_e, c_plus_d) = (add_lanes(&b, &e), add_lanes(&c, &d));
    let (b_minus_e, c_minus_d) = (sub_lanes(&b, &e), sub_lanes(&c, &d));
    let sum = |x: f32, y: f32| add_lanes(&a, &combine(x, &b_plus_e, y, &c_plus_d));
    let difference = |x: f32, y: f32| combine(-x, &b_minus_e, -y, &c_minus_d);
    [
        [sum(1.0, 1.0), [0.0; FFTS_AT_ONCE]],
        [sum(COS1, COS2), difference(SIN1, SIN2)],
        [sum(COS2, COS1), difference(SIN2, -SIN1)],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_spectrum_of_noise_matches_dft_in_float64() {
        let samples = std::array::from_fn(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / 1e7);
        let mut powers = [f32::NAN; BINS];
        RealFft::new().power_spectrum(&samples, &mut powers);
        let total: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() * LENGTH as f64;
        for (k, power) in powers.iter().enumerate() {
            let project = |f: fn(f64) -> f64| -> f64 {
                let angle = |i: usize| TAU * (k * i % LENGTH) as f64 / LENGTH as f64;
                samples.iter().enumerate().map(|(i, s)| f64::from(*s) * f(angle(i))).sum()
            };
            let expected = project(f64::cos).powi(2) + project(f64::sin).powi(2);
            let error = (f64::from(*power) - expected).abs();
            assert!(error < 1e-6 * total, "bin {k}: {power}, expected {expected}");
        }
    }
}
