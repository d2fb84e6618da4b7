//! Products with 4-bit weights, which read half of the memory that int8 weights need: the time for a token of a language model is
//! the time to read its weights.
//!
//! Each group of 32 weights along K has a scale `d` and a minimum `m` in half floats: `w = d q + m` with `q` from 0 to 15. This is
//! ggml's Q4_1, and its Q4_0 with `m = -8 d`. Activations are quantized with
//! [`QuantScheme::Symmetric`](crate::quantize::QuantScheme), one scale `s` for the same 32 values: `x = s a`. The product is
//! `y = bias + sum over groups of (s d sum q a + m s sum a)`. Sums inside a group are exact integers.
#![allow(clippy::needless_range_loop)] // Indices are rows and columns of tiles.

pub use crate::gemm::{Epilogue, NR};

use crate::dispatch::dispatch;
use crate::error::{Error, Result};
use crate::gemm::{self, Prefetch, RhsFormat};
use crate::isa::Isa;
use crate::quantize::{QuantLayout, QuantScheme, QuantizedRows, ValueEncoding};
use crate::simd::Simd;
use bytes::Bytes;
use half::f16;
use std::ops::Range;

/// Weights along K that share a scale and a minimum.
pub const GROUP_SIZE: usize = 32;
const MAGIC: &[u8; 4] = b"TLI4";
const HEADER_BYTES: usize = 64;
/// Weights of a group of a panel, two per byte.
const WEIGHT_BYTES: usize = NR * GROUP_SIZE / 2;
/// A group of a panel: weights, scales, minima.
const GROUP_BYTES: usize = WEIGHT_BYTES + 2 * NR * 2;
const BIAS_BYTES: usize = 4 * NR;

/// 32 weights of one output, ggml's `block_q4_1`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Q4Block {
    /// `d`.
    pub scale: f16,
    /// `m`: the weight of `q = 0`, which is the smallest.
    pub min: f16,
    /// `q`, from 0 to 15.
    pub quantized: [u8; GROUP_SIZE],
}

impl Q4Block {
    /// Quantizes weights so that the smallest becomes 0 and the largest 15.
    pub fn quantize(weights: &[f32; GROUP_SIZE]) -> Self {
        let (low, high) = weights.iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        let (scale, min) = (f16::from_f32((high - low) / 15.0), f16::from_f32(low));
        let (d, m) = (scale.to_f32(), min.to_f32());
        let quantize = |v: f32| if d > 0.0 { ((v - m) / d).round().clamp(0.0, 15.0) as u8 } else { 0 };
        Self { scale, min, quantized: weights.map(quantize) }
    }

    /// The weights `d q + m`.
    pub fn dequantize(&self) -> [f32; GROUP_SIZE] {
        self.quantized.map(|q| self.scale.to_f32() * q as f32 + self.min.to_f32())
    }
}

/// The right-hand side of a product: a matrix `[N, K]` and its bias in kernel layout, in memory or in a mapped file.
///
/// Layout, little-endian and without gaps: a header of 64 bytes (`TLI4`, N and K as u32, zeros); then a panel for each 16 outputs.
/// A panel has for each 32 values along K the weights `[4][16][4]` u8, of which byte `[i][c][j]` holds the values `8 i + j` (low
/// bits) and `8 i + 4 + j` (high bits) of output `c`, the scales `[16]` f16 and the minima `[16]` f16; and at its end the bias
/// `[16]` f32.
#[derive(Debug, Clone)]
pub struct PackedRhs {
    bytes: Bytes,
    n: usize,
    k: usize,
}

impl PackedRhs {
    /// Packs `blocks [N, K / 32]` and `bias [N]`.
    ///
    /// # Errors
    /// N is 0 or not a multiple of 16, or the number of blocks is 0 or not a multiple of N.
    pub fn pack(blocks: &[Q4Block], bias: &[f32]) -> Result<Self> {
        let n = bias.len();
        let groups = blocks.len().checked_div(n).unwrap_or(0);
        check_shape(n, groups * GROUP_SIZE)?;
        if blocks.len() != n * groups {
            let message = format!("number of 4-bit blocks is {}; expected a multiple of {n} outputs", blocks.len());
            return Err(Error::InvalidMatrix(message));
        }
        let mut out = MAGIC.to_vec();
        [n, groups * GROUP_SIZE].iter().for_each(|v| out.extend_from_slice(&(*v as u32).to_le_bytes()));
        out.resize(HEADER_BYTES, 0);
        for (rows, bias) in blocks.chunks_exact(NR * groups).zip(bias.chunks_exact(NR)) {
            for g in 0..groups {
                let group: Vec<&Q4Block> = rows.iter().skip(g).step_by(groups).collect();
                pack_group(&group, &mut out);
            }
            bias.iter().for_each(|b| out.extend_from_slice(&b.to_le_bytes()));
        }
        Ok(Self { bytes: out.into(), n, k: groups * GROUP_SIZE })
    }

    /// Reads a matrix `[n, k]` from the bytes of [`PackedRhs::bytes`], without copying them.
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
            let message = format!("packed 4-bit matrix is [{}, {}]; expected [{n}, {k}]", found.0, found.1);
            return Err(Error::InvalidMatrix(message));
        }
        check_shape(n, k)?;
        let expected = Self::packed_len(n, k);
        if expected != Some(bytes.len()) {
            return Err(Error::InvalidMatrix(format!(
                "packed 4-bit matrix [{n}, {k}] is {} bytes; expected {}",
                bytes.len(),
                expected.unwrap_or(usize::MAX)
            )));
        }
        Ok(Self { bytes, n, k })
    }

    /// Length of [`PackedRhs::bytes`] of a matrix `[n, k]`, where `n` is a multiple of 16; `None` if it overflows.
    pub fn packed_len(n: usize, k: usize) -> Option<usize> {
        let shape = Self { bytes: Bytes::new(), n, k };
        (n / NR).checked_mul(shape.panel_bytes()).and_then(|b| b.checked_add(HEADER_BYTES))
    }

    /// Writes the weights of one output to `out [K]`.
    ///
    /// # Panics
    /// If `n` is not below N, or the length of `out` is not K.
    pub fn dequantize_row(&self, n: usize, out: &mut [f32]) {
        assert!(n < self.n && out.len() == self.k);
        let (panel, c) = (HEADER_BYTES + n / NR * self.panel_bytes(), n % NR);
        for (g, out) in out.chunks_exact_mut(GROUP_SIZE).enumerate() {
            let group = &self.bytes[panel + g * GROUP_BYTES..][..GROUP_BYTES];
            let half = |start: usize| f16::from_le_bytes([group[start + 2 * c], group[start + 2 * c + 1]]).to_f32();
            let (scale, min) = (half(WEIGHT_BYTES), half(WEIGHT_BYTES + 2 * NR));
            for (i, out) in out.iter_mut().enumerate() {
                let byte = group[i / 8 * 4 * NR + 4 * c + i % 4];
                let q = if i % 8 < 4 { byte & 15 } else { byte >> 4 };
                *out = scale * q as f32 + min;
            }
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

    /// How activations are quantized for this matrix.
    pub fn layout(&self) -> QuantLayout<'static> {
        QuantLayout { k: self.k, padded_k: self.k, group_size: GROUP_SIZE, scheme: QuantScheme::Symmetric }
    }
}

fn check_shape(n: usize, k: usize) -> Result<()> {
    if n > 0 && k > 0 && n.is_multiple_of(NR) && k.is_multiple_of(GROUP_SIZE) {
        return Ok(());
    }
    Err(Error::InvalidMatrix(format!(
        "matrix for 4-bit weights is [{n}, {k}]; expected N a multiple of {NR} and K a multiple of {GROUP_SIZE}"
    )))
}

/// Appends one group of the outputs of a panel.
fn pack_group(group: &[&Q4Block], out: &mut Vec<u8>) {
    for octet in 0..GROUP_SIZE / 8 {
        for block in group {
            let q = &block.quantized[8 * octet..8 * octet + 8];
            out.extend((0..4).map(|j| q[j] & 15 | q[4 + j] << 4));
        }
    }
    group.iter().for_each(|block| out.extend_from_slice(&block.scale.to_le_bytes()));
    group.iter().for_each(|block| out.extend_from_slice(&block.min.to_le_bytes()));
}

// SAFETY: the constructors checked that the bytes are those of all panels; the methods read what the layout says.
unsafe impl RhsFormat for PackedRhs {
    fn padded_k(&self) -> usize {
        self.k
    }

    fn groups(&self) -> usize {
        self.k / GROUP_SIZE
    }

    fn panel_bytes(&self) -> usize {
        self.groups() * GROUP_BYTES + BIAS_BYTES
    }

    #[inline(always)]
    fn panel(&self, column: usize) -> *const u8 {
        self.bytes.as_ptr().wrapping_add(HEADER_BYTES + column / NR * self.panel_bytes())
    }

    #[inline(always)]
    unsafe fn bias<S: Simd>(&self, panel: *const u8) -> S {
        // SAFETY: it follows the groups.
        unsafe { S::load(panel.add(self.groups() * GROUP_BYTES).cast()) }
    }

    #[inline(always)]
    unsafe fn scale_and_offset<S: Simd>(&self, panel: *const u8, group: usize) -> (S, S) {
        // SAFETY: both follow the weights of the group.
        unsafe {
            let scales = panel.add(group * GROUP_BYTES + WEIGHT_BYTES);
            (S::load_f16(scales.cast()), S::load_f16(scales.add(2 * NR).cast()))
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
        // SAFETY: the caller has `MR` quantized rows and such panels.
        unsafe {
            let lhs = lhs.add(group * GROUP_SIZE);
            let mut sums = [[S::int_splat(0); NV]; MR];
            for octet in 0..GROUP_SIZE / 8 {
                prefetch.step::<S>();
                prefetch.step::<S>();
                let mut b = [[S::int_splat(0); 2]; NV];
                for j in 0..NV {
                    let bytes = panels[j].add(group * GROUP_BYTES + octet * 4 * NR);
                    b[j] = S::split_nibbles(S::load_i8x4(bytes.cast()));
                }
                for r in 0..MR {
                    for half in 0..2 {
                        let a = S::splat_u8x4(lhs.add(r * self.k + 8 * octet + 4 * half));
                        for j in 0..NV {
                            sums[r][j] = S::dot_u4i8(sums[r][j], b[j][half], a);
                        }
                    }
                }
            }
            sums
        }
    }
}

/// `out [rows, columns] = lhs rhs^T + bias` for the outputs `columns` of `rhs`, combined with `out` by the [`Epilogue`].
///
/// # Panics
/// If `lhs` was not quantized for the layout of `rhs`, `columns` are not whole panels of [`NR`] outputs, or the size of `out` is
/// not `rows * columns`.
pub fn gemm(
    isa: Isa,
    lhs: &QuantizedRows,
    rhs: &PackedRhs,
    columns: Range<usize>,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    gemm::check_sizes(lhs, rhs, rhs.n, &columns, out);
    assert_eq!(lhs.encoding, ValueEncoding::Signed, "rows quantized for int8 weights");
    dispatch!(isa, multiply(lhs: &QuantizedRows, rhs: &PackedRhs, columns: Range<usize>, epilogue: Epilogue, out: &mut [f32]));
}

#[inline(always)]
unsafe fn multiply<S: Simd>(
    lhs: &QuantizedRows,
    rhs: &PackedRhs,
    columns: Range<usize>,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    // SAFETY: `gemm` checked the sizes, and products of signed and 4-bit values are exact on all instruction sets; the caller
    // vouches for the instruction set.
    unsafe { gemm::gemm_impl::<S, PackedRhs>(lhs, rhs, columns, epilogue, out) };
}
