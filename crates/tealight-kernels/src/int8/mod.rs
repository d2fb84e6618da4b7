//! Products of int8 weights, packed for the kernels, with activations quantised on the way.
//!
//! RhsFormat are symmetric with one scale an output and group along K, `w = t q` with `q` in -127..=127; activations have
//! one step and one zero point a row and group, `x / smooth = s (u - z)` (see [`codes`](super::codes)). So
//! `y = bias + sum over groups of s t (sum u q - z sum q)`: sums inside a group are exact integers.
//! Dividing each input channel by `smooth`, and multiplying the weights by it, evens out channels of different size
//! (SmoothQuant, Xiao et al. 2022, arXiv 2211.10438).
#![allow(clippy::needless_range_loop)] // Indices are rows and columns of tiles.

pub use super::gemm::Epilogue;

use super::gemm::{self, NR, Prefetch, RhsFormat};
use super::quantize::{Encoding, QuantLayout, QuantScheme, QuantizedRows};
use super::simd::Simd;
use super::{Isa, dispatch};
use crate::{Error, Result};
use bytes::Bytes;
use std::ops::Range;

/// K is filled with zero weights to a multiple of this, and groups are multiples of it: what one instruction of AMX takes.
pub const K_ALIGN: usize = 64;
/// A larger group's sum of products of codes could leave 32 bits.
pub const MAX_GROUP_SIZE: usize = 1 << 16;
const MAGIC: &[u8; 4] = b"TLI8";
const HEADER: usize = 64;
/// Rows that are made at a time.
const PART: usize = 1024;
/// Scales and sums of a group, or the bias, of a panel's outputs: bytes of one of them.
const ROW: usize = 4 * NR;

/// A matrix `[N, K]` with its bias, as the kernels read it, in a mapped file or in memory.
///
/// Layout: a header of 64 bytes, `TLI8`, N, K and the group as u32, and zeros; `1 / smooth` `[K]` f32; then for each 16
/// outputs a panel: for each group along K its weights `[group / 4][16][4]` i8, scale `[16]` f32 and sum of weights `[16]`
/// i32; and behind them the bias `[16]` f32. Little-endian, without gaps.
#[derive(Debug, Clone)]
pub struct PackedRhs {
    bytes: Bytes,
    inverse: Vec<f32>,
    n: usize,
    k: usize,
    group: usize,
}

impl PackedRhs {
    /// Packs `weights [N, K]` and `bias [N]`; `smooth [K]` is what input channels are divided by, `group` the values along
    /// K that share a scale.
    ///
    /// # Errors
    /// The shape cannot be packed: N and K must be multiples of 16, the group one of 64, up to [`MAX_GROUP_SIZE`]; or a number is
    /// not finite, or `smooth` not positive.
    pub fn pack(weights: &[f32], bias: &[f32], smooth: &[f32], group: usize) -> Result<Self> {
        let (n, k) = (bias.len(), smooth.len());
        check_shape(n, k, group)?;
        if weights.len() != n * k {
            return Err(Error::InvalidMatrix(format!("a matrix of {} weights is not [{n}, {k}]", weights.len())));
        }
        if let Some(bad) = weights.iter().chain(bias).find(|v| !v.is_finite()) {
            return Err(Error::InvalidMatrix(format!("a matrix with the value {bad} cannot be packed")));
        }
        if let Some(bad) = smooth.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            return Err(Error::InvalidMatrix(format!("an input channel cannot be divided by {bad}")));
        }
        let inverse = smooth.iter().map(|s| 1.0 / s).collect();
        Ok(Self { bytes: pack(weights, bias, smooth, group).into(), inverse, n, k, group })
    }

    /// The same for rows that are made some at a time, so that no more of them are in memory: `fill` writes rows `[rows, K]`, which
    /// are zeros. There is no bias, and nothing is smoothed.
    ///
    /// # Errors
    /// As of [`PackedRhs::of`], or what `fill` says.
    pub fn pack_rows<E: From<Error>>(
        n: usize,
        k: usize,
        group: usize,
        mut fill: impl FnMut(Range<usize>, &mut [f32]) -> Result<(), E>,
    ) -> Result<Self, E> {
        check_shape(n, k, group)?;
        let (smooth, bias) = (vec![1.0; k], [0.0; PART]);
        let mut bytes = vec![];
        for start in (0..n).step_by(PART) {
            let rows = start..(start + PART).min(n);
            let mut weights = vec![0.0; rows.len() * k];
            fill(rows.clone(), &mut weights)?;
            let part = Self::pack(&weights, &bias[..rows.len()], &smooth, group)?.bytes;
            // One header for all.
            let panels = if start == 0 { 0 } else { HEADER + 4 * k };
            bytes.extend_from_slice(&part[panels..]);
        }
        bytes[4..8].copy_from_slice(&(n as u32).to_le_bytes());
        Ok(Self::from_bytes(bytes.into(), n, k)?)
    }

    /// Whether a size can be N or K.
    pub fn can_pack(size: usize) -> bool {
        size > 0 && size.is_multiple_of(NR)
    }

    /// A matrix `[n, k]` that [`PackedRhs::bytes`] wrote.
    ///
    /// # Errors
    /// The header is another, or the bytes are not as many as it needs.
    pub fn from_bytes(bytes: Bytes, n: usize, k: usize) -> Result<Self> {
        let Some((header, _)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(Error::InvalidMatrix(format!(
                "a packed matrix has {} bytes, its header {HEADER}",
                bytes.len()
            )));
        };
        let number = |i: usize| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]) as usize;
        let found = (number(4), number(8));
        if header[..4] != *MAGIC || found != (n, k) {
            return Err(Error::InvalidMatrix(format!(
                "a packed matrix is [{}, {}], expected [{n}, {k}]",
                found.0, found.1
            )));
        }
        let group = number(12);
        check_shape(n, k, group)?;
        let shape = Self { bytes: Bytes::new(), inverse: vec![], n, k, group };
        let expected = (n / NR).checked_mul(shape.panel_bytes()).and_then(|b| b.checked_add(HEADER + 4 * k));
        if expected != Some(bytes.len()) {
            return Err(Error::InvalidMatrix(format!(
                "a packed matrix [{n}, {k}] in groups of {group} has {} bytes, expected {}",
                bytes.len(),
                expected.unwrap_or(usize::MAX)
            )));
        }
        let inverse = bytes[HEADER..][..4 * k].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Ok(Self { bytes, inverse, ..shape })
    }

    /// The weights `[N, K]` and the bias `[N]` that it stands for.
    pub fn dequantize(&self) -> (Vec<f32>, Vec<f32>) {
        let mut weights = vec![0.0; self.n * self.k];
        weights.chunks_exact_mut(self.k).enumerate().for_each(|(n, row)| self.dequantize_row(n, row));
        let bias = |n: usize| {
            let end = HEADER + 4 * self.k + (n / NR + 1) * self.panel_bytes();
            f32::from_le_bytes(*self.bytes[end - ROW + n % NR * 4..].first_chunk().unwrap_or(&[0; 4]))
        };
        (weights, (0..self.n).map(bias).collect())
    }

    /// The weights of one output, to `out [K]`.
    ///
    /// # Panics
    /// If there is no such output, or `out` has another length.
    pub fn dequantize_row(&self, n: usize, out: &mut [f32]) {
        assert!(n < self.n && out.len() == self.k);
        let float = |at: usize| f32::from_le_bytes(*self.bytes[at..].first_chunk().unwrap_or(&[0; 4]));
        let mut at = HEADER + 4 * self.k + n / NR * self.panel_bytes();
        let c = n % NR;
        for g in 0..self.groups() {
            let range = self.group_range(g);
            let scales = at + NR * range.len();
            let scale = float(scales + 4 * c);
            for k in range.start..range.end.min(self.k) {
                let i = k - range.start;
                let code = self.bytes[at + i / 4 * 4 * NR + c * 4 + i % 4] as i8;
                out[k] = scale * code as f32 * self.inverse[k];
            }
            at = scales + 2 * ROW;
        }
    }

    /// The layout, to be written to a file.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// N.
    pub fn n(&self) -> usize {
        self.n
    }

    /// K.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Values along K that share a scale.
    pub fn group_size(&self) -> usize {
        self.group
    }

    /// How activations are quantised for this matrix.
    pub fn layout(&self) -> QuantLayout<'_> {
        QuantLayout {
            k: self.k,
            padded_k: self.width(),
            group_size: self.group,
            scheme: QuantScheme::Asymmetric { inv_smooth: &self.inverse },
        }
    }

    /// The weights of group `g` of a panel.
    ///
    /// # Safety
    /// There is such a group.
    #[inline(always)]
    pub(super) unsafe fn weights(&self, panel: *const u8, g: usize) -> *const u8 {
        // SAFETY: groups before it are whole.
        unsafe { panel.add(g * (NR * self.group + 2 * ROW)) }
    }

    /// The groups along K, as ranges of columns.
    #[inline(always)]
    pub(super) fn group_range(&self, g: usize) -> Range<usize> {
        g * self.group..((g + 1) * self.group).min(self.width())
    }
}

fn check_shape(n: usize, k: usize, group: usize) -> Result<()> {
    if !PackedRhs::can_pack(n) || !PackedRhs::can_pack(k) {
        return Err(Error::InvalidMatrix(format!(
            "a matrix [{n}, {k}] cannot be packed: both must be multiples of {NR}"
        )));
    }
    if !(1..=MAX_GROUP_SIZE).contains(&group) || !group.is_multiple_of(K_ALIGN) {
        return Err(Error::InvalidMatrix(format!(
            "groups of {group} cannot be packed: they must be multiples of {K_ALIGN} up to {MAX_GROUP_SIZE}"
        )));
    }
    Ok(())
}

// SAFETY: the constructors checked that the bytes are those of all panels; the methods read what the layout says.
unsafe impl RhsFormat for PackedRhs {
    fn width(&self) -> usize {
        self.k.next_multiple_of(K_ALIGN)
    }

    fn groups(&self) -> usize {
        self.width().div_ceil(self.group)
    }

    fn panel_bytes(&self) -> usize {
        NR * self.width() + self.groups() * 2 * ROW + ROW
    }

    #[inline(always)]
    fn panel(&self, column: usize) -> *const u8 {
        self.bytes.as_ptr().wrapping_add(HEADER + 4 * self.k + column / NR * self.panel_bytes())
    }

    #[inline(always)]
    unsafe fn bias<S: Simd>(&self, panel: *const u8) -> S {
        // SAFETY: it stands behind all groups.
        unsafe { S::load(panel.add(self.panel_bytes() - ROW).cast()) }
    }

    #[inline(always)]
    unsafe fn scale_and_offset<S: Simd>(&self, panel: *const u8, g: usize) -> (S, S) {
        // SAFETY: the scales stand behind the weights of the group, and the sums behind them.
        unsafe {
            let scales = self.weights(panel, g).add(NR * self.group_range(g).len());
            let scale = S::load(scales.cast());
            (scale, S::to_float(S::int_load(scales.add(ROW).cast())).mul(scale))
        }
    }

    #[inline(always)]
    unsafe fn accumulate_i32<S: Simd, const MR: usize, const NV: usize>(
        &self,
        codes: *const u8,
        panels: [*const u8; NV],
        g: usize,
        prefetch: &mut Prefetch,
    ) -> [[S::Int; NV]; MR] {
        let (width, range) = (self.width(), self.group_range(g));
        // SAFETY: the caller has `MR` rows of codes and such panels.
        unsafe {
            let codes = codes.add(range.start);
            let mut sums = [[S::int_splat(0); NV]; MR];
            let mut weights = panels;
            for j in 0..NV {
                weights[j] = self.weights(panels[j], g);
                let start = S::start(S::int_load(weights[j].add(NR * range.len() + ROW).cast()));
                for r in 0..MR {
                    sums[r][j] = start;
                }
            }
            for k in (0..range.len()).step_by(4) {
                prefetch.step::<S>();
                let mut b = [S::int_splat(0); NV];
                for j in 0..NV {
                    b[j] = S::load_bytes(weights[j].add(k * NR).cast());
                }
                for r in 0..MR {
                    let a = S::broadcast4(codes.add(r * width + k));
                    for j in 0..NV {
                        sums[r][j] = S::dot_codes(sums[r][j], a, b[j]);
                    }
                }
            }
            sums
        }
    }
}

fn pack(weights: &[f32], bias: &[f32], smooth: &[f32], group: usize) -> Vec<u8> {
    let (n, k) = (bias.len(), smooth.len());
    let width = k.next_multiple_of(K_ALIGN);
    let panels = n / NR * (NR * width + width.div_ceil(group) * 2 * ROW + ROW);
    let mut out = Vec::with_capacity(HEADER + 4 * k + panels);
    out.extend_from_slice(MAGIC);
    [n, k, group].iter().for_each(|v| out.extend_from_slice(&(*v as u32).to_le_bytes()));
    out.resize(HEADER, 0);
    smooth.iter().for_each(|s| out.extend_from_slice(&(1.0 / s).to_le_bytes()));
    let rows: Vec<Vec<f32>> = weights.chunks_exact(k).map(|row| smoothed(row, smooth, width)).collect();
    for (rows, bias) in rows.chunks_exact(NR).zip(bias.chunks_exact(NR)) {
        for start in (0..width).step_by(group) {
            let part = start..(start + group).min(width);
            let rows: Vec<Row> = rows.iter().map(|row| Row::quantise(&row[part.clone()])).collect();
            for four in 0..part.len() / 4 {
                rows.iter().for_each(|r| out.extend(r.codes[4 * four..4 * four + 4].iter().map(|c| *c as u8)));
            }
            rows.iter().for_each(|r| out.extend_from_slice(&r.scale.to_le_bytes()));
            rows.iter().for_each(|r| out.extend_from_slice(&r.sum().to_le_bytes()));
        }
        bias.iter().for_each(|b| out.extend_from_slice(&b.to_le_bytes()));
    }
    out
}

fn smoothed(row: &[f32], smooth: &[f32], width: usize) -> Vec<f32> {
    let mut row: Vec<f32> = row.iter().zip(smooth).map(|(w, s)| w * s).collect();
    row.resize(width, 0.0);
    row
}

/// A group of weights of one output.
struct Row {
    codes: Vec<i8>,
    scale: f32,
}

impl Row {
    fn quantise(row: &[f32]) -> Self {
        let largest = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        Self { codes: row.iter().map(|v| (v / scale).round() as i8).collect(), scale }
    }

    fn sum(&self) -> i32 {
        self.codes.iter().map(|c| *c as i32).sum()
    }
}

/// `out [rows, columns] = x W^T + bias` for some outputs of `w`, or what [`Epilogue`] makes of it.
///
/// # Panics
/// If `x` was quantised for another K, by a set of more levels or of another bias, `columns` are not whole panels of
/// `w`, or `out` has another size.
pub fn gemm(isa: Isa, x: &QuantizedRows, w: &PackedRhs, columns: Range<usize>, epilogue: Epilogue, out: &mut [f32]) {
    gemm::check(x, w, w.n, &columns, out);
    #[cfg(target_arch = "x86_64")]
    if let Isa::Amx(_) = isa
        && x.rows() > super::amx::FEWEST_ROWS
    {
        return super::amx::gemm(isa, x, w, columns, epilogue, out);
    }
    dispatch!(isa, gemm_impl(x: &QuantizedRows, w: &PackedRhs, columns: Range<usize>, epilogue: Epilogue, out: &mut [f32]));
}

/// Panics where codes of another set would not be exact.
pub(super) fn check_codes<S: Simd>(x: &QuantizedRows) {
    let is_exact = |qmax, storage_offset| qmax <= S::QMAX && storage_offset == S::STORAGE_OFFSET;
    assert!(
        matches!(x.encoding, Encoding::Unsigned { qmax, storage_offset } if is_exact(qmax, storage_offset)),
        "{:?} on an instruction set that is exact up to {}",
        x.encoding,
        S::QMAX
    );
}

#[inline(always)]
unsafe fn gemm_impl<S: Simd>(
    x: &QuantizedRows,
    w: &PackedRhs,
    columns: Range<usize>,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    check_codes::<S>(x);
    // SAFETY: `gemm` checked the sizes; the caller vouches for the instruction set.
    unsafe { gemm::gemm_impl::<S, PackedRhs>(x, w, columns, epilogue, out) };
}
