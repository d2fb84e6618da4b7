//! Every kernel of every instruction set that this CPU has against the portable one, and that one against float64.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use tealight::kernels::attention::{Head, attend};
use tealight::kernels::q8_0::{self, Activations, BLOCK};
use tealight::kernels::{Isa, rowwise};

/// The largest error of the exact GELU, relative to the larger of its value and 1: `1 + erf` loses digits below -3.
const GELU_ERROR: f64 = 3e-7;
/// The largest error of attention and normalisation, on values around 1.
const FLOAT_ERROR: f64 = 2e-6;

/// Values in [-1, 1) by a fixed linear congruence.
fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn quantised(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![];
    q8_0::quantise_row(values, &mut bytes);
    bytes
}

fn product(isa: Isa, x: &[f32], w: &[u8], k: usize) -> Vec<f32> {
    let w = q8_0::blocks(w).unwrap();
    let mut out = vec![f32::NAN; x.len() / k * (w.len() / (k / BLOCK))];
    q8_0::matmul(isa, &Activations::quantise(isa, x, k), w, &mut out);
    out
}

#[test]
fn q8_0_products_are_equal_to_the_bit() {
    for isa in Isa::available() {
        for k in [32, 64, 96, 384] {
            for (m, n) in [(1, 1), (2, 3), (3, 1), (4, 5), (5, 8), (7, 2), (9, 33)] {
                let (x, w) = (values(m * k, 1), quantised(&values(n * k, 2)));
                assert_eq!(product(isa, &x, &w, k), product(Isa::Scalar, &x, &w, k), "{} {m}x{k}x{n}", isa.name());
            }
        }
    }
}

#[test]
fn q8_0_products_are_near_the_float_ones() {
    let (m, k, n) = (5, 384, 7);
    let (x, w) = (values(m * k, 3), values(n * k, 4));
    let found = product(Isa::best(), &x, &quantised(&w), k);
    for (i, found) in found.iter().enumerate() {
        let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
        let exact: f64 = x.iter().zip(w).map(|(a, b)| *a as f64 * *b as f64).sum();
        // Each factor is off by at most half a step of 1/127, 384 times at random.
        assert!((*found as f64 - exact).abs() < 0.2, "{found} {exact}");
    }
}

#[test]
fn q8_0_extremes() {
    let k = 64;
    let mut outlier = vec![1e-3; k];
    outlier[5] = 1e4;
    for x in [vec![0.0; k], vec![1.0; k], vec![-1.0; k], vec![f32::MIN_POSITIVE / 2.0; k], outlier] {
        let w = quantised(&vec![-1.0; k]);
        let expected = product(Isa::Scalar, &x, &w, k);
        assert!(expected[0].is_finite());
        for isa in Isa::available() {
            assert_eq!(product(isa, &x, &w, k), expected);
        }
    }
    // What is no number stays visible instead of becoming an integer.
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = vec![1.0; k];
        x[40] = bad;
        for isa in Isa::available() {
            assert!(product(isa, &x, &quantised(&vec![1.0; k]), k)[0].is_nan());
        }
    }
}

#[test]
fn q8_0_codes_reach_both_ends() {
    let mut row: Vec<f32> = (0..BLOCK).map(|i| i as f32).collect();
    row[0] = -31.0;
    let bytes = quantised(&row);
    let codes: Vec<i8> = bytes[2..].iter().map(|b| *b as i8).collect();
    assert_eq!((codes[0], codes[31]), (-127, 127));
    let mut back = vec![0.0; BLOCK];
    q8_0::dequantise_row(q8_0::blocks(&bytes).unwrap(), &mut back);
    for (a, b) in row.iter().zip(&back) {
        assert!((a - b).abs() <= 31.0 / 127.0, "{a} {b}");
    }
    assert!(q8_0::blocks(&bytes[1..]).is_err());
}

#[test]
fn gelu_is_the_exact_one() {
    for i in -80_000..80_000 {
        let x = i as f32 / 10_000.0;
        let mut row = [x];
        rowwise::gelu_erf(&mut row);
        let exact = 0.5 * x as f64 * (1.0 + libm::erf(x as f64 / std::f64::consts::SQRT_2));
        assert!((row[0] as f64 - exact).abs() <= GELU_ERROR * exact.abs().max(1.0), "{x}: {} {exact}", row[0]);
    }
}

#[test]
fn layer_norm_has_mean_0_and_variance_1() {
    for d in [1, 7, 8, 31, 384] {
        let rows = values(3 * d, 5);
        let (weight, bias) = (values(d, 6), values(d, 7));
        for isa in Isa::available() {
            let mut found = rows.clone();
            rowwise::layer_norm(isa, &mut found, &weight, &bias, 1e-12);
            let mut portable = rows.clone();
            rowwise::layer_norm(Isa::Scalar, &mut portable, &weight, &bias, 1e-12);
            assert_eq!(found, portable, "{} {d}", isa.name());
            for (row, found) in rows.chunks(d).zip(found.chunks(d)).filter(|_| d > 1) {
                let mean = row.iter().map(|v| *v as f64).sum::<f64>() / d as f64;
                let variance = row.iter().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / d as f64;
                for ((v, f), (w, b)) in row.iter().zip(found).zip(weight.iter().zip(&bias)) {
                    let exact = (*v as f64 - mean) / variance.sqrt() * *w as f64 + *b as f64;
                    assert!((*f as f64 - exact).abs() < 4.0 * FLOAT_ERROR, "{d}: {f} {exact}");
                }
            }
        }
    }
}

#[test]
fn attention_is_the_weighted_mean_of_values() {
    let (hidden, width) = (48, 16);
    for tokens in [1, 2, 5, 17, 130] {
        let (q, k, v) = (values(tokens * hidden, 8), values(tokens * hidden, 9), values(tokens * hidden, 10));
        for index in 0..hidden / width {
            let head = Head { hidden, width, index };
            let run = |isa| {
                let mut out = vec![0.0; tokens * width];
                attend(isa, &q, &k, &v, head, &mut out);
                out
            };
            let found = run(Isa::best());
            assert_eq!(found, run(Isa::Scalar));
            let of = |x: &[f32], t: usize, i: usize| x[t * hidden + index * width + i] as f64;
            for t in 0..tokens {
                let score = |s| (0..width).map(|i| of(&q, t, i) * of(&k, s, i)).sum::<f64>() / (width as f64).sqrt();
                let weights: Vec<f64> = (0..tokens).map(|s| score(s).exp()).collect();
                let total: f64 = weights.iter().sum();
                for i in 0..width {
                    let exact = (0..tokens).map(|s| weights[s] * of(&v, s, i)).sum::<f64>() / total;
                    let found = found[t * width + i] as f64;
                    assert!((found - exact).abs() < FLOAT_ERROR, "{tokens}: {found} {exact}");
                }
            }
        }
    }
}

#[test]
fn a_normalised_vector_has_length_1() {
    for n in [1, 3, 8, 384] {
        let mut vector = values(n, 11);
        rowwise::normalise(&mut vector);
        assert!((vector.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-6);
    }
    let mut zero = [0.0; 4];
    rowwise::normalise(&mut zero);
    assert_eq!(zero, [0.0; 4]);
}
