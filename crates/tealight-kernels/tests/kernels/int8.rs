//! Products with int8 weights: quantization, packing, sums, errors.

use super::int4::{blocks, product4};
use super::{available_isas, bits, has_7_bits, quantized, values};
use bytes::Bytes;
use tealight_kernels::int8::{Epilogue, PackedRhs, gemm};
use tealight_kernels::quantize::QuantizedRows;
use tealight_kernels::{Isa, int4, rowwise};

fn product(isa: Isa, x: &[f32], w: &PackedRhs, epilogue: Epilogue, start: f32) -> Vec<f32> {
    let lhs = quantized(isa, x, w);
    let mut out = vec![start; lhs.rows() * w.n()];
    gemm(isa, &lhs, w, 0..w.n(), epilogue, &mut out);
    out
}

/// Quantization as documented, one value at a time.
fn reference_quantize(x: &[f32], smooth: &[f32], group: usize, qmax: f32) -> (Vec<u8>, Vec<f32>) {
    let (mut lhs, mut scales) = (vec![], vec![]);
    for (x, smooth) in x.chunks(group).zip(smooth.chunks(group)) {
        let x: Vec<f32> = x.iter().zip(smooth).map(|(x, s)| x * (1.0 / s)).collect();
        let (low, high) = x.iter().fold((0.0f32, 0.0f32), |(l, h), v| (l.min(*v), h.max(*v)));
        let range = (high - low).max(1e-30);
        let zero = (-low * (qmax / range)).round_ties_even();
        lhs.extend(x.iter().map(|v| v.mul_add(qmax / range, zero).clamp(0.0, qmax).round_ties_even() as u8));
        scales.push(range * (1.0 / qmax));
    }
    (lhs, scales)
}

#[test]
fn quantized_rows_match_the_reference() {
    for (rows, k, group) in [(1, 16, 64), (3, 64, 64), (4, 80, 64), (5, 192, 64), (7, 384, 192), (9, 208, 128)] {
        let mut x = values(rows * k, 1);
        // Zeros, a single value, subnormal numbers and one huge outlier.
        x[..16].fill(0.0);
        x[k / 2] = 1e4;
        x[(rows - 1) * k..].iter_mut().step_by(2).for_each(|v| *v = f32::MIN_POSITIVE / 8.0);
        let smooth: Vec<f32> = values(k, 2).iter().map(|v| 1.5 + v).collect();
        let packed = PackedRhs::pack(&values(16 * k, 3), &values(16, 4), &smooth, group).unwrap();
        for isa in available_isas() {
            let found = quantized(isa, &x, &packed);
            for (r, x) in x.chunks(k).enumerate() {
                let (expected, scales) =
                    reference_quantize(x, &smooth, group, if has_7_bits(isa) { 127.0 } else { 255.0 });
                let row: Vec<u8> = (0..k).map(|c| found.quantized_byte(r, c)).collect();
                assert_eq!(row, expected, "{} {rows}x{k} row {r}", isa.as_str());
                let found: Vec<f32> = (0..scales.len()).map(|g| found.scale(r, g)).collect();
                assert_eq!(bits(&found), bits(&scales), "{} {rows}x{k} row {r}", isa.as_str());
            }
        }
    }
}

/// `(m, k, n, group_size)` around the edges of tiles: 4 and 6 rows, 16 and 32 rows and columns, 48 columns, 64 values along K.
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
fn int8_products_are_equal_on_all_isas() {
    for (m, k, n, group) in SHAPES {
        let smooth: Vec<f32> = values(k, 23).iter().map(|v| 1.5 + v).collect();
        let packed = PackedRhs::pack(&values(n * k, 21), &values(n, 22), &smooth, group).unwrap();
        let x = values(m * k, 20);
        for epilogue in [Epilogue::Store, Epilogue::Gelu, Epilogue::Add, Epilogue::Mul] {
            let expected = product(Isa::Scalar, &x, &packed, epilogue, 0.5);
            for isa in available_isas().into_iter().filter(|isa| !has_7_bits(*isa)) {
                let found = product(isa, &x, &packed, epilogue, 0.5);
                assert_eq!(bits(&found), bits(&expected), "{} {m}x{k}x{n} {epilogue:?}", isa.as_str());
            }
            // AVX2 quantizes to 7 bits; the scalar kernel also multiplies such rows.
            for isa in available_isas().into_iter().filter(|isa| has_7_bits(*isa)) {
                let lhs = quantized(isa, &x, &packed);
                let run = |isa| {
                    let mut out = vec![0.5; m * n];
                    gemm(isa, &lhs, &packed, 0..n, epilogue, &mut out);
                    out
                };
                assert_eq!(bits(&run(isa)), bits(&run(Isa::Scalar)), "{} {m}x{k}x{n} {epilogue:?}", isa.as_str());
            }
        }
    }
}

#[test]
fn epilogues_combine_product_and_output() {
    let (k, n) = (64, 32);
    let packed = PackedRhs::pack(&values(n * k, 21), &values(n, 22), &vec![1.0; k], 64).unwrap();
    let x = values(5 * k, 20);
    for isa in available_isas() {
        let run = |epilogue| product(isa, &x, &packed, epilogue, 0.5);
        let stored = run(Epilogue::Store);
        for (i, v) in stored.iter().enumerate() {
            assert_eq!(run(Epilogue::Add)[i], 0.5 + v);
            assert_eq!(run(Epilogue::Mul)[i], 0.5 * v);
        }
        let mut gelu = stored.clone();
        tealight_kernels::rowwise::gelu_erf(isa, &mut gelu);
        assert_eq!(bits(&run(Epilogue::Gelu)), bits(&gelu));
    }
}

#[test]
fn int8_products_are_close_to_float64_and_independent_of_other_rows() {
    for (m, k, n, group) in SHAPES {
        let (x, w, bias) = (values(m * k, 20), values(n * k, 21), values(n, 22));
        let smooth: Vec<f32> = values(k, 23).iter().map(|v| 1.5 + v).collect();
        let packed = PackedRhs::pack(&w, &bias, &smooth, group).unwrap();
        for isa in available_isas() {
            let found = product(isa, &x, &packed, Epilogue::Store, f32::NAN);
            // A smoothed channel has a range of 4. Errors are random, so five standard deviations suffice.
            let scale = 4.0 / if has_7_bits(isa) { 127.0 } else { 255.0 };
            let bound = 5.0 * (k as f64).sqrt() * scale / 12f64.sqrt();
            for (i, found) in found.iter().enumerate() {
                let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
                let exact = x.iter().zip(w).map(|(x, w)| *x as f64 * *w as f64).sum::<f64>() + bias[i % n] as f64;
                assert!((*found as f64 - exact).abs() < bound, "{} {m}x{k}x{n}: {found} {exact}", isa.as_str());
            }
            for r in 0..m {
                let single_row = product(isa, &x[r * k..(r + 1) * k], &packed, Epilogue::Store, f32::NAN);
                assert_eq!(bits(&single_row), bits(&found[r * n..(r + 1) * n]), "{} row {r} alone", isa.as_str());
            }
            // A range of outputs, as the feed-forward network computes them.
            let lhs = quantized(isa, &x, &packed);
            let columns = n / 32 * 16..n;
            let mut part = vec![0.0; m * columns.len()];
            gemm(isa, &lhs, &packed, columns.clone(), Epilogue::Store, &mut part);
            for (part, whole) in part.chunks(columns.len()).zip(found.chunks(n)) {
                assert_eq!(bits(part), bits(&whole[columns.clone()]), "{} columns {columns:?}", isa.as_str());
            }
        }
    }
}

/// Integers that quantize without error give exact products, so nothing saturates at the limits.
#[test]
fn int8_sums_at_the_limits_are_exact() {
    let (k, n) = (1536, 32);
    for weight in [-127.0, 127.0] {
        let packed = PackedRhs::pack(&vec![weight; n * k], &vec![0.0; n], &vec![1.0; k], k).unwrap();
        for isa in available_isas() {
            // A zero in the row puts the zero point at one end of the range, so that the other values quantize to the other end.
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

/// A file may contain the weight -128, which `pack` never writes.
#[test]
fn int8_sums_with_weight_minus_128_are_exact() {
    let (k, n) = (128, 16);
    let mut bytes = PackedRhs::pack(&vec![-127.0; n * k], &vec![0.0; n], &vec![1.0; k], k).unwrap().bytes().to_vec();
    let weights = 64 + 4 * k;
    bytes[weights..weights + n * k].fill(-128i8 as u8);
    bytes[weights + n * k + 4 * n..][..4 * n].copy_from_slice(&(-128i32 * k as i32).to_le_bytes().repeat(n));
    let packed = PackedRhs::from_bytes(bytes.into(), n, k).unwrap();
    for (isa, value) in available_isas().into_iter().flat_map(|isa| [(isa, 127.0f32), (isa, -127.0)]) {
        let mut x = vec![value; 5 * k];
        x.iter_mut().step_by(k).for_each(|v| *v = 0.0);
        let exact = -128.0 * value as f64 * (k - 1) as f64;
        for found in product(isa, &x, &packed, Epilogue::Store, 0.0) {
            assert!((found as f64 / exact - 1.0).abs() < 1e-6, "{} {found} {exact}", isa.as_str());
        }
    }
}

/// Matrices in a mapped file may begin at any offset.
#[test]
fn unaligned_packed_bytes_give_the_same_products() {
    let unaligned = |bytes: &[u8]| Bytes::from([&[0; 3], bytes].concat()).slice(3..);
    let (x, int8_rhs) =
        (values(5 * 64, 1), PackedRhs::pack(&values(48 * 64, 2), &values(48, 3), &[1.0; 64], 64).unwrap());
    let int4_rhs = int4::PackedRhs::pack(&blocks(&values(48 * 64, 4)), &values(48, 5)).unwrap();
    let unaligned_int8 = PackedRhs::from_bytes(unaligned(int8_rhs.bytes()), 48, 64).unwrap();
    let unaligned_int4 = int4::PackedRhs::from_bytes(unaligned(int4_rhs.bytes()), 48, 64).unwrap();
    for isa in available_isas() {
        let run = |w| bits(&product(isa, &x, w, Epilogue::Store, 0.0));
        assert_eq!(run(&unaligned_int8), run(&int8_rhs), "{}", isa.as_str());
        let run = |w| bits(&product4(isa, &x, w, Epilogue::Store));
        assert_eq!(run(&unaligned_int4), run(&int4_rhs), "{}", isa.as_str());
    }
}

#[test]
fn non_finite_row_gives_nan_products() {
    let k = 192;
    let packed = PackedRhs::pack(&vec![1.0; 32 * k], &[0.25; 32], &vec![1.0; k], 64).unwrap();
    for isa in available_isas() {
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
fn zero_rows_give_empty_product() {
    let packed = PackedRhs::pack(&[1.0; 16 * 16], &[0.0; 16], &[1.0; 16], 64).unwrap();
    for isa in available_isas() {
        assert!(product(isa, &[], &packed, Epilogue::Store, 0.0).is_empty());
    }
}

#[test]
fn packing_invalid_sizes_or_values_is_an_error() {
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
fn packed_int8_bytes_round_trip() {
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
            // A smoothed weight is below 2.5; it is rounded to 1/127 of that and divided by at least 0.5.
            assert!((found - w).abs() <= 2.5 / 127.0 / 2.0 / 0.5 + 1e-6, "{i}: {found} {w}");
        }
    }
}

#[test]
fn damaged_packed_int8_bytes_are_errors() {
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

/// 8-bit values would saturate on AVX2, and NEON expects another offset.
#[test]
fn rows_quantized_by_another_isa_panic() {
    let packed = PackedRhs::pack(&[1.0; 16 * 16], &[0.0; 16], &[1.0; 16], 64).unwrap();
    let lhs = quantized(Isa::Scalar, &values(16, 31), &packed);
    for isa in available_isas() {
        let product = || gemm(isa, &lhs, &packed, 0..16, Epilogue::Store, &mut [0.0; 16]);
        let panics = matches!(isa.as_str(), "avx2" | "neon");
        assert_eq!(std::panic::catch_unwind(product).is_err(), panics, "{}", isa.as_str());
    }
}

#[test]
fn mismatched_sizes_panic() {
    let (small, large) = (
        PackedRhs::pack(&[1.0; 16 * 16], &[0.0; 16], &[1.0; 16], 64).unwrap(),
        PackedRhs::pack(&[1.0; 16 * 128], &[0.0; 16], &[1.0; 128], 64).unwrap(),
    );
    let isa = Isa::detect();
    let lhs = quantized(isa, &values(32, 1), &small);
    let panics = |f: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
    assert!(panics(&|| gemm(isa, &lhs, &large, 0..16, Epilogue::Store, &mut [0.0; 32])), "another K");
    assert!(panics(&|| gemm(isa, &lhs, &small, 0..16, Epilogue::Store, &mut [0.0; 31])), "a short output");
    assert!(panics(&|| gemm(isa, &lhs, &small, 0..32, Epilogue::Store, &mut [0.0; 64])), "columns past the end");
    assert!(panics(&|| gemm(isa, &lhs, &small, 8..16, Epilogue::Store, &mut [0.0; 16])), "half a panel");
    assert!(panics(&|| QuantizedRows::default().quantize(isa, &values(17, 1), &small.layout())), "half a row");
    let int4 = int4::PackedRhs::pack(&blocks(&values(16 * 64, 1)), &[0.0; 16]).unwrap();
    let mut signed = QuantizedRows::default();
    signed.quantize(isa, &values(2 * 64, 2), &int4.layout());
    assert!(panics(&|| int4::gemm(isa, &signed, &int4, 0..16, Epilogue::Store, &mut [0.0; 31])), "a short output");
    assert!(
        panics(&|| int4::gemm(isa, &signed, &int4, 0..32, Epilogue::Store, &mut [0.0; 64])),
        "columns past the end"
    );
    assert!(panics(&|| rowwise::layer_norm(isa, &mut [0.0; 5], 4, &[1.0; 4], &[1.0; 4], 0.0)), "half a row");
    assert!(panics(&|| rowwise::rms_norm(isa, &mut [0.0; 5], 4, &[1.0; 4], 0.0)), "half a row");
    assert!(panics(&|| assert!(rowwise::dot(isa, &[0.0; 5], &[1.0; 4]).is_nan())), "another length");
    assert!(panics(&|| rowwise::matmul(isa, &[0.0; 8], &[1.0; 8], 4, &mut [0.0; 3])), "a short output");
}
