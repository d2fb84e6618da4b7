//! Search by words: Okapi BM25 (Robertson and Zaragoza 2009, doi 10.1561/1500000019), exact.

use super::file::{File, Part};
use super::top_k::{Best, Hit};
use std::collections::{BTreeMap, BTreeSet};
use tealight_core::Result;

/// How soon more of one word says no more.
const SATURATION: f32 = 1.2;
/// How much a long document's words count less.
const LENGTH: f32 = 0.75;
/// Longer words are no words.
const LONGEST: usize = 64;

/// The words of a text, in lower case.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let parts = text.split(|c: char| !c.is_alphanumeric());
    parts.filter(|word| !word.is_empty() && word.len() <= LONGEST).map(str::to_lowercase)
}

/// The words of documents, while an index is built.
#[derive(Debug, Default)]
pub(super) struct Builder {
    postings: BTreeMap<String, Vec<[u32; 2]>>,
    lengths: Vec<u32>,
}

impl Builder {
    /// Adds the next document.
    pub(super) fn add(&mut self, text: &str) {
        let (row, mut count) = (self.lengths.len() as u32, 0);
        for word in words(text) {
            count += 1;
            let postings = self.postings.entry(word).or_default();
            match postings.last_mut() {
                Some([last, times]) if *last == row => *times += 1,
                _ => postings.push([row, 1]),
            }
        }
        self.lengths.push(count);
    }

    /// The sections of a file.
    pub(super) fn sections(self) -> Vec<(Part, Vec<u8>)> {
        let (mut words, mut starts, mut postings) = (vec![], vec![0u64, 0], vec![]);
        for (word, of_word) in self.postings {
            words.extend_from_slice(word.as_bytes());
            postings.extend(of_word);
            starts.extend([words.len() as u64, postings.len() as u64]);
        }
        let cast = |values: &[u32]| bytemuck::cast_slice(values).to_vec();
        vec![
            (Part::Words, words),
            (Part::WordStarts, bytemuck::cast_slice(&starts).to_vec()),
            (Part::Postings, bytemuck::cast_slice(&postings).to_vec()),
            (Part::Lengths, cast(&self.lengths)),
        ]
    }
}

/// The rows whose documents fit a text best, of those that `takes` takes.
pub(super) fn search(
    file: &File,
    text: &str,
    count: usize,
    mut takes: impl FnMut(u32) -> Result<bool>,
) -> Result<Vec<Hit>> {
    let lengths: &[u32] = file.values(Part::Lengths, 0..file.header.rows)?;
    let mean = lengths.iter().map(|l| *l as f64).sum::<f64>() / lengths.len().max(1) as f64;
    let mut scores: BTreeMap<u32, f32> = BTreeMap::new();
    for word in words(text).collect::<BTreeSet<_>>() {
        let postings = postings(file, &word)?;
        let (all, with) = (lengths.len() as f32, postings.len() as f32);
        let rarity = (1.0 + (all - with + 0.5) / (with + 0.5)).ln();
        for [row, times] in postings {
            let Some(length) = lengths.get(*row as usize) else { continue };
            let length = 1.0 - LENGTH + LENGTH * *length as f32 / mean as f32;
            let times = *times as f32;
            *scores.entry(*row).or_default() += rarity * times * (SATURATION + 1.0) / (times + SATURATION * length);
        }
    }
    let mut best = Best::new(count);
    for (row, score) in scores {
        if score > best.least() && takes(row)? {
            best.offer(Hit { score, row });
        }
    }
    Ok(best.sorted())
}

/// The rows that a word is in, and how often.
fn postings<'a>(file: &'a File, word: &str) -> Result<&'a [[u32; 2]]> {
    let starts: &[[u64; 2]] = file.values(Part::WordStarts, 0..file.count::<[u64; 2]>(Part::WordStarts)?)?;
    let (mut low, mut high) = (0, starts.len().saturating_sub(1));
    while low < high {
        let middle = (low + high) / 2;
        let [[from, first], [to, end]] = [starts[middle], starts[middle + 1]];
        let found = file.bytes(Part::Words, from as usize..to as usize)?;
        match found.cmp(word.as_bytes()) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return file.values(Part::Postings, first as usize..end as usize),
        }
    }
    Ok(&[])
}
