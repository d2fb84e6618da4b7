//! Graphs of neighbours: against the exact search, damaged in every way, and by the command line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![cfg(feature = "graph")]

#[path = "support/numbers.rs"]
mod numbers;

use numbers::random;
use serde_json::json;
use std::path::Path;
use std::process::{Command, Output};
use tealight::ErrorKind;
use tealight_index::{Builder, Document, Filter, Found, Index, Metric, Precision, Search};
use tealight_kernels::CpuContext;
use tealight_kernels::Isa;

/// The least share of what the exact search finds that a graph finds, of vectors in clusters; and by products of vectors that are not of
/// one length, of which the long ones are near to all.
const RECALL: f64 = 0.98;
const RECALL_DOT: f64 = 0.9;
const D: usize = 64;

/// Rows about a hundred centres.
fn clustered(count: usize, seed: u64) -> Vec<f32> {
    let (centres, mut rows) = (random(100 * D, 1), random(count * D, seed));
    for (i, row) in rows.chunks_exact_mut(D).enumerate() {
        row.iter_mut().zip(&centres[i * 37 % 100 * D..]).for_each(|(v, c)| *v = 0.5 * *v + c);
    }
    rows
}

fn document(id: usize) -> Document {
    let metadata = json!({"number": id, "third": id % 3}).as_object().unwrap().clone();
    Document { id: format!("d{id}"), text: format!("number {id}"), metadata }
}

fn built(path: &Path, rows: &[f32], metric: Metric) -> Index {
    let mut builder = Builder::new(None, D, metric, Precision::Int8).unwrap();
    rows.chunks_exact(D).enumerate().for_each(|(i, row)| builder.add(&document(i), row).unwrap());
    builder.link(&CpuContext::new(Isa::detect(), 2)).unwrap();
    builder.write(path).unwrap();
    Index::open(path).unwrap()
}

fn by(vector: &[f32], count: usize) -> Search<'_> {
    Search { vector: Some(vector), count, ..Search::default() }
}

fn exactly(search: &Search, index: &Index, cpu: &CpuContext) -> Vec<Found> {
    index.search(cpu, &Search { exact: true, ..search.clone() }).unwrap()
}

/// How many of the expected hits are found, with their scores.
fn common(hits: &[Found], expected: &[Found]) -> usize {
    hits.iter().filter(|hit| expected.contains(hit)).count()
}

#[test]
fn a_graph_finds_nearly_what_the_exact_search_finds() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, queries, cpu) = (clustered(20_000, 2), clustered(50, 3), CpuContext::new(Isa::detect(), 2));
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let index = built(&folder.path().join("a.tlx"), &rows, metric);
        assert!(index.has_graph());
        for (filter, count) in [(None, 10), (None, 1000), (Some(json!({"third": 1})), 10)] {
            let filter = filter.map(|filter| Filter::of(&filter).unwrap());
            let (mut found, mut all, mut same) = (0, 0, 0);
            for query in queries.chunks_exact(D) {
                let search = Search { filter: filter.clone(), ..by(query, count) };
                let (hits, expected) = (index.search(&cpu, &search).unwrap(), exactly(&search, &index, &cpu));
                assert_eq!(hits.len(), count);
                assert!(hits.is_sorted_by(|a, b| (b.score, a.row) < (a.score, b.row)));
                assert!(hits.iter().all(|hit| filter.as_ref().is_none_or(|f| f.takes(&hit.document.metadata))));
                assert_eq!(index.search(&CpuContext::new(Isa::Scalar, 1), &search).unwrap(), hits);
                found += common(&hits, &expected);
                all += count;
                same += usize::from(hits == expected);
            }
            let recall = found as f64 / all as f64;
            println!("{metric:?} {count}, filter: {}: recall {recall:.4}, the same: {same}", filter.is_some());
            assert!(recall >= if metric == Metric::Dot { RECALL_DOT } else { RECALL }, "{metric:?} {recall}");
        }
    }
}

#[test]
fn what_a_graph_cannot_find_is_searched_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, cpu) = (clustered(5000, 4), CpuContext::new(Isa::detect(), 1));
    let index = built(&folder.path().join("a.tlx"), &rows, Metric::Cosine);
    let query = &clustered(1, 5)[..D];
    for filter in [json!({"number": 4321}), json!({"number": {"$lt": 7}}), json!({"number": -1})] {
        let filter = Some(Filter::of(&filter).unwrap());
        let search = Search { filter, ..by(query, 10) };
        assert_eq!(index.search(&cpu, &search).unwrap(), exactly(&search, &index, &cpu));
    }
    let least = exactly(&by(query, 10), &index, &cpu)[4].score;
    assert_eq!(index.search(&cpu, &Search { min_score: Some(least), ..by(query, 10) }).unwrap().len(), 5);
    let error = index.search(&cpu, &by(&query[1..], 10)).unwrap_err();
    assert!(error.message.contains("63 values, the index 64"), "{error:?}");
    // Fewer rows than are scored in float, and none.
    for count in [0, 1, 300] {
        let index = built(&folder.path().join("b.tlx"), &rows[..count * D], Metric::L2);
        assert_eq!(index.search(&cpu, &by(query, 10)).unwrap(), exactly(&by(query, 10), &index, &cpu));
    }
}

/// Searches at once, more than there may be in a graph.
#[test]
fn searches_beside_each_other_find_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let index = built(&folder.path().join("a.tlx"), &clustered(3000, 6), Metric::Cosine);
    let query = &clustered(1, 7)[..D];
    let search = || index.search(&CpuContext::new(Isa::detect(), 1), &by(query, 5)).unwrap();
    let expected = search();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..300).map(|_| scope.spawn(search)).collect();
        all.into_iter().for_each(|one| assert_eq!(one.join().unwrap(), expected));
    });
}

/// Where a part of the file begins and ends.
fn place(file: &[u8], part: &str) -> std::ops::Range<usize> {
    let length = u32::from_le_bytes(*file[12..].first_chunk().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&file[64..64 + length]).unwrap();
    let sections = header["sections"].as_array().unwrap();
    let number = |section: &serde_json::Value, at: usize| section[at].as_u64().unwrap() as usize;
    let body = file.len() - sections.last().map(|last| number(last, 1) + number(last, 2)).unwrap();
    let section = sections.iter().find(|section| section[0] == part).unwrap();
    body + number(section, 1)..body + number(section, 1) + number(section, 2)
}

/// The file with checksums of what is in it.
fn summed(mut file: Vec<u8>) -> Vec<u8> {
    let length = u32::from_le_bytes(*file[12..].first_chunk().unwrap()) as usize;
    let body = place(&file, "codes").start;
    let sums: Vec<u8> = file[body..].chunks(1 << 16).flat_map(|piece| crc32fast::hash(piece).to_le_bytes()).collect();
    file[64 + length..][..sums.len()].copy_from_slice(&sums);
    let sum = crc32fast::hash(&file[64..64 + length + sums.len()]);
    file[16..20].copy_from_slice(&sum.to_le_bytes());
    file
}

#[test]
fn a_damaged_graph_is_refused_or_leads_to_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (path, cpu) = (folder.path().join("a.tlx"), CpuContext::new(Isa::detect(), 1));
    let query = &clustered(1, 9)[..D];
    let expected = built(&path, &clustered(1000, 8), Metric::Cosine).search(&cpu, &by(query, 5)).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let graph = place(&whole, "graph");
    assert!(graph.start.is_multiple_of(64));
    let damaged = folder.path().join("damaged.tlx");
    let search = |bytes: &[u8]| {
        std::fs::write(&damaged, bytes).unwrap();
        Index::open(&damaged).unwrap().search(&cpu, &by(query, 5))
    };
    assert_eq!(search(&summed(whole.clone())).unwrap(), expected);
    // Behind the rows: the head, levels, and links, of which a part is not used.
    let links = graph.start + 64 + 8 + 1000 * D;
    let places = (graph.start..graph.start + 80).chain(links..links + 300).chain((links..graph.end).step_by(97));
    let (mut refused, mut all) = (0, 0);
    for at in places {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x81;
        let error = search(&bytes).unwrap_err();
        assert!(
            error.kind == ErrorKind::IndexLoad && error.message.contains("not what was written"),
            "{at}: {error:?}"
        );
        match search(&summed(bytes)) {
            Err(error) => {
                assert_eq!(exactly(&by(query, 5), &Index::open(&damaged).unwrap(), &cpu), expected);
                assert!(error.kind == ErrorKind::IndexLoad && error.message.contains("graph"), "{at}: {error:?}");
                refused += 1;
            }
            Ok(hits) => assert!(hits.iter().all(|hit| hit.row < 1000), "{at}"),
        }
        all += 1;
    }
    println!("{refused} of {all} refused");
    assert!(refused > 200, "{refused}");
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tealight")).args(arguments).output().unwrap()
}

#[test]
fn the_command_line_links_and_keeps_links() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (input, file) = (path("docs.jsonl"), path("docs.tlx"));
    let line = |id: usize| json!({"id": id, "text": "x", "embedding": random(8, id as u64)}).to_string();
    let write = |ids: std::ops::Range<usize>| std::fs::write(&input, ids.map(line).collect::<Vec<_>>().join("\n"));
    let good = |arguments: &[&str]| {
        let output = run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    write(1..601).unwrap();
    good(&["index", "build", &input, "-o", &file, "--graph"]);
    write(601..605).unwrap();
    assert!(good(&["index", "add", &file, &input]).contains("604 documents"));
    assert!(good(&["index", "delete", &file, "7"]).contains("603 documents"));
    assert!(good(&["index", "info", &file]).contains("\"graph\":true"));
    assert!(good(&["index", "search", &file, "x", "--mode", "words", "--exact"]).lines().count() == 10);
    let told = good(&["bench", "index", "--rows", "600", "--dim", "8", "--graph"]);
    assert!(told.contains("graph") && told.contains("recall"), "{told}");
}
