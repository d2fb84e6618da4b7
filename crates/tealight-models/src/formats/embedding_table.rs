//! A table of rows, such as the tokens': read row by row, so that only the pages of those rows load.

use bytes::Bytes;
use candle_core::Device;
use candle_core::quantized::{GgmlDType, ggml_file};
use tealight_core::{Error, Result};

/// Rows of `width` values.
#[derive(Debug, Clone)]
pub struct Table {
    format: Format,
    bytes: Bytes,
    row_bytes: usize,
    rows: usize,
    width: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// A scale f32, then as many i8 as the row is wide.
    Int8,
    /// One of ggml's.
    Ggml(GgmlDType),
}

const SCALE: usize = 4;

impl Table {
    /// A table in one of ggml's formats.
    ///
    /// # Errors
    /// A row is not whole blocks, or the bytes are not as many as the rows need.
    pub fn ggml(dtype: GgmlDType, bytes: Bytes, rows: usize, width: usize) -> Result<Self> {
        if !width.is_multiple_of(dtype.block_size()) {
            return Err(Error::invalid_model(format!("a row of {width} values is not whole blocks of {dtype:?}")));
        }
        let row_bytes = width / dtype.block_size() * dtype.type_size();
        Self { format: Format::Ggml(dtype), bytes, row_bytes, rows, width }.checked()
    }

    /// A table that [`Table::pack`] wrote.
    ///
    /// # Errors
    /// The bytes are not as many as the rows need.
    pub fn int8(bytes: Bytes, rows: usize, width: usize) -> Result<Self> {
        Self { format: Format::Int8, bytes, row_bytes: SCALE + width, rows, width }.checked()
    }

    fn checked(self) -> Result<Self> {
        let expected = self.rows.checked_mul(self.row_bytes);
        if self.rows == 0 || self.width == 0 || expected != Some(self.bytes.len()) {
            return Err(Error::invalid_model(format!(
                "a table of {} bytes is not [{}, {}] in {:?}",
                self.bytes.len(),
                self.rows,
                self.width,
                self.format
            )));
        }
        Ok(self)
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Writes row `i` to `out [width]`; touches no other row.
    pub fn row(&self, i: usize, out: &mut [f32]) -> Result<()> {
        if i >= self.rows {
            return Err(Error::internal(format!("row {i} of a table with {} rows", self.rows)));
        }
        let bytes = &self.bytes[i * self.row_bytes..][..self.row_bytes];
        match self.format {
            Format::Int8 => {
                let (scale, codes) = bytes.split_at(SCALE);
                let scale = f32::from_le_bytes([scale[0], scale[1], scale[2], scale[3]]);
                out.iter_mut().zip(codes).for_each(|(v, c)| *v = scale * (*c as i8) as f32);
            }
            Format::Ggml(GgmlDType::F32) => {
                let values = bytes.as_chunks().0.iter();
                out.iter_mut().zip(values).for_each(|(v, b)| *v = f32::from_le_bytes(*b));
            }
            Format::Ggml(dtype) => out.copy_from_slice(&decode(dtype, bytes, self.width)?),
        }
        Ok(())
    }

    /// Rows of `values` in int8: one scale a row, symmetric.
    pub fn pack(values: &[f32], width: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(values.len() / width * (SCALE + width));
        for row in values.chunks_exact(width) {
            let largest = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
            out.extend_from_slice(&scale.to_le_bytes());
            out.extend(row.iter().map(|v| (v / scale).round() as i8 as u8));
        }
        out
    }
}

/// `count` values of one of ggml's formats, in f32.
///
/// # Errors
/// candle cannot decode the format, or the bytes are not as many as the values need.
pub(crate) fn decode(dtype: GgmlDType, bytes: &[u8], count: usize) -> Result<Vec<f32>> {
    let expected = (count / dtype.block_size()).checked_mul(dtype.type_size());
    if expected != Some(bytes.len()) || !count.is_multiple_of(dtype.block_size()) {
        return Err(Error::invalid_model(format!("{} bytes are not {count} values in {dtype:?}", bytes.len())));
    }
    Ok(match dtype {
        GgmlDType::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        GgmlDType::F16 => bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        GgmlDType::BF16 => bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        dtype => {
            let mut space = vec![];
            let bytes = at_even_address(bytes, &mut space);
            ggml_file::qtensor_from_ggml(dtype, bytes, vec![count], &Device::Cpu)?
                .dequantize(&Device::Cpu)?
                .to_vec1()?
        }
    })
}

/// Blocks begin with half floats, which candle reads where they lie; whisper.cpp's files put them anywhere.
fn at_even_address<'a>(bytes: &'a [u8], space: &'a mut Vec<u8>) -> &'a [u8] {
    if bytes.as_ptr().addr().is_multiple_of(2) {
        return bytes;
    }
    space.resize(bytes.len() + 1, 0);
    let first = space.as_ptr().addr() % 2;
    let place = &mut space[first..first + bytes.len()];
    place.copy_from_slice(bytes);
    place
}
