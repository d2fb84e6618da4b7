//! What a whole index must give: what was put in, and the best rows by float64.

use crate::given::{Given, filter, refused};
use tealight_index::{Document, Found, Index, Metric, Precision, Search};
use tealight_kernels::Isa;
use tealight_kernels::CpuContext;

/// A half float is as near to a value, in shares of the row's largest.
const HALF: f32 = 1.0 / 1024.0;
/// A sum in float32 is as near to that in float64, in shares of the sum of magnitudes.
const SUM: f64 = 1e-4;
/// Products of smaller numbers are nothing in float32.
const LEAST: f64 = 1e-36;
/// The distance between the least numbers of float32: as near is a product before it is multiplied by a row's largest value.
const SUBNORMAL: f64 = 1.5e-45;

/// Rows that are scored in float, however few are asked for.
fn rescored(precision: Precision) -> usize {
    match precision {
        Precision::Int8 => 64,
        Precision::Int4 => 256,
        Precision::Binary => 1000,
    }
}

pub fn check(given: &Given, rows: &[(Document, Vec<f32>)], index: &Index) {
    index.check().unwrap();
    assert_eq!((index.rows(), index.dimension()), (rows.len(), given.dimension));
    for (row, (document, vector)) in rows.iter().enumerate() {
        assert_eq!(index.document(row).unwrap(), *document);
        if given.metric != Metric::Cosine {
            check_vector(vector, &index.vector(row).unwrap());
        }
    }
    let query = given.query();
    if !refused(given.metric, &query) {
        Isa::available().into_iter().for_each(|isa| check_search(given, index, &query, isa));
    }
    let words = Search { words: Some(&given.words), count: given.k, ..Search::default() };
    let hits = index.search(&CpuContext::new(Isa::detect(), 1), &words).unwrap();
    assert!(hits.is_sorted_by(|a, b| (b.score, a.row) < (a.score, b.row)), "{hits:?}");
}

fn check_vector(given: &[f32], stored: &[f32]) {
    let largest = given.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    // Subnormal numbers have fewer digits.
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= largest * HALF + f32::MIN_POSITIVE;
    assert!(given.iter().zip(stored).all(near), "{given:?} {stored:?}");
}

/// A row's score in float64, and the sum of magnitudes that went into it.
fn score(metric: Metric, query: &[f32], row: &[f32]) -> (f64, f64) {
    let sum = |a: &[f32], b: &[f32], of: fn(f64) -> f64| {
        a.iter().zip(b).map(|(a, b)| of(f64::from(*a) * f64::from(*b))).sum::<f64>()
    };
    let (dot, mass) = (sum(query, row, |v| v), sum(query, row, f64::abs));
    let (of_query, of_row) = (sum(query, query, |v| v), sum(row, row, |v| v));
    match metric {
        Metric::Cosine => ((dot / of_query.sqrt()).clamp(-1.0, 1.0), 1.0),
        Metric::Dot => (dot, mass),
        Metric::L2 => ((2.0 * dot - of_query - of_row).min(0.0), 2.0 * mass + of_query + of_row),
    }
}

fn check_search(given: &Given, index: &Index, query: &[f32], isa: Isa) {
    let vectors: Vec<Vec<f32>> = (0..index.rows()).map(|row| index.vector(row).unwrap()).collect();
    let all: Vec<((f64, f64), usize)> = vectors.iter().map(|v| score(given.metric, query, v)).zip(0..).collect();
    let largest = vectors.iter().flatten().fold(0.0f32, |m, v| m.max(v.abs()));
    let least = LEAST + 2.0 * query.len() as f64 * SUBNORMAL * f64::from(largest);
    let tolerance = all.iter().map(|((_, mass), _)| mass * SUM).fold(least, f64::max);
    let filter = given.below.map(filter);
    let search = Search { vector: Some(query), count: given.k, filter: filter.clone(), ..Search::default() };
    let hits = index.search(&CpuContext::new(isa, 1), &search).unwrap();
    let takes = |row: usize| filter.as_ref().is_none_or(|f| f.takes(&index.document(row).unwrap().metadata));
    let mut taken: Vec<f64> = all.iter().filter(|(_, row)| takes(*row)).map(|((score, _), _)| *score).collect();
    taken.sort_by(|a, b| b.total_cmp(a));
    let truncate_for_display = || format!("{:?} {:?} {} {hits:?} {taken:?} {query:?}", given.metric, given.precision, isa.as_str());
    assert_eq!(hits.len(), taken.len().min(given.k), "{}", truncate_for_display());
    assert!(hits.is_sorted_by(|a, b| (b.score, a.row) < (a.score, b.row)), "{}", truncate_for_display());
    let near = |hit: &Found, score: f64| (f64::from(hit.score) - score).abs() <= tolerance;
    assert!(hits.iter().all(|hit| takes(hit.row) && near(hit, all[hit.row].0.0)), "{}", truncate_for_display());
    if taken.len() <= rescored(given.precision) {
        assert!(hits.iter().zip(&taken).all(|(hit, score)| near(hit, *score)), "{}", truncate_for_display());
    }
}
