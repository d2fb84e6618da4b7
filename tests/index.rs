//! The index: searches against float64, its file, damaged in every way, the command line and `/search`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "support/numbers.rs"]
mod numbers;
mod support;

use numbers::random;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::process::{Command, Output};
use support::server::Server;
use tealight::{Error, ErrorKind};
use tealight_index::{Builder, Document, Filter, Found, Index, MOST_LENGTH, Metric, Precision, Search};
use tealight_kernels::CpuContext;
use tealight_kernels::Isa;

/// The least share of the true ten best that a search finds, of vectors of random numbers, which are the hardest.
const RECALL: f64 = 0.995;
/// The largest difference of a score to that in float64, for vectors of length 1.
const SCORE_ERROR: f64 = 2e-4;

fn document(id: usize) -> Document {
    let words = ["red", "green", "blue"][id % 3];
    let metadata = json!({"number": id, "tags": [words, "all"]});
    Document {
        id: format!("d{id}"),
        text: format!("{words} number {id}"),
        metadata: metadata.as_object().unwrap().clone(),
    }
}

fn built(path: &Path, rows: &[f32], d: usize, metric: Metric, precision: Precision) -> Index {
    let mut builder = Builder::new(None, d, metric, precision).unwrap();
    rows.chunks_exact(d).enumerate().for_each(|(i, row)| builder.add(&document(i), row).unwrap());
    builder.write(path).unwrap();
    Index::open(path).unwrap()
}

/// Score and row of the ten best in float64.
fn truth(rows: &[f32], query: &[f32], d: usize, metric: Metric) -> Vec<(f64, usize)> {
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

fn by(vector: &[f32], count: usize) -> Search<'_> {
    Search { vector: Some(vector), count, ..Search::default() }
}

#[test]
fn a_search_finds_the_best_of_float64() {
    let folder = tempfile::tempdir().unwrap();
    // With a loop of its own, with one for all, of no multiple of anything, and long ones.
    for (d, count) in [(64, 3000), (384, 3000), (100, 2000), (7, 500), (1, 40), (1536, 300)] {
        let rows = random(count * d, d as u64);
        let all =
            [Metric::Cosine, Metric::Dot, Metric::L2].map(|m| [(m, Precision::Int8), (m, Precision::Int4)]).concat();
        for (metric, precision) in all {
            let index = built(&folder.path().join("a.tlx"), &rows, d, metric, precision);
            let (mut found, mut all) = (0, 0);
            for seed in 0..20 {
                let query = random(d, 1000 + seed);
                let expected = truth(&rows, &query, d, metric);
                let mut first: Option<Vec<Found>> = None;
                for isa in Isa::available() {
                    for threads in [1, 3] {
                        let hits = index.search(&CpuContext::new(isa, threads), &by(&query, 10)).unwrap();
                        let same = first.get_or_insert_with(|| hits.clone());
                        assert!(d == 1 || *same == hits, "{d} {metric:?} on {} x{threads}", isa.as_str());
                    }
                }
                let hits = first.unwrap();
                assert!(hits.is_sorted_by(|a, b| (b.score, a.row) <= (a.score, b.row)));
                // Vectors of random numbers are about as long as the root of the dimension.
                let scale = if metric == Metric::Cosine { 1.0 } else { 2.0 * d as f64 };
                for (hit, (score, _)) in hits.iter().zip(&expected) {
                    assert!((hit.score as f64 - score).abs() < SCORE_ERROR * scale, "{d} {metric:?}: {hit:?} {score}");
                }
                let truly = |hit: &Found| {
                    expected.iter().any(|(s, row)| *row == hit.row || (s - hit.score as f64).abs() < 1e-6)
                };
                found += hits.iter().filter(|h| truly(h)).count();
                all += expected.len();
            }
            let recall = found as f64 / all as f64;
            println!("{d} {metric:?} {precision:?}: recall {recall:.4}");
            assert!(recall >= RECALL, "{d} {metric:?} {precision:?}: {recall}");
        }
    }
}

#[test]
fn signs_find_what_is_near() {
    let folder = tempfile::tempdir().unwrap();
    let (d, count) = (384, 20_000);
    let rows = random(count * d, 5);
    let index = built(&folder.path().join("a.tlx"), &rows, d, Metric::Cosine, Precision::Binary);
    for seed in 0..5 {
        // Near a row: what is asked of an index.
        let noise = random(d, 100 + seed);
        let query: Vec<f32> = rows[seed as usize * d..][..d].iter().zip(&noise).map(|(r, n)| r + 0.5 * n).collect();
        let hits = index.search(&CpuContext::new(Isa::detect(), 2), &by(&query, 3)).unwrap();
        assert_eq!(hits[0].row, seed as usize);
        assert!((hits[0].score as f64 - truth(&rows, &query, d, Metric::Cosine)[0].0).abs() < SCORE_ERROR);
        assert_eq!(index.search(&CpuContext::new(Isa::Scalar, 1), &by(&query, 3)).unwrap(), hits);
    }
}

/// Rows in clusters of ten around a common place, as a model's are.
fn clusters(count: usize, d: usize, place: &[f32]) -> Vec<f32> {
    let (topics, noise) = (random(count / 10 * d, 21), random(count * d, 22));
    (0..count * d).map(|i| place[i % d] + topics[i / d / 10 * d + i % d] + 0.5 * noise[i]).collect()
}

#[test]
fn signs_find_the_best_wherever_rows_lie() {
    let folder = tempfile::tempdir().unwrap();
    // With a loop of its own, and of no multiple of anything.
    for (d, count) in [(384, 4000), (100, 3000)] {
        for far in [0.0, 3.0] {
            let place: Vec<f32> = random(d, 23).iter().map(|v| far * v).collect();
            let rows = clusters(count, d, &place);
            for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
                let index = built(&folder.path().join("a.tlx"), &rows, d, metric, Precision::Binary);
                let mut found = 0;
                for seed in 0..20 {
                    let noise = random(d, 200 + seed);
                    // Short ones, too: products with them order rows as those with long ones do.
                    let scale = if metric == Metric::L2 { 1.0 } else { 0.01 };
                    let of = &rows[seed as usize * 7 * d..][..d];
                    let query: Vec<f32> = of.iter().zip(&noise).map(|(r, n)| scale * (r + 0.5 * n)).collect();
                    let expected = truth(&rows, &query, d, metric);
                    let hits = index.search(&CpuContext::new(Isa::detect(), 2), &by(&query, 10)).unwrap();
                    for isa in Isa::available() {
                        let same = index.search(&CpuContext::new(isa, 1), &by(&query, 10)).unwrap();
                        assert!(same == hits, "{d} {metric:?} on {}", isa.as_str());
                    }
                    found += hits.iter().filter(|hit| expected.iter().any(|(_, row)| *row == hit.row)).count();
                }
                let recall = found as f64 / 200.0;
                println!("{d} {metric:?} {far}: recall {recall:.4}");
                assert!(recall >= 0.95, "{d} {metric:?} {far}: {recall}");
            }
        }
    }
}

#[test]
fn of_rows_with_the_same_signs_the_earlier_come_first() {
    let folder = tempfile::tempdir().unwrap();
    // More equal rows than are scored in float, between others.
    let (d, count) = (40, 900);
    let (same, others) = (random(d, 31), random(count * d, 32));
    let is_same = |row: usize| row % 2 == 1;
    let rows: Vec<f32> =
        (0..count * d).map(|i| if is_same(i / d) { same[i % d] } else { others[i] / 8.0 - same[i % d] }).collect();
    let index = built(&folder.path().join("a.tlx"), &rows, d, Metric::Cosine, Precision::Binary);
    let expected: Vec<usize> = (0..count).filter(|row| is_same(*row)).take(25).collect();
    for isa in Isa::available() {
        for threads in 1..4 {
            let hits = index.search(&CpuContext::new(isa, threads), &by(&same, 25)).unwrap();
            let found: Vec<usize> = hits.iter().map(|hit| hit.row).collect();
            assert_eq!(found, expected, "{} x{threads}", isa.as_str());
        }
    }
}

#[test]
fn a_file_of_signs_does_not_depend_on_how_rows_came() {
    let folder = tempfile::tempdir().unwrap();
    let (d, count) = (72, 100);
    let values = random(count * d, 41);
    let rows: Vec<&[f32]> = values.chunks_exact(d).collect();
    let path = |name: &str| folder.path().join(name);
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let new = || Builder::new(None, d, metric, Precision::Binary).unwrap();
        let write = |name: &str, builder: Builder| {
            builder.write(&path(name)).unwrap();
            std::fs::read(path(name)).unwrap()
        };
        let of = |wanted: std::ops::Range<usize>| {
            let mut builder = new();
            wanted.for_each(|row| builder.add(&document(row), rows[row]).unwrap());
            builder
        };
        let copied = |name: &str, wanted: std::ops::Range<usize>| {
            let (mut builder, index) = (new(), Index::open(&path(name)).unwrap());
            wanted.for_each(|row| builder.copy(&index, row).unwrap());
            builder
        };
        let (whole, part) = (write("whole.tlx", of(0..count)), write("part.tlx", of(0..37)));
        let mut added = copied("part.tlx", 0..37);
        (37..count).for_each(|row| added.add(&document(row), rows[row]).unwrap());
        assert!(write("added.tlx", added) == whole, "{metric:?}");
        assert!(write("deleted.tlx", copied("whole.tlx", 0..37)) == part, "{metric:?}");
    }
}

#[test]
fn signs_of_few_rows_and_of_large_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tlx");
    let cpu = CpuContext::new(Isa::detect(), 2);
    let found = |rows: &[f32], metric: Metric, query: &[f32; 2]| -> Vec<usize> {
        let index = built(&path, rows, 2, metric, Precision::Binary);
        index.search(&cpu, &by(query, 5)).unwrap().iter().map(|hit| hit.row).collect()
    };
    assert!(found(&[], Metric::Cosine, &[1.0, 0.0]).is_empty());
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        // The mean is the row, and nothing is left of it.
        assert_eq!(found(&[3.0, 4.0], metric, &[1.0, 0.0]), [0]);
    }
    assert_eq!(found(&[1e-16, -3e16, 2e16, 1e16, 0.0, 0.0], Metric::Dot, &[0.0, -1.0]), [0, 2, 1]);
}

#[test]
fn the_longest_rows_are_found_by_the_longest_queries() {
    let folder = tempfile::tempdir().unwrap();
    let longest = MOST_LENGTH as f32;
    let rows = [longest, -longest, longest / 2.0, 0.0];
    let cpu = CpuContext::new(Isa::detect(), 1);
    for precision in [Precision::Int8, Precision::Int4, Precision::Binary] {
        for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
            let rows = if metric == Metric::Cosine { &rows[..3] } else { &rows };
            let index = built(&folder.path().join("a.tlx"), rows, 1, metric, precision);
            let hits = index.search(&cpu, &by(&[longest], 4)).unwrap();
            assert!(hits.iter().all(|hit| hit.score.is_finite()) && hits.len() == rows.len(), "{hits:?}");
            assert_eq!((hits[0].row, hits.last().unwrap().row), (0, 1), "{metric:?} {precision:?}");
            let error = index.search(&cpu, &by(&[2.0 * longest], 4));
            assert_eq!(error.is_err(), metric != Metric::Cosine, "{error:?}");
        }
    }
}

#[test]
fn filters_words_and_limits() {
    let folder = tempfile::tempdir().unwrap();
    let (d, count) = (64, 1000);
    let rows = random(count * d, 9);
    let index = built(&folder.path().join("a.tlx"), &rows, d, Metric::Cosine, Precision::Int8);
    let cpu = CpuContext::new(Isa::detect(), 2);
    let query = random(d, 77);
    let all = index.search(&cpu, &by(&query, 1000)).unwrap();
    assert_eq!(all.len(), 1000);
    // A filter gives what is left of everything, however little that is.
    for filter in [json!({"tags": "red"}), json!({"number": {"$lt": 7}}), json!({"number": 500}), json!({"number": -1})]
    {
        let filter = Filter::of(&filter).unwrap();
        let hits = index.search(&cpu, &Search { filter: Some(filter.clone()), ..by(&query, 1000) }).unwrap();
        let left: Vec<_> = all.iter().filter(|hit| filter.takes(&hit.document.metadata)).cloned().collect();
        assert_eq!(hits, left);
    }
    let least = all[4].score;
    assert_eq!(index.search(&cpu, &Search { min_score: Some(least), ..by(&query, 10) }).unwrap(), all[..5]);
    // The only one with the word comes first; then those that have a part of the text.
    let words = |text| Search { vector: None, words: Some(text), ..by(&query, 5) };
    let hits = index.search(&cpu, &words("Number: 123 blue!")).unwrap();
    assert_eq!((hits[0].document.id.as_str(), hits.len()), ("d123", 5));
    assert!(hits[1..].iter().all(|hit| hit.document.text.starts_with("blue")));
    assert!(index.search(&cpu, &words("nothing like it")).unwrap().is_empty());
    // Of both, what is first in one of the lists is ahead of what is in the middle of one.
    let hits = index.search(&cpu, &Search { words: Some("123"), ..by(&query, 3) }).unwrap();
    assert!(hits[..2].iter().any(|h| h.row == 123) && hits[..2].iter().any(|h| h.row == all[0].row));
    for (search, word) in [
        (by(&query, 0), "k is 0"),
        (by(&query, 1001), "1000"),
        (by(&query[1..], 5), "63 values, the index 64"),
        (by(&[f32::NAN; 64], 5), "NaN"),
        (by(&[0.0; 64], 5), "zeros"),
        (Search { vector: None, ..by(&query, 5) }, "neither"),
    ] {
        let error = index.search(&cpu, &search).unwrap_err();
        assert!(error.message.contains(word), "{word}: {error:?}");
    }
}

#[test]
fn what_an_index_cannot_hold_is_refused_by_document() {
    let mut builder = Builder::new(None, 3, Metric::Cosine, Precision::Int8).unwrap();
    builder.add(&document(1), &[1.0, 2.0, 3.0]).unwrap();
    for (id, vector, word) in [
        (1, &[1.0, 2.0, 3.0][..], "twice"),
        (2, &[1.0, 2.0], "2 values, the index 3"),
        (3, &[0.0, 0.0, 0.0], "zeros"),
        (4, &[0.0, f32::INFINITY, 0.0], "inf at 1"),
    ] {
        let error = builder.add(&document(id), vector).unwrap_err();
        assert!(error.message.contains(word) && error.message.contains(&format!("d{id}")), "{error:?}");
    }
    assert_eq!(builder.rows(), 1);
    for metric in [Metric::Dot, Metric::L2] {
        let error =
            Builder::new(None, 2, metric, Precision::Int8).unwrap().add(&document(5), &[-1e17, 1e17]).unwrap_err();
        assert!(["d5", "length 1.41", "at most 1e17"].iter().all(|word| error.message.contains(word)), "{error:?}");
    }
    for d in [0, 1 << 20] {
        assert!(Builder::new(None, d, Metric::Dot, Precision::Int8).unwrap_err().message.contains("65536"));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.tlx");
    Builder::new(None, 3, Metric::Cosine, Precision::Int8).unwrap().write(&path).unwrap();
    let index = Index::open(&path).unwrap();
    assert!(index.search(&CpuContext::new(Isa::detect(), 2), &by(&[1.0, 0.0, 0.0], 5)).unwrap().is_empty());
}

#[test]
fn a_damaged_file_is_refused_or_gives_what_it_gave() {
    let folder = tempfile::tempdir().unwrap();
    let (d, count) = (64, 300);
    let rows = random(count * d, 3);
    let path = folder.path().join("a.tlx");
    let cpu = CpuContext::new(Isa::detect(), 1);
    let query = random(d, 4);
    for precision in [Precision::Int8, Precision::Int4, Precision::Binary] {
        let expected = built(&path, &rows, d, Metric::Cosine, precision).search(&cpu, &by(&query, 5)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let damaged = folder.path().join("damaged.tlx");
        let search = |bytes: &[u8]| -> Result<Vec<Found>, Error> {
            std::fs::write(&damaged, bytes).unwrap();
            let index = Index::open(&damaged)?;
            let hits = index.search(&cpu, &by(&query, 5))?;
            index.check().map(|()| hits)
        };
        assert_eq!(search(&whole).unwrap(), expected);
        let places = (0..700).chain((700..whole.len()).step_by(whole.len() / 200));
        for at in places.filter(|at| *at < whole.len()) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x41;
            match search(&bytes) {
                Err(error) => assert!(
                    error.kind == ErrorKind::IndexLoad && error.message.contains("damaged.tlx") || at > 64,
                    "{at}: {error:?}"
                ),
                // Zeros between sections may be anything; the header's and the body's are checked.
                Ok(hits) => assert!(hits == expected, "{at}"),
            }
            let error = search(&whole[..at]).unwrap_err();
            assert!(matches!(error.kind, ErrorKind::IndexLoad), "{at}: {error:?}");
        }
        for version in [1, 3] {
            let mut other = whole.clone();
            other[8] = version;
            let told = search(&other).unwrap_err().message;
            assert!(told.contains(&format!("version {version}, this tealight reads 2")), "{told}");
        }
        assert!(search(&[&whole[..], &[0]].concat()).unwrap_err().message.contains("bytes, expected"));
        assert!(search(b"{\"id\": 1}").unwrap_err().message.contains("does not begin"));
    }
    assert_eq!(Index::open(&folder.path().join("none")).unwrap_err().kind, ErrorKind::Io);
}

#[test]
fn subnormal_numbers_are_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [3.6e-43, 0.0, -1.4e-45, 0.0];
    for precision in [Precision::Int8, Precision::Int4, Precision::Binary] {
        let index = built(&folder.path().join("a.tlx"), &rows, 2, Metric::Dot, precision);
        let stored = [index.vector(0).unwrap(), index.vector(1).unwrap()].concat();
        assert!(stored.iter().zip(rows).all(|(a, b)| (a - b).abs() <= 1e-45), "{stored:?}");
        for isa in Isa::available() {
            for query in [[5e16, 5e16], [3.6e-43, 1e-45]] {
                let hits = index.search(&CpuContext::new(isa, 1), &by(&query, 2)).unwrap();
                assert_eq!(hits.iter().map(|hit| hit.row).collect::<Vec<_>>(), [0, 1], "{query:?}");
            }
        }
    }
}

#[test]
fn no_score_is_less_than_another_zero() {
    let folder = tempfile::tempdir().unwrap();
    // Products that are nothing in float32, but for their sign.
    let index = built(&folder.path().join("a.tlx"), &[-1e-30, 1e-30, -1e-30], 1, Metric::Dot, Precision::Int8);
    let hits = index.search(&CpuContext::new(Isa::detect(), 1), &by(&[1e-30], 3)).unwrap();
    assert_eq!(hits.iter().map(|h| (h.row, h.score.to_bits())).collect::<Vec<_>>(), [(0, 0), (1, 0), (2, 0)]);
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tealight")).args(arguments).output().unwrap()
}

fn good(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn bad(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

const DOCUMENTS: [(&str, &str, i32); 4] = [
    ("tide", "The tide was coming in, and the boats in the harbour began to float.", 1961),
    ("rates", "Interest rates rose by half a point after the meeting of the central bank.", 1979),
    ("cat", "A cat sat on the warm stones of the wall and slept.", 1985),
    ("bread", "Mix flour, water, salt and yeast, and let the dough rest for an hour.", 2001),
];

fn lines(documents: &[(&str, &str, i32)]) -> String {
    let line = |(id, text, year): &(&str, &str, i32)| {
        json!({"id": id, "text": text, "metadata": {"year": year}}).to_string() + "\n"
    };
    documents.iter().map(line).collect()
}

#[test]
fn the_command_line_builds_searches_and_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (input, file) = (path("docs.jsonl"), path("docs.tlx"));
    std::fs::write(&input, lines(&DOCUMENTS[..3])).unwrap();
    assert_eq!(good(&["index", "build", &input, "-o", &file]), format!("{file}: 3 documents\n"));
    let search = |more: &[&str]| -> Vec<Value> {
        let out = good(&[&["index", "search", &file, "--format", "json"], more].concat());
        out.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    let ids =
        |more: &[&str]| search(more).iter().map(|hit| hit["id"].as_str().unwrap().to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&["a pet asleep", "-k", "1"]), ["cat"]);
    assert_eq!(ids(&["inflation and banks", "-k", "1"]), ["rates"]);
    assert_eq!(ids(&["a pet asleep", "--filter", r#"{"year": {"$lt": 1970}}"#]), ["tide"]);
    assert_eq!(ids(&["harbour", "--mode", "words"]), ["tide"]);
    assert_eq!(ids(&["cat bank", "--mode", "hybrid", "-k", "3"]).len(), 3);
    let first = &search(&["sea"])[0];
    assert!(first["score"].as_f64().unwrap() > 0.1 && first["metadata"] == json!({"year": 1961}), "{first}");
    assert!(good(&["index", "search", &file, "sea", "-k", "1"]).contains("tide  The tide"));
    let before = search(&["sea"]);
    // One document is new, one replaced; the scores of the others stay.
    std::fs::write(&input, lines(&[DOCUMENTS[3], ("cat", "A dog barked all night.", 1)])).unwrap();
    assert!(good(&["index", "add", &file, &input]).contains("4 documents"));
    assert_eq!(ids(&["cooking", "-k", "1"]), ["bread"]);
    assert_eq!(ids(&["a hound", "-k", "1"]), ["cat"]);
    assert_eq!(search(&["sea"])[0], before[0]);
    assert!(bad(&["index", "delete", &file, "cat", "none"]).contains("1 of 2 ids"));
    assert!(good(&["index", "delete", &file, "cat", "bread"]).contains("2 documents"));
    assert_eq!(ids(&["a hound", "-k", "5"]).len(), 2);
    let about: Value = serde_json::from_str(&good(&["index", "info", &file])).unwrap();
    assert_eq!(
        about,
        json!({
            "model": "all-MiniLM-L6-v2", "documents": 2, "dimension": 384, "metric": "cosine", "precision": "int8",
            "graph": false
        })
    );
    // What is wrong is said, and what was there stays.
    let model = path("other.gguf");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/tiny-bert-f32.gguf"), &model)
        .unwrap();
    assert!(bad(&["index", "search", &file, "sea", "--model", &model]).contains("built with \"all-MiniLM-L6-v2\""));
    for (text, word) in [
        ("{\"id\": [1], \"text\": \"a\"}", "id is [1]"),
        ("{\"id\": 1}", "no text"),
        ("{\"id\": 1, \"text\": \"a\", \"colour\": 1}", "colour"),
        ("not JSON", "line 1"),
        ("{\"id\": 1, \"text\": \"a\"}\n{\"id\": \"1\", \"text\": \"b\"}", "twice"),
        ("{\"id\": 1, \"text\": \"a\"}\n{\"id\": 2, \"embedding\": [1.0]}", "some documents have an embedding"),
        ("{\"id\": 1, \"embedding\": [1, 2]}\n{\"id\": 2, \"embedding\": [1, 2, 3]}", "3 values, the index 2"),
    ] {
        std::fs::write(&input, text).unwrap();
        let told = bad(&["index", "build", &input, "-o", &file]);
        assert!(told.contains(word), "{word}: {told}");
    }
    assert_eq!(ids(&["sea"]).len(), 2);
    assert!(bad(&["index", "search", &file, "sea", "--filter", "{"]).contains("filter is not JSON"));
    // Vectors from outside need no model, and have none.
    let given = |id: usize, vector: [f32; 2]| json!({"id": id, "text": "x", "embedding": vector}).to_string();
    std::fs::write(&input, [given(1, [1.0, 0.0]), given(2, [0.0, 2.0])].join("\n")).unwrap();
    good(&["index", "build", &input, "-o", &file, "--metric", "l2", "--precision", "binary"]);
    assert!(bad(&["index", "search", &file, "x"]).contains("vectors from outside"));
    assert_eq!(ids(&["x", "--mode", "words"]), ["1", "2"]);
    // Those that a model has made, who says so; of a model that makes longer ones the beginning.
    good(&["index", "build", &input, "-o", &file, "--model", "all-MiniLM-L6-v2"]);
    assert_eq!(ids(&["x"]).len(), 2);
    let long = json!({"id": 1, "text": "x", "embedding": vec![0.5; 385]}).to_string();
    std::fs::write(&input, long).unwrap();
    let told = bad(&["index", "build", &input, "-o", &file, "--model", "all-MiniLM-L6-v2"]);
    assert!(told.contains("385 values") && told.contains("384"), "{told}");
}

#[test]
fn folders_and_long_documents_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes");
    let file = folder.path().join("notes.tlx").display().to_string();
    std::fs::create_dir_all(notes.join("deep/.git")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(notes.join(name), text).unwrap();
    let filler = "Nothing of any interest was said in the meeting. ".repeat(60);
    let long = format!("{filler}\n\nThe library card has to be renewed in spring.\n");
    write("long.md", &long);
    write(
        "deep/table.csv",
        "id,text,year\nsoup,Simmer the lentils for twenty minutes.,1990\n,The engine needs oil.,\n",
    );
    write("deep/lines.jsonl", "\n{\"text\": \"Beans are sown in May.\"}\n");
    write("blank.txt", " \n");
    write("deep/.git/config.md", "hidden");
    write("song.mp3", "no recording");
    write("picture.png", "no text");
    std::os::unix::fs::symlink(&notes, notes.join("deep/again")).unwrap();
    let at = notes.display().to_string();
    let search = |query: &str| -> Vec<Value> {
        let out = good(&["index", "search", &file, query, "--format", "json", "-k", "100"]);
        out.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    good(&["index", "build", &at, "-o", &file, "--chunk-tokens", "64", "--chunk-overlap", "16"]);
    let hits = search("where is the library card renewed?");
    let best = &hits[0];
    let document = format!("{at}/long.md");
    let number = best["metadata"]["chunk"].as_u64().unwrap();
    assert!(number > 5 && best["id"] == format!("{document}#{number}") && best["metadata"]["document_id"] == document);
    // A part says where it stands, in characters.
    let characters: Vec<char> = long.chars().collect();
    for hit in hits.iter().filter(|hit| hit["metadata"]["document_id"] == document) {
        let [start, end] = ["start", "end"].map(|name| hit["metadata"][name].as_u64().unwrap() as usize);
        assert_eq!(hit["text"], characters[start..end].iter().collect::<String>());
    }
    let mut others: Vec<_> = hits.iter().filter(|hit| hit["metadata"]["document_id"].is_null()).collect();
    others.sort_by_key(|hit| hit["id"].to_string());
    let expected = [format!("{at}/deep/lines.jsonl:2"), format!("{at}/deep/table.csv:2"), "soup".into()];
    assert_eq!(others.iter().map(|hit| hit["id"].as_str().unwrap()).collect::<Vec<_>>(), expected);
    assert_eq!(others[2]["metadata"], json!({"year": "1990"}));
    // A document is replaced, and taken out, with all its parts.
    write("long.md", "It is short now.");
    let count = hits.len();
    let parts = count - others.len();
    good(&["index", "add", &file, &document]);
    let hits = search("short");
    assert_eq!((hits.len(), hits[0]["id"].as_str()), (count - parts + 1, Some(&document[..])));
    write("long.md", &long);
    good(&["index", "add", &file, &document]);
    assert!(search("short").len() > 4);
    good(&["index", "delete", &file, &document, "soup"]);
    assert_eq!(search("anything").len(), 2);
    // What stays as it was when something is wrong.
    assert!(bad(&["index", "build", &format!("{at}/blank.txt"), "-o", &file]).contains("blank.txt: document 1"));
    assert!(
        bad(&["index", "build", &format!("{at}/deep/.git"), &at, "-o", &file, "--chunk-tokens", "9999"])
            .contains("9999")
    );
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(bad(&["index", "build", &empty.display().to_string(), "-o", &file]).contains("no files of documents"));
    let twice = json!({"id": document, "text": long}).to_string();
    write("deep/lines.jsonl", &twice);
    assert!(bad(&["index", "build", &at, "-o", &file]).contains("twice"));
    assert_eq!(search("anything").len(), 2);
}

#[test]
fn what_embed_has_written_is_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (input, rows, file) = (path("docs.jsonl"), path("rows.jsonl"), path("docs.tlx"));
    let long = "The tide was coming in. ".repeat(40);
    std::fs::write(&input, json!({"id": "sea", "text": long, "metadata": {"year": 1961}}).to_string()).unwrap();
    good(&["embed", "--input", &input, "--format", "jsonl", "--chunk-tokens", "64", "-o", &rows]);
    good(&["index", "build", &rows, "-o", &file, "--model", "all-MiniLM-L6-v2"]);
    let hit: Value =
        serde_json::from_str(&good(&["index", "search", &file, "ebb", "-k", "1", "--format", "json"])).unwrap();
    assert_eq!((&hit["metadata"]["document_id"], &hit["metadata"]["year"]), (&"sea".into(), &1961.into()));
    assert!(hit["metadata"]["end"].as_u64() > hit["metadata"]["start"].as_u64());
}

#[test]
fn the_function_answers_from_its_index() {
    let folder = tempfile::tempdir().unwrap();
    let (input, file) = (folder.path().join("docs.jsonl"), folder.path().join("docs.tlx"));
    std::fs::write(&input, lines(&DOCUMENTS)).unwrap();
    let file = file.display().to_string();
    good(&["index", "build", &input.display().to_string(), "-o", &file]);
    let server = Server::start(&[("TEALIGHT_INDEX", &file)]);
    let reply =
        server.expect_success("/search", json!({"query": "a pet asleep", "k": 2, "filter": {"year": {"$gte": 1970}}}));
    assert_eq!((reply["model"].as_str(), reply["results"].as_array().unwrap().len()), (Some("all-MiniLM-L6-v2"), 2));
    assert_eq!((&reply["results"][0]["id"], &reply["results"][0]["metadata"]), (&"cat".into(), &json!({"year": 1985})));
    let vector = &server.expect_success("/v1/embeddings", json!({"input": "a pet asleep"}))["data"][0]["embedding"];
    let same =
        server.expect_success("/search", json!({"vector": vector, "top_k": 2, "filter": {"year": {"$gte": 1970}}}));
    assert_eq!((&same["results"][0]["id"], &same["model"]), (&"cat".into(), &Value::Null));
    let close = |a: &Value, b: &Value| (a["score"].as_f64().unwrap() - b["score"].as_f64().unwrap()).abs() < 1e-5;
    assert!(close(&same["results"][0], &reply["results"][0]));
    assert_eq!(
        server.expect_success("/search", json!({"query": "yeast", "mode": "words"}))["results"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    for (body, param, word) in [
        (json!({}), "query", "neither"),
        (json!({"query": "  "}), "query", "neither"),
        (json!({"query": "a", "k": 0}), "k", "1 to 1000"),
        (json!({"query": "a", "mode": "magic"}), "mode", "hybrid"),
        (json!({"query": "a", "filter": {"$near": 1}}), "filter", "$near"),
        (json!({"vector": [1.0, 2.0]}), "vector", "384"),
        (json!({"query": 7}), "query", "string"),
    ] {
        let reply = server.post("/search", body.to_string());
        let error = &reply.json()["error"];
        assert!(reply.status() == 400 && error["param"] == param, "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(word), "{body}: {error}");
    }
    let none = Server::start(&[]);
    let reply = none.post("/search", r#"{"query": "a"}"#);
    assert_eq!((reply.status(), reply.json()["error"]["code"].as_str()), (404, Some("index_not_found")));
    std::fs::write(&file, "TLINDEX\nand more, but no index at all, as long as a preamble must be......").unwrap();
    let damaged = Server::start(&[("TEALIGHT_INDEX", &file)]);
    let reply = damaged.post("/search", r#"{"query": "a"}"#);
    assert_eq!((reply.status(), reply.json()["error"]["code"].as_str()), (500, Some("index_load_failed")));
}

#[test]
fn metadata_of_any_kind_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tlx");
    let mut builder = Builder::new(Some("m".into()), 2, Metric::Dot, Precision::Int8).unwrap();
    let metadata: Map<String, Value> = [("big".to_string(), Value::String("ü".repeat(500_000)))].into_iter().collect();
    let whole = Document { id: "ключ \"1\"\n".into(), text: String::new(), metadata };
    builder.add(&whole, &[1e-16, -3e16]).unwrap();
    builder.write(&path).unwrap();
    let index = Index::open(&path).unwrap();
    let hits = index.search(&CpuContext::new(Isa::detect(), 1), &by(&[0.0, -1.0], 1)).unwrap();
    assert!(hits[0].document == whole && (hits[0].score / 3e16 - 1.0).abs() < 1e-3, "{}", hits[0].score);
    assert_eq!((index.model(), index.rows(), index.metric()), (Some("m"), 1, Metric::Dot));
}
