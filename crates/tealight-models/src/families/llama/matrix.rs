//! Matrices in the two widths that weights are kept in: 4 bits where a file has them, else 8.

use crate::formats::gguf::{Dtype, TensorData};
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

/// Values along K that share a scale, of 8-bit weights.
const GROUP: usize = 64;
/// Outputs come in panels of so many; what is missing is filled with zeros.
const PANEL: usize = 16;

/// A packed matrix `[N, K]`.
#[derive(Debug, Clone)]
pub(super) enum Matrix {
    Int4(int4::PackedRhs),
    Int8(int8::PackedRhs),
}

impl Matrix {
    /// Tensors `[n, k]` each, one above another, with N filled up to whole panels and K to `columns`.
    pub(super) fn of(weights: &Weights, parts: &[(&str, usize)], k: usize, columns: usize) -> Result<Self> {
        let blocks = parts.iter().map(|(name, n)| blocks(weights, name, *n, k)).collect::<Result<Option<Vec<_>>>>()?;
        let rows: usize = parts.iter().map(|(_, n)| n.next_multiple_of(PANEL)).sum();
        if let Some(blocks) = blocks.filter(|_| k == columns) {
            let empty = Q4Block { scale: f16::ZERO, offset: f16::ZERO, quantized: [0; int4::GROUP_SIZE] };
            let mut all = Vec::with_capacity(rows * k / int4::GROUP_SIZE);
            for (mut blocks, (_, n)) in blocks.into_iter().zip(parts) {
                blocks.resize(n.next_multiple_of(PANEL) * k / int4::GROUP_SIZE, empty);
                all.extend(blocks);
            }
            return Ok(Matrix::Int4(int4::PackedRhs::pack(&all, &vec![0.0; rows])?));
        }
        let tables = parts.iter().map(|(name, n)| weights.table(name, *n, k)).collect::<Result<Vec<_>>>()?;
        // Each row of all: which table it is of, and which row of that; those that only fill panels are of none.
        let place =
            |table: usize, n: usize| (0..n.next_multiple_of(PANEL)).map(move |row| (row < n).then_some((table, row)));
        let places: Vec<_> = parts.iter().enumerate().flat_map(|(table, (_, n))| place(table, *n)).collect();
        let fill = |range: Range<usize>, out: &mut [f32]| {
            for (place, out) in places[range].iter().zip(out.chunks_exact_mut(columns)) {
                if let Some((table, row)) = place {
                    tables[*table].row(*row, &mut out[..k])?;
                }
            }
            Ok(())
        };
        int8::PackedRhs::pack_rows(rows, columns, GROUP, fill).map(Matrix::Int8)
    }

    /// A matrix that [`Matrix::bytes`] wrote.
    pub(super) fn from_bytes(bytes: Bytes, n: usize, k: usize) -> Result<Self> {
        match bytes.first_chunk() {
            Some(b"TLI4") => Ok(Matrix::Int4(int4::PackedRhs::from_bytes(bytes, n, k)?)),
            _ => Ok(Matrix::Int8(int8::PackedRhs::from_bytes(bytes, n, k)?)),
        }
    }

    pub(super) fn bytes(&self) -> &Bytes {
        match self {
            Matrix::Int4(packed) => packed.bytes(),
            Matrix::Int8(packed) => packed.bytes(),
        }
    }

    /// N, in whole panels.
    pub(super) fn rows(&self) -> usize {
        match self {
            Matrix::Int4(packed) => packed.n(),
            Matrix::Int8(packed) => packed.n(),
        }
    }

    /// The weights of one output.
    pub(super) fn row(&self, n: usize, out: &mut [f32]) {
        match self {
            Matrix::Int4(packed) => packed.dequantize_row(n, out),
            Matrix::Int8(packed) => packed.dequantize_row(n, out),
        }
    }

    /// Quantises rows of K values for this matrix.
    pub(super) fn codes(&self, isa: Isa, rows: &[f32], codes: &mut QuantizedRows) {
        match self {
            Matrix::Int4(packed) => codes.quantize(isa, rows, &packed.layout()),
            Matrix::Int8(packed) => codes.quantize(isa, rows, &packed.layout()),
        }
    }

    /// `x W^T` for some outputs.
    pub(super) fn product(
        &self,
        isa: Isa,
        codes: &QuantizedRows,
        columns: Range<usize>,
        epilogue: Epilogue,
        out: &mut [f32],
    ) {
        match self {
            Matrix::Int4(packed) => int4::gemm(isa, codes, packed, columns, epilogue, out),
            Matrix::Int8(packed) => int8::gemm(isa, codes, packed, columns, epilogue, out),
        }
    }
}

/// The blocks of a tensor of 4-bit weights; `None` of any other.
fn blocks(weights: &Weights, name: &str, n: usize, k: usize) -> Result<Option<Vec<Q4Block>>> {
    let TensorData { shape, dtype, data } = weights.tensor(name)?;
    if *shape != [n, k] {
        return Err(Error::invalid_model(format!("tensor {name:?} has the shape {shape:?}, expected [{n}, {k}]")));
    }
    let found: Vec<Q4Block> = match dtype {
        Dtype::Ggml(GgmlDType::Q4_0) => data.as_chunks().0.iter().map(q4_0).collect(),
        Dtype::Ggml(GgmlDType::Q4_1) => data.as_chunks().0.iter().map(q4_1).collect(),
        Dtype::Ggml(GgmlDType::Q4K) => data.as_chunks().0.iter().flat_map(q4_k).collect(),
        _ => return Ok(None),
    };
    let finite = |b: &Q4Block| b.scale.is_finite() && b.offset.is_finite();
    match found {
        found if !found.iter().all(finite) => {
            Err(Error::invalid_model(format!("tensor {name:?} has a scale that is not finite")))
        }
        found => Ok(Some(found)),
    }
}

fn half(bytes: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// ggml's order of 32 nibbles: the low ones first.
fn nibbles(bytes: &[u8]) -> [u8; int4::GROUP_SIZE] {
    std::array::from_fn(|i| if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 })
}

/// `w = d (q - 8)`.
fn q4_0(bytes: &[u8; 18]) -> Q4Block {
    let scale = half(bytes, 0);
    Q4Block { scale, offset: f16::from_f32(-8.0 * scale.to_f32()), quantized: nibbles(&bytes[2..]) }
}

/// `w = d q + m`.
fn q4_1(bytes: &[u8; 20]) -> Q4Block {
    Q4Block { scale: half(bytes, 0), offset: half(bytes, 2), quantized: nibbles(&bytes[4..]) }
}

/// Eight groups of 32 with scales and offsets of 6 bits: `w = d s q - m o`, to the precision of half floats.
fn q4_k(bytes: &[u8; 144]) -> [Q4Block; 8] {
    let (d, m) = (half(bytes, 0).to_f32(), half(bytes, 2).to_f32());
    let packed = &bytes[4..16];
    let six = |j: usize| match j {
        0..4 => (packed[j] & 63, packed[j + 4] & 63),
        _ => (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4),
    };
    std::array::from_fn(|j| {
        let (scale, offset) = six(j);
        let codes = &bytes[16 + j / 2 * 32..];
        let code = |i: usize| if j % 2 == 0 { codes[i] & 15 } else { codes[i] >> 4 };
        Q4Block {
            scale: f16::from_f32(d * scale as f32),
            offset: f16::from_f32(-m * offset as f32),
            quantized: std::array::from_fn(code),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::embedding_table::decode;

    /// ggml's formats as candle decodes them.
    #[test]
    fn blocks_stand_for_the_weights_of_their_formats() {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for (dtype, size) in [(GgmlDType::Q4_0, 18), (GgmlDType::Q4_1, 20), (GgmlDType::Q4K, 144)] {
            let mut data: Vec<u8> = (0..size * 3).map(|_| random()).collect();
            // Scales such as models have.
            for block in data.chunks_exact_mut(size) {
                block[..2].copy_from_slice(&f16::from_f32(0.013).to_le_bytes());
                if dtype != GgmlDType::Q4_0 {
                    block[2..4].copy_from_slice(&f16::from_f32(0.021).to_le_bytes());
                }
            }
            let count = data.len() / size * dtype.block_size();
            let tensor = TensorData { shape: vec![1, count], dtype: Dtype::Ggml(dtype), data: data.clone().into() };
            let weights = Weights::new([("w".to_string(), tensor)].into(), Default::default());
            let found = blocks(&weights, "w", 1, count).unwrap().unwrap();
            let values: Vec<f32> = found.iter().flat_map(Q4Block::dequantize).collect();
            let expected = decode(dtype, &data, count).unwrap();
            for (a, b) in values.iter().zip(&expected) {
                assert!((a - b).abs() < 2e-3 * b.abs().max(1.0), "{dtype:?}: {a} {b}");
            }
            assert_eq!(values.len(), expected.len());
        }
    }
}
