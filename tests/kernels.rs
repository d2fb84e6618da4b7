//! Every kernel of every instruction set that this CPU has, against the scalar one, float64 and exact integers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "support/sets.rs"]
mod sets;

use bytes::Bytes;
use sets::sets;
use tealight::kernels::attention::{Head, Rows, float, int8 as attention8};
use tealight::kernels::codes::Codes;
use tealight::kernels::int4::{self, Block};
use tealight::kernels::int8::{Packed, Then, gemm};
use tealight::kernels::rowwise::{EXP_ERROR, GELU_ERROR};
use tealight::kernels::scan::ROWS;
use tealight::kernels::{Isa, rowwise, signs};

/// The largest error of attention and normalisation, on values around 1.
const FLOAT_ERROR: f64 = 2e-6;
/// What attention in int8 is off by at most, on values from -1 to 1: steps of 1/127 in keys, queries, values and weights,
/// and of 1/63 in queries on AVX2.
const ATTENTION_ERROR: f64 = 0.02;

/// Whether a set quantises activations to 7 bits.
fn coarse(isa: Isa) -> bool {
    isa.name() == "avx2"
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

fn codes(isa: Isa, x: &[f32], w: &Packed) -> Codes {
    let mut codes = Codes::default();
    codes.of(isa, x, w);
    codes
}

fn product(isa: Isa, x: &[f32], w: &Packed, then: Then, start: f32) -> Vec<f32> {
    let codes = codes(isa, x, w);
    let mut out = vec![start; codes.rows() * w.rows()];
    gemm(isa, &codes, w, 0..w.rows(), then, &mut out);
    out
}

/// Quantisation as its documentation has it, one value after the other.
fn reference_codes(x: &[f32], smooth: &[f32], group: usize, levels: f32) -> (Vec<u8>, Vec<f32>) {
    let (mut codes, mut steps) = (vec![], vec![]);
    for (x, smooth) in x.chunks(group).zip(smooth.chunks(group)) {
        let x: Vec<f32> = x.iter().zip(smooth).map(|(x, s)| x * (1.0 / s)).collect();
        let (low, high) = x.iter().fold((0.0f32, 0.0f32), |(l, h), v| (l.min(*v), h.max(*v)));
        let range = (high - low).max(1e-30);
        let zero = (-low * (levels / range)).round_ties_even();
        codes.extend(x.iter().map(|v| v.mul_add(levels / range, zero).clamp(0.0, levels).round_ties_even() as u8));
        steps.push(range * (1.0 / levels));
    }
    (codes, steps)
}

#[test]
fn codes_are_those_of_the_formula() {
    for (rows, k, group) in [(1, 16, 64), (3, 64, 64), (4, 80, 64), (5, 192, 64), (7, 384, 192), (9, 208, 128)] {
        let mut x = values(rows * k, 1);
        // Rows of zeros, of one value, of denormals, and one huge outlier.
        x[..16].fill(0.0);
        x[k / 2] = 1e4;
        x[(rows - 1) * k..].iter_mut().step_by(2).for_each(|v| *v = f32::MIN_POSITIVE / 8.0);
        let smooth: Vec<f32> = values(k, 2).iter().map(|v| 1.5 + v).collect();
        let packed = Packed::of(&values(16 * k, 3), &values(16, 4), &smooth, group).unwrap();
        for isa in sets() {
            let found = codes(isa, &x, &packed);
            for (r, x) in x.chunks(k).enumerate() {
                let (expected, steps) = reference_codes(x, &smooth, group, if coarse(isa) { 127.0 } else { 255.0 });
                let row: Vec<u8> = (0..k).map(|c| found.code(r, c)).collect();
                assert_eq!(row, expected, "{} {rows}x{k} row {r}", isa.name());
                let found: Vec<f32> = (0..steps.len()).map(|g| found.step(r, g)).collect();
                assert_eq!(bits(&found), bits(&steps), "{} {rows}x{k} row {r}", isa.name());
            }
        }
    }
}

/// Around every edge of blocks: of 4 and 6 rows, of 16 and 32 rows and columns, of 48 columns, of 64 along K.
const SHAPES: [(usize, usize, usize, usize); 14] = [
    (1, 16, 16, 64),
    (2, 64, 32, 64),
    (3, 96, 48, 64),
    (4, 128, 64, 128),
    (5, 192, 80, 64),
    (6, 384, 96, 192),
    (7, 80, 112, 64),
    (8, 208, 128, 128),
    (15, 64, 48, 64),
    (16, 128, 32, 64),
    (17, 384, 48, 384),
    (31, 64, 16, 64),
    (33, 192, 96, 128),
    (65, 576, 32, 192),
];

#[test]
fn products_are_equal_to_the_bit() {
    for (m, k, n, group) in SHAPES {
        let smooth: Vec<f32> = values(k, 23).iter().map(|v| 1.5 + v).collect();
        let packed = Packed::of(&values(n * k, 21), &values(n, 22), &smooth, group).unwrap();
        let x = values(m * k, 20);
        for then in [Then::Store, Then::Gelu, Then::Add] {
            let expected = product(Isa::Scalar, &x, &packed, then, 0.5);
            for isa in sets().into_iter().filter(|isa| !coarse(*isa)) {
                let found = product(isa, &x, &packed, then, 0.5);
                assert_eq!(bits(&found), bits(&expected), "{} {m}x{k}x{n} {then:?}", isa.name());
            }
            // AVX2's codes are coarser; the scalar kernel multiplies them too.
            for isa in sets().into_iter().filter(|isa| coarse(*isa)) {
                let codes = codes(isa, &x, &packed);
                let run = |isa| {
                    let mut out = vec![0.5; m * n];
                    gemm(isa, &codes, &packed, 0..n, then, &mut out);
                    out
                };
                assert_eq!(bits(&run(isa)), bits(&run(Isa::Scalar)), "{} {m}x{k}x{n} {then:?}", isa.name());
            }
        }
    }
}

#[test]
fn products_are_near_the_float_ones_and_rows_independent() {
    for (m, k, n, group) in SHAPES {
        let (x, w, bias) = (values(m * k, 20), values(n * k, 21), values(n, 22));
        let smooth: Vec<f32> = values(k, 23).iter().map(|v| 1.5 + v).collect();
        let packed = Packed::of(&w, &bias, &smooth, group).unwrap();
        for isa in sets() {
            let found = product(isa, &x, &packed, Then::Store, f32::NAN);
            // A smoothed channel ranges over 4; errors add up at random, so that five deviations are enough.
            let step = 4.0 / if coarse(isa) { 127.0 } else { 255.0 };
            let bound = 5.0 * (k as f64).sqrt() * step / 12f64.sqrt();
            for (i, found) in found.iter().enumerate() {
                let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
                let exact = x.iter().zip(w).map(|(x, w)| *x as f64 * *w as f64).sum::<f64>() + bias[i % n] as f64;
                assert!((*found as f64 - exact).abs() < bound, "{} {m}x{k}x{n}: {found} {exact}", isa.name());
            }
            for r in 0..m {
                let alone = product(isa, &x[r * k..(r + 1) * k], &packed, Then::Store, f32::NAN);
                assert_eq!(bits(&alone), bits(&found[r * n..(r + 1) * n]), "{} row {r} alone", isa.name());
            }
            // Some outputs alone, as the feed-forward network asks for them.
            let codes = codes(isa, &x, &packed);
            let columns = n / 32 * 16..n;
            let mut part = vec![0.0; m * columns.len()];
            gemm(isa, &codes, &packed, columns.clone(), Then::Store, &mut part);
            for (part, whole) in part.chunks(columns.len()).zip(found.chunks(n)) {
                assert_eq!(bits(part), bits(&whole[columns.clone()]), "{} columns {columns:?}", isa.name());
            }
        }
    }
}

/// Whole numbers that fit the codes come out exactly, so nothing saturates, not even at both ends of the range.
#[test]
fn sums_are_exact_at_the_ends_of_the_range() {
    let (k, n) = (1536, 32);
    for weight in [-127.0, 127.0] {
        let packed = Packed::of(&vec![weight; n * k], &vec![0.0; n], &vec![1.0; k], k).unwrap();
        for isa in sets() {
            // One zero puts the zero point at an end, so that the others have the highest code.
            for (value, rows) in [(127.0f32, 1), (-127.0, 5), (127.0, 33)] {
                let mut x = vec![value; rows * k];
                x.iter_mut().step_by(k).for_each(|v| *v = 0.0);
                let found = product(isa, &x, &packed, Then::Store, 0.0);
                let exact = weight as f64 * value as f64 * (k - 1) as f64;
                assert!(found.iter().all(|v| (*v as f64 / exact - 1.0).abs() < 1e-6), "{} {}", isa.name(), found[0]);
            }
        }
    }
}

/// A file may have the weight -128, which `pack` never writes.
#[test]
fn sums_are_exact_with_the_lowest_weight() {
    let (k, n) = (128, 16);
    let mut bytes = Packed::of(&vec![-127.0; n * k], &vec![0.0; n], &vec![1.0; k], k).unwrap().bytes().to_vec();
    let weights = 64 + 4 * k;
    bytes[weights..weights + n * k].fill(-128i8 as u8);
    bytes[weights + n * k + 4 * n..][..4 * n].copy_from_slice(&(-128i32 * k as i32).to_le_bytes().repeat(n));
    let packed = Packed::from_bytes(bytes.into(), n, k).unwrap();
    for (isa, value) in sets().into_iter().flat_map(|isa| [(isa, 127.0f32), (isa, -127.0)]) {
        let mut x = vec![value; 5 * k];
        x.iter_mut().step_by(k).for_each(|v| *v = 0.0);
        let exact = -128.0 * value as f64 * (k - 1) as f64;
        for found in product(isa, &x, &packed, Then::Store, 0.0) {
            assert!((found as f64 / exact - 1.0).abs() < 1e-6, "{} {found} {exact}", isa.name());
        }
    }
}

/// A mapped file promises no alignment.
#[test]
fn packed_bytes_may_begin_anywhere() {
    let shifted = |bytes: &[u8]| Bytes::from([&[0; 3], bytes].concat()).slice(3..);
    let (x, eight) = (values(5 * 64, 1), Packed::of(&values(48 * 64, 2), &values(48, 3), &[1.0; 64], 64).unwrap());
    let four = int4::Packed::of(&blocks(&values(48 * 64, 4)), &values(48, 5)).unwrap();
    let moved = Packed::from_bytes(shifted(eight.bytes()), 48, 64).unwrap();
    let moved4 = int4::Packed::from_bytes(shifted(four.bytes()), 48, 64).unwrap();
    for isa in sets() {
        let run = |w| bits(&product(isa, &x, w, Then::Store, 0.0));
        assert_eq!(run(&moved), run(&eight), "{}", isa.name());
        let run = |w| bits(&product4(isa, &x, w, Then::Store));
        assert_eq!(run(&moved4), run(&four), "{}", isa.name());
    }
}

#[test]
fn what_is_no_number_stays_visible_in_its_row() {
    let k = 192;
    let packed = Packed::of(&vec![1.0; 32 * k], &[0.25; 32], &vec![1.0; k], 64).unwrap();
    for isa in sets() {
        assert_eq!(product(isa, &vec![0.0; k], &packed, Then::Store, 1.0), [0.25; 32]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for rows in [2, 6, 20] {
                let mut x = values(rows * k, 30);
                x[k + 70] = bad;
                let found = product(isa, &x, &packed, Then::Store, 0.0);
                for (r, row) in found.chunks(32).enumerate() {
                    assert!(row.iter().all(|v| v.is_nan() == (r == 1)), "{} {bad} row {r}", isa.name());
                }
            }
        }
    }
}

#[test]
fn no_rows_give_no_products() {
    let packed = Packed::of(&[1.0; 16 * 16], &[0.0; 16], &[1.0; 16], 64).unwrap();
    for isa in sets() {
        assert!(product(isa, &[], &packed, Then::Store, 0.0).is_empty());
    }
}

#[test]
fn sizes_that_cannot_be_packed_are_errors() {
    for (n, k, group) in [(15, 16, 64), (16, 17, 64), (0, 16, 64), (16, 0, 64), (16, 16, 0), (16, 16, 32), (16, 64, 96)]
    {
        assert!(Packed::of(&vec![1.0; n * k], &vec![0.0; n], &vec![1.0; k], group).is_err(), "{n} {k} {group}");
    }
    assert!(Packed::of(&[1.0; 255], &[0.0; 16], &[1.0; 16], 64).is_err());
    assert!(Packed::of(&[1.0; 256], &[0.0; 16], &[1.0; 16], 1 << 17).is_err());
    for bad in [f32::NAN, f32::INFINITY] {
        assert!(Packed::of(&[bad; 256], &[0.0; 16], &[1.0; 16], 64).unwrap_err().message.contains(&bad.to_string()));
        assert!(Packed::of(&[1.0; 256], &[bad; 16], &[1.0; 16], 64).is_err());
        assert!(Packed::of(&[1.0; 256], &[0.0; 16], &[bad; 16], 64).is_err());
    }
    assert!(Packed::of(&[1.0; 256], &[0.0; 16], &[0.0; 16], 64).is_err());
}

#[test]
fn a_packed_matrix_comes_back_from_its_bytes() {
    for (n, k, group) in [(16, 16, 64), (32, 80, 64), (48, 384, 192), (16, 208, 128)] {
        let (w, bias) = (values(n * k, 1), values(n, 2));
        let smooth: Vec<f32> = values(k, 3).iter().map(|v| 1.5 + v).collect();
        let packed = Packed::of(&w, &bias, &smooth, group).unwrap();
        let read = Packed::from_bytes(packed.bytes().clone(), n, k).unwrap();
        let x = values(3 * k, 4);
        let run = |p| bits(&product(Isa::best(), &x, p, Then::Store, 0.0));
        assert_eq!(run(&read), run(&packed));
        let (weights, biases) = read.unpacked();
        assert_eq!(biases, bias);
        for (i, (found, w)) in weights.iter().zip(&w).enumerate() {
            // A smoothed weight is below 2.5, rounded to 127 steps, and divided by at least 0.5.
            assert!((found - w).abs() <= 2.5 / 127.0 / 2.0 / 0.5 + 1e-6, "{i}: {found} {w}");
        }
    }
}

#[test]
fn damaged_packed_bytes_are_errors() {
    let packed = Packed::of(&values(32 * 80, 1), &values(32, 2), &[1.0; 80], 64).unwrap();
    let good = packed.bytes().to_vec();
    let error = |bytes: Vec<u8>, n, k| Packed::from_bytes(bytes.into(), n, k).unwrap_err().message;
    for length in [0, 1, 63, 64, 65, 383, good.len() - 1] {
        let message = error(good[..length].to_vec(), 32, 80);
        assert!(message.contains(&length.to_string()), "{message}");
    }
    assert!(error([&good[..], &[0]].concat(), 32, 80).contains("expected"));
    assert!(error(good.clone(), 16, 80).contains("[32, 80]"));
    for (at, value) in [(0, b'X'), (4, 33), (8, 81), (12, 65), (12, 0), (15, 255)] {
        let mut bytes = good.clone();
        bytes[at] = value;
        assert!(!error(bytes, 32, 80).is_empty(), "byte {at} set to {value}");
    }
}

/// AVX2 would saturate on codes of 8 bits, so it takes none.
#[test]
fn codes_of_a_finer_set_are_refused() {
    let packed = Packed::of(&[1.0; 16 * 16], &[0.0; 16], &[1.0; 16], 64).unwrap();
    let codes = codes(Isa::Scalar, &values(16, 31), &packed);
    for isa in sets() {
        let product = || gemm(isa, &codes, &packed, 0..16, Then::Store, &mut [0.0; 16]);
        let refused = matches!(isa.name(), "avx2" | "neon");
        assert_eq!(std::panic::catch_unwind(product).is_err(), refused, "{}", isa.name());
    }
}

#[test]
fn wrong_sizes_are_refused_before_memory_is_touched() {
    let (small, large) = (
        Packed::of(&[1.0; 16 * 16], &[0.0; 16], &[1.0; 16], 64).unwrap(),
        Packed::of(&[1.0; 16 * 128], &[0.0; 16], &[1.0; 128], 64).unwrap(),
    );
    let isa = Isa::best();
    let codes = codes(isa, &values(32, 1), &small);
    let refused = |f: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
    assert!(refused(&|| gemm(isa, &codes, &large, 0..16, Then::Store, &mut [0.0; 32])), "another K");
    assert!(refused(&|| gemm(isa, &codes, &small, 0..16, Then::Store, &mut [0.0; 31])), "a short output");
    assert!(refused(&|| gemm(isa, &codes, &small, 0..32, Then::Store, &mut [0.0; 64])), "columns past the end");
    assert!(refused(&|| gemm(isa, &codes, &small, 8..16, Then::Store, &mut [0.0; 16])), "half a panel");
    assert!(refused(&|| Codes::default().of(isa, &values(17, 1), &small)), "half a row");
    let four = int4::Packed::of(&blocks(&values(16 * 64, 1)), &[0.0; 16]).unwrap();
    let mut signed = Codes::default();
    signed.signed(isa, &values(2 * 64, 2), &four);
    assert!(refused(&|| int4::gemm(isa, &signed, &four, 0..16, Then::Store, &mut [0.0; 31])), "a short output");
    assert!(refused(&|| int4::gemm(isa, &signed, &four, 0..32, Then::Store, &mut [0.0; 64])), "columns past the end");
    assert!(refused(&|| rowwise::layer_norm(isa, &mut [0.0; 5], &[1.0; 4], &[1.0; 4], 0.0)), "half a row");
    assert!(refused(&|| rowwise::rms_norm(isa, &mut [0.0; 5], &[1.0; 4], 0.0)), "half a row");
    assert!(refused(&|| assert!(rowwise::dot(isa, &[0.0; 5], &[1.0; 4]).is_nan())), "another length");
    assert!(refused(&|| rowwise::matmul(isa, &[0.0; 8], &[1.0; 8], 4, &mut [0.0; 3])), "a short output");
}

#[test]
fn heads_outside_their_rows_are_refused() {
    let (x, isa) = (values(4 * STRIDE, 1), Isa::best());
    let good = Head { sequence: 0..4, queries: 0..4, at: 16, width: 16 };
    let refused = |head: Head, out: usize, stride: usize| {
        let run = |attend: &dyn Fn(&mut [f32])| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| attend(&mut vec![0.0; out]))).is_err()
        };
        let float = run(&|out| float::attend(isa, rows(&x), &head, &mut float::Scratch::default(), out, stride));
        let int8 =
            run(&|out| attention8::attend(isa, rows(&x), &head, &mut attention8::Scratch::default(), out, stride));
        assert_eq!(float, int8);
        float
    };
    assert!(!refused(good.clone(), 64, 16));
    assert!(refused(good.clone(), 63, 16), "a short output");
    assert!(refused(good.clone(), 0, usize::MAX - 15), "a product that wraps around");
    assert!(refused(Head { at: usize::MAX - 15, ..good.clone() }, 64, 16), "a sum that wraps around");
    assert!(refused(Head { sequence: 0..5, ..good.clone() }, 64, 16), "a row past the end");
    assert!(refused(Head { queries: 2..5, ..good.clone() }, 64, 16), "a query past the sequence");
    assert!(refused(Head { queries: 1..1, ..good.clone() }, 64, 16), "no query");
    assert!(refused(Head { width: 8, ..good.clone() }, 64, 16), "half a vector");
    assert!(refused(Head { width: 0, ..good }, 64, 16), "no width");
}

fn each_set_as_scalar(what: &str, run: impl Fn(Isa) -> Vec<f32>) -> Vec<f32> {
    let expected = run(Isa::Scalar);
    for isa in sets() {
        assert_eq!(bits(&run(isa)), bits(&expected), "{what} on {}", isa.name());
    }
    expected
}

fn in_place(x: &[f32], f: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut x = x.to_vec();
    f(&mut x);
    x
}

#[test]
fn gelu_is_the_exact_one() {
    let inputs: Vec<f32> = (-80_000..80_003).map(|i| i as f32 / 10_000.0).collect();
    let found = each_set_as_scalar("gelu", |isa| in_place(&inputs, |x| rowwise::gelu_erf(isa, x)));
    for (x, found) in inputs.iter().map(|x| *x as f64).zip(found) {
        let exact = 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2));
        let error = (found as f64 - exact).abs() / x.abs().max(1.0);
        assert!(error <= GELU_ERROR, "{x}: {found} {exact}");
    }
    for isa in sets() {
        let ends = in_place(&[f32::NAN, 1e30, -1e30, f32::INFINITY, 0.0, -0.0], |x| rowwise::gelu_erf(isa, x));
        assert!(ends[0].is_nan() && ends[1] == 1e30 && ends[3] == f32::INFINITY, "{ends:?}");
        assert!(ends[2] == 0.0 && ends[4] == 0.0 && ends[5] == 0.0, "{ends:?}");
    }
}

#[test]
fn silu_is_x_times_its_sigmoid() {
    let inputs: Vec<f32> = (-40_000..40_003).map(|i| i as f32 / 400.0).collect();
    let found = each_set_as_scalar("silu", |isa| in_place(&inputs, |x| rowwise::silu(isa, x)));
    for (x, found) in inputs.iter().map(|x| *x as f64).zip(found) {
        let exact = x / (1.0 + (-x).exp());
        // The power of two is rounded to 24 bits before it is one, and is never below 2^-126.
        let bound = (EXP_ERROR + x.abs() * 2e-7) * exact.abs() + 2e-36;
        assert!((found as f64 - exact).abs() <= bound, "{x}: {found} {exact}");
    }
    let ends = in_place(&[f32::NAN, 1e30, -1e30, f32::INFINITY], |x| rowwise::silu(Isa::best(), x));
    assert!(ends[0].is_nan() && ends[1] == 1e30 && ends[2].abs() < 1e-6 && ends[3] == f32::INFINITY, "{ends:?}");
}

#[test]
fn softmax_sums_to_1() {
    for n in [1, 2, 15, 16, 17, 31, 33, 100] {
        let x: Vec<f32> = values(n, 40).iter().map(|v| v * 20.0).collect();
        let found = each_set_as_scalar("softmax", |isa| in_place(&x, |x| rowwise::softmax(isa, x)));
        let largest = x.iter().fold(f64::MIN, |m, v| m.max(*v as f64));
        let total: f64 = x.iter().map(|v| (*v as f64 - largest).exp()).sum();
        for (x, found) in x.iter().zip(found) {
            let exact = (*x as f64 - largest).exp() / total;
            assert!((found as f64 - exact).abs() <= 1e-5 * exact + 1e-30, "{n}: {found} {exact}");
        }
    }
    let row = in_place(&[0.0, f32::NAN], |x| rowwise::softmax(Isa::best(), x));
    assert!(row.iter().all(|v| v.is_nan()));
}

#[test]
fn layer_norm_has_mean_0_and_variance_1() {
    for d in [1, 7, 8, 16, 31, 32, 48, 384] {
        for count in [1, 3, 4, 5] {
            let rows = values(count * d, 5);
            let (weight, bias) = (values(d, 6), values(d, 7));
            let found = each_set_as_scalar("layer_norm", |isa| {
                in_place(&rows, |x| rowwise::layer_norm(isa, x, &weight, &bias, 1e-12))
            });
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
fn rms_norm_has_mean_square_1() {
    for d in [1, 7, 16, 33, 576] {
        let (rows, weight) = (values(3 * d, 8), values(d, 9));
        let found = each_set_as_scalar("rms_norm", |isa| in_place(&rows, |x| rowwise::rms_norm(isa, x, &weight, 1e-6)));
        for (row, found) in rows.chunks(d).zip(found.chunks(d)) {
            let square = row.iter().map(|v| (*v as f64).powi(2)).sum::<f64>() / d as f64;
            for ((v, f), w) in row.iter().zip(found).zip(&weight) {
                let exact = *v as f64 / (square + 1e-6).sqrt() * *w as f64;
                assert!((*f as f64 - exact).abs() < FLOAT_ERROR, "{d}: {f} {exact}");
            }
        }
    }
}

type Operation<'a> = &'a dyn Fn(Isa, &mut [f32]);

/// Zeros, denormals, outliers and what is no number: every set does with them what the portable one does.
#[test]
fn rows_of_any_values_are_alike_on_every_set() {
    let special = [0.0, -0.0, 1e-45, -1e-40, 3.4e38, -3.4e38, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let (weight, bias) = (values(33, 60), values(33, 61));
    for (i, value) in special.into_iter().enumerate() {
        let mut x = values(33, 62 + i as u64);
        (x[i], x[16 + i]) = (value, value);
        for row in [x, vec![value; 33]] {
            let operations: [(&str, Operation); 5] = [
                ("layer_norm", &|isa, x| rowwise::layer_norm(isa, x, &weight, &bias, 1e-12)),
                ("rms_norm", &|isa, x| rowwise::rms_norm(isa, x, &weight, 1e-6)),
                ("softmax", &|isa, x| rowwise::softmax(isa, x)),
                ("gelu", &|isa, x| rowwise::gelu_erf(isa, x)),
                ("silu", &|isa, x| rowwise::silu(isa, x)),
            ];
            for (name, operation) in operations {
                // Which NaN it is does not matter.
                let run = |isa| {
                    in_place(&row, |x| operation(isa, x))
                        .iter()
                        .map(|v| if v.is_nan() { f32::NAN } else { *v })
                        .collect::<Vec<_>>()
                };
                let expected = run(Isa::Scalar);
                sets()
                    .into_iter()
                    .for_each(|isa| assert_eq!(bits(&run(isa)), bits(&expected), "{name} of {value}, {}", isa.name()));
            }
        }
    }
    let ends = in_place(&[f32::NEG_INFINITY, -3.4e38], |x| rowwise::silu(Isa::best(), x));
    assert!(ends.iter().all(|v| v.abs() < 2e-36), "{ends:?}");
}

#[test]
fn dot_products_of_every_length() {
    for n in [0, 1, 7, 8, 15, 16, 17, 31, 32, 33, 48, 63, 384] {
        let (x, y) = (values(n, 12), values(n, 13));
        let exact: f64 = x.iter().zip(&y).map(|(x, y)| *x as f64 * *y as f64).sum();
        let found = each_set_as_scalar("dot", |isa| vec![rowwise::dot(isa, &x, &y)]);
        assert!((found[0] as f64 - exact).abs() < 10.0 * FLOAT_ERROR, "{n}");
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

const STRIDE: usize = 3 * 64;

fn rows(x: &[f32]) -> Rows<'_> {
    Rows { q: x, k: &x[64..], v: &x[128..], stride: STRIDE }
}

type Attend = fn(Isa, Rows, &Head, &mut [f32]);

fn attend_float(isa: Isa, x: Rows, head: &Head, out: &mut [f32]) {
    float::attend(isa, x, head, &mut float::Scratch::default(), out, head.width);
}

fn attend_int8(isa: Isa, x: Rows, head: &Head, out: &mut [f32]) {
    attention8::attend(isa, x, head, &mut attention8::Scratch::default(), out, head.width);
}

fn attention_is_the_weighted_mean(attend: Attend, bound: f64) {
    for (tokens, width) in
        [(1, 16), (2, 32), (3, 16), (5, 64), (8, 48), (13, 32), (16, 16), (17, 32), (64, 16), (130, 64)]
    {
        let x = values(tokens * STRIDE, 8);
        for at in (0..=64 - width).step_by(width) {
            let run = |isa, queries: std::ops::Range<usize>| {
                let head = Head { sequence: 0..tokens, queries: queries.clone(), at, width };
                let mut out = vec![f32::NAN; queries.len() * width];
                attend(isa, rows(&x), &head, &mut out);
                out
            };
            let of = |t: usize, part: usize, i: usize| x[t * STRIDE + part * 64 + at + i] as f64;
            for isa in sets() {
                let found = run(isa, 0..tokens);
                if !coarse(isa) || bound == FLOAT_ERROR {
                    assert_eq!(bits(&found), bits(&run(Isa::Scalar, 0..tokens)), "{} {tokens}x{width}", isa.name());
                }
                let mut behind = vec![f32::NAN; tokens * width];
                let head = Head { sequence: 3..3 + tokens, queries: 3..3 + tokens, at, width };
                attend(isa, rows(&[&vec![1e3; 3 * STRIDE], &x[..]].concat()), &head, &mut behind);
                assert_eq!(bits(&behind), bits(&found), "behind another text");
                for t in 0..tokens {
                    assert_eq!(run(isa, t..t + 1), found[t * width..(t + 1) * width], "a row alone");
                    let score = |s| (0..width).map(|i| of(t, 0, i) * of(s, 1, i)).sum::<f64>() / (width as f64).sqrt();
                    let weights: Vec<f64> = (0..tokens).map(|s| score(s).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for i in 0..width {
                        let exact = (0..tokens).map(|s| weights[s] * of(s, 2, i)).sum::<f64>() / total;
                        let found = found[t * width + i] as f64;
                        assert!((found - exact).abs() < bound, "{} {tokens}: {found} {exact}", isa.name());
                    }
                }
            }
        }
    }
}

#[test]
fn attention_in_float_is_the_weighted_mean_of_values() {
    attention_is_the_weighted_mean(attend_float, FLOAT_ERROR);
}

#[test]
fn attention_in_int8_is_near_the_weighted_mean_of_values() {
    attention_is_the_weighted_mean(attend_int8, ATTENTION_ERROR);
}

#[test]
fn attention_with_large_scores_neither_overflows_nor_vanishes() {
    let tokens = 20;
    for scale in [0.0, 1e-20, 1e3, 1e15] {
        let x: Vec<f32> = values(tokens * STRIDE, 14).iter().map(|v| v * scale).collect();
        for (isa, attend) in sets().into_iter().flat_map(|isa| [(isa, attend_float as Attend), (isa, attend_int8)]) {
            let head = Head { sequence: 0..tokens, queries: 0..tokens, at: 0, width: 16 };
            let mut out = vec![f32::NAN; tokens * 16];
            attend(isa, rows(&x), &head, &mut out);
            assert!(out.iter().all(|v| v.is_finite() && v.abs() <= scale * 1.01), "{} {scale}", isa.name());
        }
    }
}

#[test]
fn attention_to_what_is_no_number_is_none() {
    let tokens = 18;
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for part in 0..3 {
            let mut x = values(tokens * STRIDE, 15);
            x[5 * STRIDE + part * 64 + 3] = bad;
            for isa in sets() {
                let head = Head { sequence: 0..tokens, queries: 0..tokens, at: 0, width: 32 };
                let mut out = vec![0.0; tokens * 32];
                attend_int8(isa, rows(&x), &head, &mut out);
                for (t, row) in out.chunks(32).enumerate() {
                    let hit = part > 0 || t == 5;
                    assert!(row.iter().all(|v| v.is_nan() == hit), "{} {bad} in {part}, row {t}: {row:?}", isa.name());
                }
            }
        }
    }
}

/// A token on which attention rests, with a value of next to nothing, must not take the codes from the others.
#[test]
fn attention_keeps_small_weights_of_large_values() {
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
    let head = Head { sequence: 0..tokens, queries: 0..1, at: 0, width };
    let run = |attend: Attend| {
        let mut out = vec![0.0; width];
        attend(Isa::best(), rows(&x), &head, &mut out);
        out
    };
    for (a, b) in run(attend_int8).iter().zip(run(attend_float)) {
        assert!((a - b).abs() < 1e-3, "{a} {b}");
    }
}

fn blocks(weights: &[f32]) -> Vec<Block> {
    weights.as_chunks().0.iter().map(Block::of).collect()
}

fn product4(isa: Isa, x: &[f32], w: &int4::Packed, then: Then) -> Vec<f32> {
    let mut codes = Codes::default();
    codes.signed(isa, x, w);
    let mut out = vec![0.5; codes.rows() * w.rows()];
    int4::gemm(isa, &codes, w, 0..w.rows(), then, &mut out);
    out
}

#[test]
fn products_of_4_bits_are_equal_to_the_bit_and_near_the_float_ones() {
    for (m, k, n) in [(1, 32, 16), (2, 64, 48), (3, 96, 64), (4, 576, 80), (5, 32, 96), (7, 160, 48), (33, 64, 112)] {
        let (x, bias) = (values(m * k, 50), values(n, 51));
        let blocks = blocks(&values(n * k, 52));
        let packed = int4::Packed::of(&blocks, &bias).unwrap();
        for then in [Then::Store, Then::Add, Then::Gelu] {
            each_set_as_scalar("int4", |isa| product4(isa, &x, &packed, then));
        }
        let weights: Vec<f32> = blocks.iter().flat_map(Block::weights).collect();
        for (i, found) in product4(Isa::best(), &x, &packed, Then::Store).iter().enumerate() {
            let (x, w) = (&x[i / n * k..][..k], &weights[i % n * k..][..k]);
            let exact = x.iter().zip(w).map(|(x, w)| *x as f64 * *w as f64).sum::<f64>() + bias[i % n] as f64;
            let bound = 5.0 * (k as f64).sqrt() / 127.0 / 12f64.sqrt();
            assert!((*found as f64 - exact).abs() < bound, "{m}x{k}x{n}: {found} {exact}");
        }
    }
}

#[test]
fn weights_of_4_bits_are_within_half_a_step() {
    for weights in [values(32, 53), vec![0.0; 32], vec![3.0; 32], (0..32).map(|i| i as f32 * 100.0).collect()] {
        let weights: &[f32; 32] = weights[..].try_into().unwrap();
        let block = Block::of(weights);
        let range = weights.iter().fold(0.0f32, |m, v| m.max((v - weights[0]).abs() * 2.0)) + weights[0].abs();
        for (found, w) in block.weights().iter().zip(weights) {
            // Half a step of a fifteenth, and what half floats round.
            assert!((found - w).abs() <= range * (0.5 / 15.0 + 2e-3), "{found} {w}");
        }
    }
}

#[test]
fn sums_of_4_bits_are_exact_at_the_ends_of_the_range() {
    let (n, k) = (48, 64);
    for code in [0, 15] {
        let block = Block { scale: half::f16::ONE, offset: half::f16::ZERO, codes: [code; 32] };
        let packed = int4::Packed::of(&vec![block; n * k / 32], &vec![0.0; n]).unwrap();
        for (isa, value) in sets().into_iter().flat_map(|isa| [(isa, 127.0), (isa, -127.0)]) {
            let found = product4(isa, &vec![value; 5 * k], &packed, Then::Store);
            assert!(found.iter().all(|v| *v == value * code as f32 * k as f32), "{} {}", isa.name(), found[0]);
        }
    }
}

#[test]
fn what_is_no_number_stays_visible_in_products_of_4_bits() {
    let packed = int4::Packed::of(&blocks(&values(16 * 96, 54)), &[0.0; 16]).unwrap();
    for (isa, bad) in sets().into_iter().flat_map(|isa| [(isa, f32::NAN), (isa, f32::INFINITY)]) {
        let mut x = values(3 * 96, 55);
        x[96 + 40] = bad;
        for (r, row) in product4(isa, &x, &packed, Then::Store).chunks(16).enumerate() {
            assert!(row.iter().all(|v| v.is_nan() == (r == 1)), "{} {bad}", isa.name());
        }
    }
}

#[test]
fn a_matrix_of_4_bits_comes_back_from_its_bytes_and_damage_is_an_error() {
    let packed = int4::Packed::of(&blocks(&values(32 * 96, 56)), &values(32, 57)).unwrap();
    let read = int4::Packed::from_bytes(packed.bytes().clone(), 32, 96).unwrap();
    let run = |p| product4(Isa::best(), &values(2 * 96, 58), p, Then::Store);
    assert_eq!(bits(&run(&read)), bits(&run(&packed)));
    let good = packed.bytes().to_vec();
    let error = |bytes: Vec<u8>, n, k| int4::Packed::from_bytes(bytes.into(), n, k).unwrap_err().message;
    for length in [0, 63, 64, good.len() - 1] {
        assert!(error(good[..length].to_vec(), 32, 96).contains(&length.to_string()));
    }
    assert!(error(good.clone(), 32, 64).contains("[32, 96]") && error(good.clone(), 16, 96).contains("[32, 96]"));
    assert!(error([b"TLI8", &good[4..]].concat(), 32, 96).contains("expected"));
    assert!(int4::Packed::of(&blocks(&values(15 * 32, 1)), &[0.0; 15]).is_err());
    assert!(int4::Packed::of(&blocks(&values(17 * 32, 1)), &[0.0; 16]).is_err());
    assert!(int4::Packed::of(&[], &[0.0; 16]).is_err() && int4::Packed::of(&[], &[]).is_err());
}

/// Codes with a zero point and signed ones are for weights of their own.
#[test]
fn codes_for_other_weights_are_refused() {
    let isa = Isa::best();
    let eight = Packed::of(&[1.0; 16 * 64], &[0.0; 16], &[1.0; 64], 64).unwrap();
    let four = int4::Packed::of(&blocks(&values(16 * 32, 1)), &[0.0; 16]).unwrap();
    let mut signed = Codes::default();
    signed.signed(isa, &values(32, 2), &four);
    let refused = |f: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
    assert!(refused(&|| gemm(isa, &signed, &eight, 0..16, Then::Store, &mut [0.0; 16])));
    let codes = codes(isa, &values(64, 2), &eight);
    assert!(refused(&|| int4::gemm(isa, &codes, &four, 0..16, Then::Store, &mut [0.0; 16])));
}

/// What a file says that cannot be: any number is a score, but nothing ends.
#[test]
fn scans_take_any_sum_of_codes_and_any_query() {
    use tealight::kernels::scan::{self, Group, Query, ROWS, Terms};
    for isa in Isa::available() {
        for vector in [[1e-45, 0.0, 0.0, 0.0], [f32::MAX, f32::MIN, 1.0, 0.0]] {
            for sum in [i32::MIN, i32::MAX] {
                let terms = [Terms { scale: [1.0; ROWS], sum: [sum; ROWS], less: [0.0; ROWS] }];
                let codes: [Group; 1] = [[-128; 64]];
                scan::scores(isa, &Query::new(isa, &vector), &codes, &terms, true, &mut [0.0; ROWS]);
            }
        }
    }
}

/// Scores of a query with rows of codes: the same on every set, by the loop for a dimension and by that for all, and what whole
/// numbers give.
#[test]
fn scans_are_the_same_on_every_set() {
    use tealight::kernels::scan::{self, Group, Query, Terms};
    for d in [1, 7, 64, 100, 384, 768] {
        let (groups, blocks) = (usize::div_ceil(d, 4), 5);
        let mut codes: Vec<Group> = vec![[0; 64]; groups * blocks];
        let mut terms = vec![Terms { scale: [0.0; ROWS], sum: [0; ROWS], less: [0.0; ROWS] }; blocks];
        let rows: Vec<Vec<i8>> = (0..blocks * ROWS)
            .map(|r| (0..d).map(|k| ((r * 31 + k * 17) % 255) as i32 as u8 as i8).map(|c| c.max(-127)).collect())
            .collect();
        for (r, row) in rows.iter().enumerate() {
            for (k, code) in row.iter().enumerate() {
                codes[r / ROWS * groups + k / 4][r % ROWS * 4 + k % 4] = *code;
            }
            terms[r / ROWS].scale[r % ROWS] = 0.5 + r as f32;
            terms[r / ROWS].sum[r % ROWS] = row.iter().map(|c| i32::from(*c)).sum();
            terms[r / ROWS].less[r % ROWS] = r as f32 / 3.0;
        }
        // Whole numbers up to 63, which codes of every set hold exactly.
        let vector: Vec<f32> = (0..d).map(|k| if k == 0 { 63.0 } else { ((k * 29) % 127) as f32 - 63.0 }).collect();
        for isa in Isa::available() {
            let levels = if isa.name() == "avx2" { 1.0 } else { 127.0 / 63.0 };
            let vector: Vec<f32> = vector.iter().map(|v| (v * levels).round()).collect();
            let query = Query::new(isa, &vector);
            for fixed in [true, false] {
                let mut out = vec![0.0; rows.len()];
                scan::scores(isa, &query, &codes, &terms, fixed, &mut out);
                for (r, row) in rows.iter().enumerate() {
                    let dot: i64 = row.iter().zip(&vector).map(|(c, v)| i64::from(*c) * *v as i64).sum();
                    let expected = dot as f32 * (0.5 + r as f32) - r as f32 / 3.0;
                    assert_eq!(out[r], expected, "{d} on {}, fixed: {fixed}, row {r}", isa.name());
                }
            }
        }
    }
    for d in [1, 8, 64, 100, 384] {
        let (groups, blocks) = (usize::div_ceil(d, 8), 3);
        let mut codes: Vec<Group> = vec![[0; 64]; groups * blocks];
        let code = |r: usize, k: usize| ((r * 13 + k * 7) % 16) as u8;
        let mut terms = vec![scan::Terms4 { scale: [0.0; ROWS], low: [0.0; ROWS], less: [0.0; ROWS] }; blocks];
        for r in 0..blocks * ROWS {
            for k in 0..d {
                let byte = &mut codes[r / ROWS * groups + k / 8][r % ROWS * 4 + k % 4];
                *byte = (*byte as u8 | code(r, k) << if k % 8 < 4 { 0 } else { 4 }) as i8;
            }
            let terms = &mut terms[r / ROWS];
            (terms.scale[r % ROWS], terms.low[r % ROWS], terms.less[r % ROWS]) = (0.5, -2.0, r as f32);
        }
        let vector: Vec<f32> = (0..d).map(|k| if k == 0 { 127.0 } else { ((k * 29) % 255) as f32 - 127.0 }).collect();
        let query = scan::Query4::new(&vector);
        for isa in Isa::available() {
            let mut out = vec![0.0; blocks * ROWS];
            scan::scores4(isa, &query, &codes, &terms, &mut out);
            for (r, found) in out.iter().enumerate() {
                let weight = |k: usize| 0.5 * f64::from(code(r, k)) - 2.0;
                let expected = (0..d).map(|k| weight(k) * f64::from(vector[k])).sum::<f64>() - r as f64;
                assert!(
                    (f64::from(*found) - expected).abs() < 0.02,
                    "{d} on {}, row {r}: {found} {expected}",
                    isa.name()
                );
            }
            let mut scalar = vec![0.0; blocks * ROWS];
            scan::scores4(Isa::Scalar, &query, &codes, &terms, &mut scalar);
            assert_eq!(bits(&out), bits(&scalar), "{d} on {}", isa.name());
        }
    }
    let halves: Vec<u16> = (0..96).map(|i| half::f16::from_f32(i as f32 / 7.0 - 5.0).to_bits()).collect();
    let query: Vec<f32> = (0..96).map(|i| (i as f32 * 0.37).sin()).collect();
    let expected = scan::half_dot(Isa::Scalar, &query, &halves);
    for isa in Isa::available() {
        assert_eq!(scan::half_dot(isa, &query, &halves).to_bits(), expected.to_bits(), "{}", isa.name());
    }
}

/// Blocks of rows of signs, some less than whole, each row with terms of its own.
struct SignRows {
    rows: Vec<Vec<bool>>,
    groups: Vec<signs::Group>,
    terms: Vec<signs::Terms>,
}

impl SignRows {
    fn of(rows: Vec<Vec<bool>>) -> Self {
        let (blocks, groups) = (rows.len().div_ceil(ROWS), rows[0].len().div_ceil(signs::STEP));
        let mut this = Self {
            groups: vec![[0; 64]; blocks * groups],
            terms: vec![signs::Terms { scale: [0.0; ROWS], less: [0.0; ROWS] }; blocks],
            rows,
        };
        for (r, row) in this.rows.iter().enumerate() {
            let (block, lane) = (r / ROWS, r % ROWS);
            for (k, _) in row.iter().enumerate().filter(|(_, sign)| **sign) {
                this.groups[block * groups + k / 32][k / 8 % 4 * ROWS + lane] |= 1 << (k % 8);
            }
            (this.terms[block].scale[lane], this.terms[block].less[lane]) = Self::terms(r);
        }
        this
    }

    fn terms(row: usize) -> (f32, f32) {
        (0.5 + row as f32 / 8.0, row as f32 - 7.0)
    }

    fn scores(&self, isa: Isa, query: &signs::Query) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.terms.len() * ROWS];
        signs::scores(isa, query, &self.groups, &self.terms, &mut out);
        out
    }

    /// `f s.q - w less` in float64.
    fn expected(&self, row: usize, query: &[f32], weight: f32) -> f64 {
        let signed = self.rows[row].iter().zip(query).map(|(s, q)| if *s { f64::from(*q) } else { -f64::from(*q) });
        let (scale, less) = Self::terms(row);
        signed.sum::<f64>() * f64::from(scale) - f64::from(weight) * f64::from(less)
    }
}

fn random_signs(rows: usize, d: usize) -> SignRows {
    let all = values(rows * d, d as u64);
    SignRows::of(all.chunks(d).map(|row| row.iter().map(|v| *v > 0.0).collect()).collect())
}

/// The largest sum of magnitudes of four values, whose 127th is a step of the tables.
fn sign_step(query: &[f32]) -> f64 {
    query.chunks(4).map(|four| four.iter().map(|v| f64::from(v.abs())).sum::<f64>()).fold(0.0, f64::max) / 127.0
}

#[test]
fn scores_of_signs_are_the_same_on_every_set_and_near_float64() {
    // With loops of their own, with that for all, with tails of any length, and with more groups than a tally holds.
    let loops = [64, 128, 256, 384, 512, 768, 1024, 1536];
    for d in loops.into_iter().chain([1, 2, 3, 4, 5, 7, 31, 32, 33, 63, 65, 100, 385, 2047, 2048, 2049, 4100, 9001]) {
        let rows = random_signs(if d < 1000 { 53 } else { 17 }, d);
        let vector = values(d, 91);
        for weight in [0.0, 1.0, -0.75] {
            let query = signs::Query::new(&vector, weight);
            let expected = rows.scores(Isa::Scalar, &query);
            for isa in sets() {
                assert_eq!(bits(&rows.scores(isa, &query)), bits(&expected), "{d} on {}", isa.name());
            }
            // Half a step in the table, and so twice that in the product, for every four values; and what floats round.
            let bound = d.div_ceil(4) as f64 * sign_step(&vector) + 1e-6 * d as f64;
            for (r, found) in expected.iter().enumerate().take(rows.rows.len()) {
                let (off, scale) = (f64::from(*found) - rows.expected(r, &vector, weight), SignRows::terms(r).0);
                assert!(off.abs() <= bound * f64::from(scale), "{d}, row {r}: {off} {bound}");
            }
        }
    }
}

#[test]
fn errors_of_tables_are_as_small_as_those_of_rounding() {
    for d in [64, 384, 1536] {
        let (rows, vector) = (random_signs(160, d), values(d, 92));
        let found = rows.scores(Isa::best(), &signs::Query::new(&vector, 0.0));
        let off = |r: usize| (f64::from(found[r]) - rows.expected(r, &vector, 0.0)) / f64::from(SignRows::terms(r).0);
        let error = ((0..160).map(|r| off(r).powi(2)).sum::<f64>() / 160.0).sqrt();
        // Twice a step's, which is that over the root of 12, for the root of as many as there are.
        let expected = 2.0 * sign_step(&vector) * (d as f64 / 4.0 / 12.0).sqrt();
        println!("{d}: {error:.5}, expected {expected:.5}");
        assert!(error < 2.0 * expected, "{d}: {error} {expected}");
    }
}

#[test]
fn sums_of_signs_are_exact_at_the_ends_of_the_range() {
    // All signs agree, or none does: each table gives 127, or 0.
    for d in [32, 384, 1024, 2048, 2080, 4128] {
        for (sign, score) in [(true, d as f32), (false, -(d as f32))] {
            let rows = SignRows::of(vec![vec![sign; d]; ROWS]);
            let query = signs::Query::new(&vec![1.0; d], 0.0);
            for isa in sets() {
                for (r, found) in rows.scores(isa, &query).into_iter().enumerate() {
                    let expected = score * SignRows::terms(r).0;
                    assert!((found - expected).abs() <= 1e-6 * expected.abs(), "{d} on {}: {found}", isa.name());
                }
            }
        }
    }
}

#[test]
fn a_query_of_zeros_leaves_what_is_less() {
    let rows = random_signs(16, 70);
    for isa in sets() {
        let found = rows.scores(isa, &signs::Query::new(&[0.0; 70], 2.0));
        assert!((0..16).all(|r| found[r] == -2.0 * SignRows::terms(r).1), "{} {found:?}", isa.name());
    }
}

#[test]
fn signs_of_other_lengths_are_refused() {
    let (rows, query) = (random_signs(16, 64), signs::Query::new(&[1.0; 64], 0.0));
    let refused = |groups: &[signs::Group], count: usize| {
        let mut out = vec![0.0; count];
        let scores = || signs::scores(Isa::best(), &query, groups, &rows.terms, &mut out);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(scores)).is_err()
    };
    assert!(refused(&rows.groups[1..], 16) && refused(&rows.groups, 15) && !refused(&rows.groups, 16));
}
