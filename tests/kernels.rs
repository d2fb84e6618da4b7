//! Every kernel of every instruction set that this CPU has, against float64 or against exact integers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use tealight::kernels::attention::{Head, Rows, Scratch, attend};
use tealight::kernels::int8::{Codes, Packed, Then, gemm};
use tealight::kernels::q8_0::{self, Activations, BLOCK};
use tealight::kernels::{Isa, rowwise};

/// The largest error of the exact GELU, relative to the larger of its value and 1.
const GELU_ERROR: f64 = 1e-6;
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
    q8_0::matmul(isa, &Activations::quantise(x, k), w, &mut out);
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
    for isa in Isa::available() {
        let inputs: Vec<f32> = (-80_000..80_003).map(|i| i as f32 / 10_000.0).collect();
        let mut found = inputs.clone();
        rowwise::gelu_erf(isa, &mut found);
        for (x, found) in inputs.iter().map(|x| *x as f64).zip(found) {
            let exact = 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2));
            let error = (found as f64 - exact).abs() / exact.abs().max(1.0);
            assert!(error <= GELU_ERROR, "{} {x}: {found} {exact}", isa.name());
        }
        let mut ends = [f32::NAN, 1e30, -1e30, f32::INFINITY, 0.0, -0.0];
        rowwise::gelu_erf(isa, &mut ends);
        assert!(ends[0].is_nan() && ends[1] == 1e30 && ends[3] == f32::INFINITY, "{ends:?}");
        assert!(ends[2] == 0.0 && ends[4] == 0.0 && ends[5] == 0.0, "{ends:?}");
    }
}

#[test]
fn layer_norm_has_mean_0_and_variance_1() {
    for d in [1, 7, 8, 16, 31, 384] {
        let rows = values(3 * d, 5);
        let (weight, bias) = (values(d, 6), values(d, 7));
        for isa in Isa::available() {
            let mut found = rows.clone();
            rowwise::layer_norm(isa, &mut found, &weight, &bias, 1e-12);
            for (row, found) in rows.chunks(d).zip(found.chunks(d)).filter(|_| d > 1) {
                let mean = row.iter().map(|v| *v as f64).sum::<f64>() / d as f64;
                let variance = row.iter().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / d as f64;
                for ((v, f), (w, b)) in row.iter().zip(found).zip(weight.iter().zip(&bias)) {
                    let exact = (*v as f64 - mean) / variance.sqrt() * *w as f64 + *b as f64;
                    assert!((*f as f64 - exact).abs() < 4.0 * FLOAT_ERROR, "{} {d}: {f} {exact}", isa.name());
                }
            }
        }
    }
}

#[test]
fn dot_products_of_every_length() {
    for n in [0, 1, 7, 8, 15, 16, 17, 33, 384] {
        let (x, y) = (values(n, 12), values(n, 13));
        let exact: f64 = x.iter().zip(&y).map(|(x, y)| *x as f64 * *y as f64).sum();
        for isa in Isa::available() {
            assert!((rowwise::dot(isa, &x, &y) as f64 - exact).abs() < 10.0 * FLOAT_ERROR, "{} {n}", isa.name());
        }
    }
}

#[test]
fn attention_is_the_weighted_mean_of_values() {
    let stride = 3 * 64;
    for (tokens, width) in [(1, 16), (2, 32), (5, 16), (17, 32), (64, 16), (65, 32), (130, 64)] {
        let x = values(tokens * stride, 8);
        let rows = Rows { q: &x, k: &x[64..], v: &x[128..], stride };
        for at in (0..64).step_by(width) {
            let run = |isa, queries: std::ops::Range<usize>| {
                let head = Head { sequence: 0..tokens, queries: queries.clone(), at, width };
                let mut out = vec![f32::NAN; queries.len() * width];
                attend(isa, rows, &head, &mut Scratch::default(), &mut out, width);
                out
            };
            let of = |t: usize, part: usize, i: usize| x[t * stride + part * 64 + at + i] as f64;
            for isa in Isa::available() {
                let found = run(isa, 0..tokens);
                for t in 0..tokens {
                    assert_eq!(run(isa, t..t + 1), found[t * width..(t + 1) * width], "a row alone");
                    let score = |s| (0..width).map(|i| of(t, 0, i) * of(s, 1, i)).sum::<f64>() / (width as f64).sqrt();
                    let weights: Vec<f64> = (0..tokens).map(|s| score(s).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for i in 0..width {
                        let exact = (0..tokens).map(|s| weights[s] * of(s, 2, i)).sum::<f64>() / total;
                        let found = found[t * width + i] as f64;
                        assert!((found - exact).abs() < FLOAT_ERROR, "{} {tokens}: {found} {exact}", isa.name());
                    }
                }
            }
        }
    }
}

#[test]
fn attention_with_large_scores_neither_overflows_nor_vanishes() {
    let (tokens, width) = (20, 16);
    for scale in [0.0, 1e3, 1e15] {
        let x: Vec<f32> = values(tokens * width, 14).iter().map(|v| v * scale).collect();
        for isa in Isa::available() {
            let rows = Rows { q: &x, k: &x, v: &x, stride: width };
            let head = Head { sequence: 0..tokens, queries: 0..tokens, at: 0, width };
            let mut out = vec![f32::NAN; tokens * width];
            attend(isa, rows, &head, &mut Scratch::default(), &mut out, width);
            assert!(out.iter().all(|v| v.is_finite() && v.abs() <= scale), "{} {scale}", isa.name());
        }
    }
}

fn int8_product(isa: Isa, x: &[f32], w: &Packed, then: Then, start: f32) -> Vec<f32> {
    let mut codes = Codes::default();
    codes.quantise(isa, x, w);
    let mut out = vec![start; codes.rows() * w.rows()];
    gemm(isa, &codes, w, then, &mut out);
    out
}

/// The largest step of a weight and of an activation, over all that a sum may add up.
fn int8_bound(k: usize) -> f64 {
    // AVX2 has 127 steps over a range of 2, weights 127 over 1; errors add at random, so four deviations are enough.
    let step = 2.0 / 127.0;
    4.0 * (k as f64).sqrt() * (step / 12f64.sqrt()) + 1e-3
}

#[test]
fn int8_products_are_near_the_float_ones() {
    for (m, k, n) in [(1, 16, 16), (2, 64, 32), (3, 96, 48), (4, 384, 64), (7, 80, 112), (8, 32, 96), (17, 1536, 48)] {
        let (x, w, bias) = (values(m * k, 20), values(n * k, 21), values(n, 22));
        let smooth: Vec<f32> = values(k, 23).iter().map(|v| 1.5 + v).collect();
        let packed = Packed::of(&w, &bias, &smooth).unwrap();
        for isa in Isa::available() {
            let found = int8_product(isa, &x, &packed, Then::Store, f32::NAN);
            for (i, found) in found.iter().enumerate() {
                let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
                let exact = x.iter().zip(w).map(|(x, w)| *x as f64 * *w as f64).sum::<f64>() + bias[i % n] as f64;
                let bound = 5.0 * int8_bound(k);
                assert!((*found as f64 - exact).abs() < bound, "{} {m}x{k}x{n}: {found} {exact}", isa.name());
            }
            for r in 0..m {
                let alone = int8_product(isa, &x[r * k..(r + 1) * k], &packed, Then::Store, f32::NAN);
                assert_eq!(alone, found[r * n..(r + 1) * n], "a row alone");
            }
        }
    }
}

/// Whole numbers that fit the codes come out exactly, so nothing saturates, not even at both ends of the range.
#[test]
fn int8_sums_are_exact() {
    let (k, n) = (1536, 16);
    for weight in [-127.0, 127.0] {
        let packed = Packed::of(&vec![weight; n * k], &vec![0.0; n], &vec![1.0; k]).unwrap();
        for isa in Isa::available() {
            // One zero puts the zero point at an end, so that the others have the highest code.
            let mut x = vec![127.0; k];
            x[0] = 0.0;
            let found = int8_product(isa, &x, &packed, Then::Store, 0.0);
            let exact = weight as f64 * 127.0 * (k - 1) as f64;
            assert!(found.iter().all(|v| (*v as f64 / exact - 1.0).abs() < 1e-6), "{} {}", isa.name(), found[0]);
        }
    }
}

#[test]
fn int8_sets_of_equal_codes_are_equal() {
    let (m, k, n) = (9, 384, 48);
    let packed = Packed::of(&values(n * k, 24), &values(n, 25), &vec![1.0; k]).unwrap();
    let x = values(m * k, 26);
    let full: Vec<_> = Isa::available().into_iter().filter(|i| i.name() != "avx2").collect();
    let expected = int8_product(full[0], &x, &packed, Then::Store, 0.0);
    for isa in full {
        for (a, b) in int8_product(isa, &x, &packed, Then::Store, 0.0).iter().zip(&expected) {
            assert!((a - b).abs() < 1e-4, "{}: {a} {b}", isa.name());
        }
    }
}

#[test]
fn int8_products_can_be_added_or_go_through_gelu() {
    let (m, k, n) = (5, 64, 32);
    let packed = Packed::of(&values(n * k, 27), &values(n, 28), &vec![1.0; k]).unwrap();
    let x = values(m * k, 29);
    for isa in Isa::available() {
        let stored = int8_product(isa, &x, &packed, Then::Store, 0.0);
        let added = int8_product(isa, &x, &packed, Then::Add, 0.5);
        assert!(stored.iter().zip(&added).all(|(s, a)| *a == 0.5 + s));
        let mut gelu = stored.clone();
        rowwise::gelu_erf(isa, &mut gelu);
        assert_eq!(int8_product(isa, &x, &packed, Then::Gelu, 0.0), gelu);
    }
}

#[test]
fn int8_shows_what_is_no_number_and_takes_zeros() {
    let k = 32;
    let packed = Packed::of(&vec![1.0; 16 * k], &[0.25; 16], &vec![1.0; k]).unwrap();
    for isa in Isa::available() {
        assert_eq!(int8_product(isa, &vec![0.0; k], &packed, Then::Store, 1.0), [0.25; 16]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = values(2 * k, 30);
            x[k + 7] = bad;
            let found = int8_product(isa, &x, &packed, Then::Store, 0.0);
            assert!(found[..16].iter().all(|v| v.is_finite()), "the row beside");
            assert!(found[16..].iter().all(|v| v.is_nan()), "{} {bad}", isa.name());
        }
    }
    assert!(Packed::of(&[1.0; 15 * 16], &[0.0; 15], &[1.0; 16]).is_err());
    assert!(Packed::of(&[1.0; 16 * 17], &[0.0; 16], &[1.0; 17]).is_err());
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

/// AVX2 would saturate on codes of 8 bits, so it takes none.
#[test]
fn codes_of_a_finer_set_are_refused() {
    let packed = Packed::of(&vec![1.0; 16 * 16], &[0.0; 16], &[1.0; 16]).unwrap();
    let mut codes = Codes::default();
    codes.quantise(Isa::Scalar, &values(16, 31), &packed);
    for isa in Isa::available() {
        let product = || gemm(isa, &codes, &packed, Then::Store, &mut [0.0; 16]);
        assert_eq!(std::panic::catch_unwind(product).is_err(), isa.name() == "avx2", "{}", isa.name());
    }
}
