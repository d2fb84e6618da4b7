//! Tables of rows.

use crate::error::{Error, Result};
use crate::kernels::q8_0::{self, BLOCK};
use bytes::Bytes;

/// A table of `[rows, D]` in Q8_0, read row by row, so that only the rows in use are ever touched.
#[derive(Debug, Clone)]
pub struct Embedding {
    table: Bytes,
    d: usize,
}

impl Embedding {
    /// A table in Q8_0 bytes of rows of `d` values.
    ///
    /// # Errors
    /// `d` is not a multiple of 32, or the bytes are not whole rows.
    pub fn new(table: Bytes, d: usize) -> Result<Self> {
        let blocks = q8_0::blocks(&table)?.len();
        if d == 0 || !d.is_multiple_of(BLOCK) || !blocks.is_multiple_of(d / BLOCK) {
            return Err(Error::model(format!("a Q8_0 table of {blocks} blocks has no rows of {d} values")));
        }
        Ok(Self { table, d })
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.table.len() / q8_0::BLOCK_BYTES / (self.d / BLOCK)
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes row `id` to `out [D]`.
    pub fn row(&self, id: u32, out: &mut [f32]) -> Result<()> {
        let n = self.d / BLOCK;
        let row = q8_0::blocks(&self.table)?
            .chunks_exact(n)
            .nth(id as usize)
            .ok_or_else(|| Error::value("input", format!("token id {id} is not below {}", self.len())))?;
        q8_0::dequantise_row(row, out);
        Ok(())
    }
}
