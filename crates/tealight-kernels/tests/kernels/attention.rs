//! Attention in int8.

use super::{available_isas, bits, has_7_bits, values};
use tealight_kernels::Isa;
use tealight_kernels::attention::int8::{SdpaScratch, sdpa};
use tealight_kernels::attention::{HeadSlice, Qkv, ScoreBias, ScoreMod};

/// Largest error of int8 attention on values from -1 to 1. Keys, queries and values have scales of 1/127, weights of
/// 1/255; on AVX2 without VNNI, queries of 1/63 and weights of 1/127.
const ATTENTION_ERROR: f64 = 0.02;

const STRIDE: usize = 3 * 64;

fn rows(x: &[f32]) -> Qkv<'_> {
    Qkv { q: x, k: &x[64..], v: &x[128..], stride: STRIDE }
}

fn attend(isa: Isa, x: Qkv, head: &HeadSlice, score_mod: ScoreMod, out: &mut [f32]) {
    sdpa(isa, x, head, score_mod, &mut SdpaScratch::default(), out, head.head_dim);
}

fn attend_scaled(isa: Isa, x: Qkv, head: &HeadSlice, out: &mut [f32]) {
    attend(isa, x, head, ScoreMod::scaled(head.head_dim), out);
}

/// Attention of query `t` in float64; `bias` is added to the score of a key.
fn exact(x: &[f32], tokens: usize, head: &HeadSlice, t: usize, divisor: f64, bias: impl Fn(usize) -> f64) -> Vec<f64> {
    let value_at = |t: usize, part: usize, i: usize| x[t * STRIDE + part * 64 + head.first_column + i] as f64;
    let columns = 0..head.head_dim;
    let score = |s| columns.clone().map(|i| value_at(t, 0, i) * value_at(s, 1, i)).sum::<f64>() / divisor + bias(s);
    let weights: Vec<f64> = (0..tokens).map(|s| score(s).exp()).collect();
    let total: f64 = weights.iter().sum();
    columns.clone().map(|i| (0..tokens).map(|s| weights[s] * value_at(s, 2, i)).sum::<f64>() / total).collect()
}

#[test]
fn attention_is_close_to_float64() {
    for (tokens, width) in
        [(1, 16), (2, 32), (3, 16), (5, 64), (8, 48), (13, 32), (16, 16), (17, 32), (64, 16), (130, 64)]
    {
        let x = values(tokens * STRIDE, 8);
        for at in (0..=64 - width).step_by(width) {
            let head = |queries| HeadSlice { sequence: 0..tokens, queries, first_column: at, head_dim: width };
            let run = |isa, queries: std::ops::Range<usize>| {
                let mut out = vec![f32::NAN; queries.len() * width];
                attend_scaled(isa, rows(&x), &head(queries), &mut out);
                out
            };
            for isa in available_isas() {
                let found = run(isa, 0..tokens);
                if !has_7_bits(isa) {
                    assert_eq!(bits(&found), bits(&run(Isa::Scalar, 0..tokens)), "{} {tokens}x{width}", isa.as_str());
                }
                let mut shifted = vec![f32::NAN; tokens * width];
                let shifted_head =
                    HeadSlice { sequence: 3..3 + tokens, queries: 3..3 + tokens, first_column: at, head_dim: width };
                attend_scaled(isa, rows(&[&vec![1e3; 3 * STRIDE], &x[..]].concat()), &shifted_head, &mut shifted);
                assert_eq!(bits(&shifted), bits(&found), "after another sequence");
                for t in 0..tokens {
                    assert_eq!(run(isa, t..t + 1), found[t * width..(t + 1) * width], "a single row");
                    let exact = exact(&x, tokens, &head(0..tokens), t, (width as f64).sqrt(), |_| 0.0);
                    for (found, exact) in found[t * width..].iter().zip(exact) {
                        assert!(
                            (*found as f64 - exact).abs() < ATTENTION_ERROR,
                            "{} {tokens}: {found} {exact}",
                            isa.as_str()
                        );
                    }
                }
            }
        }
    }
}

/// A causal mask, a window, a bias by distance and one of each pair, with a divisor that is not the usual one.
#[test]
fn attention_with_bias_is_close_to_float64() {
    let divisor = 3.0;
    for tokens in [1, 5, 16, 33, 70] {
        let (x, width) = (values(tokens * STRIDE, 18), 32);
        let head = |queries| HeadSlice { sequence: 0..tokens, queries, first_column: 32, head_dim: width };
        let distance = |i: usize| i as f32 - (tokens - 1) as f32;
        let mask = |keep: bool| if keep { 0.0 } else { f32::NEG_INFINITY };
        let by_distance =
            |bias: &dyn Fn(f32) -> f32| (0..2 * tokens - 1).map(|i| bias(distance(i))).collect::<Vec<_>>();
        let pairs = values(tokens * tokens, 19);
        let relative = [
            by_distance(&|d| mask(d <= 0.0)),
            by_distance(&|d| mask(d.abs() <= 4.0)),
            by_distance(&|d| -0.25 * d.abs()),
        ];
        for (which, isa) in (0..4).flat_map(|which| available_isas().into_iter().map(move |isa| (which, isa))) {
            let run = |queries: std::ops::Range<usize>| {
                let bias = match relative.get(which) {
                    Some(values) => ScoreBias::relative(values, tokens, queries.start),
                    None => ScoreBias::rows(&pairs[queries.start * tokens..], tokens),
                };
                let mut out = vec![f32::NAN; queries.len() * width];
                attend(isa, rows(&x), &head(queries), ScoreMod { divisor, bias: Some(bias) }, &mut out);
                out
            };
            let found = run(0..tokens);
            for t in 0..tokens {
                assert_eq!(bits(&run(t..t + 1)), bits(&found[t * width..(t + 1) * width]), "a single row");
                let bias = |s: usize| match relative.get(which) {
                    Some(values) => values[tokens - 1 + s - t] as f64,
                    None => pairs[t * tokens + s] as f64,
                };
                let exact = exact(&x, tokens, &head(0..tokens), t, divisor as f64, bias);
                for (found, exact) in found[t * width..].iter().zip(exact) {
                    assert!(
                        (*found as f64 - exact).abs() < ATTENTION_ERROR,
                        "{which} {} {tokens}: {found} {exact}",
                        isa.as_str()
                    );
                }
            }
        }
    }
}

#[test]
fn attention_to_values_of_any_magnitude_is_finite() {
    let tokens = 20;
    for scale in [0.0, 1e-20, 1e3, 1e15] {
        let x: Vec<f32> = values(tokens * STRIDE, 14).iter().map(|v| v * scale).collect();
        for isa in available_isas() {
            let head = HeadSlice { sequence: 0..tokens, queries: 0..tokens, first_column: 0, head_dim: 16 };
            let mut out = vec![f32::NAN; tokens * 16];
            attend_scaled(isa, rows(&x), &head, &mut out);
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
                attend_scaled(isa, rows(&x), &head, &mut out);
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
    let mut out = vec![0.0; width];
    attend_scaled(Isa::detect(), rows(&x), &head, &mut out);
    for (a, b) in out.iter().zip(exact(&x, tokens, &head, 0, (width as f64).sqrt(), |_| 0.0)) {
        assert!((*a as f64 - b).abs() < 1e-3, "{a} {b}");
    }
}

#[test]
fn heads_outside_their_rows_panic() {
    let (x, isa) = (values(4 * STRIDE, 1), Isa::detect());
    let good = HeadSlice { sequence: 0..4, queries: 0..4, first_column: 16, head_dim: 16 };
    let panics = |head: HeadSlice, out: usize, stride: usize| {
        let run = || {
            let score_mod = ScoreMod::scaled(16);
            sdpa(isa, rows(&x), &head, score_mod, &mut SdpaScratch::default(), &mut vec![0.0; out], stride);
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err()
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
