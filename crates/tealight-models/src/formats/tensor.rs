//! A tensor of a model file, for all file formats.

use bytes::Bytes;
use candle_core::quantized::GgmlDType;

/// A tensor in the encoding of its file, or converted to f32.
#[derive(Debug, Clone)]
pub struct TensorData {
    /// Row-major: the last dimension is contiguous.
    pub shape: Vec<usize>,
    /// The encoding of `data`.
    pub dtype: Dtype,
    /// A part of the mapped file, or converted values.
    pub data: Bytes,
}

/// The encoding of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// Floats or quantized blocks that candle decodes.
    Ggml(GgmlDType),
    /// Bytes in a layout of tealight's kernels, which GGUF files store as I8.
    Packed,
}

impl Dtype {
    /// The encoding with this number in GGUF and GGML files (`enum ggml_type`).
    pub fn from_ggml_type(id: u32) -> Option<Self> {
        GGML_TYPES.iter().find(|(i, _)| *i == id).map(|(_, dtype)| *dtype)
    }

    pub(super) fn ggml_type(self) -> u32 {
        GGML_TYPES.iter().find(|(_, dtype)| *dtype == self).map_or(u32::MAX, |(id, _)| *id)
    }

    /// Values of a block, and bytes of a block.
    fn block_size(self) -> (usize, usize) {
        match self {
            Dtype::Ggml(dtype) => (dtype.block_size(), dtype.type_size()),
            Dtype::Packed => (1, 1),
        }
    }
}

/// ggml's numbers of the supported encodings.
const GGML_TYPES: [(u32, Dtype); 14] = [
    (0, Dtype::Ggml(GgmlDType::F32)),
    (1, Dtype::Ggml(GgmlDType::F16)),
    (2, Dtype::Ggml(GgmlDType::Q4_0)),
    (3, Dtype::Ggml(GgmlDType::Q4_1)),
    (6, Dtype::Ggml(GgmlDType::Q5_0)),
    (7, Dtype::Ggml(GgmlDType::Q5_1)),
    (8, Dtype::Ggml(GgmlDType::Q8_0)),
    (10, Dtype::Ggml(GgmlDType::Q2K)),
    (11, Dtype::Ggml(GgmlDType::Q3K)),
    (12, Dtype::Ggml(GgmlDType::Q4K)),
    (13, Dtype::Ggml(GgmlDType::Q5K)),
    (14, Dtype::Ggml(GgmlDType::Q6K)),
    (24, Dtype::Packed),
    (30, Dtype::Ggml(GgmlDType::BF16)),
];

impl TensorData {
    /// Bytes in a layout of tealight's kernels.
    pub fn from_bytes(data: Bytes) -> Self {
        Self { shape: vec![data.len()], dtype: Dtype::Packed, data }
    }

    /// f32 values, row-major.
    pub fn f32(shape: Vec<usize>, values: &[f32]) -> Self {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>().into();
        Self { shape, dtype: Dtype::Ggml(GgmlDType::F32), data }
    }
}

/// Bytes of a tensor, or `None` if their number overflows or a row is not a whole number of blocks.
pub fn tensor_bytes(shape: &[usize], dtype: Dtype) -> Option<usize> {
    let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
    let row = shape.last().copied().unwrap_or(1);
    let (block, bytes) = dtype.block_size();
    if row.is_multiple_of(block) { (elements / block).checked_mul(bytes) } else { None }
}
