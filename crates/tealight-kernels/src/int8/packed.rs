//! int8 weights in kernel layout.
#![allow(clippy::needless_range_loop)] // Indices are rows and columns of tiles.

use crate::error::{Error, Result};
use crate::gemm::{NR, Prefetch, RhsFormat};
use crate::quantize::{QuantLayout, QuantScheme, QuantizedRows, ValueEncoding};
use crate::simd::Simd;
use bytes::Bytes;
use std::ops::Range;

/// K is padded with zero weights to a multiple of this, and the group size is a multiple of it: an AMX tile has 64 bytes per row.
pub const K_ALIGN: usize = 64;
/// With larger groups, the sum of products could exceed 32 bits.
pub const MAX_GROUP_SIZE: usize = 1 << 16;
const MAGIC: &[u8; 4] = b"TLI8";
const HEADER_BYTES: usize = 64;
/// Outputs that [`PackedRhs::pack_rows`] packs at a time.
const CHUNK_ROWS: usize = 1024;
/// Bytes of one 32-bit number per output of a panel: scales or sums of a group, or the bias.
const NR_F32_BYTES: usize = 4 * NR;

/// The right-hand side of a product: a matrix `[N, K]` and its bias in kernel layout, in memory or in a mapped file.
///
/// Layout, little-endian and without gaps: a header of 64 bytes (`TLI8`, N, K and the group size as u32, zeros); `1 / smooth` `[K]`
/// f32; then a panel for each 16 outputs. A panel has for each group along K the weights `[group / 4][16][4]` i8, the scales `[16]`
/// f32 and the sums of the weights `[16]` i32; and at its end the bias `[16]` f32.
#[derive(Debug, Clone)]
pub struct PackedRhs {
    bytes: Bytes,
    inv_smooth: Vec<f32>,
    n: usize,
    k: usize,
    group_size: usize,
}

impl PackedRhs {
    /// Packs `weights [N, K]` and `bias [N]`. Input channels are divided by `smooth [K]`; `group_size` values along K share a
    /// scale.
    ///
    /// # Errors
    /// N or K is not a multiple of 16, the group size is not a multiple of [`K_ALIGN`] up to [`MAX_GROUP_SIZE`], a number is not
    /// finite, or a value of `smooth` is not positive.
    pub fn pack(weights: &[f32], bias: &[f32], smooth: &[f32], group_size: usize) -> Result<Self> {
        let (n, k) = (bias.len(), smooth.len());
        check_shape(n, k, group_size)?;
        if weights.len() != n * k {
            let message = format!("matrix has {} weights; expected [{n}, {k}]", weights.len());
            return Err(Error::InvalidMatrix(message));
        }
        if let Some(value) = weights.iter().chain(bias).find(|v| !v.is_finite()) {
            return Err(Error::InvalidMatrix(format!("matrix contains {value}; expected finite values")));
        }
        if let Some(factor) = smooth.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            return Err(Error::InvalidMatrix(format!("smoothing factor is {factor}; expected a positive number")));
        }
        let inv_smooth = smooth.iter().map(|s| 1.0 / s).collect();
        Ok(Self { bytes: pack_bytes(weights, bias, smooth, group_size).into(), inv_smooth, n, k, group_size })
    }

    /// Packs rows that `fill` produces in chunks, so that only one chunk is in memory as float32. `fill` writes the rows of a range
    /// to `[rows, K]`, which is zeroed. There is no bias and no smoothing.
    ///
    /// # Errors
    /// As [`PackedRhs::pack`], or an error of `fill`.
    pub fn pack_rows<E: From<Error>>(
        n: usize,
        k: usize,
        group_size: usize,
        mut fill: impl FnMut(Range<usize>, &mut [f32]) -> Result<(), E>,
    ) -> Result<Self, E> {
        check_shape(n, k, group_size)?;
        let (smooth, bias) = (vec![1.0; k], [0.0; CHUNK_ROWS]);
        let mut bytes = vec![];
        for start in (0..n).step_by(CHUNK_ROWS) {
            let rows = start..(start + CHUNK_ROWS).min(n);
            let mut weights = vec![0.0; rows.len() * k];
            fill(rows.clone(), &mut weights)?;
            let chunk = Self::pack(&weights, &bias[..rows.len()], &smooth, group_size)?.bytes;
            // Only the header of the first chunk is used; its N is corrected below.
            let panels_offset = if start == 0 { 0 } else { HEADER_BYTES + 4 * k };
            bytes.extend_from_slice(&chunk[panels_offset..]);
        }
        bytes[4..8].copy_from_slice(&(n as u32).to_le_bytes());
        Ok(Self::from_bytes(bytes.into(), n, k)?)
    }

    /// Whether a matrix with this size as N or K can be packed.
    pub fn can_pack(size: usize) -> bool {
        size > 0 && size.is_multiple_of(NR)
    }

    /// Reads a matrix `[n, k]` from the bytes of [`PackedRhs::bytes`], without copying the weights.
    ///
    /// # Errors
    /// The header has another shape, or the number of bytes does not match it.
    pub fn from_bytes(bytes: Bytes, n: usize, k: usize) -> Result<Self> {
        let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            let message = format!("packed matrix is {} bytes; expected a header of {HEADER_BYTES}", bytes.len());
            return Err(Error::InvalidMatrix(message));
        };
        let number = |i: usize| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]) as usize;
        let found = (number(4), number(8));
        if header[..4] != *MAGIC || found != (n, k) {
            let message = format!("packed int8 matrix is [{}, {}]; expected [{n}, {k}]", found.0, found.1);
            return Err(Error::InvalidMatrix(message));
        }
        let group_size = number(12);
        check_shape(n, k, group_size)?;
        let expected = Self::packed_len(n, k, group_size);
        if expected != Some(bytes.len()) {
            return Err(Error::InvalidMatrix(format!(
                "packed int8 matrix [{n}, {k}] with groups of {group_size} is {} bytes; expected {}",
                bytes.len(),
                expected.unwrap_or(usize::MAX)
            )));
        }
        let inv_smooth = bytes[HEADER_BYTES..][..4 * k].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Ok(Self { bytes, inv_smooth, n, k, group_size })
    }

    /// Length of [`PackedRhs::bytes`] of a matrix `[n, k]`, where `n` is a multiple of 16; `None` if it overflows.
    pub fn packed_len(n: usize, k: usize, group_size: usize) -> Option<usize> {
        let shape = Self { bytes: Bytes::new(), inv_smooth: vec![], n, k, group_size };
        (n / NR).checked_mul(shape.panel_bytes()).and_then(|b| b.checked_add(HEADER_BYTES + 4 * k))
    }

    /// The weights `[N, K]` and the bias `[N]` in float32.
    pub fn dequantize(&self) -> (Vec<f32>, Vec<f32>) {
        let mut weights = vec![0.0; self.n * self.k];
        weights.chunks_exact_mut(self.k).enumerate().for_each(|(n, row)| self.dequantize_row(n, row));
        let bias = |n: usize| {
            let panel_end = HEADER_BYTES + 4 * self.k + (n / NR + 1) * self.panel_bytes();
            let bytes = self.bytes[panel_end - NR_F32_BYTES + n % NR * 4..].first_chunk();
            f32::from_le_bytes(*bytes.unwrap_or(&[0; 4]))
        };
        (weights, (0..self.n).map(bias).collect())
    }

    /// Writes the weights of one output to `out [K]`.
    ///
    /// # Panics
    /// If `n` is not below N, or the length of `out` is not K.
    pub fn dequantize_row(&self, n: usize, out: &mut [f32]) {
        assert!(n < self.n && out.len() == self.k);
        let float = |offset: usize| f32::from_le_bytes(*self.bytes[offset..].first_chunk().unwrap_or(&[0; 4]));
        let mut offset = HEADER_BYTES + 4 * self.k + n / NR * self.panel_bytes();
        let c = n % NR;
        for g in 0..self.groups() {
            let range = self.group_range(g);
            let scales = offset + NR * range.len();
            let scale = float(scales + 4 * c);
            for k in range.start..range.end.min(self.k) {
                let i = k - range.start;
                let q = self.bytes[offset + i / 4 * 4 * NR + c * 4 + i % 4] as i8;
                out[k] = scale * q as f32 * self.inv_smooth[k];
            }
            offset = scales + 2 * NR_F32_BYTES;
        }
    }

    /// The matrix in kernel layout, as files store it.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Number of outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Number of inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Values along K that share a scale.
    pub fn group_size(&self) -> usize {
        self.group_size
    }

    /// How activations are quantized for this matrix.
    pub fn layout(&self) -> QuantLayout<'_> {
        QuantLayout {
            k: self.k,
            padded_k: self.padded_k(),
            group_size: self.group_size,
            scheme: QuantScheme::Asymmetric { inv_smooth: &self.inv_smooth },
        }
    }

    /// The weights of a group of a panel.
    ///
    /// # Safety
    /// The matrix has this group.
    #[inline(always)]
    pub(super) unsafe fn weights(&self, panel: *const u8, group: usize) -> *const u8 {
        // SAFETY: the groups before it have their full size.
        unsafe { panel.add(group * (NR * self.group_size + 2 * NR_F32_BYTES)) }
    }

    /// The columns of a group, including padding.
    #[inline(always)]
    pub(super) fn group_range(&self, group: usize) -> Range<usize> {
        group * self.group_size..((group + 1) * self.group_size).min(self.padded_k())
    }
}

fn check_shape(n: usize, k: usize, group_size: usize) -> Result<()> {
    if !PackedRhs::can_pack(n) || !PackedRhs::can_pack(k) {
        let message = format!("matrix for int8 weights is [{n}, {k}]; expected multiples of {NR}");
        return Err(Error::InvalidMatrix(message));
    }
    if !(1..=MAX_GROUP_SIZE).contains(&group_size) || !group_size.is_multiple_of(K_ALIGN) {
        return Err(Error::InvalidMatrix(format!(
            "group size is {group_size}; expected a multiple of {K_ALIGN} up to {MAX_GROUP_SIZE}"
        )));
    }
    Ok(())
}

/// Panics if an instruction set does not multiply these rows exactly, because another one quantized them.
pub(super) fn check_encoding<S: Simd>(rows: &QuantizedRows) {
    let is_exact = |qmax, storage_offset| qmax <= S::QMAX && storage_offset == S::STORAGE_OFFSET;
    assert!(
        matches!(rows.encoding, ValueEncoding::Unsigned { qmax, storage_offset } if is_exact(qmax, storage_offset)),
        "{:?} on an instruction set that is exact up to {}",
        rows.encoding,
        S::QMAX
    );
}

// SAFETY: the constructors checked that the bytes are those of all panels; the methods read what the layout says.
unsafe impl RhsFormat for PackedRhs {
    fn padded_k(&self) -> usize {
        self.k.next_multiple_of(K_ALIGN)
    }

    fn groups(&self) -> usize {
        self.padded_k().div_ceil(self.group_size)
    }

    fn panel_bytes(&self) -> usize {
        NR * self.padded_k() + self.groups() * 2 * NR_F32_BYTES + NR_F32_BYTES
    }

    #[inline(always)]
    fn panel(&self, column: usize) -> *const u8 {
        self.bytes.as_ptr().wrapping_add(HEADER_BYTES + 4 * self.k + column / NR * self.panel_bytes())
    }

    #[inline(always)]
    unsafe fn bias<S: Simd>(&self, panel: *const u8) -> S {
        // SAFETY: it follows the groups.
        unsafe { S::load(panel.add(self.panel_bytes() - NR_F32_BYTES).cast()) }
    }

    #[inline(always)]
    unsafe fn scale_and_offset<S: Simd>(&self, panel: *const u8, group: usize) -> (S, S) {
        // SAFETY: the scales follow the weights of the group, and the sums of the weights follow the scales.
        unsafe {
            let scales = self.weights(panel, group).add(NR * self.group_range(group).len());
            let scale = S::load(scales.cast());
            (scale, S::to_float(S::int_load(scales.add(NR_F32_BYTES).cast())).mul(scale))
        }
    }

    #[inline(always)]
    unsafe fn accumulate_i32<S: Simd, const MR: usize, const NV: usize>(
        &self,
        lhs: *const u8,
        panels: [*const u8; NV],
        group: usize,
        prefetch: &mut Prefetch,
    ) -> [[S::Int; NV]; MR] {
        let (stride, range) = (self.padded_k(), self.group_range(group));
        // SAFETY: the caller has `MR` quantized rows and such panels.
        unsafe {
            let lhs = lhs.add(range.start);
            let mut sums = [[S::int_splat(0); NV]; MR];
            let mut weights = panels;
            for j in 0..NV {
                weights[j] = self.weights(panels[j], group);
                let weight_sums = S::int_load(weights[j].add(NR * range.len() + NR_F32_BYTES).cast());
                let init = S::acc_init(weight_sums);
                for r in 0..MR {
                    sums[r][j] = init;
                }
            }
            for k in (0..range.len()).step_by(4) {
                prefetch.step::<S>();
                let mut b = [S::int_splat(0); NV];
                for j in 0..NV {
                    b[j] = S::load_i8x4(weights[j].add(k * NR).cast());
                }
                for r in 0..MR {
                    let a = S::splat_u8x4(lhs.add(r * stride + k));
                    for j in 0..NV {
                        sums[r][j] = S::dot_u8i8(sums[r][j], a, b[j]);
                    }
                }
            }
            sums
        }
    }
}

fn pack_bytes(weights: &[f32], bias: &[f32], smooth: &[f32], group_size: usize) -> Vec<u8> {
    let (n, k) = (bias.len(), smooth.len());
    let padded_k = k.next_multiple_of(K_ALIGN);
    let panel_bytes = NR * padded_k + padded_k.div_ceil(group_size) * 2 * NR_F32_BYTES + NR_F32_BYTES;
    let mut out = Vec::with_capacity(HEADER_BYTES + 4 * k + n / NR * panel_bytes);
    out.extend_from_slice(MAGIC);
    [n, k, group_size].iter().for_each(|v| out.extend_from_slice(&(*v as u32).to_le_bytes()));
    out.resize(HEADER_BYTES, 0);
    smooth.iter().for_each(|s| out.extend_from_slice(&(1.0 / s).to_le_bytes()));
    let rows: Vec<Vec<f32>> = weights.chunks_exact(k).map(|row| smooth_and_pad(row, smooth, padded_k)).collect();
    for (rows, bias) in rows.chunks_exact(NR).zip(bias.chunks_exact(NR)) {
        for start in (0..padded_k).step_by(group_size) {
            let columns = start..(start + group_size).min(padded_k);
            let groups: Vec<WeightGroup> =
                rows.iter().map(|row| WeightGroup::quantize(&row[columns.clone()])).collect();
            for quad in 0..columns.len() / 4 {
                groups.iter().for_each(|g| out.extend(g.quantized[4 * quad..4 * quad + 4].iter().map(|q| *q as u8)));
            }
            groups.iter().for_each(|g| out.extend_from_slice(&g.scale.to_le_bytes()));
            groups.iter().for_each(|g| out.extend_from_slice(&g.sum().to_le_bytes()));
        }
        bias.iter().for_each(|b| out.extend_from_slice(&b.to_le_bytes()));
    }
    out
}

fn smooth_and_pad(row: &[f32], smooth: &[f32], padded_k: usize) -> Vec<f32> {
    let mut row: Vec<f32> = row.iter().zip(smooth).map(|(w, s)| w * s).collect();
    row.resize(padded_k, 0.0);
    row
}

/// A group of weights of one output.
struct WeightGroup {
    quantized: Vec<i8>,
    scale: f32,
}

impl WeightGroup {
    fn quantize(weights: &[f32]) -> Self {
        let max_abs = weights.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let scale = if max_abs > 0.0 { max_abs / 127.0 } else { 1.0 };
        Self { quantized: weights.iter().map(|v| (v / scale).round() as i8).collect(), scale }
    }

    fn sum(&self) -> i32 {
        self.quantized.iter().map(|q| *q as i32).sum()
    }
}
