//! Tables that are read row by row, such as the token embeddings: only the pages of the rows in use are loaded.

use bytes::Bytes;
use candle_core::Device;
use candle_core::quantized::{GgmlDType, ggml_file};
use tealight_core::{Error, Result};

/// A matrix `[rows, row_len]` in one of ggml's encodings, or in int8 with one scale per row.
#[derive(Debug, Clone)]
pub struct EmbeddingTable {
    encoding: RowEncoding,
    bytes: Bytes,
    row_bytes: usize,
    rows: usize,
    row_len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowEncoding {
    /// Each row is an f32 scale, followed by `row_len` i8 values.
    Int8,
    Ggml(GgmlDType),
}

const SCALE_BYTES: usize = 4;

impl EmbeddingTable {
    /// A table in one of ggml's encodings.
    ///
    /// # Errors
    /// A row is not a whole number of blocks, or `bytes` has the wrong length.
    pub fn ggml(dtype: GgmlDType, bytes: Bytes, rows: usize, row_len: usize) -> Result<Self> {
        if !row_len.is_multiple_of(dtype.block_size()) {
            return Err(Error::invalid_model(format!(
                "a row has {row_len} values; expected a whole number of {dtype:?} blocks"
            )));
        }
        let row_bytes = row_len / dtype.block_size() * dtype.type_size();
        Self { encoding: RowEncoding::Ggml(dtype), bytes, row_bytes, rows, row_len }.validate()
    }

    /// A table in the encoding of [`EmbeddingTable::quantize`].
    ///
    /// # Errors
    /// `bytes` has the wrong length.
    pub fn int8(bytes: Bytes, rows: usize, row_len: usize) -> Result<Self> {
        Self { encoding: RowEncoding::Int8, bytes, row_bytes: SCALE_BYTES + row_len, rows, row_len }.validate()
    }

    fn validate(self) -> Result<Self> {
        let expected = self.rows.checked_mul(self.row_bytes);
        if self.rows == 0 || self.row_len == 0 || expected != Some(self.bytes.len()) {
            return Err(Error::invalid_model(format!(
                "a table of {} bytes is not [{}, {}] in {:?}",
                self.bytes.len(),
                self.rows,
                self.row_len,
                self.encoding
            )));
        }
        Ok(self)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Decodes row `i` into `out [row_len]` without touching other rows.
    ///
    /// # Errors
    /// There is no such row.
    pub fn read_row(&self, i: usize, out: &mut [f32]) -> Result<()> {
        if i >= self.rows {
            return Err(Error::internal(format!("row {i} of a table with {} rows", self.rows)));
        }
        let bytes = &self.bytes[i * self.row_bytes..][..self.row_bytes];
        match self.encoding {
            RowEncoding::Int8 => {
                let (scale, quantized) = bytes.split_at(SCALE_BYTES);
                let scale = f32::from_le_bytes([scale[0], scale[1], scale[2], scale[3]]);
                out.iter_mut().zip(quantized).for_each(|(v, q)| *v = scale * (*q as i8) as f32);
            }
            RowEncoding::Ggml(GgmlDType::F32) => {
                let values = bytes.as_chunks().0.iter();
                out.iter_mut().zip(values).for_each(|(v, b)| *v = f32::from_le_bytes(*b));
            }
            RowEncoding::Ggml(dtype) => out.copy_from_slice(&dequantize(dtype, bytes, self.row_len)?),
        }
        Ok(())
    }

    /// Quantizes rows of `values` to int8, symmetrically, with one scale per row, in the encoding that [`EmbeddingTable::int8`] reads.
    pub fn quantize(values: &[f32], row_len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(values.len() / row_len * (SCALE_BYTES + row_len));
        for row in values.chunks_exact(row_len) {
            let max_abs = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let scale = if max_abs > 0.0 { max_abs / 127.0 } else { 1.0 };
            out.extend_from_slice(&scale.to_le_bytes());
            out.extend(row.iter().map(|v| (v / scale).round() as i8 as u8));
        }
        out
    }
}

/// Converts `count` values of one of ggml's encodings to f32.
///
/// # Errors
/// candle cannot decode the encoding, or `bytes` has the wrong length.
pub(crate) fn dequantize(dtype: GgmlDType, bytes: &[u8], count: usize) -> Result<Vec<f32>> {
    let expected = (count / dtype.block_size()).checked_mul(dtype.type_size());
    if expected != Some(bytes.len()) || !count.is_multiple_of(dtype.block_size()) {
        return Err(Error::invalid_model(format!("{} bytes are not {count} values in {dtype:?}", bytes.len())));
    }
    Ok(match dtype {
        GgmlDType::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        GgmlDType::F16 => bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        GgmlDType::BF16 => bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        dtype => {
            let mut copy = vec![];
            let bytes = align_to_u16(bytes, &mut copy);
            ggml_file::qtensor_from_ggml(dtype, bytes, vec![count], &Device::Cpu)?
                .dequantize(&Device::Cpu)?
                .to_vec1()?
        }
    })
}

/// candle reads the half floats at the start of a block in place; in whisper.cpp's files they may have odd addresses.
fn align_to_u16<'a>(bytes: &'a [u8], copy: &'a mut Vec<u8>) -> &'a [u8] {
    if bytes.as_ptr().addr().is_multiple_of(2) {
        return bytes;
    }
    copy.resize(bytes.len() + 1, 0);
    let start = copy.as_ptr().addr() % 2;
    let aligned = &mut copy[start..start + bytes.len()];
    aligned.copy_from_slice(bytes);
    aligned
}
