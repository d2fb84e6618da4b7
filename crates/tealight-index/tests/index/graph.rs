//! Approximate search with an HNSW graph: recall, filters, concurrency, damaged files.

use crate::support::{by_vector, document, random};
use serde_json::json;
use std::path::Path;
use tealight_core::ErrorKind;
use tealight_index::{Filter, Index, IndexBuilder, Metric, ScanEncoding, SearchHit, SearchQuery};
use tealight_kernels::{CpuContext, Isa};

/// Minimum recall@10 for clustered vectors, compared with exact search.
const RECALL: f64 = 0.98;
/// Minimum recall@10 for inner products of vectors of different norms, where long vectors are close to everything.
const RECALL_DOT: f64 = 0.9;
const D: usize = 64;

/// Rows around a hundred centers.
fn clustered(count: usize, seed: u64) -> Vec<f32> {
    let (centers, mut rows) = (random(100 * D, 1), random(count * D, seed));
    for (i, row) in rows.chunks_exact_mut(D).enumerate() {
        row.iter_mut().zip(&centers[i * 37 % 100 * D..]).for_each(|(v, c)| *v = 0.5 * *v + c);
    }
    rows
}

fn build(path: &Path, rows: &[f32], metric: Metric) -> Index {
    let mut builder = IndexBuilder::new(None, D, metric, ScanEncoding::Int8).unwrap();
    rows.chunks_exact(D).enumerate().for_each(|(i, row)| builder.add(&document(i), row).unwrap());
    builder.build_hnsw(&CpuContext::new(Isa::detect(), 2)).unwrap();
    builder.write(path).unwrap();
    Index::open(path).unwrap()
}

fn exact(search: &SearchQuery, index: &Index, cpu: &CpuContext) -> Vec<SearchHit> {
    index.search(cpu, &SearchQuery { exact: true, ..search.clone() }).unwrap()
}

/// Number of expected hits that were found with the same score.
fn common(hits: &[SearchHit], expected: &[SearchHit]) -> usize {
    hits.iter().filter(|hit| expected.contains(hit)).count()
}

#[test]
fn graph_search_has_high_recall() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, queries, cpu) = (clustered(20_000, 2), clustered(50, 3), CpuContext::new(Isa::detect(), 2));
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let index = build(&folder.path().join("a.tlx"), &rows, metric);
        assert!(index.has_graph());
        for (filter, count) in [(None, 10), (None, 1000), (Some(json!({"third": 1})), 10)] {
            let filter = filter.map(|filter| Filter::parse(&filter).unwrap());
            let (mut found, mut total, mut identical) = (0, 0, 0);
            for query in queries.chunks_exact(D) {
                let search = SearchQuery { filter: filter.clone(), ..by_vector(query, count) };
                let (hits, expected) = (index.search(&cpu, &search).unwrap(), exact(&search, &index, &cpu));
                assert_eq!(hits.len(), count);
                assert!(hits.is_sorted_by(|a, b| (b.score, a.row) < (a.score, b.row)));
                assert!(hits.iter().all(|hit| filter.as_ref().is_none_or(|f| f.matches(&hit.document.metadata))));
                assert_eq!(index.search(&CpuContext::new(Isa::Scalar, 1), &search).unwrap(), hits);
                found += common(&hits, &expected);
                total += count;
                identical += usize::from(hits == expected);
            }
            let recall = found as f64 / total as f64;
            println!("{metric:?} {count}, filter: {}: recall {recall:.4}, identical: {identical}", filter.is_some());
            assert!(recall >= if metric == Metric::Dot { RECALL_DOT } else { RECALL }, "{metric:?} {recall}");
        }
    }
}

#[test]
fn searches_not_suited_to_graph_are_exact() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, cpu) = (clustered(5000, 4), CpuContext::new(Isa::detect(), 1));
    let index = build(&folder.path().join("a.tlx"), &rows, Metric::Cosine);
    let query = &clustered(1, 5)[..D];
    for filter in [json!({"number": 4321}), json!({"number": {"$lt": 7}}), json!({"number": -1})] {
        let filter = Some(Filter::parse(&filter).unwrap());
        let search = SearchQuery { filter, ..by_vector(query, 10) };
        assert_eq!(index.search(&cpu, &search).unwrap(), exact(&search, &index, &cpu));
    }
    let min_score = Some(exact(&by_vector(query, 10), &index, &cpu)[4].score);
    assert_eq!(index.search(&cpu, &SearchQuery { min_score, ..by_vector(query, 10) }).unwrap().len(), 5);
    let error = index.search(&cpu, &by_vector(&query[1..], 10)).unwrap_err();
    assert!(error.message.contains("63 dimensions; the index has 64"), "{error:?}");
    // No rows, and fewer rows than are rescored.
    for count in [0, 1, 300] {
        let index = build(&folder.path().join("b.tlx"), &rows[..count * D], Metric::L2);
        assert_eq!(index.search(&cpu, &by_vector(query, 10)).unwrap(), exact(&by_vector(query, 10), &index, &cpu));
    }
}

/// More searches at the same time than the graph allows.
#[test]
fn concurrent_searches_give_equal_results() {
    let folder = tempfile::tempdir().unwrap();
    let index = build(&folder.path().join("a.tlx"), &clustered(3000, 6), Metric::Cosine);
    let query = &clustered(1, 7)[..D];
    let search = || index.search(&CpuContext::new(Isa::detect(), 1), &by_vector(query, 5)).unwrap();
    let expected = search();
    std::thread::scope(|scope| {
        let searches: Vec<_> = (0..300).map(|_| scope.spawn(search)).collect();
        searches.into_iter().for_each(|search| assert_eq!(search.join().unwrap(), expected));
    });
}

/// The bytes of a section in the file.
fn section_range(file: &[u8], name: &str) -> std::ops::Range<usize> {
    let length = u32::from_le_bytes(*file[12..].first_chunk().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&file[64..64 + length]).unwrap();
    let sections = header["sections"].as_array().unwrap();
    let number = |section: &serde_json::Value, i: usize| section[i].as_u64().unwrap() as usize;
    let body = file.len() - sections.last().map(|last| number(last, 1) + number(last, 2)).unwrap();
    let section = sections.iter().find(|section| section[0] == name).unwrap();
    body + number(section, 1)..body + number(section, 1) + number(section, 2)
}

/// The file with checksums that match its contents.
fn with_checksums(mut file: Vec<u8>) -> Vec<u8> {
    let length = u32::from_le_bytes(*file[12..].first_chunk().unwrap()) as usize;
    let body = section_range(&file, "codes").start;
    let checksums: Vec<u8> =
        file[body..].chunks(1 << 16).flat_map(|block| crc32fast::hash(block).to_le_bytes()).collect();
    file[64 + length..][..checksums.len()].copy_from_slice(&checksums);
    let checksum = crc32fast::hash(&file[64..64 + length + checksums.len()]);
    file[16..20].copy_from_slice(&checksum.to_le_bytes());
    file
}

#[test]
fn damaged_graph_is_rejected_or_leads_to_existing_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (path, cpu) = (folder.path().join("a.tlx"), CpuContext::new(Isa::detect(), 1));
    let query = &clustered(1, 9)[..D];
    let index = build(&path, &clustered(1000, 8), Metric::Cosine);
    let expected = index.search(&cpu, &by_vector(query, 5)).unwrap();
    let file = std::fs::read(&path).unwrap();
    let graph = section_range(&file, "graph");
    assert!(graph.start.is_multiple_of(64));
    let damaged = folder.path().join("damaged.tlx");
    let search = |bytes: &[u8]| {
        std::fs::write(&damaged, bytes).unwrap();
        Index::open(&damaged).unwrap().search(&cpu, &by_vector(query, 5))
    };
    assert_eq!(search(&with_checksums(file.clone())).unwrap(), expected);
    // The header of the graph, and after its vectors the levels and links, some of which are unused.
    let links = graph.start + 64 + 8 + 1000 * D;
    let offsets = (graph.start..graph.start + 80).chain(links..links + 300).chain((links..graph.end).step_by(97));
    let (mut rejected, mut total) = (0, 0);
    for offset in offsets {
        let mut bytes = file.clone();
        bytes[offset] ^= 0x81;
        let error = search(&bytes).unwrap_err();
        assert!(
            error.kind == ErrorKind::IndexLoad && error.message.contains("checksum mismatch"),
            "{offset}: {error:?}"
        );
        match search(&with_checksums(bytes)) {
            Err(error) => {
                assert_eq!(exact(&by_vector(query, 5), &Index::open(&damaged).unwrap(), &cpu), expected);
                assert!(error.kind == ErrorKind::IndexLoad && error.message.contains("graph"), "{offset}: {error:?}");
                rejected += 1;
            }
            Ok(hits) => assert!(hits.iter().all(|hit| hit.row < 1000), "{offset}"),
        }
        total += 1;
    }
    println!("{rejected} of {total} rejected");
    assert!(rejected > 200, "{rejected}");
}
