//! Every kernel of every instruction set that this CPU has, against the scalar one, float64 and exact integers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod attention;
mod binary;
mod int4;
mod int8;
mod rowwise;
mod scoring;
#[path = "../../../../tests/support/sets.rs"]
mod sets;

use sets::sets;
use tealight_kernels::Isa;
use tealight_kernels::int8::PackedRhs;
use tealight_kernels::quantize::QuantizedRows;

/// The largest error of attention and normalisation, on values around 1.
const FLOAT_ERROR: f64 = 2e-6;

/// Whether a set quantises activations to 7 bits.
fn coarse(isa: Isa) -> bool {
    isa.as_str() == "avx2"
}

/// Values in [-1, 1) by a fixed linear congruence.
fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn codes(isa: Isa, x: &[f32], w: &PackedRhs) -> QuantizedRows {
    let mut codes = QuantizedRows::default();
    codes.quantize(isa, x, &w.layout());
    codes
}

fn each_set_as_scalar(what: &str, run: impl Fn(Isa) -> Vec<f32>) -> Vec<f32> {
    let expected = run(Isa::Scalar);
    for isa in sets() {
        assert_eq!(bits(&run(isa)), bits(&expected), "{what} on {}", isa.as_str());
    }
    expected
}
