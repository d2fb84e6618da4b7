//! Scores of the rows of an index from their sign bits.

use super::{available_isas, bits, values};
use tealight_kernels::Isa;
use tealight_kernels::scoring::{BLOCK_ROWS, binary};

/// Rows of signs in blocks, the last of which may be partial, with different parameters for each row.
struct SignRows {
    rows: Vec<Vec<bool>>,
    codes: Vec<binary::CodeGroup>,
    params: Vec<binary::BlockParams>,
}

impl SignRows {
    fn new(rows: Vec<Vec<bool>>) -> Self {
        let (blocks, len) = (rows.len().div_ceil(BLOCK_ROWS), rows[0].len().div_ceil(binary::DIM_ALIGN));
        let zeros = [0.0; BLOCK_ROWS];
        let mut this = Self {
            codes: vec![[0; 64]; blocks * len],
            params: vec![binary::BlockParams { scale: zeros, score_offset: zeros }; blocks],
            rows,
        };
        for (r, row) in this.rows.iter().enumerate() {
            let (block, lane) = (r / BLOCK_ROWS, r % BLOCK_ROWS);
            for (k, _) in row.iter().enumerate().filter(|(_, sign)| **sign) {
                this.codes[block * len + k / 32][k / 8 % 4 * BLOCK_ROWS + lane] |= 1 << (k % 8);
            }
            (this.params[block].scale[lane], this.params[block].score_offset[lane]) = Self::params(r);
        }
        this
    }

    /// Scale and offset of a row.
    fn params(row: usize) -> (f32, f32) {
        (0.5 + row as f32 / 8.0, row as f32 - 7.0)
    }

    fn scores(&self, isa: Isa, query: &binary::BinaryQuery) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.params.len() * BLOCK_ROWS];
        binary::scores(isa, query, &self.codes, &self.params, &mut out);
        out
    }

    /// `scale * s.q - weight * offset` in float64.
    fn expected(&self, row: usize, query: &[f32], weight: f32) -> f64 {
        let signed = self.rows[row].iter().zip(query).map(|(s, q)| if *s { f64::from(*q) } else { -f64::from(*q) });
        let (scale, offset) = Self::params(row);
        signed.sum::<f64>() * f64::from(scale) - f64::from(weight) * f64::from(offset)
    }
}

fn random_signs(rows: usize, d: usize) -> SignRows {
    let all = values(rows * d, d as u64);
    SignRows::new(all.chunks(d).map(|row| row.iter().map(|v| *v > 0.0).collect()).collect())
}

/// The unit of the lookup tables: 1/127 of the largest sum of magnitudes of four values.
fn table_unit(query: &[f32]) -> f64 {
    query.chunks(4).map(|four| four.iter().map(|v| f64::from(v.abs())).sum::<f64>()).fold(0.0, f64::max) / 127.0
}

#[test]
fn binary_scores_are_equal_on_all_isas_and_close_to_float64() {
    // Dimensions with a specialized loop and without, with any remainder, and with more lookups than 16-bit sums hold.
    let specialized = [64, 128, 256, 384, 512, 768, 1024, 1536];
    let others = [1, 2, 3, 4, 5, 7, 31, 32, 33, 63, 65, 100, 385, 2047, 2048, 2049, 4100, 9001];
    for d in specialized.into_iter().chain(others) {
        let rows = random_signs(if d < 1000 { 53 } else { 17 }, d);
        let vector = values(d, 91);
        for weight in [0.0, 1.0, -0.75] {
            let query = binary::BinaryQuery::new(&vector, weight);
            let expected = rows.scores(Isa::Scalar, &query);
            for isa in available_isas() {
                assert_eq!(bits(&rows.scores(isa, &query)), bits(&expected), "{d} on {}", isa.as_str());
            }
            // Each table value is rounded by at most half a unit, which doubles in the score; plus float rounding.
            let bound = d.div_ceil(4) as f64 * table_unit(&vector) + 1e-6 * d as f64;
            for (r, found) in expected.iter().enumerate().take(rows.rows.len()) {
                let (error, scale) = (f64::from(*found) - rows.expected(r, &vector, weight), SignRows::params(r).0);
                assert!(error.abs() <= bound * f64::from(scale), "{d}, row {r}: {error} {bound}");
            }
        }
    }
}

#[test]
fn table_rounding_error_grows_with_square_root_of_tables() {
    for d in [64, 384, 1536] {
        let (rows, vector) = (random_signs(160, d), values(d, 92));
        let found = rows.scores(Isa::detect(), &binary::BinaryQuery::new(&vector, 0.0));
        let error =
            |r: usize| (f64::from(found[r]) - rows.expected(r, &vector, 0.0)) / f64::from(SignRows::params(r).0);
        let deviation = ((0..160).map(|r| error(r).powi(2)).sum::<f64>() / 160.0).sqrt();
        // The standard deviation of rounding is a unit over the root of 12; it doubles in the score and adds up over d / 4 tables.
        let expected = 2.0 * table_unit(&vector) * (d as f64 / 4.0 / 12.0).sqrt();
        println!("{d}: {deviation:.5}, expected {expected:.5}");
        assert!(deviation < 2.0 * expected, "{d}: {deviation} {expected}");
    }
}

#[test]
fn table_sums_at_the_limits_are_exact() {
    // Every sign agrees, or none does: each table value is 127 or 0.
    for d in [32, 384, 1024, 2048, 2080, 4128] {
        for (sign, score) in [(true, d as f32), (false, -(d as f32))] {
            let rows = SignRows::new(vec![vec![sign; d]; BLOCK_ROWS]);
            let query = binary::BinaryQuery::new(&vec![1.0; d], 0.0);
            for isa in available_isas() {
                for (r, found) in rows.scores(isa, &query).into_iter().enumerate() {
                    let expected = score * SignRows::params(r).0;
                    assert!((found - expected).abs() <= 1e-6 * expected.abs(), "{d} on {}: {found}", isa.as_str());
                }
            }
        }
    }
}

#[test]
fn zero_query_scores_equal_offsets() {
    let rows = random_signs(16, 70);
    for isa in available_isas() {
        let found = rows.scores(isa, &binary::BinaryQuery::new(&[0.0; 70], 2.0));
        assert!((0..16).all(|r| found[r] == -2.0 * SignRows::params(r).1), "{} {found:?}", isa.as_str());
    }
}

#[test]
fn binary_scores_with_other_lengths_panic() {
    let (rows, query) = (random_signs(16, 64), binary::BinaryQuery::new(&[1.0; 64], 0.0));
    let panics = |codes: &[binary::CodeGroup], count: usize| {
        let mut out = vec![0.0; count];
        let scores = || binary::scores(Isa::detect(), &query, codes, &rows.params, &mut out);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(scores)).is_err()
    };
    assert!(panics(&rows.codes[1..], 16) && panics(&rows.codes, 15) && !panics(&rows.codes, 16));
}
