//! The product of quantised rows with packed weights: one algorithm for every format of weights.
//!
//! A tile of rows and outputs keeps its integer sums in registers over a group along K, then scales them and adds them to
//! its float sums: `y = bias + sum over groups of (step scale sum + offset constant)`, in this order on every set.
#![allow(clippy::needless_range_loop)] // Indices are rows and columns of tiles.

use super::quantize::{Codes, Terms};
use super::simd::{LANES, Simd, Tile};
use std::ops::Range;

/// Outputs of a panel.
pub const PANEL: usize = LANES;

/// What a product becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The output.
    Store,
    /// The output, through the exact GELU.
    Gelu,
    /// Added to the output.
    Add,
}

/// A packed matrix `[N, K]`: panels of [`PANEL`] outputs one after another.
///
/// # Safety
/// `panel` must point to `panel_bytes` bytes for each multiple of [`PANEL`] below N, and the other methods must read
/// nothing else of it.
pub(super) unsafe trait Weights {
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
    unsafe fn constants<S: Simd>(&self, panel: *const u8, g: usize) -> (S, S);
    /// Integer sums of a group, for `MR` rows of `codes` and `NV` panels.
    unsafe fn sums<S: Simd, const MR: usize, const NV: usize>(
        &self,
        codes: *const u8,
        panels: [*const u8; NV],
        g: usize,
        ahead: &mut Ahead,
    ) -> [[S::Int; NV]; MR];
}

/// Where a product goes.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub out: *mut f32,
    pub stride: usize,
    /// The output that stands first in a row of `out`.
    pub first: usize,
    pub then: Then,
}

impl Target {
    /// Puts a vector of one row, outputs `column..`.
    ///
    /// # Safety
    /// `out` has room for it; the CPU has the set.
    #[inline(always)]
    pub(super) unsafe fn put<S: Simd>(self, row: usize, column: usize, y: S) {
        // SAFETY: the caller's.
        unsafe {
            let at = self.out.add(row * self.stride + column - self.first);
            match self.then {
                Then::Store => y.store(at),
                Then::Gelu => super::rowwise::gelu(y).store(at),
                Then::Add => S::load(at).add(y).store(at),
            }
        }
    }
}

/// The weights that follow in memory, asked for bit by bit: the first tile that needs them would else wait for each line.
pub(super) struct Ahead {
    line: *const u8,
    /// Bytes of a step along K, so that the last step of the last tile reaches their end.
    stride: usize,
}

impl Ahead {
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
pub(super) fn check(x: &Codes, w: &impl Weights, n: usize, columns: &Range<usize>, out: &[f32]) {
    assert_eq!((x.width, x.groups), (w.width(), w.groups()), "codes for another matrix");
    assert!(columns.start.is_multiple_of(PANEL) && columns.end.is_multiple_of(PANEL) && columns.end <= n);
    assert_eq!(out.len(), x.rows() * columns.len());
}

/// # Safety
/// [`check`] has passed; the codes are such as the set multiplies exactly; the CPU has the set.
#[inline(always)]
pub(super) unsafe fn product<S: Simd, W: Weights>(
    x: &Codes,
    w: &W,
    columns: Range<usize>,
    then: Then,
    out: &mut [f32],
) {
    let at = Target { out: out.as_mut_ptr(), stride: columns.len(), first: columns.start, then };
    // SAFETY: columns and rows stay inside `columns` and the rows of `x`.
    unsafe {
        match S::TILE {
            Tile::R4x3 => {
                let wide = columns.start + columns.len() / (3 * PANEL) * (3 * PANEL);
                for c in (columns.start..wide).step_by(3 * PANEL) {
                    column::<S, W, 4, 3>(x, w, c, at);
                }
                for c in (wide..columns.end).step_by(PANEL) {
                    column::<S, W, 4, 1>(x, w, c, at);
                }
            }
            Tile::R6x1 => {
                for c in columns.step_by(PANEL) {
                    column::<S, W, 6, 1>(x, w, c, at);
                }
            }
            Tile::R4x1 => {
                for c in columns.step_by(PANEL) {
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
pub(super) unsafe fn column<S: Simd, W: Weights, const MR: usize, const NV: usize>(
    x: &Codes,
    w: &W,
    c: usize,
    at: Target,
) {
    let rows = x.rows();
    let tiles = rows / MR + rows % MR / 2 + rows % 2;
    let steps = w.width() / 4 * tiles.max(1);
    let following = w.panel(c).wrapping_add(NV * w.panel_bytes());
    let mut ahead = Ahead { line: following, stride: NV * w.panel_bytes() / steps };
    let mut r = 0;
    // SAFETY: a tile of m rows is only made where m rows are left.
    unsafe {
        while r + MR <= rows {
            tile::<S, W, MR, NV>(x, w, r, c, at, &mut ahead);
            r += MR;
        }
        while r + 2 <= rows {
            tile::<S, W, 2, NV>(x, w, r, c, at, &mut ahead);
            r += 2;
        }
        if r < rows {
            tile::<S, W, 1, NV>(x, w, r, c, at, &mut ahead);
        }
    }
}

/// A group's part of an output, added to those before it.
///
/// # Safety
/// The CPU has the set.
#[inline(always)]
pub(super) unsafe fn add_group<S: Simd>(y: S, terms: Terms, sum: S::Int, scale: S, constant: S) -> S {
    // SAFETY: the caller's.
    unsafe {
        let scaled = S::to_float(sum).mul(scale);
        S::splat(terms.offset).mul_add(constant, S::splat(terms.step).mul_add(scaled, y))
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, W: Weights, const MR: usize, const NV: usize>(
    x: &Codes,
    w: &W,
    row: usize,
    c: usize,
    at: Target,
    ahead: &mut Ahead,
) {
    let groups = x.groups;
    // SAFETY: the caller has `row + MR` rows of `x` and `NV` panels of `w` from `c` on, and `at` has room for them.
    unsafe {
        let mut panels = [w.panel(c); NV];
        for j in 0..NV {
            panels[j] = w.panel(c + j * PANEL);
        }
        let codes = x.bytes.as_ptr().add(row * x.width);
        let terms = x.terms.as_ptr().add(row * groups);
        let mut y = [[S::splat(0.0); NV]; MR];
        for j in 0..NV {
            let bias = w.bias::<S>(panels[j]);
            for r in 0..MR {
                y[r][j] = bias;
            }
        }
        for g in 0..groups {
            let sums = w.sums::<S, MR, NV>(codes, panels, g, ahead);
            for j in 0..NV {
                let (scale, constant) = w.constants::<S>(panels[j], g);
                for r in 0..MR {
                    y[r][j] = add_group(y[r][j], *terms.add(r * groups + g), sums[r][j], scale, constant);
                }
            }
        }
        for j in 0..NV {
            for r in 0..MR {
                at.put(row + r, c + j * PANEL, y[r][j]);
            }
        }
    }
}
