//! What an intact index must return: what was added, and the best rows in float64.

use crate::input::{IndexInput, filter, is_invalid};
use tealight_index::{Index, IndexDocument, Metric, SearchHit, SearchQuery};
use tealight_kernels::{CpuContext, Isa};

/// Relative error of float16, as a share of the largest value of the row.
const F16_ERROR: f32 = 1.0 / 1024.0;
/// Error of a float32 sum, as a share of the sum of magnitudes.
const SUM_ERROR: f64 = 1e-4;
/// Smaller products vanish in float32.
const MIN_PRODUCT: f64 = 1e-36;
/// The smallest difference of float32 numbers: the error of a product before it is multiplied by the row's scale.
const MIN_DIFFERENCE: f64 = 1.5e-45;

pub fn check(input: &IndexInput, rows: &[(IndexDocument, Vec<f32>)], index: &Index) {
    index.verify().unwrap();
    assert_eq!((index.rows(), index.dimension()), (rows.len(), input.dimension));
    for (row, (document, vector)) in rows.iter().enumerate() {
        assert_eq!(index.document(row).unwrap(), *document);
        if input.metric != Metric::Cosine {
            check_vector(vector, &index.vector(row).unwrap());
        }
    }
    let query = input.query();
    if !is_invalid(input.metric, &query) {
        Isa::available().into_iter().for_each(|isa| check_search(input, index, &query, isa));
    }
    let search = SearchQuery { lexical: Some(&input.words), top_k: input.top_k, ..SearchQuery::default() };
    let hits = index.search(&CpuContext::new(Isa::detect(), 1), &search).unwrap();
    assert!(hits.is_sorted_by(|a, b| (b.score, a.row) < (a.score, b.row)), "{hits:?}");
}

fn check_vector(added: &[f32], stored: &[f32]) {
    let max_abs = added.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    // Subnormal numbers have fewer digits.
    let is_close = |(a, b): (&f32, &f32)| (a - b).abs() <= max_abs * F16_ERROR + f32::MIN_POSITIVE;
    assert!(added.iter().zip(stored).all(is_close), "{added:?} {stored:?}");
}

/// The score of a row in float64, and the sum of the magnitudes in it.
fn score(metric: Metric, query: &[f32], row: &[f32]) -> (f64, f64) {
    let sum = |a: &[f32], b: &[f32], f: fn(f64) -> f64| {
        a.iter().zip(b).map(|(a, b)| f(f64::from(*a) * f64::from(*b))).sum::<f64>()
    };
    let (dot, magnitude) = (sum(query, row, |v| v), sum(query, row, f64::abs));
    let (query_square, row_square) = (sum(query, query, |v| v), sum(row, row, |v| v));
    match metric {
        Metric::Cosine => ((dot / query_square.sqrt()).clamp(-1.0, 1.0), 1.0),
        Metric::Dot => (dot, magnitude),
        Metric::L2 => ((2.0 * dot - query_square - row_square).min(0.0), 2.0 * magnitude + query_square + row_square),
    }
}

fn check_search(input: &IndexInput, index: &Index, query: &[f32], isa: Isa) {
    let vectors: Vec<Vec<f32>> = (0..index.rows()).map(|row| index.vector(row).unwrap()).collect();
    let all: Vec<((f64, f64), usize)> = vectors.iter().map(|v| score(input.metric, query, v)).zip(0..).collect();
    let max_abs = vectors.iter().flatten().fold(0.0f32, |m, v| m.max(v.abs()));
    let min_tolerance = MIN_PRODUCT + 2.0 * query.len() as f64 * MIN_DIFFERENCE * f64::from(max_abs);
    let tolerance = all.iter().map(|((_, magnitude), _)| magnitude * SUM_ERROR).fold(min_tolerance, f64::max);
    let filter = input.number_below.map(filter);
    let search =
        SearchQuery { vector: Some(query), top_k: input.top_k, filter: filter.clone(), ..SearchQuery::default() };
    let hits = index.search(&CpuContext::new(isa, 1), &search).unwrap();
    let is_match = |row: usize| filter.as_ref().is_none_or(|f| f.matches(&index.document(row).unwrap().metadata));
    let mut expected: Vec<f64> = all.iter().filter(|(_, row)| is_match(*row)).map(|((score, _), _)| *score).collect();
    expected.sort_by(|a, b| b.total_cmp(a));
    let state = || format!("{:?} {:?} {} {hits:?} {expected:?} {query:?}", input.metric, input.encoding, isa.as_str());
    assert_eq!(hits.len(), expected.len().min(input.top_k), "{}", state());
    assert!(hits.is_sorted_by(|a, b| (b.score, a.row) < (a.score, b.row)), "{}", state());
    let is_close = |hit: &SearchHit, score: f64| (f64::from(hit.score) - score).abs() <= tolerance;
    assert!(hits.iter().all(|hit| is_match(hit.row) && is_close(hit, all[hit.row].0.0)), "{}", state());
    // With so few rows, all of them are scored again in float16, so that the search is exact.
    if expected.len() <= input.encoding.min_candidates() {
        assert!(hits.iter().zip(&expected).all(|(hit, score)| is_close(hit, *score)), "{}", state());
    }
}
