//! Scores of the rows of an index in int8, in 4 bits and in float16.

use super::bits;
use tealight_kernels::Isa;
use tealight_kernels::scoring::{self, BLOCK_ROWS, int4, int8};

/// A damaged file may contain any sum. The score is then any number, but nothing panics.
#[test]
fn int8_scores_with_impossible_sums_do_not_panic() {
    for isa in Isa::available() {
        for vector in [[1e-45, 0.0, 0.0, 0.0], [f32::MAX, f32::MIN, 1.0, 0.0]] {
            for sum in [i32::MIN, i32::MAX] {
                let (scale, score_offset) = ([1.0; BLOCK_ROWS], [0.0; BLOCK_ROWS]);
                let params = [int8::BlockParams { scale, sum: [sum; BLOCK_ROWS], score_offset }];
                let codes: [int8::CodeGroup; 1] = [[-128; 64]];
                let query = int8::QuantizedQuery::new(isa, &vector);
                int8::scores(isa, &query, &codes, &params, &mut [0.0; BLOCK_ROWS]);
            }
        }
    }
}

#[test]
fn int8_scores_of_integers_are_exact_on_all_isas() {
    for d in [1, 7, 64, 100, 384, 768] {
        let (len, blocks) = (usize::div_ceil(d, 4), 5);
        let mut codes: Vec<int8::CodeGroup> = vec![[0; 64]; len * blocks];
        let zeros = [0.0; BLOCK_ROWS];
        let mut params = vec![int8::BlockParams { scale: zeros, sum: [0; BLOCK_ROWS], score_offset: zeros }; blocks];
        let rows: Vec<Vec<i8>> = (0..blocks * BLOCK_ROWS)
            .map(|r| (0..d).map(|k| ((r * 31 + k * 17) % 255) as i32 as u8 as i8).map(|q| q.max(-127)).collect())
            .collect();
        for (r, row) in rows.iter().enumerate() {
            let (block, lane) = (r / BLOCK_ROWS, r % BLOCK_ROWS);
            for (k, value) in row.iter().enumerate() {
                codes[block * len + k / 4][lane * 4 + k % 4] = *value;
            }
            params[block].scale[lane] = 0.5 + r as f32;
            params[block].sum[lane] = row.iter().map(|q| i32::from(*q)).sum();
            params[block].score_offset[lane] = r as f32 / 3.0;
        }
        // Integers up to 63, which all instruction sets quantize without error.
        let vector: Vec<f32> = (0..d).map(|k| if k == 0 { 63.0 } else { ((k * 29) % 127) as f32 - 63.0 }).collect();
        for isa in Isa::available() {
            let levels = if isa.as_str() == "avx2" { 1.0 } else { 127.0 / 63.0 };
            let vector: Vec<f32> = vector.iter().map(|v| (v * levels).round()).collect();
            let query = int8::QuantizedQuery::new(isa, &vector);
            for (name, scores) in [("scores", int8::scores as fn(_, &_, &_, &_, &mut _)), ("any", int8::scores_any_dim)]
            {
                let mut out = vec![0.0; rows.len()];
                scores(isa, &query, &codes[..], &params[..], &mut out[..]);
                for (r, row) in rows.iter().enumerate() {
                    let dot: i64 = row.iter().zip(&vector).map(|(q, v)| i64::from(*q) * *v as i64).sum();
                    let expected = dot as f32 * (0.5 + r as f32) - r as f32 / 3.0;
                    assert_eq!(out[r], expected, "{d} on {}, {name}, row {r}", isa.as_str());
                }
            }
        }
    }
}

#[test]
fn int4_scores_are_equal_on_all_isas_and_close_to_float64() {
    for d in [1, 8, 64, 100, 384] {
        let (len, blocks) = (usize::div_ceil(d, 8), 3);
        let mut codes: Vec<int4::CodeGroup> = vec![[0; 64]; len * blocks];
        let value = |r: usize, k: usize| ((r * 13 + k * 7) % 16) as u8;
        let zeros = [0.0; BLOCK_ROWS];
        let mut params = vec![int4::BlockParams { scale: zeros, low: zeros, score_offset: zeros }; blocks];
        for r in 0..blocks * BLOCK_ROWS {
            let (block, lane) = (r / BLOCK_ROWS, r % BLOCK_ROWS);
            for k in 0..d {
                let byte = &mut codes[block * len + k / 8][lane * 4 + k % 4];
                *byte = (*byte as u8 | value(r, k) << if k % 8 < 4 { 0 } else { 4 }) as i8;
            }
            let params = &mut params[block];
            (params.scale[lane], params.low[lane], params.score_offset[lane]) = (0.5, -2.0, r as f32);
        }
        let vector: Vec<f32> = (0..d).map(|k| if k == 0 { 127.0 } else { ((k * 29) % 255) as f32 - 127.0 }).collect();
        let query = int4::QuantizedQuery::new(&vector);
        for isa in Isa::available() {
            let mut out = vec![0.0; blocks * BLOCK_ROWS];
            int4::scores(isa, &query, &codes, &params, &mut out);
            for (r, found) in out.iter().enumerate() {
                let weight = |k: usize| 0.5 * f64::from(value(r, k)) - 2.0;
                let expected = (0..d).map(|k| weight(k) * f64::from(vector[k])).sum::<f64>() - r as f64;
                let error = (f64::from(*found) - expected).abs();
                assert!(error < 0.02, "{d} on {}, row {r}: {found} {expected}", isa.as_str());
            }
            let mut scalar = vec![0.0; blocks * BLOCK_ROWS];
            int4::scores(Isa::Scalar, &query, &codes, &params, &mut scalar);
            assert_eq!(bits(&out), bits(&scalar), "{d} on {}", isa.as_str());
        }
    }
}

#[test]
fn float16_scores_are_equal_on_all_isas() {
    let row: Vec<u16> = (0..96).map(|i| half::f16::from_f32(i as f32 / 7.0 - 5.0).to_bits()).collect();
    let query: Vec<f32> = (0..96).map(|i| (i as f32 * 0.37).sin()).collect();
    let expected = scoring::dot_f16(Isa::Scalar, &query, &row);
    for isa in Isa::available() {
        assert_eq!(scoring::dot_f16(isa, &query, &row).to_bits(), expected.to_bits(), "{}", isa.as_str());
    }
}
