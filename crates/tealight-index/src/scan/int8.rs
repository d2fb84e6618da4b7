//! Rows of int8 values.

use super::ScanQuery;
use super::blocks::interleave;
use crate::file::IndexFile;
use crate::format::Section;
use tealight_core::Result;
use tealight_kernels::Isa;
use tealight_kernels::scoring::BLOCK_ROWS;
use tealight_kernels::scoring::int8::{BlockParams, CodeGroup, DIM_ALIGN, QuantizedQuery, scores};

/// Largest magnitude of a quantized value.
const QMAX: f32 = 127.0;

impl ScanQuery for QuantizedQuery {
    type CodeGroup = CodeGroup;
    type BlockParams = BlockParams;
    const SECTIONS: [Section; 2] = [Section::Int8Codes, Section::Int8Params];
    const DIM_ALIGN: usize = DIM_ALIGN;
    const RESCORE_FACTOR: usize = 4;
    const MIN_CANDIDATES: usize = 64;

    fn prepare(isa: Isa, vector: &[f32], _: &IndexFile) -> Result<Self> {
        Ok(QuantizedQuery::new(isa, vector))
    }

    fn scores(&self, isa: Isa, codes: &[CodeGroup], params: &[BlockParams], out: &mut [f32]) {
        scores(isa, self, codes, params, out);
    }
}

/// The rows of an index that is being built.
#[derive(Debug, Default)]
pub(crate) struct Int8Rows {
    /// `[rows, dimension]`, row-major.
    quantized: Vec<i8>,
    /// Scale and score offset of each row.
    params: Vec<[f32; 2]>,
}

impl Int8Rows {
    pub(super) fn push(&mut self, row: &[f32], max_abs: f32, score_offset: f32) {
        let scale = if max_abs > 0.0 { max_abs / QMAX } else { 1.0 };
        self.quantized.extend(row.iter().map(|v| (v / scale).round_ties_even() as i8));
        self.params.push([scale, score_offset]);
    }

    pub(super) fn into_sections(self, dimension: usize) -> Vec<(Section, Vec<u8>)> {
        // Rows that pad the last block score below all others.
        let padding =
            BlockParams { scale: [0.0; BLOCK_ROWS], sum: [0; BLOCK_ROWS], score_offset: [f32::INFINITY; BLOCK_ROWS] };
        let mut blocks = vec![padding; self.params.len().div_ceil(BLOCK_ROWS)];
        let rows = self.quantized.chunks_exact(dimension).zip(&self.params);
        for (row, (values, [scale, score_offset])) in rows.enumerate() {
            let (block, lane) = (&mut blocks[row / BLOCK_ROWS], row % BLOCK_ROWS);
            (block.scale[lane], block.score_offset[lane]) = (*scale, *score_offset);
            block.sum[lane] = values.iter().map(|q| i32::from(*q)).sum();
        }
        let [codes, params] = QuantizedQuery::SECTIONS;
        let interleaved = interleave(&self.quantized, dimension, DIM_ALIGN);
        vec![(codes, interleaved), (params, bytemuck::cast_slice(&blocks).to_vec())]
    }
}
