//! Lexical search: Okapi BM25 (Robertson and Zaragoza 2009, doi 10.1561/1500000019) over all documents.

use crate::file::IndexFile;
use crate::format::Section;
use crate::top_k::{ScoredRow, TopK};
use std::collections::{BTreeMap, BTreeSet};
use tealight_core::Result;

/// BM25's k1: term-frequency saturation.
const K1: f32 = 1.2;
/// BM25's b: normalization by document length, from 0 (none) to 1.
const B: f32 = 0.75;
/// Longer words, in bytes, are not indexed.
const MAX_WORD_BYTES: usize = 64;

/// The words of a text in lower case.
fn tokenize(text: &str) -> impl Iterator<Item = String> + '_ {
    let words = text.split(|c: char| !c.is_alphanumeric());
    words.filter(|word| !word.is_empty() && word.len() <= MAX_WORD_BYTES).map(str::to_lowercase)
}

/// The inverted index of the documents added so far.
#[derive(Debug, Default)]
pub(crate) struct PostingsBuilder {
    /// Rows and term frequencies of each word.
    postings: BTreeMap<String, Vec<[u32; 2]>>,
    document_lengths: Vec<u32>,
}

impl PostingsBuilder {
    /// Adds the document of the next row.
    pub(crate) fn add(&mut self, text: &str) {
        let (row, mut length) = (self.document_lengths.len() as u32, 0);
        for word in tokenize(text) {
            length += 1;
            let postings = self.postings.entry(word).or_default();
            match postings.last_mut() {
                Some([last_row, frequency]) if *last_row == row => *frequency += 1,
                _ => postings.push([row, 1]),
            }
        }
        self.document_lengths.push(length);
    }

    pub(crate) fn into_sections(self) -> Vec<(Section, Vec<u8>)> {
        let (mut words, mut offsets, mut postings) = (vec![], vec![0u64, 0], vec![]);
        for (word, of_word) in self.postings {
            words.extend_from_slice(word.as_bytes());
            postings.extend(of_word);
            offsets.extend([words.len() as u64, postings.len() as u64]);
        }
        vec![
            (Section::Words, words),
            (Section::WordOffsets, bytemuck::cast_slice(&offsets).to_vec()),
            (Section::Postings, bytemuck::cast_slice(&postings).to_vec()),
            (Section::DocumentLengths, bytemuck::cast_slice(&self.document_lengths).to_vec()),
        ]
    }
}

/// The best `top_k` rows for a text among those that `accept` accepts.
///
/// # Errors
/// The file is corrupt, or an error of `accept`.
pub(crate) fn search(
    file: &IndexFile,
    text: &str,
    top_k: usize,
    mut accept: impl FnMut(u32) -> Result<bool>,
) -> Result<Vec<ScoredRow>> {
    let lengths: &[u32] = file.values(Section::DocumentLengths, 0..file.header.rows)?;
    let mean_length = lengths.iter().map(|l| *l as f64).sum::<f64>() / lengths.len().max(1) as f64;
    let mut scores: BTreeMap<u32, f32> = BTreeMap::new();
    for word in tokenize(text).collect::<BTreeSet<_>>() {
        let postings = postings(file, &word)?;
        let (documents, matches) = (lengths.len() as f32, postings.len() as f32);
        let idf = (1.0 + (documents - matches + 0.5) / (matches + 0.5)).ln();
        for [row, frequency] in postings {
            let Some(length) = lengths.get(*row as usize) else { continue };
            let length_norm = 1.0 - B + B * *length as f32 / mean_length as f32;
            let frequency = *frequency as f32;
            *scores.entry(*row).or_default() += idf * frequency * (K1 + 1.0) / (frequency + K1 * length_norm);
        }
    }
    let mut best = TopK::new(top_k);
    for (row, score) in scores {
        if score > best.threshold() && accept(row)? {
            best.push(ScoredRow { score, row });
        }
    }
    Ok(best.into_sorted())
}

/// The rows that contain a word and how often, found by binary search.
fn postings<'a>(file: &'a IndexFile, word: &str) -> Result<&'a [[u32; 2]]> {
    let count = file.count::<[u64; 2]>(Section::WordOffsets)?;
    let offsets: &[[u64; 2]] = file.values(Section::WordOffsets, 0..count)?;
    let (mut low, mut high) = (0, offsets.len().saturating_sub(1));
    while low < high {
        let middle = (low + high) / 2;
        let [[word_start, postings_start], [word_end, postings_end]] = [offsets[middle], offsets[middle + 1]];
        let middle_word = file.bytes(Section::Words, word_start as usize..word_end as usize)?;
        match middle_word.cmp(word.as_bytes()) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => {
                return file.values(Section::Postings, postings_start as usize..postings_end as usize);
            }
        }
    }
    Ok(&[])
}
