//! Dimensions padded to whole vectors. Packed matrices have rows and columns of zeros there, so that padded values are 0 in every
//! layer: any width is computed by the same kernels.

use tealight_core::Result;
use tealight_kernels::int8::{NR, PackedRhs};

/// A dimension that consists of equal parts, each padded on its own: the heads of a projection, or one part for a hidden state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PaddedDim {
    /// Number of parts.
    pub parts: usize,
    /// Values of a part.
    pub len: usize,
}

impl PaddedDim {
    pub(crate) fn one(len: usize) -> Self {
        Self { parts: 1, len }
    }

    /// Length without padding.
    pub(crate) fn size(self) -> usize {
        self.parts * self.len
    }

    pub(crate) fn padded_part(self) -> usize {
        self.len.next_multiple_of(NR)
    }

    /// Length with padding.
    pub(crate) fn padded_size(self) -> usize {
        self.parts * self.padded_part()
    }

    /// `values` with 0 as padding; there are `row_len` values for each index of the dimension.
    pub(crate) fn pad(self, values: &[f32], row_len: usize) -> Vec<f32> {
        if self.len == self.padded_part() {
            return values.to_vec();
        }
        let mut out = Vec::with_capacity(self.padded_size() * row_len);
        for part in values.chunks_exact(self.len * row_len) {
            out.extend_from_slice(part);
            out.resize(out.len() + (self.padded_part() - self.len) * row_len, 0.0);
        }
        out
    }

    /// Drops the padding of `padded_size` values.
    pub(crate) fn unpad(self, values: &[f32]) -> Vec<f32> {
        values.chunks_exact(self.padded_part()).flat_map(|part| &part[..self.len]).copied().collect()
    }
}

/// A matrix `[rows, columns]` in f32 with its bias, without padding.
#[derive(Debug)]
pub(crate) struct Matrix {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub rows: PaddedDim,
    pub columns: PaddedDim,
}

impl Matrix {
    /// Packs the matrix with its padding. `smooth`, if given, has a divisor for each column, without padding.
    ///
    /// # Errors
    /// As [`PackedRhs::pack`].
    pub(crate) fn pack(&self, smooth: Option<&[f32]>, group_size: usize) -> Result<PackedRhs> {
        let k = self.columns.padded_size();
        let rows: Vec<f32> =
            self.weight.chunks_exact(self.columns.size()).flat_map(|row| self.columns.pad(row, 1)).collect();
        let weight = self.rows.pad(&rows, k);
        let smooth = smooth.map_or_else(|| vec![1.0; k], |factors| pad_with_ones(self.columns, factors));
        Ok(PackedRhs::pack(&weight, &self.rows.pad(&self.bias, 1), &smooth, group_size)?)
    }

    /// The values of a packed matrix, without padding.
    pub(crate) fn unpack(packed: &PackedRhs, rows: PaddedDim, columns: PaddedDim) -> Self {
        let (weight, bias) = packed.dequantize();
        let k = columns.padded_size();
        let parts = weight.chunks_exact(rows.padded_part() * k).flat_map(|part| &part[..rows.len * k]);
        let weight: Vec<f32> = parts.copied().collect();
        let weight = weight.chunks_exact(k).flat_map(|row| columns.unpad(row)).collect();
        Self { weight, bias: rows.unpad(&bias), rows, columns }
    }
}

fn pad_with_ones(columns: PaddedDim, factors: &[f32]) -> Vec<f32> {
    // Padding has no weights, so its divisors only have to be positive.
    columns.pad(factors, 1).into_iter().map(|f| if f == 0.0 { 1.0 } else { f }).collect()
}
