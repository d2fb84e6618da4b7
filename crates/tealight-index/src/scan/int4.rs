//! Rows of 4-bit values.

use super::ScanQuery;
use super::blocks::interleave;
use crate::file::IndexFile;
use crate::format::Section;
use tealight_core::Result;
use tealight_kernels::Isa;
use tealight_kernels::scoring::BLOCK_ROWS;
use tealight_kernels::scoring::int4::{BlockParams, CodeGroup, DIM_ALIGN, QMAX, QuantizedQuery, scores};

impl ScanQuery for QuantizedQuery {
    type CodeGroup = CodeGroup;
    type BlockParams = BlockParams;
    const SECTIONS: [Section; 2] = [Section::Int4Codes, Section::Int4Params];
    const DIM_ALIGN: usize = DIM_ALIGN;
    const RESCORE_FACTOR: usize = 20;
    const MIN_CANDIDATES: usize = 256;

    fn prepare(_: Isa, vector: &[f32], _: &IndexFile) -> Result<Self> {
        Ok(QuantizedQuery::new(vector))
    }

    fn scores(&self, isa: Isa, codes: &[CodeGroup], params: &[BlockParams], out: &mut [f32]) {
        scores(isa, self, codes, params, out);
    }
}

/// The rows of an index that is being built.
#[derive(Debug, Default)]
pub(crate) struct Int4Rows {
    /// `[rows, dimension]`, row-major, from 0 to 15.
    quantized: Vec<i8>,
    /// Scale, smallest value and score offset of each row.
    params: Vec<[f32; 3]>,
}

impl Int4Rows {
    pub(super) fn push(&mut self, row: &[f32], score_offset: f32) {
        let (low, high) = row.iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        let scale = if high > low { (high - low) / f32::from(QMAX) } else { 1.0 };
        self.quantized.extend(row.iter().map(|v| ((v - low) / scale).round_ties_even() as i8));
        self.params.push([scale, low, score_offset]);
    }

    pub(super) fn into_sections(self, dimension: usize) -> Vec<(Section, Vec<u8>)> {
        // Rows that pad the last block score below all others.
        let zeros = [0.0; BLOCK_ROWS];
        let padding = BlockParams { scale: zeros, low: zeros, score_offset: [f32::INFINITY; BLOCK_ROWS] };
        let mut blocks = vec![padding; self.params.len().div_ceil(BLOCK_ROWS)];
        for (row, [scale, low, score_offset]) in self.params.iter().enumerate() {
            let (block, lane) = (&mut blocks[row / BLOCK_ROWS], row % BLOCK_ROWS);
            (block.scale[lane], block.low[lane], block.score_offset[lane]) = (*scale, *low, *score_offset);
        }
        let [codes, params] = QuantizedQuery::SECTIONS;
        let interleaved = interleave(&self.quantized, dimension, DIM_ALIGN);
        vec![(codes, interleaved), (params, bytemuck::cast_slice(&blocks).to_vec())]
    }
}
