//! The product of quantized rows (lhs) and packed weights (rhs), written once for all formats of weights.
//!
//! A tile of mr rows by NV panels, which are vectors of nr columns, keeps its integer sums in registers over a group along K, scales them and adds
//! them to its float sums: `y = bias + sum over groups of (row.scale * scale * sum + row.offset_factor * offset)`, in this order on every
//! instruction set.
#![allow(clippy::needless_range_loop)] // Indices are rows and columns of tiles.

use crate::quantize::{QuantizedRows, RowScale};
use crate::simd::{LANES, Simd, Tile};
use std::ops::Range;

/// Columns of a panel of packed weights.
pub const NR: usize = LANES;

/// How each value of a product is written to the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epilogue {
    /// Overwrites the output.
    Store,
    /// Overwrites the output with the GELU of the value, as [`gelu_erf`](crate::rowwise::gelu_erf).
    Gelu,
    /// Adds the value to the output.
    Add,
    /// Multiplies the output by the value, as in a gated feed-forward network.
    Mul,
}

/// A format of packed weights `[N, K]`: panels of [`NR`] outputs, one after another.
///
/// # Safety
/// `panel` must point to `panel_bytes` bytes for each multiple of [`NR`] below N, and the other methods must read nothing outside
/// their panels.
pub(crate) unsafe trait RhsFormat {
    /// K with its padding: the bytes of a quantized row.
    fn padded_k(&self) -> usize;
    /// Number of groups along K.
    fn groups(&self) -> usize;
    fn panel_bytes(&self) -> usize;
    /// The panel whose first output is `column`.
    fn panel(&self, column: usize) -> *const u8;
    unsafe fn bias<S: Simd>(&self, panel: *const u8) -> S;
    /// The scales of the weights of a group of a panel, and their offsets, which [`RowScale::offset_factor`] multiplies: for int8, the
    /// sums of the quantized weights times their scales; for 4 bits, the minima (`m` in [`int4`](crate::int4)).
    unsafe fn scale_and_offset<S: Simd>(&self, panel: *const u8, group: usize) -> (S, S);
    /// Integer sums of a group for `MR` rows at `lhs` and `NV` panels.
    unsafe fn accumulate_i32<S: Simd, const MR: usize, const NV: usize>(
        &self,
        lhs: *const u8,
        panels: [*const u8; NV],
        group: usize,
        prefetch: &mut Prefetch,
    ) -> [[S::Int; NV]; MR];
}

/// The matrix that a product is written to.
#[derive(Clone, Copy)]
pub(crate) struct OutputMatrix {
    pub data: *mut f32,
    /// Row stride, in elements.
    pub stride: usize,
    /// The output in the first column of `data`.
    pub first_column: usize,
    pub epilogue: Epilogue,
}

impl OutputMatrix {
    /// Applies the epilogue to the outputs `column..column + NR` of one row.
    ///
    /// # Safety
    /// The matrix has these outputs; the CPU has the instruction set.
    #[inline(always)]
    pub(crate) unsafe fn store<S: Simd>(self, row: usize, column: usize, y: S) {
        // SAFETY: the caller's.
        unsafe {
            let out = self.data.add(row * self.stride + column - self.first_column);
            match self.epilogue {
                Epilogue::Store => y.store(out),
                Epilogue::Gelu => crate::rowwise::gelu(y).store(out),
                Epilogue::Add => S::load(out).add(y).store(out),
                Epilogue::Mul => S::load(out).mul(y).store(out),
            }
        }
    }
}

/// Prefetches the next panels while the current ones are multiplied, spread evenly over the steps along K. Without it, the first
/// tile of the next panels would wait for memory at every cache line.
pub(crate) struct Prefetch {
    line: *const u8,
    /// Bytes per step, such that the last step of the last tile reaches the end of the panels.
    stride: usize,
}

impl Prefetch {
    /// Prefetches the share of a step of four values along K.
    ///
    /// # Safety
    /// The CPU has the instruction set.
    #[inline(always)]
    pub(crate) unsafe fn step<S: Simd>(&mut self) {
        // SAFETY: any address may be prefetched.
        unsafe { S::prefetch(self.line) };
        self.line = self.line.wrapping_add(self.stride);
    }
}

/// Panics if the sizes of a product do not match; the loops rely on them.
pub(crate) fn check_sizes(lhs: &QuantizedRows, rhs: &impl RhsFormat, n: usize, columns: &Range<usize>, out: &[f32]) {
    assert_eq!((lhs.padded_k, lhs.groups), (rhs.padded_k(), rhs.groups()), "rows quantized for another matrix");
    assert!(columns.start.is_multiple_of(NR) && columns.end.is_multiple_of(NR) && columns.end <= n);
    assert_eq!(out.len(), lhs.rows() * columns.len());
}

/// # Safety
/// [`check_sizes`] has passed; the instruction set multiplies the encoding of `lhs` exactly; the CPU has the instruction set.
#[inline(always)]
pub(crate) unsafe fn gemm_impl<S: Simd, R: RhsFormat>(
    lhs: &QuantizedRows,
    rhs: &R,
    columns: Range<usize>,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    let out = OutputMatrix { data: out.as_mut_ptr(), stride: columns.len(), first_column: columns.start, epilogue };
    // SAFETY: tiles stay inside `columns` and the rows of `lhs`.
    unsafe {
        match S::TILE {
            Tile::R4x3 => {
                let wide_end = columns.start + columns.len() / (3 * NR) * (3 * NR);
                for c in (columns.start..wide_end).step_by(3 * NR) {
                    column_block::<S, R, 4, 3>(lhs, rhs, c, out);
                }
                for c in (wide_end..columns.end).step_by(NR) {
                    column_block::<S, R, 4, 1>(lhs, rhs, c, out);
                }
            }
            Tile::R6x1 => {
                for c in columns.step_by(NR) {
                    column_block::<S, R, 6, 1>(lhs, rhs, c, out);
                }
            }
            Tile::R4x1 => {
                for c in columns.step_by(NR) {
                    column_block::<S, R, 4, 1>(lhs, rhs, c, out);
                }
            }
        }
    }
}

/// All rows times `NV` panels: tiles of `MR` rows, then of 2 and 1 for the rest.
///
/// # Safety
/// `rhs` has these panels, `out` their outputs, and the CPU the instruction set.
#[inline(always)]
pub(crate) unsafe fn column_block<S: Simd, R: RhsFormat, const MR: usize, const NV: usize>(
    lhs: &QuantizedRows,
    rhs: &R,
    column: usize,
    out: OutputMatrix,
) {
    let rows = lhs.rows();
    let tiles = rows / MR + rows % MR / 2 + rows % 2;
    let steps = rhs.padded_k() / 4 * tiles.max(1);
    let next_panels = rhs.panel(column).wrapping_add(NV * rhs.panel_bytes());
    let mut prefetch = Prefetch { line: next_panels, stride: NV * rhs.panel_bytes() / steps };
    let mut row = 0;
    // SAFETY: a tile is only computed if as many rows remain.
    unsafe {
        while row + MR <= rows {
            tile::<S, R, MR, NV>(lhs, rhs, row, column, out, &mut prefetch);
            row += MR;
        }
        while row + 2 <= rows {
            tile::<S, R, 2, NV>(lhs, rhs, row, column, out, &mut prefetch);
            row += 2;
        }
        if row < rows {
            tile::<S, R, 1, NV>(lhs, rhs, row, column, out, &mut prefetch);
        }
    }
}

/// Adds the scaled sum of a group to the sums of the groups before it.
///
/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
pub(crate) unsafe fn add_group<S: Simd>(y: S, row: RowScale, sum: S::Int, scale: S, offset: S) -> S {
    // SAFETY: the caller's.
    unsafe {
        let scaled = S::to_float(sum).mul(scale);
        S::splat(row.offset_factor).mul_add(offset, S::splat(row.scale).mul_add(scaled, y))
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, R: RhsFormat, const MR: usize, const NV: usize>(
    lhs: &QuantizedRows,
    rhs: &R,
    row: usize,
    column: usize,
    out: OutputMatrix,
    prefetch: &mut Prefetch,
) {
    let groups = lhs.groups;
    // SAFETY: `lhs` has `row + MR` rows, `rhs` `NV` panels from `column` on, and `out` their outputs.
    unsafe {
        let mut panels = [rhs.panel(column); NV];
        for j in 0..NV {
            panels[j] = rhs.panel(column + j * NR);
        }
        let values = lhs.bytes.as_ptr().add(row * lhs.padded_k);
        let row_scales = lhs.row_scales.as_ptr().add(row * groups);
        let mut y = [[S::splat(0.0); NV]; MR];
        for j in 0..NV {
            let bias = rhs.bias::<S>(panels[j]);
            for r in 0..MR {
                y[r][j] = bias;
            }
        }
        for g in 0..groups {
            let sums = rhs.accumulate_i32::<S, MR, NV>(values, panels, g, prefetch);
            for j in 0..NV {
                let (scale, offset) = rhs.scale_and_offset::<S>(panels[j], g);
                for r in 0..MR {
                    y[r][j] = add_group(y[r][j], *row_scales.add(r * groups + g), sums[r][j], scale, offset);
                }
            }
        }
        for j in 0..NV {
            for r in 0..MR {
                out.store(row + r, column + j * NR, y[r][j]);
            }
        }
    }
}
