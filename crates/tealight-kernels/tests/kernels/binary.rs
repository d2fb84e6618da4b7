//! Scores of the rows of an index by their signs.

use super::{bits, sets, values};
use tealight_kernels::scoring::ROWS;
use tealight_kernels::{Isa, binary};

/// Blocks of rows of signs, some less than whole, each row with terms of its own.
struct SignRows {
    rows: Vec<Vec<bool>>,
    groups: Vec<binary::Group>,
    terms: Vec<binary::Terms>,
}

impl SignRows {
    fn of(rows: Vec<Vec<bool>>) -> Self {
        let (blocks, groups) = (rows.len().div_ceil(ROWS), rows[0].len().div_ceil(binary::STEP));
        let mut this = Self {
            groups: vec![[0; 64]; blocks * groups],
            terms: vec![binary::Terms { scale: [0.0; ROWS], less: [0.0; ROWS] }; blocks],
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

    fn scores(&self, isa: Isa, query: &binary::Query) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.terms.len() * ROWS];
        binary::scores(isa, query, &self.groups, &self.terms, &mut out);
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
            let query = binary::Query::new(&vector, weight);
            let expected = rows.scores(Isa::Scalar, &query);
            for isa in sets() {
                assert_eq!(bits(&rows.scores(isa, &query)), bits(&expected), "{d} on {}", isa.as_str());
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
        let found = rows.scores(Isa::detect(), &binary::Query::new(&vector, 0.0));
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
            let query = binary::Query::new(&vec![1.0; d], 0.0);
            for isa in sets() {
                for (r, found) in rows.scores(isa, &query).into_iter().enumerate() {
                    let expected = score * SignRows::terms(r).0;
                    assert!((found - expected).abs() <= 1e-6 * expected.abs(), "{d} on {}: {found}", isa.as_str());
                }
            }
        }
    }
}

#[test]
fn a_query_of_zeros_leaves_what_is_less() {
    let rows = random_signs(16, 70);
    for isa in sets() {
        let found = rows.scores(isa, &binary::Query::new(&[0.0; 70], 2.0));
        assert!((0..16).all(|r| found[r] == -2.0 * SignRows::terms(r).1), "{} {found:?}", isa.as_str());
    }
}

#[test]
fn signs_of_other_lengths_are_refused() {
    let (rows, query) = (random_signs(16, 64), binary::Query::new(&[1.0; 64], 0.0));
    let refused = |groups: &[binary::Group], count: usize| {
        let mut out = vec![0.0; count];
        let scores = || binary::scores(Isa::detect(), &query, groups, &rows.terms, &mut out);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(scores)).is_err()
    };
    assert!(refused(&rows.groups[1..], 16) && refused(&rows.groups, 15) && !refused(&rows.groups, 16));
}
