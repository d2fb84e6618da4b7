//! Attention in float32 and in int8.

use super::{FLOAT_ERROR, available_isas, bits, has_7_bits, values};
use tealight_kernels::Isa;
use tealight_kernels::attention::{HeadSlice, Qkv, float, int8 as attention8};

/// Largest error of int8 attention on values from -1 to 1. Keys, queries and values have scales of 1/127, weights of
/// 1/255; on AVX2 without VNNI, queries of 1/63 and weights of 1/127.
const ATTENTION_ERROR: f64 = 0.02;

const STRIDE: usize = 3 * 64;

fn rows(x: &[f32]) -> Qkv<'_> {
    Qkv { q: x, k: &x[64..], v: &x[128..], stride: STRIDE }
}

type Attend = fn(Isa, Qkv, &HeadSlice, &mut [f32]);

fn attend_float(isa: Isa, x: Qkv, head: &HeadSlice, out: &mut [f32]) {
    float::sdpa(isa, x, head, &mut float::SdpaScratch::default(), out, head.head_dim);
}

fn attend_int8(isa: Isa, x: Qkv, head: &HeadSlice, out: &mut [f32]) {
    attention8::sdpa(isa, x, head, &mut attention8::SdpaScratch::default(), out, head.head_dim);
}

fn check_against_float64(attend: Attend, bound: f64) {
    for (tokens, width) in
        [(1, 16), (2, 32), (3, 16), (5, 64), (8, 48), (13, 32), (16, 16), (17, 32), (64, 16), (130, 64)]
    {
        let x = values(tokens * STRIDE, 8);
        for at in (0..=64 - width).step_by(width) {
            let run = |isa, queries: std::ops::Range<usize>| {
                let head =
                    HeadSlice { sequence: 0..tokens, queries: queries.clone(), first_column: at, head_dim: width };
                let mut out = vec![f32::NAN; queries.len() * width];
                attend(isa, rows(&x), &head, &mut out);
                out
            };
            let value_at = |t: usize, part: usize, i: usize| x[t * STRIDE + part * 64 + at + i] as f64;
            for isa in available_isas() {
                let found = run(isa, 0..tokens);
                if !has_7_bits(isa) || bound == FLOAT_ERROR {
                    assert_eq!(bits(&found), bits(&run(Isa::Scalar, 0..tokens)), "{} {tokens}x{width}", isa.as_str());
                }
                let mut shifted = vec![f32::NAN; tokens * width];
                let head =
                    HeadSlice { sequence: 3..3 + tokens, queries: 3..3 + tokens, first_column: at, head_dim: width };
                attend(isa, rows(&[&vec![1e3; 3 * STRIDE], &x[..]].concat()), &head, &mut shifted);
                assert_eq!(bits(&shifted), bits(&found), "after another sequence");
                for t in 0..tokens {
                    assert_eq!(run(isa, t..t + 1), found[t * width..(t + 1) * width], "a single row");
                    let score = |s| {
                        (0..width).map(|i| value_at(t, 0, i) * value_at(s, 1, i)).sum::<f64>() / (width as f64).sqrt()
                    };
                    let weights: Vec<f64> = (0..tokens).map(|s| score(s).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for i in 0..width {
                        let exact = (0..tokens).map(|s| weights[s] * value_at(s, 2, i)).sum::<f64>() / total;
                        let found = found[t * width + i] as f64;
                        assert!((found - exact).abs() < bound, "{} {tokens}: {found} {exact}", isa.as_str());
                    }
                }
            }
        }
    }
}

#[test]
fn float_attention_is_close_to_float64() {
    check_against_float64(attend_float, FLOAT_ERROR);
}

#[test]
fn int8_attention_is_close_to_float64() {
    check_against_float64(attend_int8, ATTENTION_ERROR);
}

#[test]
fn attention_to_values_of_any_magnitude_is_finite() {
    let tokens = 20;
    for scale in [0.0, 1e-20, 1e3, 1e15] {
        let x: Vec<f32> = values(tokens * STRIDE, 14).iter().map(|v| v * scale).collect();
        for (isa, attend) in
            available_isas().into_iter().flat_map(|isa| [(isa, attend_float as Attend), (isa, attend_int8)])
        {
            let head = HeadSlice { sequence: 0..tokens, queries: 0..tokens, first_column: 0, head_dim: 16 };
            let mut out = vec![f32::NAN; tokens * 16];
            attend(isa, rows(&x), &head, &mut out);
            assert!(out.iter().all(|v| v.is_finite() && v.abs() <= scale * 1.01), "{} {scale}", isa.as_str());
        }
    }
}

#[test]
fn non_finite_input_makes_affected_rows_nan() {
    let tokens = 18;
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for part in 0..3 {
            let mut x = values(tokens * STRIDE, 15);
            x[5 * STRIDE + part * 64 + 3] = bad;
            for isa in available_isas() {
                let head = HeadSlice { sequence: 0..tokens, queries: 0..tokens, first_column: 0, head_dim: 32 };
                let mut out = vec![0.0; tokens * 32];
                attend_int8(isa, rows(&x), &head, &mut out);
                for (t, row) in out.chunks(32).enumerate() {
                    let hit = part > 0 || t == 5;
                    assert!(
                        row.iter().all(|v| v.is_nan() == hit),
                        "{} {bad} in {part}, row {t}: {row:?}",
                        isa.as_str()
                    );
                }
            }
        }
    }
}

/// A token with most of the attention and a tiny value must not use up the range of the quantized weights.
#[test]
fn int8_attention_keeps_small_weights_of_large_values() {
    let (tokens, width) = (256, 16);
    let mut x = values(tokens * STRIDE, 16);
    for t in 0..tokens {
        x[t * STRIDE..][..width].fill(1.0);
        let sink = t == 0;
        x[t * STRIDE + 64..][..width].fill(if sink { 1.5 } else { 0.0 });
        if sink {
            x[t * STRIDE + 128..][..width].fill(1e-4);
        }
    }
    let head = HeadSlice { sequence: 0..tokens, queries: 0..1, first_column: 0, head_dim: width };
    let run = |attend: Attend| {
        let mut out = vec![0.0; width];
        attend(Isa::detect(), rows(&x), &head, &mut out);
        out
    };
    for (a, b) in run(attend_int8).iter().zip(run(attend_float)) {
        assert!((a - b).abs() < 1e-3, "{a} {b}");
    }
}

#[test]
fn heads_outside_their_rows_panic() {
    let (x, isa) = (values(4 * STRIDE, 1), Isa::detect());
    let good = HeadSlice { sequence: 0..4, queries: 0..4, first_column: 16, head_dim: 16 };
    let panics = |head: HeadSlice, out: usize, stride: usize| {
        let run = |attend: &dyn Fn(&mut [f32])| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| attend(&mut vec![0.0; out]))).is_err()
        };
        let float = run(&|out| float::sdpa(isa, rows(&x), &head, &mut float::SdpaScratch::default(), out, stride));
        let int8 =
            run(&|out| attention8::sdpa(isa, rows(&x), &head, &mut attention8::SdpaScratch::default(), out, stride));
        assert_eq!(float, int8);
        float
    };
    assert!(!panics(good.clone(), 64, 16));
    assert!(panics(good.clone(), 63, 16), "a short output");
    assert!(panics(good.clone(), 0, usize::MAX - 15), "a stride that overflows");
    assert!(panics(HeadSlice { first_column: usize::MAX - 15, ..good.clone() }, 64, 16), "a column that overflows");
    assert!(panics(HeadSlice { sequence: 0..5, ..good.clone() }, 64, 16), "a row past the end");
    assert!(panics(HeadSlice { queries: 2..5, ..good.clone() }, 64, 16), "a query past the sequence");
    assert!(panics(HeadSlice { queries: 1..1, ..good.clone() }, 64, 16), "no query");
    assert!(panics(HeadSlice { head_dim: 8, ..good.clone() }, 64, 16), "half a vector");
    assert!(panics(HeadSlice { head_dim: 0, ..good }, 64, 16), "no width");
}
