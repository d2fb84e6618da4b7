//! Encodes the rows of an index that is being built.

use super::binary;
use super::int4::Int4Rows;
use super::int8::Int8Rows;
use crate::format::{Metric, ScanEncoding, Section};
use crate::vectors::score_offset;

/// The rows added so far, in the encoding of the index.
#[derive(Debug)]
pub(crate) enum RowEncoder {
    Int8(Int8Rows),
    Int4(Int4Rows),
    /// Binary codes are computed when the file is written, because they depend on the mean of all rows.
    Binary,
}

impl RowEncoder {
    pub(crate) fn new(encoding: ScanEncoding) -> Self {
        match encoding {
            ScanEncoding::Int8 => Self::Int8(Int8Rows::default()),
            ScanEncoding::Int4 => Self::Int4(Int4Rows::default()),
            ScanEncoding::Binary => Self::Binary,
        }
    }

    /// Adds a row whose largest magnitude is `max_abs`.
    pub(crate) fn push(&mut self, row: &[f32], max_abs: f32, metric: Metric) {
        match self {
            Self::Int8(rows) => rows.push(row, max_abs, score_offset(row, metric)),
            Self::Int4(rows) => rows.push(row, score_offset(row, metric)),
            Self::Binary => {}
        }
    }

    /// The sections of the file. `f16_rows` and `f16_scales` are the same rows in float16.
    pub(crate) fn into_sections(
        self,
        f16_rows: &[u16],
        f16_scales: &[f32],
        dimension: usize,
        metric: Metric,
    ) -> Vec<(Section, Vec<u8>)> {
        match self {
            Self::Int8(rows) => rows.into_sections(dimension),
            Self::Int4(rows) => rows.into_sections(dimension),
            Self::Binary => binary::sections(f16_rows, f16_scales, dimension, metric),
        }
    }
}
