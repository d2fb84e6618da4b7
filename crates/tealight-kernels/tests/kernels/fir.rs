//! Filters of audio.

use super::{bits, values};
use tealight_kernels::Isa;
use tealight_kernels::fir::{TAPS_ALIGN, decimate};

#[test]
fn filtered_samples_match_float64_and_are_equal_on_all_isas() {
    for (taps, step, outputs) in [(1, 1, 1), (3, 3, 11), (24, 441, 6), (2, 0, 4), (2, 5, 0)] {
        let taps = values(taps * TAPS_ALIGN, 1);
        let samples = values(taps.len() + step * outputs.max(1), 2);
        let mut scalar = vec![0.0; outputs];
        decimate(Isa::Scalar, &taps, &samples, step, &mut scalar);
        for (i, found) in scalar.iter().enumerate() {
            let products = taps.iter().zip(&samples[i * step..]).map(|(a, b)| f64::from(*a) * f64::from(*b));
            assert!((f64::from(*found) - products.sum::<f64>()).abs() < 1e-5, "output {i}, step {step}");
        }
        for isa in Isa::available() {
            let mut out = vec![0.0; outputs];
            decimate(isa, &taps, &samples, step, &mut out);
            assert_eq!(bits(&out), bits(&scalar), "{}", isa.as_str());
        }
    }
}

#[test]
#[should_panic(expected = "assertion failed")]
fn too_few_samples_panic() {
    decimate(Isa::detect(), &[1.0; TAPS_ALIGN], &[1.0; TAPS_ALIGN + 5], 3, &mut [0.0; 3]);
}
