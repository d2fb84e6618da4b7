//! Q8_0, GGUF's 8-bit format: blocks of 32 weights with one half-float scale, `w = d * q`.
//!
//! Layout as in ggml's `block_q8_0`: two bytes of little-endian f16 scale, then 32 signed bytes.

use super::{Isa, sum_lanes};
use crate::error::{Error, Result};
use half::f16;

/// Weights in a block.
pub const BLOCK: usize = 32;
/// Bytes of a block in a file.
pub const BLOCK_BYTES: usize = 2 + BLOCK;

/// One block as it stands in a file.
pub type BlockBytes = [u8; BLOCK_BYTES];

/// Views the bytes of a tensor as blocks.
///
/// # Errors
/// The length is not a multiple of [`BLOCK_BYTES`].
pub fn blocks(bytes: &[u8]) -> Result<&[BlockBytes]> {
    let (blocks, rest) = bytes.as_chunks();
    if rest.is_empty() {
        return Ok(blocks);
    }
    Err(Error::model(format!("Q8_0 data of {} bytes is not a multiple of {BLOCK_BYTES}", bytes.len())))
}

fn scale(block: &BlockBytes) -> f32 {
    f16::from_le_bytes([block[0], block[1]]).to_f32()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "f16c")]
fn scale_f16c(block: &BlockBytes) -> f32 {
    use std::arch::x86_64::*;
    let bits = i16::from_le_bytes([block[0], block[1]]);
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits as i32)))
}

/// Quantises a row whose length is a multiple of [`BLOCK`]: `d = max|x| / 127`, `q = round(x / d)`.
pub fn quantise_row(x: &[f32], out: &mut Vec<u8>) {
    for chunk in x.as_chunks::<BLOCK>().0 {
        let d = chunk.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        out.extend_from_slice(&f16::from_f32(d).to_le_bytes());
        out.extend(chunk.iter().map(|v| (v * inverse).round_ties_even() as i8 as u8));
    }
}

/// Writes the values of blocks to `out`, 32 for each.
pub fn dequantise_row(blocks: &[BlockBytes], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let d = scale(block);
        for (value, q) in out.iter_mut().zip(&block[2..]) {
            *value = d * (*q as i8) as f32;
        }
    }
}

/// Activation rows quantised for a dot product with Q8_0 weights: per 32 values one f32 scale.
#[derive(Debug, Default)]
pub struct Activations {
    codes: Vec<i16>,
    scales: Vec<f32>,
    columns: usize,
}

impl Activations {
    /// Quantises rows of `columns` values each (a multiple of [`BLOCK`]); a row depends on no other.
    ///
    /// A block with a value that is not finite gets the scale NaN, so that what was wrong stays visible.
    pub fn quantise(rows: &[f32], columns: usize) -> Self {
        let mut this = Self { codes: vec![0; rows.len()], scales: vec![0.0; rows.len() / BLOCK], columns };
        quantise_blocks(rows, &mut this.codes, &mut this.scales);
        this
    }

    /// Codes and scales of a row, block by block.
    #[inline(always)]
    fn row(&self, row: usize) -> (&[[i16; BLOCK]], &[f32]) {
        let (start, end) = (row * self.columns, (row + 1) * self.columns);
        (self.codes[start..end].as_chunks().0, &self.scales[start / BLOCK..end / BLOCK])
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.codes.len().checked_div(self.columns).unwrap_or(0)
    }
}

/// Quantises blocks of 32 floats: `scale = max|x| / 127`, `code = round half to even (x / scale)`.
fn quantise_blocks(rows: &[f32], codes: &mut [i16], scales: &mut [f32]) {
    let blocks = rows.as_chunks::<BLOCK>().0;
    let codes = codes.as_chunks_mut::<BLOCK>().0;
    for ((x, codes), scale) in blocks.iter().zip(codes).zip(scales) {
        // Bits of a magnitude order like the magnitude, NaN highest: one integer maximum finds both.
        let largest = x.iter().fold(0u32, |m, v| m.max(v.to_bits() & 0x7fff_ffff));
        let d = if largest >= 0x7f80_0000 { f32::NAN } else { f32::from_bits(largest) / 127.0 };
        let inverse = if d > 0.0 { 127.0 / f32::from_bits(largest) } else { 0.0 };
        for (code, v) in codes.iter_mut().zip(x) {
            // Adding 1.5 * 2^23 leaves the integer nearest to the value in the low bits of the sum.
            let shifted = v * inverse + 12_582_912.0;
            *code = shifted.to_bits() as i8 as i16;
        }
        *scale = d;
    }
}

/// `out[r, c] = sum_k activations[r, k] * weights[c, k]` for all rows and columns.
///
/// `weights` is `[columns, K / 32]` blocks and `out` is `[rows, columns]`. In each block, lane `l` of eight adds the
/// products `2l, 2l+1, 16+2l, 17+2l` exactly, as integers, and the scaled sum to its float sum: an order that depends
/// on neither the number of rows nor their place.
///
/// # Panics
/// If `weights` is not whole columns of the activations' width, or `out` not as many rows as they have.
pub fn matmul(isa: Isa, x: &Activations, weights: &[BlockBytes], out: &mut [f32]) {
    let k_blocks = x.columns / BLOCK;
    assert!(k_blocks > 0 && weights.len().is_multiple_of(k_blocks));
    let columns = weights.len() / k_blocks;
    assert!(columns > 0 && out.len() == x.rows() * columns);
    match isa {
        Isa::Scalar => matmul_scalar(x, weights, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: both proofs are only made after the CPU reported AVX2 and F16C.
        Isa::Avx2(_) | Isa::Avx512Vnni(_) => unsafe { avx2::matmul(x, weights, out) },
    }
}

/// The specification of [`matmul`].
fn matmul_scalar(x: &Activations, weights: &[BlockBytes], out: &mut [f32]) {
    let k_blocks = x.columns / BLOCK;
    let columns = weights.len() / k_blocks;
    for (r, out) in out.chunks_exact_mut(columns).enumerate() {
        let (codes, scales) = x.row(r);
        for (value, w) in out.iter_mut().zip(weights.chunks_exact(k_blocks)) {
            let mut lanes = [0.0f32; 8];
            for ((x, w), s) in codes.iter().zip(w).zip(scales) {
                let d = s * scale(w);
                let product = |i: usize| x[i] as i32 * (w[2 + i] as i8) as i32;
                for (l, lane) in lanes.iter_mut().enumerate() {
                    let sum = product(2 * l) + product(2 * l + 1) + product(16 + 2 * l) + product(17 + 2 * l);
                    *lane += d * sum as f32;
                }
            }
            *value = sum_lanes(lanes);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Activations, BLOCK, BlockBytes, sum_lanes};
    use std::arch::x86_64::*;

    /// Rows that share one load of the weights.
    const TILE: usize = 4;

    #[target_feature(enable = "avx2,f16c")]
    pub fn matmul(x: &Activations, weights: &[BlockBytes], out: &mut [f32]) {
        let columns = weights.len() / (x.columns / BLOCK);
        for (t, out) in out.chunks_mut(TILE * columns).enumerate() {
            let row = t * TILE;
            match out.len() / columns {
                1 => tile::<1>(x, row, weights, out),
                2 => tile::<2>(x, row, weights, out),
                3 => tile::<3>(x, row, weights, out),
                _ => tile::<TILE>(x, row, weights, out),
            }
        }
    }

    #[target_feature(enable = "avx2,f16c")]
    fn tile<const R: usize>(x: &Activations, row: usize, weights: &[BlockBytes], out: &mut [f32]) {
        let k_blocks = x.columns / BLOCK;
        let columns = weights.len() / k_blocks;
        let rows: [_; R] = std::array::from_fn(|r| x.row(row + r));
        for (c, w) in weights.chunks_exact(k_blocks).enumerate() {
            let mut sums = [_mm256_setzero_ps(); R];
            for (b, w) in w.iter().enumerate() {
                let d = super::scale_f16c(w);
                let (w_low, w_high) = widen(w);
                for r in 0..R {
                    let (low, high) = load(&rows[r].0[b]);
                    let products = _mm256_add_epi32(_mm256_madd_epi16(low, w_low), _mm256_madd_epi16(high, w_high));
                    let scaled = _mm256_mul_ps(_mm256_set1_ps(rows[r].1[b] * d), _mm256_cvtepi32_ps(products));
                    sums[r] = _mm256_add_ps(sums[r], scaled);
                }
            }
            for r in 0..R {
                out[r * columns + c] = sum_lanes(lanes(sums[r]));
            }
        }
    }

    #[target_feature(enable = "avx2")]
    fn widen(block: &BlockBytes) -> (__m256i, __m256i) {
        // SAFETY: the block has 34 bytes; both loads of 16, at 2 and at 18, end inside it.
        let (low, high) = unsafe {
            let codes = block.as_ptr().add(2);
            (_mm_loadu_si128(codes.cast()), _mm_loadu_si128(codes.add(16).cast()))
        };
        (_mm256_cvtepi8_epi16(low), _mm256_cvtepi8_epi16(high))
    }

    #[target_feature(enable = "avx2")]
    fn load(codes: &[i16; BLOCK]) -> (__m256i, __m256i) {
        // SAFETY: 32 codes of 2 bytes are two loads of 32 bytes.
        unsafe {
            let codes = codes.as_ptr();
            (_mm256_loadu_si256(codes.cast()), _mm256_loadu_si256(codes.add(16).cast()))
        }
    }

    #[target_feature(enable = "avx2")]
    fn lanes(sum: __m256) -> [f32; 8] {
        let mut lanes = [0.0; 8];
        // SAFETY: the array has room for the 8 floats of the store.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) };
        lanes
    }
}
