//! Products with 4-bit weights.

use super::{assert_equal_on_all_isas, available_isas, bits, quantized, values};
use tealight_kernels::Isa;
use tealight_kernels::int4::{self, Q4Block};
use tealight_kernels::int8::{Epilogue, PackedRhs, gemm};
use tealight_kernels::quantize::QuantizedRows;

pub fn blocks(weights: &[f32]) -> Vec<Q4Block> {
    weights.as_chunks().0.iter().map(Q4Block::quantize).collect()
}

pub fn product4(isa: Isa, x: &[f32], w: &int4::PackedRhs, epilogue: Epilogue) -> Vec<f32> {
    let mut lhs = QuantizedRows::default();
    lhs.quantize(isa, x, &w.layout());
    let mut out = vec![0.5; lhs.rows() * w.n()];
    int4::gemm(isa, &lhs, w, 0..w.n(), epilogue, &mut out);
    out
}

#[test]
fn int4_products_are_equal_on_all_isas_and_close_to_float64() {
    for (m, k, n) in [(1, 32, 16), (2, 64, 48), (3, 96, 64), (4, 576, 80), (5, 32, 96), (7, 160, 48), (33, 64, 112)] {
        let (x, bias) = (values(m * k, 50), values(n, 51));
        let blocks = blocks(&values(n * k, 52));
        let packed = int4::PackedRhs::pack(&blocks, &bias).unwrap();
        for epilogue in [Epilogue::Store, Epilogue::Add, Epilogue::Gelu] {
            assert_equal_on_all_isas("int4", |isa| product4(isa, &x, &packed, epilogue));
        }
        let weights: Vec<f32> = blocks.iter().flat_map(Q4Block::dequantize).collect();
        for (i, found) in product4(Isa::detect(), &x, &packed, Epilogue::Store).iter().enumerate() {
            let (x, w) = (&x[i / n * k..][..k], &weights[i % n * k..][..k]);
            let exact = x.iter().zip(w).map(|(x, w)| *x as f64 * *w as f64).sum::<f64>() + bias[i % n] as f64;
            let bound = 5.0 * (k as f64).sqrt() / 127.0 / 12f64.sqrt();
            assert!((*found as f64 - exact).abs() < bound, "{m}x{k}x{n}: {found} {exact}");
        }
    }
}

#[test]
fn quantized_weights_are_within_half_a_scale() {
    for weights in [values(32, 53), vec![0.0; 32], vec![3.0; 32], (0..32).map(|i| i as f32 * 100.0).collect()] {
        let weights: &[f32; 32] = weights[..].try_into().unwrap();
        let block = Q4Block::quantize(weights);
        let range = weights.iter().fold(0.0f32, |m, v| m.max((v - weights[0]).abs() * 2.0)) + weights[0].abs();
        for (found, w) in block.dequantize().iter().zip(weights) {
            // Half of 1/15 of the range, plus the rounding of half floats.
            assert!((found - w).abs() <= range * (0.5 / 15.0 + 2e-3), "{found} {w}");
        }
    }
}

#[test]
fn int4_sums_at_the_limits_are_exact() {
    let (n, k) = (48, 64);
    for code in [0, 15] {
        let block = Q4Block { scale: half::f16::ONE, min: half::f16::ZERO, quantized: [code; 32] };
        let packed = int4::PackedRhs::pack(&vec![block; n * k / 32], &vec![0.0; n]).unwrap();
        for (isa, value) in available_isas().into_iter().flat_map(|isa| [(isa, 127.0), (isa, -127.0)]) {
            let found = product4(isa, &vec![value; 5 * k], &packed, Epilogue::Store);
            assert!(found.iter().all(|v| *v == value * code as f32 * k as f32), "{} {}", isa.as_str(), found[0]);
        }
    }
}

#[test]
fn non_finite_row_gives_nan_products() {
    let packed = int4::PackedRhs::pack(&blocks(&values(16 * 96, 54)), &[0.0; 16]).unwrap();
    for (isa, bad) in available_isas().into_iter().flat_map(|isa| [(isa, f32::NAN), (isa, f32::INFINITY)]) {
        let mut x = values(3 * 96, 55);
        x[96 + 40] = bad;
        for (r, row) in product4(isa, &x, &packed, Epilogue::Store).chunks(16).enumerate() {
            assert!(row.iter().all(|v| v.is_nan() == (r == 1)), "{} {bad}", isa.as_str());
        }
    }
}

#[test]
fn packed_int4_bytes_round_trip_and_damage_is_an_error() {
    let packed = int4::PackedRhs::pack(&blocks(&values(32 * 96, 56)), &values(32, 57)).unwrap();
    let read = int4::PackedRhs::from_bytes(packed.bytes().clone(), 32, 96).unwrap();
    let run = |p| product4(Isa::detect(), &values(2 * 96, 58), p, Epilogue::Store);
    assert_eq!(bits(&run(&read)), bits(&run(&packed)));
    let good = packed.bytes().to_vec();
    let error = |bytes: Vec<u8>, n, k| int4::PackedRhs::from_bytes(bytes.into(), n, k).unwrap_err().to_string();
    for length in [0, 63, 64, good.len() - 1] {
        assert!(error(good[..length].to_vec(), 32, 96).contains(&length.to_string()));
    }
    assert!(error(good.clone(), 32, 64).contains("[32, 96]") && error(good.clone(), 16, 96).contains("[32, 96]"));
    assert!(error([b"TLI8", &good[4..]].concat(), 32, 96).contains("expected"));
    assert!(int4::PackedRhs::pack(&blocks(&values(15 * 32, 1)), &[0.0; 15]).is_err());
    assert!(int4::PackedRhs::pack(&blocks(&values(17 * 32, 1)), &[0.0; 16]).is_err());
    assert!(int4::PackedRhs::pack(&[], &[0.0; 16]).is_err() && int4::PackedRhs::pack(&[], &[]).is_err());
}

/// int8 weights need values with a zero point, 4-bit weights signed values.
#[test]
fn rows_quantized_for_the_other_format_panic() {
    let isa = Isa::detect();
    let eight = PackedRhs::pack(&[1.0; 16 * 64], &[0.0; 16], &[1.0; 64], 64).unwrap();
    let four = int4::PackedRhs::pack(&blocks(&values(16 * 32, 1)), &[0.0; 16]).unwrap();
    let mut signed = QuantizedRows::default();
    signed.quantize(isa, &values(32, 2), &four.layout());
    let panics = |f: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
    assert!(panics(&|| gemm(isa, &signed, &eight, 0..16, Epilogue::Store, &mut [0.0; 16])));
    let lhs = quantized(isa, &values(64, 2), &eight);
    assert!(panics(&|| int4::gemm(isa, &lhs, &four, 0..16, Epilogue::Store, &mut [0.0; 16])));
}
