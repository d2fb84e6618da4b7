//! Exact search, compared with float64; limits; damaged files.

use crate::support::{by_vector, document, random};
use serde_json::{Map, Value, json};
use std::path::Path;
use tealight_core::{Error, ErrorKind};
use tealight_index::{
    Filter, Index, IndexBuilder, IndexDocument, MAX_NORM, Metric, ScanEncoding, SearchHit, SearchQuery,
};
use tealight_kernels::{CpuContext, Isa};

/// Minimum recall@10 on random vectors, the hardest case.
const RECALL: f64 = 0.995;
/// Maximum error of a score for vectors of unit norm.
const SCORE_ERROR: f64 = 2e-4;
const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::L2];
const ENCODINGS: [ScanEncoding; 3] = [ScanEncoding::Int8, ScanEncoding::Int4, ScanEncoding::Binary];

fn build(path: &Path, rows: &[f32], d: usize, metric: Metric, encoding: ScanEncoding) -> Index {
    let mut builder = IndexBuilder::new(None, d, metric, encoding).unwrap();
    rows.chunks_exact(d).enumerate().for_each(|(i, row)| builder.add(&document(i), row).unwrap());
    builder.write(path).unwrap();
    Index::open(path).unwrap()
}

/// Scores and rows of the top 10 in float64.
fn exact_top_10(rows: &[f32], query: &[f32], d: usize, metric: Metric) -> Vec<(f64, usize)> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>();
    let score = |row: &[f32]| match metric {
        Metric::Cosine => dot(row, query) / (dot(row, row) * dot(query, query)).sqrt(),
        Metric::Dot => dot(row, query),
        Metric::L2 => 2.0 * dot(row, query) - dot(row, row) - dot(query, query),
    };
    let mut all: Vec<_> = rows.chunks_exact(d).map(score).enumerate().map(|(i, s)| (s, i)).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    all.truncate(10);
    all
}

#[test]
fn search_finds_the_best_rows_of_float64() {
    let folder = tempfile::tempdir().unwrap();
    // Dimensions with a specialized loop and without, odd ones, and long vectors.
    for (d, count) in [(64, 3000), (384, 3000), (100, 2000), (7, 500), (1, 40), (1536, 300)] {
        let rows = random(count * d, d as u64);
        for (metric, encoding) in METRICS.map(|m| [(m, ScanEncoding::Int8), (m, ScanEncoding::Int4)]).concat() {
            let index = build(&folder.path().join("a.tlx"), &rows, d, metric, encoding);
            let (mut found, mut total) = (0, 0);
            for seed in 0..20 {
                let query = random(d, 1000 + seed);
                let expected = exact_top_10(&rows, &query, d, metric);
                let mut first: Option<Vec<SearchHit>> = None;
                for isa in Isa::available() {
                    for threads in [1, 3] {
                        let hits = index.search(&CpuContext::new(isa, threads), &by_vector(&query, 10)).unwrap();
                        let first = first.get_or_insert_with(|| hits.clone());
                        assert!(d == 1 || *first == hits, "{d} {metric:?} on {} x{threads}", isa.as_str());
                    }
                }
                let hits = first.unwrap();
                assert!(hits.is_sorted_by(|a, b| (b.score, a.row) <= (a.score, b.row)));
                // The norm of a random vector is about the root of its dimension.
                let scale = if metric == Metric::Cosine { 1.0 } else { 2.0 * d as f64 };
                for (hit, (score, _)) in hits.iter().zip(&expected) {
                    assert!((hit.score as f64 - score).abs() < SCORE_ERROR * scale, "{d} {metric:?}: {hit:?} {score}");
                }
                let is_expected = |hit: &SearchHit| {
                    expected.iter().any(|(s, row)| *row == hit.row || (s - hit.score as f64).abs() < 1e-6)
                };
                found += hits.iter().filter(|h| is_expected(h)).count();
                total += expected.len();
            }
            let recall = found as f64 / total as f64;
            println!("{d} {metric:?} {encoding:?}: recall {recall:.4}");
            assert!(recall >= RECALL, "{d} {metric:?} {encoding:?}: {recall}");
        }
    }
}

#[test]
fn binary_search_finds_the_row_that_the_query_resembles() {
    let folder = tempfile::tempdir().unwrap();
    let (d, count) = (384, 20_000);
    let rows = random(count * d, 5);
    let index = build(&folder.path().join("a.tlx"), &rows, d, Metric::Cosine, ScanEncoding::Binary);
    for row in 0..5 {
        let noise = random(d, 100 + row as u64);
        let query: Vec<f32> = rows[row * d..][..d].iter().zip(&noise).map(|(r, n)| r + 0.5 * n).collect();
        let hits = index.search(&CpuContext::new(Isa::detect(), 2), &by_vector(&query, 3)).unwrap();
        assert_eq!(hits[0].row, row);
        assert!((hits[0].score as f64 - exact_top_10(&rows, &query, d, Metric::Cosine)[0].0).abs() < SCORE_ERROR);
        assert_eq!(index.search(&CpuContext::new(Isa::Scalar, 1), &by_vector(&query, 3)).unwrap(), hits);
    }
}

/// Rows in clusters of ten around a common center, like the embeddings of a model.
fn clusters(count: usize, d: usize, center: &[f32]) -> Vec<f32> {
    let (topics, noise) = (random(count / 10 * d, 21), random(count * d, 22));
    (0..count * d).map(|i| center[i % d] + topics[i / d / 10 * d + i % d] + 0.5 * noise[i]).collect()
}

#[test]
fn binary_search_has_high_recall_for_clustered_and_shifted_rows() {
    let folder = tempfile::tempdir().unwrap();
    // A dimension with a specialized loop, and an odd one.
    for (d, count) in [(384, 4000), (100, 3000)] {
        for shift in [0.0, 3.0] {
            let center: Vec<f32> = random(d, 23).iter().map(|v| shift * v).collect();
            let rows = clusters(count, d, &center);
            for metric in METRICS {
                let index = build(&folder.path().join("a.tlx"), &rows, d, metric, ScanEncoding::Binary);
                let mut found = 0;
                for i in 0..20 {
                    let noise = random(d, 200 + i as u64);
                    // Also short queries: inner products and cosines order rows regardless of the query's norm.
                    let scale = if metric == Metric::L2 { 1.0 } else { 0.01 };
                    let row = &rows[7 * i * d..][..d];
                    let query: Vec<f32> = row.iter().zip(&noise).map(|(r, n)| scale * (r + 0.5 * n)).collect();
                    let expected = exact_top_10(&rows, &query, d, metric);
                    let hits = index.search(&CpuContext::new(Isa::detect(), 2), &by_vector(&query, 10)).unwrap();
                    for isa in Isa::available() {
                        let same = index.search(&CpuContext::new(isa, 1), &by_vector(&query, 10)).unwrap();
                        assert!(same == hits, "{d} {metric:?} on {}", isa.as_str());
                    }
                    found += hits.iter().filter(|hit| expected.iter().any(|(_, row)| *row == hit.row)).count();
                }
                let recall = found as f64 / 200.0;
                println!("{d} {metric:?} {shift}: recall {recall:.4}");
                assert!(recall >= 0.95, "{d} {metric:?} {shift}: {recall}");
            }
        }
    }
}

#[test]
fn rows_with_equal_scores_are_ordered_by_number() {
    let folder = tempfile::tempdir().unwrap();
    // More equal rows than are scored again, between others.
    let (d, count) = (40, 900);
    let (same, others) = (random(d, 31), random(count * d, 32));
    let is_same = |row: usize| row % 2 == 1;
    let rows: Vec<f32> =
        (0..count * d).map(|i| if is_same(i / d) { same[i % d] } else { others[i] / 8.0 - same[i % d] }).collect();
    let index = build(&folder.path().join("a.tlx"), &rows, d, Metric::Cosine, ScanEncoding::Binary);
    let expected: Vec<usize> = (0..count).filter(|row| is_same(*row)).take(25).collect();
    for isa in Isa::available() {
        for threads in 1..4 {
            let hits = index.search(&CpuContext::new(isa, threads), &by_vector(&same, 25)).unwrap();
            let found: Vec<usize> = hits.iter().map(|hit| hit.row).collect();
            assert_eq!(found, expected, "{} x{threads}", isa.as_str());
        }
    }
}

#[test]
fn binary_file_is_independent_of_how_rows_were_added() {
    let folder = tempfile::tempdir().unwrap();
    let (d, count) = (72, 100);
    let values = random(count * d, 41);
    let rows: Vec<&[f32]> = values.chunks_exact(d).collect();
    let path = |name: &str| folder.path().join(name);
    for metric in METRICS {
        let new = || IndexBuilder::new(None, d, metric, ScanEncoding::Binary).unwrap();
        let write = |name: &str, builder: IndexBuilder| {
            builder.write(&path(name)).unwrap();
            std::fs::read(path(name)).unwrap()
        };
        let with_rows = |range: std::ops::Range<usize>| {
            let mut builder = new();
            range.for_each(|row| builder.add(&document(row), rows[row]).unwrap());
            builder
        };
        let copied = |name: &str, range: std::ops::Range<usize>| {
            let (mut builder, index) = (new(), Index::open(&path(name)).unwrap());
            range.for_each(|row| builder.copy_row(&index, row).unwrap());
            builder
        };
        let (whole, part) = (write("whole.tlx", with_rows(0..count)), write("part.tlx", with_rows(0..37)));
        let mut added = copied("part.tlx", 0..37);
        (37..count).for_each(|row| added.add(&document(row), rows[row]).unwrap());
        assert!(write("added.tlx", added) == whole, "{metric:?}");
        assert!(write("deleted.tlx", copied("whole.tlx", 0..37)) == part, "{metric:?}");
    }
}

#[test]
fn binary_search_works_for_few_and_for_large_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tlx");
    let cpu = CpuContext::new(Isa::detect(), 2);
    let found = |rows: &[f32], metric: Metric, query: &[f32; 2]| -> Vec<usize> {
        let index = build(&path, rows, 2, metric, ScanEncoding::Binary);
        index.search(&cpu, &by_vector(query, 5)).unwrap().iter().map(|hit| hit.row).collect()
    };
    assert!(found(&[], Metric::Cosine, &[1.0, 0.0]).is_empty());
    for metric in METRICS {
        // The mean is the row itself, so the centered row is zero.
        assert_eq!(found(&[3.0, 4.0], metric, &[1.0, 0.0]), [0]);
    }
    assert_eq!(found(&[1e-16, -3e16, 2e16, 1e16, 0.0, 0.0], Metric::Dot, &[0.0, -1.0]), [0, 2, 1]);
}

#[test]
fn rows_and_queries_of_the_largest_norm_have_finite_scores() {
    let folder = tempfile::tempdir().unwrap();
    let max = MAX_NORM as f32;
    let rows = [max, -max, max / 2.0, 0.0];
    let cpu = CpuContext::new(Isa::detect(), 1);
    for encoding in ENCODINGS {
        for metric in METRICS {
            let rows = if metric == Metric::Cosine { &rows[..3] } else { &rows };
            let index = build(&folder.path().join("a.tlx"), rows, 1, metric, encoding);
            let hits = index.search(&cpu, &by_vector(&[max], 4)).unwrap();
            assert!(hits.iter().all(|hit| hit.score.is_finite()) && hits.len() == rows.len(), "{hits:?}");
            assert_eq!((hits[0].row, hits.last().unwrap().row), (0, 1), "{metric:?} {encoding:?}");
            let error = index.search(&cpu, &by_vector(&[2.0 * max], 4));
            assert_eq!(error.is_err(), metric != Metric::Cosine, "{error:?}");
        }
    }
}

/// An index of 1000 random rows with 64 dimensions.
fn index_of_1000_rows(folder: &Path) -> Index {
    let d = 64;
    build(&folder.join("a.tlx"), &random(1000 * d, 9), d, Metric::Cosine, ScanEncoding::Int8)
}

#[test]
fn filtered_search_returns_all_matching_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (index, cpu) = (index_of_1000_rows(folder.path()), CpuContext::new(Isa::detect(), 2));
    let query = random(64, 77);
    let all = index.search(&cpu, &by_vector(&query, 1000)).unwrap();
    assert_eq!(all.len(), 1000);
    for filter in [json!({"tags": "red"}), json!({"number": {"$lt": 7}}), json!({"number": 500}), json!({"number": -1})]
    {
        let filter = Filter::parse(&filter).unwrap();
        let hits =
            index.search(&cpu, &SearchQuery { filter: Some(filter.clone()), ..by_vector(&query, 1000) }).unwrap();
        let matching: Vec<_> = all.iter().filter(|hit| filter.matches(&hit.document.metadata)).cloned().collect();
        assert_eq!(hits, matching);
    }
    let min_score = Some(all[4].score);
    assert_eq!(index.search(&cpu, &SearchQuery { min_score, ..by_vector(&query, 10) }).unwrap(), all[..5]);
}

#[test]
fn lexical_search_ranks_rare_words_first() {
    let folder = tempfile::tempdir().unwrap();
    let (index, cpu) = (index_of_1000_rows(folder.path()), CpuContext::new(Isa::detect(), 2));
    let query = random(64, 77);
    // The only document with the rare word comes first, then those with the common word.
    let lexical = |text| SearchQuery { vector: None, lexical: Some(text), ..by_vector(&query, 5) };
    let hits = index.search(&cpu, &lexical("Number: 123 blue!")).unwrap();
    assert_eq!((hits[0].document.id.as_str(), hits.len()), ("d123", 5));
    assert!(hits[1..].iter().all(|hit| hit.document.text.starts_with("blue")));
    assert!(index.search(&cpu, &lexical("nothing like it")).unwrap().is_empty());
}

#[test]
fn hybrid_search_ranks_first_hits_of_both_lists_first() {
    let folder = tempfile::tempdir().unwrap();
    let (index, cpu) = (index_of_1000_rows(folder.path()), CpuContext::new(Isa::detect(), 2));
    let query = random(64, 77);
    let nearest = index.search(&cpu, &by_vector(&query, 1)).unwrap()[0].row;
    let hits = index.search(&cpu, &SearchQuery { lexical: Some("123"), ..by_vector(&query, 3) }).unwrap();
    assert!(hits[..2].iter().any(|h| h.row == 123) && hits[..2].iter().any(|h| h.row == nearest));
}

#[test]
fn search_beyond_limits_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let (index, cpu) = (index_of_1000_rows(folder.path()), CpuContext::new(Isa::detect(), 2));
    let query = random(64, 77);
    for (search, word) in [
        (by_vector(&query, 0), "k is 0"),
        (by_vector(&query, 1001), "1000"),
        (by_vector(&query[1..], 5), "63 dimensions; the index has 64"),
        (by_vector(&[f32::NAN; 64], 5), "NaN"),
        (by_vector(&[0.0; 64], 5), "zeros"),
        (SearchQuery { vector: None, ..by_vector(&query, 5) }, "neither"),
    ] {
        let error = index.search(&cpu, &search).unwrap_err();
        assert!(error.message.contains(word), "{word}: {error:?}");
    }
}

#[test]
fn invalid_vector_or_duplicate_id_is_an_error_that_names_the_document() {
    let mut builder = IndexBuilder::new(None, 3, Metric::Cosine, ScanEncoding::Int8).unwrap();
    builder.add(&document(1), &[1.0, 2.0, 3.0]).unwrap();
    for (id, vector, word) in [
        (1, &[1.0, 2.0, 3.0][..], "duplicate"),
        (2, &[1.0, 2.0], "2 dimensions; the index has 3"),
        (3, &[0.0, 0.0, 0.0], "zeros"),
        (4, &[0.0, f32::INFINITY, 0.0], "inf at position 1"),
    ] {
        let error = builder.add(&document(id), vector).unwrap_err();
        assert!(error.message.contains(word) && error.message.contains(&format!("d{id}")), "{error:?}");
    }
    assert_eq!(builder.rows(), 1);
    for metric in [Metric::Dot, Metric::L2] {
        let mut builder = IndexBuilder::new(None, 2, metric, ScanEncoding::Int8).unwrap();
        let error = builder.add(&document(5), &[-1e17, 1e17]).unwrap_err();
        assert!(["d5", "norm 1.41", "at most 1e17"].iter().all(|word| error.message.contains(word)), "{error:?}");
    }
    for d in [0, 1 << 20] {
        let error = IndexBuilder::new(None, d, Metric::Dot, ScanEncoding::Int8).unwrap_err();
        assert!(error.message.contains("65536"));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.tlx");
    IndexBuilder::new(None, 3, Metric::Cosine, ScanEncoding::Int8).unwrap().write(&path).unwrap();
    let index = Index::open(&path).unwrap();
    assert!(index.search(&CpuContext::new(Isa::detect(), 2), &by_vector(&[1.0, 0.0, 0.0], 5)).unwrap().is_empty());
}

#[test]
fn damaged_file_is_rejected_or_gives_the_same_results() {
    let folder = tempfile::tempdir().unwrap();
    let (d, count) = (64, 300);
    let rows = random(count * d, 3);
    let path = folder.path().join("a.tlx");
    let cpu = CpuContext::new(Isa::detect(), 1);
    let query = random(d, 4);
    for encoding in ENCODINGS {
        let expected = build(&path, &rows, d, Metric::Cosine, encoding).search(&cpu, &by_vector(&query, 5)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let damaged = folder.path().join("damaged.tlx");
        let search = |bytes: &[u8]| -> Result<Vec<SearchHit>, Error> {
            std::fs::write(&damaged, bytes).unwrap();
            let index = Index::open(&damaged)?;
            let hits = index.search(&cpu, &by_vector(&query, 5))?;
            index.verify().map(|()| hits)
        };
        assert_eq!(search(&whole).unwrap(), expected);
        let offsets = (0..700).chain((700..whole.len()).step_by(whole.len() / 200));
        for offset in offsets.filter(|offset| *offset < whole.len()) {
            let mut bytes = whole.clone();
            bytes[offset] ^= 0x41;
            match search(&bytes) {
                Err(error) => assert!(
                    error.kind == ErrorKind::IndexLoad && error.message.contains("damaged.tlx") || offset > 64,
                    "{offset}: {error:?}"
                ),
                // Only the padding between sections may have any value; header and body have checksums.
                Ok(hits) => assert!(hits == expected, "{offset}"),
            }
            let error = search(&whole[..offset]).unwrap_err();
            assert!(matches!(error.kind, ErrorKind::IndexLoad), "{offset}: {error:?}");
        }
        for version in [1, 3] {
            let mut other = whole.clone();
            other[8] = version;
            let message = search(&other).unwrap_err().message;
            assert!(message.contains(&format!("version {version}; expected 2")), "{message}");
        }
        assert!(search(&[&whole[..], &[0]].concat()).unwrap_err().message.contains("bytes; expected"));
        assert!(search(b"{\"id\": 1}").unwrap_err().message.contains("does not begin"));
    }
    assert_eq!(Index::open(&folder.path().join("none")).unwrap_err().kind, ErrorKind::Io);
}

#[test]
fn subnormal_values_are_stored_and_ordered() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [3.6e-43, 0.0, -1.4e-45, 0.0];
    for encoding in ENCODINGS {
        let index = build(&folder.path().join("a.tlx"), &rows, 2, Metric::Dot, encoding);
        let stored = [index.vector(0).unwrap(), index.vector(1).unwrap()].concat();
        assert!(stored.iter().zip(rows).all(|(a, b)| (a - b).abs() <= 1e-45), "{stored:?}");
        for isa in Isa::available() {
            for query in [[5e16, 5e16], [3.6e-43, 1e-45]] {
                let hits = index.search(&CpuContext::new(isa, 1), &by_vector(&query, 2)).unwrap();
                assert_eq!(hits.iter().map(|hit| hit.row).collect::<Vec<_>>(), [0, 1], "{query:?}");
            }
        }
    }
}

#[test]
fn negative_zero_scores_equal_zero() {
    let folder = tempfile::tempdir().unwrap();
    // Products that are 0 in float32, with different signs.
    let rows = [-1e-30, 1e-30, -1e-30];
    let index = build(&folder.path().join("a.tlx"), &rows, 1, Metric::Dot, ScanEncoding::Int8);
    let hits = index.search(&CpuContext::new(Isa::detect(), 1), &by_vector(&[1e-30], 3)).unwrap();
    assert_eq!(hits.iter().map(|h| (h.row, h.score.to_bits())).collect::<Vec<_>>(), [(0, 0), (1, 0), (2, 0)]);
}

#[test]
fn metadata_of_any_kind_round_trips() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tlx");
    let mut builder = IndexBuilder::new(Some("m".into()), 2, Metric::Dot, ScanEncoding::Int8).unwrap();
    let metadata: Map<String, Value> = [("big".to_string(), Value::String("ü".repeat(500_000)))].into_iter().collect();
    let document = IndexDocument { id: "ключ \"1\"\n".into(), text: String::new(), metadata };
    builder.add(&document, &[1e-16, -3e16]).unwrap();
    builder.write(&path).unwrap();
    let index = Index::open(&path).unwrap();
    let hits = index.search(&CpuContext::new(Isa::detect(), 1), &by_vector(&[0.0, -1.0], 1)).unwrap();
    assert!(hits[0].document == document && (hits[0].score / 3e16 - 1.0).abs() < 1e-3, "{}", hits[0].score);
    assert_eq!((index.model(), index.rows(), index.metric()), (Some("m"), 1, Metric::Dot));
}
