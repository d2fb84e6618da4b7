//! Products of int8 codes: what becomes of activations, packed weights, sums, errors.

use super::int4::{blocks, product4};
use super::{bits, coarse, codes, sets, values};
use bytes::Bytes;
use tealight_kernels::int8::{Epilogue, PackedRhs, gemm};
use tealight_kernels::quantize::QuantizedRows;
use tealight_kernels::{Isa, int4, rowwise};

fn product(isa: Isa, x: &[f32], w: &PackedRhs, epilogue: Epilogue, start: f32) -> Vec<f32> {
    let codes = codes(isa, x, w);
    let mut out = vec![start; codes.rows() * w.n()];
    gemm(isa, &codes, w, 0..w.n(), epilogue, &mut out);
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
        let packed = PackedRhs::pack(&values(16 * k, 3), &values(16, 4), &smooth, group).unwrap();
        for isa in sets() {
            let found = codes(isa, &x, &packed);
            for (r, x) in x.chunks(k).enumerate() {
                let (expected, steps) = reference_codes(x, &smooth, group, if coarse(isa) { 127.0 } else { 255.0 });
                let row: Vec<u8> = (0..k).map(|c| found.value(r, c)).collect();
                assert_eq!(row, expected, "{} {rows}x{k} row {r}", isa.as_str());
                let found: Vec<f32> = (0..steps.len()).map(|g| found.scale(r, g)).collect();
                assert_eq!(bits(&found), bits(&steps), "{} {rows}x{k} row {r}", isa.as_str());
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
        let packed = PackedRhs::pack(&values(n * k, 21), &values(n, 22), &smooth, group).unwrap();
        let x = values(m * k, 20);
        for epilogue in [Epilogue::Store, Epilogue::Gelu, Epilogue::Add] {
            let expected = product(Isa::Scalar, &x, &packed, epilogue, 0.5);
            for isa in sets().into_iter().filter(|isa| !coarse(*isa)) {
                let found = product(isa, &x, &packed, epilogue, 0.5);
                assert_eq!(bits(&found), bits(&expected), "{} {m}x{k}x{n} {epilogue:?}", isa.as_str());
            }
            // AVX2's codes are coarser; the scalar kernel multiplies them too.
            for isa in sets().into_iter().filter(|isa| coarse(*isa)) {
                let codes = codes(isa, &x, &packed);
                let run = |isa| {
                    let mut out = vec![0.5; m * n];
                    gemm(isa, &codes, &packed, 0..n, epilogue, &mut out);
                    out
                };
                assert_eq!(bits(&run(isa)), bits(&run(Isa::Scalar)), "{} {m}x{k}x{n} {epilogue:?}", isa.as_str());
            }
        }
    }
}

#[test]
fn products_are_near_the_float_ones_and_rows_independent() {
    for (m, k, n, group) in SHAPES {
        let (x, w, bias) = (values(m * k, 20), values(n * k, 21), values(n, 22));
        let smooth: Vec<f32> = values(k, 23).iter().map(|v| 1.5 + v).collect();
        let packed = PackedRhs::pack(&w, &bias, &smooth, group).unwrap();
        for isa in sets() {
            let found = product(isa, &x, &packed, Epilogue::Store, f32::NAN);
            // A smoothed channel ranges over 4; errors add up at random, so that five deviations are enough.
            let step = 4.0 / if coarse(isa) { 127.0 } else { 255.0 };
            let bound = 5.0 * (k as f64).sqrt() * step / 12f64.sqrt();
            for (i, found) in found.iter().enumerate() {
                let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
                let exact = x.iter().zip(w).map(|(x, w)| *x as f64 * *w as f64).sum::<f64>() + bias[i % n] as f64;
                assert!((*found as f64 - exact).abs() < bound, "{} {m}x{k}x{n}: {found} {exact}", isa.as_str());
            }
            for r in 0..m {
                let alone = product(isa, &x[r * k..(r + 1) * k], &packed, Epilogue::Store, f32::NAN);
                assert_eq!(bits(&alone), bits(&found[r * n..(r + 1) * n]), "{} row {r} alone", isa.as_str());
            }
            // Some outputs alone, as the feed-forward network asks for them.
            let codes = codes(isa, &x, &packed);
            let columns = n / 32 * 16..n;
            let mut part = vec![0.0; m * columns.len()];
            gemm(isa, &codes, &packed, columns.clone(), Epilogue::Store, &mut part);
            for (part, whole) in part.chunks(columns.len()).zip(found.chunks(n)) {
                assert_eq!(bits(part), bits(&whole[columns.clone()]), "{} columns {columns:?}", isa.as_str());
            }
        }
    }
}

/// Whole numbers that fit the codes come out exactly, so nothing saturates, not even at both ends of the range.
#[test]
fn sums_are_exact_at_the_ends_of_the_range() {
    let (k, n) = (1536, 32);
    for weight in [-127.0, 127.0] {
        let packed = PackedRhs::pack(&vec![weight; n * k], &vec![0.0; n], &vec![1.0; k], k).unwrap();
        for isa in sets() {
            // One zero puts the zero point at an end, so that the others have the highest code.
            for (value, rows) in [(127.0f32, 1), (-127.0, 5), (127.0, 33)] {
                let mut x = vec![value; rows * k];
                x.iter_mut().step_by(k).for_each(|v| *v = 0.0);
                let found = product(isa, &x, &packed, Epilogue::Store, 0.0);
                let exact = weight as f64 * value as f64 * (k - 1) as f64;
                assert!(found.iter().all(|v| (*v as f64 / exact - 1.0).abs() < 1e-6), "{} {}", isa.as_str(), found[0]);
            }
        }
    }
}

/// A file may have the weight -128, which `pack` never writes.
#[test]
fn sums_are_exact_with_the_lowest_weight() {
    let (k, n) = (128, 16);
    let mut bytes = PackedRhs::pack(&vec![-127.0; n * k], &vec![0.0; n], &vec![1.0; k], k).unwrap().bytes().to_vec();
    let weights = 64 + 4 * k;
    bytes[weights..weights + n * k].fill(-128i8 as u8);
    bytes[weights + n * k + 4 * n..][..4 * n].copy_from_slice(&(-128i32 * k as i32).to_le_bytes().repeat(n));
    let packed = PackedRhs::from_bytes(bytes.into(), n, k).unwrap();
    for (isa, value) in sets().into_iter().flat_map(|isa| [(isa, 127.0f32), (isa, -127.0)]) {
        let mut x = vec![value; 5 * k];
        x.iter_mut().step_by(k).for_each(|v| *v = 0.0);
        let exact = -128.0 * value as f64 * (k - 1) as f64;
        for found in product(isa, &x, &packed, Epilogue::Store, 0.0) {
            assert!((found as f64 / exact - 1.0).abs() < 1e-6, "{} {found} {exact}", isa.as_str());
        }
    }
}

/// A mapped file promises no alignment.
#[test]
fn packed_bytes_may_begin_anywhere() {
    let shifted = |bytes: &[u8]| Bytes::from([&[0; 3], bytes].concat()).slice(3..);
    let (x, eight) = (values(5 * 64, 1), PackedRhs::pack(&values(48 * 64, 2), &values(48, 3), &[1.0; 64], 64).unwrap());
    let four = int4::PackedRhs::pack(&blocks(&values(48 * 64, 4)), &values(48, 5)).unwrap();
    let moved = PackedRhs::from_bytes(shifted(eight.bytes()), 48, 64).unwrap();
    let moved4 = int4::PackedRhs::from_bytes(shifted(four.bytes()), 48, 64).unwrap();
    for isa in sets() {
        let run = |w| bits(&product(isa, &x, w, Epilogue::Store, 0.0));
        assert_eq!(run(&moved), run(&eight), "{}", isa.as_str());
        let run = |w| bits(&product4(isa, &x, w, Epilogue::Store));
        assert_eq!(run(&moved4), run(&four), "{}", isa.as_str());
    }
}

#[test]
fn what_is_no_number_stays_visible_in_its_row() {
    let k = 192;
    let packed = PackedRhs::pack(&vec![1.0; 32 * k], &[0.25; 32], &vec![1.0; k], 64).unwrap();
    for isa in sets() {
        assert_eq!(product(isa, &vec![0.0; k], &packed, Epilogue::Store, 1.0), [0.25; 32]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for rows in [2, 6, 20] {
                let mut x = values(rows * k, 30);
                x[k + 70] = bad;
                let found = product(isa, &x, &packed, Epilogue::Store, 0.0);
                for (r, row) in found.chunks(32).enumerate() {
                    assert!(row.iter().all(|v| v.is_nan() == (r == 1)), "{} {bad} row {r}", isa.as_str());
                }
            }
        }
    }
}

#[test]
fn no_rows_give_no_products() {
    let packed = PackedRhs::pack(&[1.0; 16 * 16], &[0.0; 16], &[1.0; 16], 64).unwrap();
    for isa in sets() {
        assert!(product(isa, &[], &packed, Epilogue::Store, 0.0).is_empty());
    }
}

#[test]
fn sizes_that_cannot_be_packed_are_errors() {
    for (n, k, group) in [(15, 16, 64), (16, 17, 64), (0, 16, 64), (16, 0, 64), (16, 16, 0), (16, 16, 32), (16, 64, 96)]
    {
        assert!(PackedRhs::pack(&vec![1.0; n * k], &vec![0.0; n], &vec![1.0; k], group).is_err(), "{n} {k} {group}");
    }
    assert!(PackedRhs::pack(&[1.0; 255], &[0.0; 16], &[1.0; 16], 64).is_err());
    assert!(PackedRhs::pack(&[1.0; 256], &[0.0; 16], &[1.0; 16], 1 << 17).is_err());
    for bad in [f32::NAN, f32::INFINITY] {
        assert!(
            PackedRhs::pack(&[bad; 256], &[0.0; 16], &[1.0; 16], 64)
                .unwrap_err()
                .to_string()
                .contains(&bad.to_string())
        );
        assert!(PackedRhs::pack(&[1.0; 256], &[bad; 16], &[1.0; 16], 64).is_err());
        assert!(PackedRhs::pack(&[1.0; 256], &[0.0; 16], &[bad; 16], 64).is_err());
    }
    assert!(PackedRhs::pack(&[1.0; 256], &[0.0; 16], &[0.0; 16], 64).is_err());
}

#[test]
fn a_packed_matrix_comes_back_from_its_bytes() {
    for (n, k, group) in [(16, 16, 64), (32, 80, 64), (48, 384, 192), (16, 208, 128)] {
        let (w, bias) = (values(n * k, 1), values(n, 2));
        let smooth: Vec<f32> = values(k, 3).iter().map(|v| 1.5 + v).collect();
        let packed = PackedRhs::pack(&w, &bias, &smooth, group).unwrap();
        let read = PackedRhs::from_bytes(packed.bytes().clone(), n, k).unwrap();
        let x = values(3 * k, 4);
        let run = |p| bits(&product(Isa::detect(), &x, p, Epilogue::Store, 0.0));
        assert_eq!(run(&read), run(&packed));
        let (weights, biases) = read.dequantize();
        assert_eq!(biases, bias);
        for (i, (found, w)) in weights.iter().zip(&w).enumerate() {
            // A smoothed weight is below 2.5, rounded to 127 steps, and divided by at least 0.5.
            assert!((found - w).abs() <= 2.5 / 127.0 / 2.0 / 0.5 + 1e-6, "{i}: {found} {w}");
        }
    }
}

#[test]
fn damaged_packed_bytes_are_errors() {
    let packed = PackedRhs::pack(&values(32 * 80, 1), &values(32, 2), &[1.0; 80], 64).unwrap();
    let good = packed.bytes().to_vec();
    let error = |bytes: Vec<u8>, n, k| PackedRhs::from_bytes(bytes.into(), n, k).unwrap_err().to_string();
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
    let packed = PackedRhs::pack(&[1.0; 16 * 16], &[0.0; 16], &[1.0; 16], 64).unwrap();
    let codes = codes(Isa::Scalar, &values(16, 31), &packed);
    for isa in sets() {
        let product = || gemm(isa, &codes, &packed, 0..16, Epilogue::Store, &mut [0.0; 16]);
        let refused = matches!(isa.as_str(), "avx2" | "neon");
        assert_eq!(std::panic::catch_unwind(product).is_err(), refused, "{}", isa.as_str());
    }
}

#[test]
fn wrong_sizes_are_refused_before_memory_is_touched() {
    let (small, large) = (
        PackedRhs::pack(&[1.0; 16 * 16], &[0.0; 16], &[1.0; 16], 64).unwrap(),
        PackedRhs::pack(&[1.0; 16 * 128], &[0.0; 16], &[1.0; 128], 64).unwrap(),
    );
    let isa = Isa::detect();
    let codes = codes(isa, &values(32, 1), &small);
    let refused = |f: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
    assert!(refused(&|| gemm(isa, &codes, &large, 0..16, Epilogue::Store, &mut [0.0; 32])), "another K");
    assert!(refused(&|| gemm(isa, &codes, &small, 0..16, Epilogue::Store, &mut [0.0; 31])), "a short output");
    assert!(refused(&|| gemm(isa, &codes, &small, 0..32, Epilogue::Store, &mut [0.0; 64])), "columns past the end");
    assert!(refused(&|| gemm(isa, &codes, &small, 8..16, Epilogue::Store, &mut [0.0; 16])), "half a panel");
    assert!(refused(&|| QuantizedRows::default().quantize(isa, &values(17, 1), &small.layout())), "half a row");
    let four = int4::PackedRhs::pack(&blocks(&values(16 * 64, 1)), &[0.0; 16]).unwrap();
    let mut signed = QuantizedRows::default();
    signed.quantize(isa, &values(2 * 64, 2), &four.layout());
    assert!(refused(&|| int4::gemm(isa, &signed, &four, 0..16, Epilogue::Store, &mut [0.0; 31])), "a short output");
    assert!(
        refused(&|| int4::gemm(isa, &signed, &four, 0..32, Epilogue::Store, &mut [0.0; 64])),
        "columns past the end"
    );
    assert!(refused(&|| rowwise::layer_norm(isa, &mut [0.0; 5], &[1.0; 4], &[1.0; 4], 0.0)), "half a row");
    assert!(refused(&|| rowwise::rms_norm(isa, &mut [0.0; 5], &[1.0; 4], 0.0)), "half a row");
    assert!(refused(&|| assert!(rowwise::dot(isa, &[0.0; 5], &[1.0; 4]).is_nan())), "another length");
    assert!(refused(&|| rowwise::matmul(isa, &[0.0; 8], &[1.0; 8], 4, &mut [0.0; 3])), "a short output");
}
