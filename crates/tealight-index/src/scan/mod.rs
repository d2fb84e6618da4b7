//! The first pass of a search: scores of a query against all rows, in a compressed encoding.

mod binary;
mod blocks;
mod encoder;
mod int4;
mod int8;

pub(crate) use encoder::RowEncoder;

use crate::file::IndexFile;
use crate::format::{IndexHeader, ScanEncoding, Section};
use crate::top_k::{ScoredRow, TopK};
use bytemuck::AnyBitPattern;
use std::ops::Range;
use tealight_core::Result;
use tealight_kernels::scoring::{self, BLOCK_ROWS};
use tealight_kernels::{CpuContext, Isa};

/// Rows whose scores are computed before the best are selected: 4 KiB of scores, which stay in the first-level cache.
const CHUNK_ROWS: usize = 1024;

/// A query prepared for one encoding of rows.
trait ScanQuery: Sized + Sync {
    /// `DIM_ALIGN` adjacent values of each row of a block, as stored in the file.
    type CodeGroup: AnyBitPattern;
    /// Parameters of the rows of a block, as stored in the file.
    type BlockParams: AnyBitPattern;
    /// The sections of code groups and of block parameters.
    const SECTIONS: [Section; 2];
    /// Dimensions of a code group.
    const DIM_ALIGN: usize;
    /// Rows that are scored again in float16, for each row that is returned. More of them cost time and raise the recall.
    /// `tests/index/search.rs` checks the recall that the values of all encodings give, and docs/performance.md#search has it for
    /// larger indexes. No comparison with other values is recorded.
    const RESCORE_FACTOR: usize;
    /// Minimum number of rows that are scored again, chosen like `RESCORE_FACTOR`.
    const MIN_CANDIDATES: usize;

    /// Prepares a query.
    ///
    /// # Errors
    /// The file is corrupt.
    fn prepare(isa: Isa, vector: &[f32], file: &IndexFile) -> Result<Self>;

    /// Writes a score for each row of the blocks.
    fn scores(&self, isa: Isa, codes: &[Self::CodeGroup], params: &[Self::BlockParams], out: &mut [f32]);
}

impl ScanEncoding {
    /// Rows that the second pass scores again in float16 even for a small `top_k`. A search of an index with no more rows is exact.
    #[doc(hidden)] // For the fuzzing target, which compares such searches with float64.
    pub fn min_candidates(self) -> usize {
        match self {
            ScanEncoding::Int8 => scoring::int8::QuantizedQuery::MIN_CANDIDATES,
            ScanEncoding::Int4 => scoring::int4::QuantizedQuery::MIN_CANDIDATES,
            ScanEncoding::Binary => scoring::binary::BinaryQuery::MIN_CANDIDATES,
        }
    }
}

/// The sections that an encoding requires, with their lengths in bytes.
pub(crate) fn section_lengths(header: &IndexHeader) -> Vec<(Section, usize)> {
    match header.encoding {
        ScanEncoding::Int8 => block_section_lengths::<scoring::int8::QuantizedQuery>(header).to_vec(),
        ScanEncoding::Int4 => block_section_lengths::<scoring::int4::QuantizedQuery>(header).to_vec(),
        ScanEncoding::Binary => {
            let [codes, params] = block_section_lengths::<scoring::binary::BinaryQuery>(header);
            vec![codes, params, (Section::Mean, header.dimension * size_of::<f32>())]
        }
    }
}

fn block_section_lengths<Q: ScanQuery>(header: &IndexHeader) -> [(Section, usize); 2] {
    let (blocks, [codes, params]) = (header.blocks(), Q::SECTIONS);
    let block_len = header.dimension.div_ceil(Q::DIM_ALIGN) * size_of::<Q::CodeGroup>();
    [(codes, blocks.saturating_mul(block_len)), (params, blocks.saturating_mul(size_of::<Q::BlockParams>()))]
}

/// Scores all rows and returns the best candidates for a search for `top_k` rows that `accept` accepts, in any order.
///
/// # Errors
/// The file is corrupt, or an error of `accept`.
pub(crate) fn scan(
    file: &IndexFile,
    cpu: &CpuContext,
    vector: &[f32],
    top_k: usize,
    accept: &(dyn Fn(u32) -> Result<bool> + Sync),
) -> Result<Vec<ScoredRow>> {
    match file.header.encoding {
        ScanEncoding::Int8 => scan_with::<scoring::int8::QuantizedQuery>(file, cpu, vector, top_k, accept),
        ScanEncoding::Int4 => scan_with::<scoring::int4::QuantizedQuery>(file, cpu, vector, top_k, accept),
        ScanEncoding::Binary => scan_with::<scoring::binary::BinaryQuery>(file, cpu, vector, top_k, accept),
    }
}

fn scan_with<Q: ScanQuery>(
    file: &IndexFile,
    cpu: &CpuContext,
    vector: &[f32],
    top_k: usize,
    accept: &(dyn Fn(u32) -> Result<bool> + Sync),
) -> Result<Vec<ScoredRow>> {
    let rows = file.header.rows;
    let candidates = (Q::RESCORE_FACTOR * top_k).max(Q::MIN_CANDIDATES).min(rows);
    let query = Q::prepare(cpu.isa, vector, file)?;
    // Each thread scans whole chunks.
    let share = rows.div_ceil(cpu.threads()).next_multiple_of(CHUNK_ROWS).max(CHUNK_ROWS);
    let ranges: Vec<_> = (0..rows).step_by(share).map(|start| start..(start + share).min(rows)).collect();
    let best = cpu.par_map(&ranges, |range| scan_range(file, cpu.isa, &query, range, candidates, accept));
    let mut all = TopK::new(candidates);
    for best in best {
        best?.into_unsorted().into_iter().for_each(|row| all.push(row));
    }
    Ok(all.into_unsorted())
}

/// The best rows of a range that begins with a block.
fn scan_range<Q: ScanQuery>(
    file: &IndexFile,
    isa: Isa,
    query: &Q,
    rows: &Range<usize>,
    candidates: usize,
    accept: &dyn Fn(u32) -> Result<bool>,
) -> Result<TopK> {
    let (mut best, mut scores) = (TopK::new(candidates), [0.0; CHUNK_ROWS]);
    let block_len = file.header.dimension.div_ceil(Q::DIM_ALIGN);
    for start in rows.clone().step_by(CHUNK_ROWS) {
        let count = CHUNK_ROWS.min(rows.end - start);
        let blocks = start / BLOCK_ROWS..(start + count).div_ceil(BLOCK_ROWS);
        let codes = file.values(Q::SECTIONS[0], blocks.start * block_len..blocks.end * block_len)?;
        let params = file.values(Q::SECTIONS[1], blocks)?;
        query.scores(isa, codes, params, &mut scores[..count.next_multiple_of(BLOCK_ROWS)]);
        select(&mut best, start, &scores[..count], accept)?;
    }
    Ok(best)
}

/// Pushes the scores of rows from `start` on that may be among the best and that `accept` accepts.
fn select(best: &mut TopK, start: usize, scores: &[f32], accept: &dyn Fn(u32) -> Result<bool>) -> Result<()> {
    for (i, chunk) in scores.chunks(BLOCK_ROWS).enumerate() {
        // Few scores pass, so a block is tested as a whole first.
        let threshold = best.threshold();
        if !chunk.iter().fold(false, |any, score| any | (*score > threshold)) {
            continue;
        }
        for (j, score) in chunk.iter().enumerate().filter(|(_, score)| **score > threshold) {
            let row = (start + i * BLOCK_ROWS + j) as u32;
            if *score > best.threshold() && accept(row)? {
                best.push(ScoredRow { score: *score, row });
            }
        }
    }
    Ok(())
}
