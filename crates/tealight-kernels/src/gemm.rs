//! The product of quantised rows with packed weights: one algorithm for every format of weights.
//!
//! A tile of rows and outputs keeps its integer sums in registers over a group along K, then scales them and adds them to
//! its float sums: `y = bias + sum over groups of (step scale sum + offset constant)`, in this order on every set.
#![allow(clippy::needless_range_loop)] // Indices are rows and columns of tiles.

use super::quantize::{QuantizedRows, RowScale};
use super::simd::{LANES, Simd, Tile};
use std::ops::Range;

/// Outputs of a panel.
pub const NR: usize = LANES;

/// What a product becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epilogue {
    /// The output.
    Store,
    /// The output, through the exact GELU.
    Gelu,
    /// Added to the output.
    Add,
}

/// A packed matrix `[N, K]`: panels of [`NR`] outputs one after another.
///
/// # Safety
/// `panel` must point to `panel_bytes` bytes for each multiple of [`NR`] below N, and the other methods must read
/// nothing else of it.
pub(super) unsafe trait RhsFormat {
    /// Codes of a row.
    fn width(&self) -> usize;
    /// Groups along K.
    fn groups(&self) -> usize;
    fn panel_bytes(&self) -> usize;
    /// The panel that begins with output `column`.
    fn panel(&self, column: usize) -> *const u8;
    /// The bias of a panel.
    unsafe fn bias<S: Simd>(&self, panel: *const u8) -> S;
    /// Scale and constant of a panel's group.
    unsafe fn scale_and_offset<S: Simd>(&self, panel: *const u8, g: usize) -> (S, S);
    /// Integer sums of a group, for `MR` rows of `codes` and `NV` panels.
    unsafe fn accumulate_i32<S: Simd, const MR: usize, const NV: usize>(
        &self,
        codes: *const u8,
        panels: [*const u8; NV],
        g: usize,
        prefetch: &mut Prefetch,
    ) -> [[S::Int; NV]; MR];
}

/// Where a product goes.
#[derive(Clone, Copy)]
pub(super) struct OutputMatrix {
    pub out: *mut f32,
    pub stride: usize,
    /// The output that stands first in a row of `out`.
    pub first: usize,
    pub epilogue: Epilogue,
}

impl OutputMatrix {
    /// Puts a vector of one row, outputs `column..`.
    ///
    /// # Safety
    /// `out` has room for it; the CPU has the set.
    #[inline(always)]
    pub(super) unsafe fn store<S: Simd>(self, row: usize, column: usize, y: S) {
        // SAFETY: the caller's.
        unsafe {
            let at = self.out.add(row * self.stride + column - self.first);
            match self.epilogue {
                Epilogue::Store => y.store(at),
                Epilogue::Gelu => super::rowwise::gelu(y).store(at),
                Epilogue::Add => S::load(at).add(y).store(at),
            }
        }
    }
}

/// The weights that follow in memory, asked for bit by bit: the first tile that needs them would else wait for each line.
pub(super) struct Prefetch {
    line: *const u8,
    /// Bytes of a step along K, so that the last step of the last tile reaches their end.
    stride: usize,
}

impl Prefetch {
    /// Asks for what belongs to the next step of four codes.
    ///
    /// # Safety
    /// The CPU has the set.
    #[inline(always)]
    pub(super) unsafe fn step<S: Simd>(&mut self) {
        // SAFETY: any address may be asked for.
        unsafe { S::prefetch(self.line) };
        self.line = self.line.wrapping_add(self.stride);
    }
}

/// Panics where sizes do not fit each other: what the loops rely on.
pub(super) fn check(x: &QuantizedRows, w: &impl RhsFormat, n: usize, columns: &Range<usize>, out: &[f32]) {
    assert_eq!((x.padded_k, x.groups), (w.width(), w.groups()), "codes for another matrix");
    assert!(columns.start.is_multiple_of(NR) && columns.end.is_multiple_of(NR) && columns.end <= n);
    assert_eq!(out.len(), x.rows() * columns.len());
}

/// # Safety
/// [`check`] has passed; the codes are such as the set multiplies exactly; the CPU has the set.
#[inline(always)]
pub(super) unsafe fn gemm_impl<S: Simd, W: RhsFormat>(
    x: &QuantizedRows,
    w: &W,
    columns: Range<usize>,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    let at = OutputMatrix { out: out.as_mut_ptr(), stride: columns.len(), first: columns.start, epilogue };
    // SAFETY: columns and rows stay inside `columns` and the rows of `x`.
    unsafe {
        match S::TILE {
            Tile::R4x3 => {
                let wide = columns.start + columns.len() / (3 * NR) * (3 * NR);
                for c in (columns.start..wide).step_by(3 * NR) {
                    column::<S, W, 4, 3>(x, w, c, at);
                }
                for c in (wide..columns.end).step_by(NR) {
                    column::<S, W, 4, 1>(x, w, c, at);
                }
            }
            Tile::R6x1 => {
                for c in columns.step_by(NR) {
                    column::<S, W, 6, 1>(x, w, c, at);
                }
            }
            Tile::R4x1 => {
                for c in columns.step_by(NR) {
                    column::<S, W, 4, 1>(x, w, c, at);
                }
            }
        }
    }
}

/// All rows of `NV` panels, `MR` at a time and then fewer.
///
/// # Safety
/// There are such panels, `at` has room for their outputs, and the CPU has the set.
#[inline(always)]
pub(super) unsafe fn column<S: Simd, W: RhsFormat, const MR: usize, const NV: usize>(
    x: &QuantizedRows,
    w: &W,
    c: usize,
    at: OutputMatrix,
) {
    let rows = x.rows();
    let tiles = rows / MR + rows % MR / 2 + rows % 2;
    let steps = w.width() / 4 * tiles.max(1);
    let following = w.panel(c).wrapping_add(NV * w.panel_bytes());
    let mut prefetch = Prefetch { line: following, stride: NV * w.panel_bytes() / steps };
    let mut r = 0;
    // SAFETY: a tile of m rows is only made where m rows are left.
    unsafe {
        while r + MR <= rows {
            tile::<S, W, MR, NV>(x, w, r, c, at, &mut prefetch);
            r += MR;
        }
        while r + 2 <= rows {
            tile::<S, W, 2, NV>(x, w, r, c, at, &mut prefetch);
            r += 2;
        }
        if r < rows {
            tile::<S, W, 1, NV>(x, w, r, c, at, &mut prefetch);
        }
    }
}

/// A group's part of an output, added to those before it.
///
/// # Safety
/// The CPU has the set.
#[inline(always)]
pub(super) unsafe fn add_group<S: Simd>(y: S, terms: RowScale, sum: S::Int, scale: S, constant: S) -> S {
    // SAFETY: the caller's.
    unsafe {
        let scaled = S::to_float(sum).mul(scale);
        S::splat(terms.offset).mul_add(constant, S::splat(terms.scale).mul_add(scaled, y))
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, W: RhsFormat, const MR: usize, const NV: usize>(
    x: &QuantizedRows,
    w: &W,
    row: usize,
    c: usize,
    at: OutputMatrix,
    prefetch: &mut Prefetch,
) {
    let groups = x.groups;
    // SAFETY: the caller has `row + MR` rows of `x` and `NV` panels of `w` from `c` on, and `at` has room for them.
    unsafe {
        let mut panels = [w.panel(c); NV];
        for j in 0..NV {
            panels[j] = w.panel(c + j * NR);
        }
        let codes = x.bytes.as_ptr().add(row * x.padded_k);
        let terms = x.row_scales.as_ptr().add(row * groups);
        let mut y = [[S::splat(0.0); NV]; MR];
        for j in 0..NV {
            let bias = w.bias::<S>(panels[j]);
            for r in 0..MR {
                y[r][j] = bias;
            }
        }
        for g in 0..groups {
            let sums = w.accumulate_i32::<S, MR, NV>(codes, panels, g, prefetch);
            for j in 0..NV {
                let (scale, constant) = w.scale_and_offset::<S>(panels[j], g);
                for r in 0..MR {
                    y[r][j] = add_group(y[r][j], *terms.add(r * groups + g), sums[r][j], scale, constant);
                }
            }
        }
        for j in 0..NV {
            for r in 0..MR {
                at.store(row + r, c + j * NR, y[r][j]);
            }
        }
    }
}
