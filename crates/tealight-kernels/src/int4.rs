//! Products of 4-bit weights: a quarter of the memory that a token of a language model waits for.
//!
//! Each 32 weights along K have a scale `d` and an offset `m` in half floats, `w = d q + m` with `q` in 0..=15, which is
//! ggml's Q4_1, and its Q4_0 with `m = -8 d`. Activations have signed codes, `x = s a` with one step for the same 32 (see
//! [`codes`](super::codes)). So `y = bias + sum over groups of (s d sum q a + m s sum a)`: sums inside a group are exact.
#![allow(clippy::needless_range_loop)] // Indices are rows and columns of tiles.

pub use super::gemm::Epilogue;

use super::gemm::{self, NR, Prefetch, RhsFormat};
use super::quantize::{Encoding, QuantLayout, QuantScheme, QuantizedRows};
use super::simd::Simd;
use super::{Isa, dispatch};
use crate::{Error, Result};
use bytes::Bytes;
use half::f16;
use std::ops::Range;

/// RhsFormat along K that share a scale.
pub const GROUP_SIZE: usize = 32;
const MAGIC: &[u8; 4] = b"TLI4";
const HEADER: usize = 64;
/// The weights of a group of a panel, half a byte each.
const CODES: usize = NR * GROUP_SIZE / 2;
/// And behind them scales and offsets.
const GROUP_BYTES: usize = CODES + 2 * NR * 2;
/// The bias of a panel.
const BIAS: usize = 4 * NR;

/// 32 weights of one output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Q4Block {
    /// `d`.
    pub scale: f16,
    /// `m`.
    pub offset: f16,
    /// `q`, each from 0 to 15.
    pub quantized: [u8; GROUP_SIZE],
}

impl Q4Block {
    /// Quantises weights: the smallest becomes code 0, the largest 15.
    pub fn quantize(weights: &[f32; GROUP_SIZE]) -> Self {
        let (low, high) = weights.iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        let (scale, offset) = (f16::from_f32((high - low) / 15.0), f16::from_f32(low));
        let (d, m) = (scale.to_f32(), offset.to_f32());
        let code = |v: f32| if d > 0.0 { ((v - m) / d).round().clamp(0.0, 15.0) as u8 } else { 0 };
        Self { scale, offset, quantized: weights.map(code) }
    }

    /// The weights that it stands for.
    pub fn dequantize(&self) -> [f32; GROUP_SIZE] {
        self.quantized.map(|q| self.scale.to_f32() * q as f32 + self.offset.to_f32())
    }
}

/// A matrix `[N, K]` with its bias, as the kernels read it, in a mapped file or in memory.
///
/// Layout: a header of 64 bytes, `TLI4`, N and K as u32, and zeros; then for each 16 outputs a panel: for each 32 along K
/// weights `[4][16][4]` u8, of which byte `[i][c][j]` holds codes `8 i + j` (low bits) and `8 i + 4 + j` (high bits) of output
/// `c`, scale `[16]` f16 and offset `[16]` f16; and behind them the bias `[16]` f32. Little-endian, without gaps.
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
    /// N is not a multiple of 16, there are no blocks, or they are not whole rows.
    pub fn pack(blocks: &[Q4Block], bias: &[f32]) -> Result<Self> {
        let n = bias.len();
        let groups = blocks.len().checked_div(n).unwrap_or(0);
        check_shape(n, groups * GROUP_SIZE)?;
        if blocks.len() != n * groups {
            return Err(Error::InvalidMatrix(format!(
                "{} blocks of 4 bits are not whole rows of {n} outputs",
                blocks.len()
            )));
        }
        let mut out = MAGIC.to_vec();
        [n, groups * GROUP_SIZE].iter().for_each(|v| out.extend_from_slice(&(*v as u32).to_le_bytes()));
        out.resize(HEADER, 0);
        for (rows, bias) in blocks.chunks_exact(NR * groups).zip(bias.chunks_exact(NR)) {
            for g in 0..groups {
                let column: Vec<&Q4Block> = rows.iter().skip(g).step_by(groups).collect();
                put_group(&column, &mut out);
            }
            bias.iter().for_each(|b| out.extend_from_slice(&b.to_le_bytes()));
        }
        Ok(Self { bytes: out.into(), n, k: groups * GROUP_SIZE })
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
        check_shape(n, k)?;
        let shape = Self { bytes: Bytes::new(), n, k };
        let expected = (n / NR).checked_mul(shape.panel_bytes()).and_then(|b| b.checked_add(HEADER));
        if expected != Some(bytes.len()) {
            return Err(Error::InvalidMatrix(format!(
                "a packed matrix [{n}, {k}] of 4 bits has {} bytes, expected {}",
                bytes.len(),
                expected.unwrap_or(usize::MAX)
            )));
        }
        Ok(Self { bytes, ..shape })
    }

    /// The weights of one output, to `out [K]`.
    ///
    /// # Panics
    /// If there is no such output, or `out` has another length.
    pub fn dequantize_row(&self, n: usize, out: &mut [f32]) {
        assert!(n < self.n && out.len() == self.k);
        let (panel, c) = (HEADER + n / NR * self.panel_bytes(), n % NR);
        for (g, out) in out.chunks_exact_mut(GROUP_SIZE).enumerate() {
            let group = &self.bytes[panel + g * GROUP_BYTES..][..GROUP_BYTES];
            let half = |at: usize| f16::from_le_bytes([group[at + 2 * c], group[at + 2 * c + 1]]).to_f32();
            let (scale, offset) = (half(CODES), half(CODES + 2 * NR));
            for (i, out) in out.iter_mut().enumerate() {
                let byte = group[i / 8 * 4 * NR + 4 * c + i % 4];
                let code = if i % 8 < 4 { byte & 15 } else { byte >> 4 };
                *out = scale * code as f32 + offset;
            }
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

    /// How activations are quantised for this matrix.
    pub fn layout(&self) -> QuantLayout<'static> {
        QuantLayout { k: self.k, padded_k: self.k, group_size: GROUP_SIZE, scheme: QuantScheme::Symmetric }
    }
}

fn check_shape(n: usize, k: usize) -> Result<()> {
    if n > 0 && k > 0 && n.is_multiple_of(NR) && k.is_multiple_of(GROUP_SIZE) {
        return Ok(());
    }
    Err(Error::InvalidMatrix(format!(
        "a matrix [{n}, {k}] cannot be packed to 4 bits: N must be a multiple of {NR}, K of {GROUP_SIZE}"
    )))
}

fn put_group(column: &[&Q4Block], out: &mut Vec<u8>) {
    for eight in 0..GROUP_SIZE / 8 {
        for block in column {
            let codes = &block.quantized[8 * eight..8 * eight + 8];
            out.extend((0..4).map(|j| codes[j] & 15 | codes[4 + j] << 4));
        }
    }
    column.iter().for_each(|block| out.extend_from_slice(&block.scale.to_le_bytes()));
    column.iter().for_each(|block| out.extend_from_slice(&block.offset.to_le_bytes()));
}

// SAFETY: the constructors checked that the bytes are those of all panels; the methods read what the layout says.
unsafe impl RhsFormat for PackedRhs {
    fn width(&self) -> usize {
        self.k
    }

    fn groups(&self) -> usize {
        self.k / GROUP_SIZE
    }

    fn panel_bytes(&self) -> usize {
        self.groups() * GROUP_BYTES + BIAS
    }

    #[inline(always)]
    fn panel(&self, column: usize) -> *const u8 {
        self.bytes.as_ptr().wrapping_add(HEADER + column / NR * self.panel_bytes())
    }

    #[inline(always)]
    unsafe fn bias<S: Simd>(&self, panel: *const u8) -> S {
        // SAFETY: it stands behind all groups.
        unsafe { S::load(panel.add(self.groups() * GROUP_BYTES).cast()) }
    }

    #[inline(always)]
    unsafe fn scale_and_offset<S: Simd>(&self, panel: *const u8, g: usize) -> (S, S) {
        // SAFETY: both stand behind the codes of the group.
        unsafe {
            let scales = panel.add(g * GROUP_BYTES + CODES);
            (S::load_half(scales.cast()), S::load_half(scales.add(2 * NR).cast()))
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
        // SAFETY: the caller has `MR` rows of codes and such panels.
        unsafe {
            let codes = codes.add(g * GROUP_SIZE);
            let mut sums = [[S::int_splat(0); NV]; MR];
            for eight in 0..GROUP_SIZE / 8 {
                prefetch.step::<S>();
                prefetch.step::<S>();
                let mut weights = [[S::int_splat(0); 2]; NV];
                for j in 0..NV {
                    let bytes = panels[j].add(g * GROUP_BYTES + eight * 4 * NR);
                    weights[j] = S::nibbles(S::load_bytes(bytes.cast()));
                }
                for r in 0..MR {
                    for half in 0..2 {
                        let a = S::broadcast4(codes.add(r * self.k + 8 * eight + 4 * half));
                        for j in 0..NV {
                            sums[r][j] = S::dot_nibbles(sums[r][j], weights[j][half], a);
                        }
                    }
                }
            }
            sums
        }
    }
}

/// `out [rows, columns] = x W^T + bias` for some outputs of `w`, or what [`Epilogue`] makes of it.
///
/// # Panics
/// If `x` was not quantised for the layout of `w`, `columns` are not whole panels of `w`, or `out` has another size.
pub fn gemm(isa: Isa, x: &QuantizedRows, w: &PackedRhs, columns: Range<usize>, epilogue: Epilogue, out: &mut [f32]) {
    gemm::check(x, w, w.n, &columns, out);
    assert_eq!(x.encoding, Encoding::Signed, "rows quantized for int8 weights");
    dispatch!(isa, gemm_impl(x: &QuantizedRows, w: &PackedRhs, columns: Range<usize>, epilogue: Epilogue, out: &mut [f32]));
}

#[inline(always)]
unsafe fn gemm_impl<S: Simd>(
    x: &QuantizedRows,
    w: &PackedRhs,
    columns: Range<usize>,
    epilogue: Epilogue,
    out: &mut [f32],
) {
    // SAFETY: `gemm` checked the sizes, and signed codes times nibbles are exact on every set; the caller vouches for it.
    unsafe { gemm::gemm_impl::<S, PackedRhs>(x, w, columns, epilogue, out) };
}
