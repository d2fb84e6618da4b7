//! Every kernel on every instruction set of this CPU, compared with the scalar kernel, float64 and exact integers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod attention;
mod binary;
mod fir;
mod int4;
mod int8;
#[path = "../support/isas.rs"]
mod isas;
mod rowwise;
mod scoring;

use isas::available_isas;
use tealight_kernels::Isa;
use tealight_kernels::int8::PackedRhs;
use tealight_kernels::quantize::QuantizedRows;

/// Largest error of float32 attention and normalization of values around 1.
const FLOAT_ERROR: f64 = 2e-6;

/// Whether an instruction set quantizes activations to 7 bits.
fn has_7_bits(isa: Isa) -> bool {
    isa.as_str() == "avx2"
}

/// Pseudo-random values in [-1, 1) from a linear congruential generator.
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

fn quantized(isa: Isa, x: &[f32], rhs: &PackedRhs) -> QuantizedRows {
    let mut rows = QuantizedRows::default();
    rows.quantize(isa, x, &rhs.layout());
    rows
}

/// Runs on all instruction sets, asserts that they give the bits of the scalar kernel, and returns its result.
fn assert_equal_on_all_isas(what: &str, run: impl Fn(Isa) -> Vec<f32>) -> Vec<f32> {
    let expected = run(Isa::Scalar);
    for isa in available_isas() {
        assert_eq!(bits(&run(isa)), bits(&expected), "{what} on {}", isa.as_str());
    }
    expected
}
