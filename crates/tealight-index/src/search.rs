//! Searching an index by vector, by keywords, or by both.

use crate::bm25;
use crate::document::IndexDocument;
use crate::filter::Filter;
use crate::format::Metric;
use crate::index::Index;
use crate::scan;
use crate::top_k::{ScoredRow, TopK};
use crate::vectors::prepare_vector;
use std::collections::BTreeMap;
use tealight_core::{Error, ErrorKind, Result};
use tealight_kernels::{CpuContext, Isa, rowwise, scoring};

/// Maximum number of hits of a search.
pub const MAX_TOP_K: usize = 1000;
/// A hybrid search asks for at least this many hits by vector and by text: a document far down in both lists can be among the best
/// of the combined one.
const MIN_FUSED: usize = 64;
/// The constant of reciprocal rank fusion (Cormack et al. 2009, doi 10.1145/1571941.1572114).
const RRF_K: f32 = 60.0;
/// Rows that are scored in float16 are scattered, so each is prefetched this many rows ahead.
const PREFETCH_ROWS: usize = 4;

/// A search: at least one of `vector` and `lexical` is given.
#[derive(Debug, Clone, Default)]
pub struct SearchQuery<'a> {
    /// The embedding of the query; rows are scored by the metric of the index.
    pub vector: Option<&'a [f32]>,
    /// The text for lexical search (BM25). With a vector, the two lists are combined by reciprocal rank fusion.
    pub lexical: Option<&'a str>,
    /// Maximum number of hits, from 1 to [`MAX_TOP_K`].
    pub top_k: usize,
    /// Only documents that match are returned.
    pub filter: Option<Filter>,
    /// Only hits with at least this score are returned.
    pub min_score: Option<f32>,
    /// Whether to scan all rows even if the index has an HNSW graph. The scan itself is of compressed rows; see
    /// [`ScanEncoding`](crate::ScanEncoding).
    pub exact: bool,
}

/// A document that a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchHit {
    /// The row of the document in the index.
    pub row: usize,
    /// Score by the metric of the index, score by BM25, or sum of reciprocal ranks.
    pub score: f32,
    /// The document as it was added.
    pub document: IndexDocument,
}

impl Index {
    /// The best documents, the best first; rows with equal scores are in row order.
    ///
    /// # Errors
    /// The query has neither vector nor text, its vector does not fit the index, `top_k` is out of range, or the file is corrupt.
    pub fn search(&self, cpu: &CpuContext, query: &SearchQuery) -> Result<Vec<SearchHit>> {
        if query.top_k == 0 || query.top_k > MAX_TOP_K {
            // The request field and the option of the command line are called `k`.
            return Err(Error::invalid_value("k", format!("k is {}; expected 1 to {MAX_TOP_K}", query.top_k)));
        }
        let accept = |row: u32| match &query.filter {
            None => Ok(true),
            Some(filter) => Ok(filter.matches(&self.document(row as usize)?.metadata)),
        };
        let rows = match (query.vector, query.lexical) {
            (Some(vector), None) => self.vector_search(cpu, vector, query.top_k, query.exact, &accept)?,
            (None, Some(text)) => bm25::search(&self.file, text, query.top_k, accept)?,
            (Some(vector), Some(text)) => {
                let count = query.top_k.max(MIN_FUSED);
                let by_vector = self.vector_search(cpu, vector, count, query.exact, &accept)?;
                reciprocal_rank_fusion([by_vector, bm25::search(&self.file, text, count, accept)?], query.top_k)
            }
            (None, None) => {
                return Err(Error::new(ErrorKind::InvalidType, "the query has neither a vector nor a text"));
            }
        };
        let rows = rows.into_iter().filter(|row| query.min_score.is_none_or(|min_score| row.score >= min_score));
        let hit = |ScoredRow { score, row }: ScoredRow| {
            let row = row as usize;
            Ok(SearchHit { row, score, document: self.document(row)? })
        };
        rows.map(hit).collect()
    }

    /// The best rows by vector, the best first.
    fn vector_search(
        &self,
        cpu: &CpuContext,
        vector: &[f32],
        top_k: usize,
        exact: bool,
        accept: &(dyn Fn(u32) -> Result<bool> + Sync),
    ) -> Result<Vec<ScoredRow>> {
        let vector = prepare_vector(vector, self.dimension(), self.metric())?;
        let candidates = match self.graph_candidates(cpu.isa, &vector, top_k, exact, accept)? {
            Some(rows) => rows,
            None => scan::scan(&self.file, cpu, &vector, top_k, accept)?
                .into_iter()
                .map(|candidate| candidate.row)
                .collect(),
        };
        self.rescore(cpu.isa, &vector, &candidates, top_k)
    }

    /// Candidates from the HNSW graph; `None` if `exact` is set or all rows must be scanned.
    #[cfg(feature = "graph")]
    fn graph_candidates(
        &self,
        isa: Isa,
        vector: &[f32],
        top_k: usize,
        exact: bool,
        accept: &dyn Fn(u32) -> Result<bool>,
    ) -> Result<Option<Vec<u32>>> {
        if exact { Ok(None) } else { self.graph.candidates(&self.file, isa, vector, top_k, accept) }
    }

    #[cfg(not(feature = "graph"))]
    #[allow(clippy::unnecessary_wraps, clippy::unused_self)] // The signature of the method with the feature `graph`.
    fn graph_candidates(
        &self,
        _: Isa,
        _: &[f32],
        _: usize,
        _: bool,
        _: &dyn Fn(u32) -> Result<bool>,
    ) -> Result<Option<Vec<u32>>> {
        Ok(None)
    }

    /// The best of some rows by their scores in float16, the best first.
    fn rescore(&self, isa: Isa, query: &[f32], rows: &[u32], top_k: usize) -> Result<Vec<ScoredRow>> {
        let mut padded = query.to_vec();
        padded.resize(self.f16_row_len(), 0.0);
        let query_square = rowwise::dot(isa, &padded, &padded);
        let mut best = TopK::new(top_k);
        for (i, row) in rows.iter().enumerate() {
            if let Some(later) = rows.get(i + PREFETCH_ROWS) {
                scoring::prefetch_f16(isa, self.f16_row(*later as usize)?.0);
            }
            let (halves, scale) = self.f16_row(*row as usize)?;
            let dot = scoring::dot_f16(isa, &padded, halves) * scale;
            let score = match self.metric() {
                Metric::Cosine => dot.clamp(-1.0, 1.0),
                Metric::Dot => dot,
                Metric::L2 => {
                    let row_square: f32 = halves.iter().map(|bits| half::f16::from_bits(*bits).to_f32().powi(2)).sum();
                    (2.0 * dot - query_square - row_square * scale * scale).min(0.0)
                }
            };
            // Adding 0 turns -0 into 0, so that both are equal.
            best.push(ScoredRow { score: score + 0.0, row: *row });
        }
        Ok(best.into_sorted())
    }
}

/// Fuses two ranked lists: the score of a row is the sum of its reciprocal ranks.
fn reciprocal_rank_fusion(lists: [Vec<ScoredRow>; 2], top_k: usize) -> Vec<ScoredRow> {
    let mut scores = BTreeMap::<u32, f32>::new();
    for list in lists {
        for (rank, row) in list.iter().enumerate() {
            *scores.entry(row.row).or_default() += 1.0 / (RRF_K + 1.0 + rank as f32);
        }
    }
    let mut best = TopK::new(top_k);
    scores.into_iter().for_each(|(row, score)| best.push(ScoredRow { score, row }));
    best.into_sorted()
}
