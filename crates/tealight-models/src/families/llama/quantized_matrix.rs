//! Matrices in 4 bits if the file has 4-bit weights, otherwise in 8 bits.

use crate::formats::tensor::{Dtype, TensorData};
use crate::formats::weights::Weights;
use bytes::Bytes;
use candle_core::quantized::GgmlDType;
use half::f16;
use std::ops::Range;
use tealight_core::{Error, Result};
use tealight_kernels::Isa;
use tealight_kernels::int4::{self, Q4Block};
use tealight_kernels::int8::{self, Epilogue};
use tealight_kernels::quantize::QuantizedRows;

/// 8-bit weights along K that share a scale.
const GROUP_SIZE: usize = 64;
/// Rows of a matrix come in panels of this size, padded with zeros.
pub(super) use tealight_kernels::int8::NR;

/// A matrix of the network, and the tensors that it is packed from.
#[derive(Debug)]
pub(super) struct MatrixSpec {
    /// Name in packed files.
    pub name: String,
    /// The tensors `[n, k]` of other files, one below another: their names and `n`.
    pub parts: Vec<(String, usize)>,
    pub k: usize,
    /// Rows are padded with zeros to this number of values.
    pub padded_k: usize,
}

impl MatrixSpec {
    /// All names start with `prefix`.
    pub(super) fn new(prefix: &str, name: &str, parts: &[(&str, usize)], k: usize) -> Self {
        let parts = parts.iter().map(|(part, n)| (format!("{prefix}{part}.weight"), *n)).collect();
        Self { name: format!("{prefix}{name}"), parts, k, padded_k: k }
    }

    /// N, where the rows of each part are padded to whole panels.
    pub(super) fn padded_n(&self) -> usize {
        self.parts.iter().map(|(_, n)| n.next_multiple_of(NR)).sum()
    }
}

/// A packed matrix `[N, K]`.
#[derive(Debug, Clone)]
pub(super) enum QuantizedMatrix {
    Int4(int4::PackedRhs),
    Int8(int8::PackedRhs),
}

impl QuantizedMatrix {
    /// Packs the tensors of a matrix.
    pub(super) fn pack(weights: &Weights, spec: &MatrixSpec) -> Result<Self> {
        let blocks = spec.parts.iter().map(|(name, n)| q4_blocks(weights, name, *n, spec.k));
        match blocks.collect::<Result<Option<Vec<_>>>>()? {
            Some(blocks) if spec.k == spec.padded_k => Self::pack_int4(blocks, spec),
            _ => Self::pack_int8(weights, spec),
        }
    }

    /// Bytes of the matrix that [`QuantizedMatrix::pack`] returns, or `None` if it fails because a tensor is missing or has another
    /// shape.
    pub(super) fn packed_len(weights: &Weights, spec: &MatrixSpec) -> Option<usize> {
        let mut is_int4 = spec.k == spec.padded_k;
        for (name, n) in &spec.parts {
            let tensor = weights.tensor(name).ok().filter(|tensor| tensor.shape == [*n, spec.k])?;
            is_int4 &= q4_decoder(tensor.dtype).is_some();
        }
        if is_int4 {
            int4::PackedRhs::packed_len(spec.padded_n(), spec.k)
        } else {
            int8::PackedRhs::packed_len(spec.padded_n(), spec.padded_k, GROUP_SIZE)
        }
    }

    fn pack_int4(blocks: Vec<Vec<Q4Block>>, spec: &MatrixSpec) -> Result<Self> {
        let (rows, k) = (spec.padded_n(), spec.k);
        let empty = Q4Block { scale: f16::ZERO, min: f16::ZERO, quantized: [0; int4::GROUP_SIZE] };
        let mut all = Vec::with_capacity(rows * k / int4::GROUP_SIZE);
        for (mut blocks, (_, n)) in blocks.into_iter().zip(&spec.parts) {
            blocks.resize(n.next_multiple_of(NR) * k / int4::GROUP_SIZE, empty);
            all.extend(blocks);
        }
        Ok(QuantizedMatrix::Int4(int4::PackedRhs::pack(&all, &vec![0.0; rows])?))
    }

    fn pack_int8(weights: &Weights, spec: &MatrixSpec) -> Result<Self> {
        let (parts, k, padded_k) = (&spec.parts, spec.k, spec.padded_k);
        let tables = parts.iter().map(|(name, n)| weights.embedding_table(name, *n, k)).collect::<Result<Vec<_>>>()?;
        // The source of each row, as table and row; `None` for padding.
        let rows_of =
            |table: usize, n: usize| (0..n.next_multiple_of(NR)).map(move |row| (row < n).then_some((table, row)));
        let sources: Vec<_> = parts.iter().enumerate().flat_map(|(table, (_, n))| rows_of(table, *n)).collect();
        let read_rows = |range: Range<usize>, out: &mut [f32]| {
            for (source, out) in sources[range].iter().zip(out.chunks_exact_mut(padded_k)) {
                if let Some((table, row)) = source {
                    tables[*table].read_row(*row, &mut out[..k])?;
                }
            }
            Ok(())
        };
        int8::PackedRhs::pack_rows(sources.len(), padded_k, GROUP_SIZE, read_rows).map(QuantizedMatrix::Int8)
    }

    /// A matrix in the layout of [`QuantizedMatrix::bytes`].
    pub(super) fn from_bytes(bytes: Bytes, n: usize, k: usize) -> Result<Self> {
        match bytes.first_chunk() {
            Some(b"TLI4") => Ok(QuantizedMatrix::Int4(int4::PackedRhs::from_bytes(bytes, n, k)?)),
            _ => Ok(QuantizedMatrix::Int8(int8::PackedRhs::from_bytes(bytes, n, k)?)),
        }
    }

    pub(super) fn bytes(&self) -> &Bytes {
        match self {
            QuantizedMatrix::Int4(packed) => packed.bytes(),
            QuantizedMatrix::Int8(packed) => packed.bytes(),
        }
    }

    /// N, including padding.
    pub(super) fn n(&self) -> usize {
        match self {
            QuantizedMatrix::Int4(packed) => packed.n(),
            QuantizedMatrix::Int8(packed) => packed.n(),
        }
    }

    /// Writes row `n` to `out [K]`.
    pub(super) fn dequantize_row(&self, n: usize, out: &mut [f32]) {
        match self {
            QuantizedMatrix::Int4(packed) => packed.dequantize_row(n, out),
            QuantizedMatrix::Int8(packed) => packed.dequantize_row(n, out),
        }
    }

    /// Quantizes rows of K values for [`QuantizedMatrix::gemm`].
    pub(super) fn quantize(&self, isa: Isa, rows: &[f32], out: &mut QuantizedRows) {
        match self {
            QuantizedMatrix::Int4(packed) => out.quantize(isa, rows, &packed.layout()),
            QuantizedMatrix::Int8(packed) => out.quantize(isa, rows, &packed.layout()),
        }
    }

    /// The outputs `columns` of `lhs W^T`.
    pub(super) fn gemm(
        &self,
        isa: Isa,
        lhs: &QuantizedRows,
        columns: Range<usize>,
        epilogue: Epilogue,
        out: &mut [f32],
    ) {
        match self {
            QuantizedMatrix::Int4(packed) => int4::gemm(isa, lhs, packed, columns, epilogue, out),
            QuantizedMatrix::Int8(packed) => int8::gemm(isa, lhs, packed, columns, epilogue, out),
        }
    }
}

/// The blocks of a tensor `[n, k]` of 4-bit weights; `None` for other encodings.
fn q4_blocks(weights: &Weights, name: &str, n: usize, k: usize) -> Result<Option<Vec<Q4Block>>> {
    let TensorData { shape, dtype, data } = weights.tensor(name)?;
    if *shape != [n, k] {
        return Err(Error::invalid_model(format!("tensor {name:?} has the shape {shape:?}; expected [{n}, {k}]")));
    }
    let Some(decode) = q4_decoder(*dtype) else { return Ok(None) };
    let blocks = decode(data);
    let finite = |b: &Q4Block| b.scale.is_finite() && b.min.is_finite();
    if !blocks.iter().all(finite) {
        return Err(Error::invalid_model(format!("tensor {name:?} has a scale that is not finite")));
    }
    Ok(Some(blocks))
}

type Q4Decoder = fn(&[u8]) -> Vec<Q4Block>;

/// Reads the blocks of an encoding with 4-bit weights; `None` for other encodings.
fn q4_decoder(dtype: Dtype) -> Option<Q4Decoder> {
    match dtype {
        Dtype::Ggml(GgmlDType::Q4_0) => Some(|data| data.as_chunks().0.iter().map(q4_0).collect()),
        Dtype::Ggml(GgmlDType::Q4_1) => Some(|data| data.as_chunks().0.iter().map(q4_1).collect()),
        Dtype::Ggml(GgmlDType::Q4K) => Some(|data| data.as_chunks().0.iter().flat_map(q4_k).collect()),
        _ => None,
    }
}

fn half(bytes: &[u8], offset: usize) -> f16 {
    f16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

/// 32 nibbles in ggml's order: the low ones of all bytes, then the high ones.
fn nibbles(bytes: &[u8]) -> [u8; int4::GROUP_SIZE] {
    std::array::from_fn(|i| if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 })
}

/// `w = d (q - 8)`.
fn q4_0(bytes: &[u8; 18]) -> Q4Block {
    let scale = half(bytes, 0);
    Q4Block { scale, min: f16::from_f32(-8.0 * scale.to_f32()), quantized: nibbles(&bytes[2..]) }
}

/// `w = d q + m`.
fn q4_1(bytes: &[u8; 20]) -> Q4Block {
    Q4Block { scale: half(bytes, 0), min: half(bytes, 2), quantized: nibbles(&bytes[4..]) }
}

/// Eight groups of 32 weights: `w = d s q - m o`, where `d` and `m` are half floats of the block, and the scale `s` and the minimum `o`
/// are 6-bit numbers of the group. `d s` and `-m o` are rounded to half floats.
fn q4_k(bytes: &[u8; 144]) -> [Q4Block; 8] {
    let (d, m) = (half(bytes, 0).to_f32(), half(bytes, 2).to_f32());
    let packed = &bytes[4..16];
    let scale_and_min = |j: usize| match j {
        0..4 => (packed[j] & 63, packed[j + 4] & 63),
        _ => (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4),
    };
    std::array::from_fn(|j| {
        let (scale, min) = scale_and_min(j);
        let nibbles = &bytes[16 + j / 2 * 32..];
        let nibble = |i: usize| if j % 2 == 0 { nibbles[i] & 15 } else { nibbles[i] >> 4 };
        Q4Block {
            scale: f16::from_f32(d * scale as f32),
            min: f16::from_f32(-m * min as f32),
            quantized: std::array::from_fn(nibble),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::embedding_table::dequantize;

    /// candle is the reference.
    #[test]
    fn q4_blocks_of_each_encoding_equal_dequantized_weights() {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for (dtype, size) in [(GgmlDType::Q4_0, 18), (GgmlDType::Q4_1, 20), (GgmlDType::Q4K, 144)] {
            let mut data: Vec<u8> = (0..size * 3).map(|_| random()).collect();
            // Scales of the size that models have.
            for block in data.chunks_exact_mut(size) {
                block[..2].copy_from_slice(&f16::from_f32(0.013).to_le_bytes());
                if dtype != GgmlDType::Q4_0 {
                    block[2..4].copy_from_slice(&f16::from_f32(0.021).to_le_bytes());
                }
            }
            let count = data.len() / size * dtype.block_size();
            let tensor = TensorData { shape: vec![1, count], dtype: Dtype::Ggml(dtype), data: data.clone().into() };
            let weights = Weights::new([("w".to_string(), tensor)].into());
            let found = q4_blocks(&weights, "w", 1, count).unwrap().unwrap();
            let values: Vec<f32> = found.iter().flat_map(Q4Block::dequantize).collect();
            let expected = dequantize(dtype, &data, count).unwrap();
            for (a, b) in values.iter().zip(&expected) {
                assert!((a - b).abs() < 2e-3 * b.abs().max(1.0), "{dtype:?}: {a} {b}");
            }
            assert_eq!(values.len(), expected.len());
        }
    }
}
