//! Scores of the rows of an index by their codes, and by half floats.

use super::bits;
use tealight_kernels::Isa;
use tealight_kernels::scoring::ROWS;

/// What a file says that cannot be: any number is a score, but nothing ends.
#[test]
fn scans_take_any_sum_of_codes_and_any_query() {
    use tealight_kernels::scoring::{self, Group, Query, ROWS, Terms};
    for isa in Isa::available() {
        for vector in [[1e-45, 0.0, 0.0, 0.0], [f32::MAX, f32::MIN, 1.0, 0.0]] {
            for sum in [i32::MIN, i32::MAX] {
                let terms = [Terms { scale: [1.0; ROWS], sum: [sum; ROWS], less: [0.0; ROWS] }];
                let codes: [Group; 1] = [[-128; 64]];
                scoring::scores(isa, &Query::new(isa, &vector), &codes, &terms, true, &mut [0.0; ROWS]);
            }
        }
    }
}

/// Scores of a query with rows of codes: the same on every set, by the loop for a dimension and by that for all, and what whole
/// numbers give.
#[test]
fn scans_are_the_same_on_every_set() {
    use tealight_kernels::scoring::{self, Group, Query, Terms};
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
            let levels = if isa.as_str() == "avx2" { 1.0 } else { 127.0 / 63.0 };
            let vector: Vec<f32> = vector.iter().map(|v| (v * levels).round()).collect();
            let query = Query::new(isa, &vector);
            for fixed in [true, false] {
                let mut out = vec![0.0; rows.len()];
                scoring::scores(isa, &query, &codes, &terms, fixed, &mut out);
                for (r, row) in rows.iter().enumerate() {
                    let dot: i64 = row.iter().zip(&vector).map(|(c, v)| i64::from(*c) * *v as i64).sum();
                    let expected = dot as f32 * (0.5 + r as f32) - r as f32 / 3.0;
                    assert_eq!(out[r], expected, "{d} on {}, fixed: {fixed}, row {r}", isa.as_str());
                }
            }
        }
    }
    for d in [1, 8, 64, 100, 384] {
        let (groups, blocks) = (usize::div_ceil(d, 8), 3);
        let mut codes: Vec<Group> = vec![[0; 64]; groups * blocks];
        let code = |r: usize, k: usize| ((r * 13 + k * 7) % 16) as u8;
        let mut terms = vec![scoring::Terms4 { scale: [0.0; ROWS], low: [0.0; ROWS], less: [0.0; ROWS] }; blocks];
        for r in 0..blocks * ROWS {
            for k in 0..d {
                let byte = &mut codes[r / ROWS * groups + k / 8][r % ROWS * 4 + k % 4];
                *byte = (*byte as u8 | code(r, k) << if k % 8 < 4 { 0 } else { 4 }) as i8;
            }
            let terms = &mut terms[r / ROWS];
            (terms.scale[r % ROWS], terms.low[r % ROWS], terms.less[r % ROWS]) = (0.5, -2.0, r as f32);
        }
        let vector: Vec<f32> = (0..d).map(|k| if k == 0 { 127.0 } else { ((k * 29) % 255) as f32 - 127.0 }).collect();
        let query = scoring::Query4::new(&vector);
        for isa in Isa::available() {
            let mut out = vec![0.0; blocks * ROWS];
            scoring::scores4(isa, &query, &codes, &terms, &mut out);
            for (r, found) in out.iter().enumerate() {
                let weight = |k: usize| 0.5 * f64::from(code(r, k)) - 2.0;
                let expected = (0..d).map(|k| weight(k) * f64::from(vector[k])).sum::<f64>() - r as f64;
                assert!(
                    (f64::from(*found) - expected).abs() < 0.02,
                    "{d} on {}, row {r}: {found} {expected}",
                    isa.as_str()
                );
            }
            let mut scalar = vec![0.0; blocks * ROWS];
            scoring::scores4(Isa::Scalar, &query, &codes, &terms, &mut scalar);
            assert_eq!(bits(&out), bits(&scalar), "{d} on {}", isa.as_str());
        }
    }
    let halves: Vec<u16> = (0..96).map(|i| half::f16::from_f32(i as f32 / 7.0 - 5.0).to_bits()).collect();
    let query: Vec<f32> = (0..96).map(|i| (i as f32 * 0.37).sin()).collect();
    let expected = scoring::half_dot(Isa::Scalar, &query, &halves);
    for isa in Isa::available() {
        assert_eq!(scoring::half_dot(isa, &query, &halves).to_bits(), expected.to_bits(), "{}", isa.as_str());
    }
}
