//! A vector index in a file: exact search, no server, nothing to train.
//!
//! A search goes through the codes of all rows, 16 at a time and as fast as memory gives them, and scores the best of them
//! again in float. Rows are normalised for cosines. The file is mapped: opening it reads its header.

mod binary;
mod bm25;
mod build;
mod file;
mod filter;
mod hnsw;
mod top_k;

pub use build::{Builder, MOST_LENGTH, MOST_VALUES};
pub use file::{Metric, Precision};
pub use filter::Filter;

use bytemuck::AnyBitPattern;
use file::{File, Part};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::ops::Range;
use std::path::Path;
use tealight_core::{Error, ErrorKind, Result};
use tealight_kernels::CpuContext;
use tealight_kernels::scoring::{self, BLOCK_ROWS as ROWS, F16_ALIGN as HALVES, binary as sign_scan, int4, int8};
use tealight_kernels::{Isa, rowwise};
use top_k::{Best, Hit};

/// Rows that are scored again in float, for each that is asked for, and at least.
const OVERSAMPLE: usize = 4;
const LEAST: usize = 64;
/// The same where codes of 4 bits are gone through, and signs, which say less.
const OVERSAMPLE4: usize = 20;
const LEAST4: usize = 256;
const OVERSAMPLE_SIGNS: usize = 20;
const LEAST_SIGNS: usize = 200;
/// Rows asked for at most.
pub const MOST: usize = 1000;
/// Rows whose scores are computed before they are looked at: few enough for a cache.
const CHUNK: usize = 1024;
/// Rows that are scored in float lie anywhere: memory is asked for so many ahead.
const AHEAD: usize = 4;
/// Of reciprocal ranks (Cormack et al. 2009, doi 10.1145/1571941.1572114).
const RANK: f32 = 60.0;

/// What is searched for: an id, a text, and what else is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// What names it.
    pub id: String,
    /// What words are searched in.
    #[serde(default)]
    pub text: String,
    /// What filters look at.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Search<'a> {
    /// By a vector; rows are scored by the index's metric.
    pub vector: Option<&'a [f32]>,
    /// By words; with a vector, too, the ranks of both count.
    pub words: Option<&'a str>,
    /// Rows at most.
    pub count: usize,
    /// Documents that are looked at; all where it is missing.
    pub filter: Option<Filter>,
    /// What scores below is left out.
    pub min_score: Option<f32>,
    /// By a vector: through all rows, though the file has a graph.
    pub exact: bool,
}

/// A document that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Which row it is.
    pub row: usize,
    /// How well it fits.
    pub score: f32,
    /// The document.
    pub document: Document,
}

/// An index in memory, or rather in a mapped file.
#[derive(Debug)]
pub struct Index {
    file: File,
    #[cfg(feature = "graph")]
    graph: hnsw::Place,
}

impl Index {
    /// Opens a file.
    ///
    /// # Errors
    /// [`ErrorKind::IndexLoad`], which says what is wrong with it; [`ErrorKind::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let this = Self {
            file: File::open(path)?,
            #[cfg(feature = "graph")]
            graph: hnsw::Place::default(),
        };
        this.check_sizes().map_err(|e| e.with_context(path.display()))?;
        Ok(this)
    }

    fn check_sizes(&self) -> Result<()> {
        let header = &self.file.header;
        let (rows, d) = (header.rows, header.dimension);
        if d == 0 || d > build::MOST_VALUES {
            return Err(Error::new(ErrorKind::IndexLoad, format!("the index has the dimension {d}")));
        }
        let blocks = rows.div_ceil(ROWS);
        let mut sizes = match header.precision {
            Precision::Int8 => vec![
                (Part::Codes, blocks.saturating_mul(self.groups() * size_of::<int8::CodeBlock>())),
                (Part::Terms, blocks.saturating_mul(size_of::<int8::BlockParams>())),
            ],
            Precision::Int4 => vec![
                (Part::Codes4, blocks.saturating_mul(self.groups4() * size_of::<int8::CodeBlock>())),
                (Part::Terms4, blocks.saturating_mul(size_of::<int4::BlockParams>())),
            ],
            Precision::Binary => vec![
                (Part::Signs, blocks.saturating_mul(self.sign_groups() * size_of::<sign_scan::CodeBlock>())),
                (Part::SignTerms, blocks.saturating_mul(size_of::<sign_scan::BlockParams>())),
                (Part::Mean, d * size_of::<f32>()),
            ],
        };
        sizes.push((Part::Halves, rows.saturating_mul(2 * self.halves())));
        sizes.extend([(Part::Largest, rows.saturating_mul(4)), (Part::Lengths, rows.saturating_mul(4))]);
        sizes.push((Part::Starts, rows.saturating_add(1).saturating_mul(8)));
        for (part, expected) in sizes {
            let found = self.file.count::<u8>(part)?;
            if found != expected {
                let message = format!("the index has {found} bytes of {part:?}, {rows} rows need {expected}");
                return Err(Error::new(ErrorKind::IndexLoad, message));
            }
        }
        Ok(())
    }

    fn groups(&self) -> usize {
        self.dimension().div_ceil(int8::DIM_ALIGN)
    }

    fn groups4(&self) -> usize {
        self.dimension().div_ceil(int4::DIM_ALIGN)
    }

    fn sign_groups(&self) -> usize {
        self.dimension().div_ceil(sign_scan::DIM_ALIGN)
    }

    fn halves(&self) -> usize {
        self.dimension().next_multiple_of(HALVES)
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.file.header.rows
    }

    /// Values of a row.
    pub fn dimension(&self) -> usize {
        self.file.header.dimension
    }

    /// The model that made the vectors, if it was one of ours.
    pub fn model(&self) -> Option<&str> {
        self.file.header.model.as_deref()
    }

    /// How rows are scored.
    pub fn metric(&self) -> Metric {
        self.file.header.metric
    }

    /// What is gone through first.
    pub fn precision(&self) -> Precision {
        self.file.header.precision
    }

    /// Reads all of the file, and checks it.
    ///
    /// # Errors
    /// [`ErrorKind::IndexLoad`].
    pub fn check(&self) -> Result<()> {
        self.file.check_all()
    }

    /// The document of a row.
    ///
    /// # Errors
    /// [`ErrorKind::IndexLoad`]: the file is damaged there.
    pub fn document(&self, row: usize) -> Result<Document> {
        let starts: &[u64] = self.file.values(Part::Starts, row..row + 2)?;
        let bytes = self.file.bytes(Part::Documents, starts[0] as usize..starts[1] as usize)?;
        serde_json::from_slice(bytes).map_err(|e| {
            Error::new(ErrorKind::IndexLoad, format!("the index has a document {row} that cannot be read: {e}"))
        })
    }

    /// The vector of a row, as it is scored in float.
    ///
    /// # Errors
    /// As of [`Index::document`].
    pub fn vector(&self, row: usize) -> Result<Vec<f32>> {
        let (halves, largest) = self.row(row)?;
        Ok(build::floats(&halves[..self.dimension()], largest))
    }

    fn row(&self, row: usize) -> Result<(&[u16], f32)> {
        let width = self.halves();
        let halves = self.file.values(Part::Halves, row * width..(row + 1) * width)?;
        let largest: &[f32] = self.file.values(Part::Largest, row..row + 1)?;
        Ok((halves, largest[0]))
    }

    /// The best rows, the best first; of equal scores the earlier row.
    ///
    /// # Errors
    /// Neither a vector nor words are given, the vector does not fit the index, the count is 0 or beyond [`MOST`]; or the file is
    /// damaged.
    pub fn search(&self, cpu: &CpuContext, search: &Search) -> Result<Vec<Found>> {
        if search.count == 0 || search.count > MOST {
            return Err(Error::invalid_value("k", format!("k is {}, it must be 1 to {MOST}", search.count)));
        }
        let takes = |row: u32| self.takes(search.filter.as_ref(), row);
        let by_vector = |count| search.vector.map(|v| self.nearest(cpu, v, count, search.exact, &takes)).transpose();
        let by_words = |count| search.words.map(|text| bm25::search(&self.file, text, count, &takes)).transpose();
        // Ranks far behind still count for what is in both lists.
        let both = search.count.max(LEAST);
        let hits = match (search.vector, search.words) {
            (Some(_), None) => by_vector(search.count)?.unwrap_or_default(),
            (None, Some(_)) => by_words(search.count)?.unwrap_or_default(),
            (Some(_), Some(_)) => {
                fused([by_vector(both)?.unwrap_or_default(), by_words(both)?.unwrap_or_default()], search.count)
            }
            (None, None) => {
                return Err(Error::new(ErrorKind::InvalidType, "there is neither a vector nor a text to search by"));
            }
        };
        let wanted = hits.into_iter().filter(|hit| search.min_score.is_none_or(|least| hit.score >= least));
        let found = |hit: Hit| {
            let row = hit.row as usize;
            Ok(Found { row, score: hit.score, document: self.document(row)? })
        };
        wanted.map(found).collect()
    }

    fn takes(&self, filter: Option<&Filter>, row: u32) -> Result<bool> {
        match filter {
            None => Ok(true),
            Some(filter) => Ok(filter.takes(&self.document(row as usize)?.metadata)),
        }
    }

    /// The best rows by a vector, scored in float.
    fn nearest(
        &self,
        cpu: &CpuContext,
        vector: &[f32],
        count: usize,
        exact: bool,
        takes: &(dyn Fn(u32) -> Result<bool> + Sync),
    ) -> Result<Vec<Hit>> {
        let query = build::fitted(vector, self.dimension(), self.metric())?;
        if let Some(hits) = self.by_graph(cpu.isa, &query, count, exact, takes)? {
            return self.rescored(cpu.isa, &query, &hits, count);
        }
        let (oversample, least) = match self.precision() {
            Precision::Int8 => (OVERSAMPLE, LEAST),
            Precision::Int4 => (OVERSAMPLE4, LEAST4),
            Precision::Binary => (OVERSAMPLE_SIGNS, LEAST_SIGNS),
        };
        let candidates = (oversample * count).max(least).min(self.rows());
        // Whole blocks for each thread.
        let share = self.rows().div_ceil(cpu.threads()).next_multiple_of(CHUNK).max(CHUNK);
        let parts: Vec<_> = (0..self.rows()).step_by(share).map(|at| at..(at + share).min(self.rows())).collect();
        let hits = match self.precision() {
            Precision::Int8 => {
                let codes = int8::QuantizedQuery::new(cpu.isa, &query);
                cpu.par_map(&parts, |part| {
                    Self::scanned(part, candidates, takes, |rows, scores| {
                        let (rows, terms) = self.blocks(Part::INT8, rows, self.groups())?;
                        int8::scores(cpu.isa, &codes, rows, terms, scores);
                        Ok(())
                    })
                })
            }
            Precision::Int4 => {
                let codes = int4::QuantizedQuery::new(&query);
                cpu.par_map(&parts, |part| {
                    Self::scanned(part, candidates, takes, |rows, scores| {
                        let (rows, terms) = self.blocks(Part::INT4, rows, self.groups4())?;
                        int4::scores(cpu.isa, &codes, rows, terms, scores);
                        Ok(())
                    })
                })
            }
            Precision::Binary => {
                let mean = self.file.values(Part::Mean, 0..self.dimension())?;
                let tables = binary::query(&query, mean, self.metric());
                cpu.par_map(&parts, |part| {
                    Self::scanned(part, candidates, takes, |rows, scores| {
                        let (rows, terms) = self.blocks(Part::BINARY, rows, self.sign_groups())?;
                        sign_scan::scores(cpu.isa, &tables, rows, terms, scores);
                        Ok(())
                    })
                })
            }
        };
        let mut all = Best::new(candidates);
        for hits in hits {
            hits?.kept().into_iter().for_each(|hit| all.offer(hit));
        }
        self.rescored(cpu.isa, &query, &all.kept(), count)
    }

    /// The best of some rows by what `fill` writes for them: scores of rows from the beginning of a block on, some at a time, and of
    /// whole blocks.
    fn scanned(
        rows: &Range<usize>,
        count: usize,
        takes: &dyn Fn(u32) -> Result<bool>,
        mut fill: impl FnMut(Range<usize>, &mut [f32]) -> Result<()>,
    ) -> Result<Best> {
        let (mut best, mut scores) = (Best::new(count), [0.0; CHUNK]);
        for start in rows.clone().step_by(CHUNK) {
            let count = CHUNK.min(rows.end - start);
            fill(start..start + count, &mut scores[..count.next_multiple_of(ROWS)])?;
            offer(&mut best, start, &scores[..count], takes)?;
        }
        Ok(best)
    }

    /// Blocks of 16 rows, each of so many groups of codes or signs, and what they have besides.
    fn blocks<G: AnyBitPattern, T: AnyBitPattern>(
        &self,
        parts: [Part; 2],
        rows: Range<usize>,
        groups: usize,
    ) -> Result<(&[G], &[T])> {
        let blocks = rows.start / ROWS..rows.end.div_ceil(ROWS);
        let codes = self.file.values(parts[0], blocks.start * groups..blocks.end * groups)?;
        Ok((codes, self.file.values(parts[1], blocks)?))
    }

    /// The best of some hits, by their scores in float.
    fn rescored(&self, isa: Isa, query: &[f32], hits: &[Hit], count: usize) -> Result<Vec<Hit>> {
        let mut padded = query.to_vec();
        padded.resize(self.halves(), 0.0);
        let square = rowwise::dot(isa, &padded, &padded);
        let mut best = Best::new(count);
        for (i, hit) in hits.iter().enumerate() {
            if let Some(later) = hits.get(i + AHEAD) {
                scoring::prefetch_f16(isa, self.row(later.row as usize)?.0);
            }
            let (row, largest) = self.row(hit.row as usize)?;
            let dot = scoring::dot_f16(isa, &padded, row) * largest;
            let score = match self.metric() {
                Metric::Cosine => dot.clamp(-1.0, 1.0),
                Metric::Dot => dot,
                Metric::L2 => {
                    let of_row: f32 = row.iter().map(|bits| half::f16::from_bits(*bits).to_f32().powi(2)).sum();
                    (2.0 * dot - square - of_row * largest * largest).min(0.0)
                }
            };
            // Of 0 and -0 neither is better; the sum of both is 0.
            best.offer(Hit { score: score + 0.0, row: hit.row });
        }
        Ok(best.sorted())
    }
}

/// Offers scores of rows from `start` on; of those that could be among the best, documents are looked at.
fn offer(best: &mut Best, start: usize, scores: &[f32], takes: &dyn Fn(u32) -> Result<bool>) -> Result<()> {
    for (i, some) in scores.chunks(ROWS).enumerate() {
        // Few are: a look at all of them at once is what takes time.
        let least = best.least();
        if !some.iter().fold(false, |any, score| any | (*score > least)) {
            continue;
        }
        for (j, score) in some.iter().enumerate().filter(|(_, score)| **score > least) {
            let row = (start + i * ROWS + j) as u32;
            if *score > best.least() && takes(row)? {
                best.offer(Hit { score: *score, row });
            }
        }
    }
    Ok(())
}

/// The best of two lists by the sum of reciprocal ranks.
fn fused(lists: [Vec<Hit>; 2], count: usize) -> Vec<Hit> {
    let mut scores = std::collections::BTreeMap::<u32, f32>::new();
    for list in lists {
        for (rank, hit) in list.iter().enumerate() {
            *scores.entry(hit.row).or_default() += 1.0 / (RANK + 1.0 + rank as f32);
        }
    }
    let mut best = Best::new(count);
    scores.into_iter().for_each(|(row, score)| best.offer(Hit { score, row }));
    best.sorted()
}
