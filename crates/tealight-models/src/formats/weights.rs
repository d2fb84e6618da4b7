//! The common view of all formats: tensors by name, with a check of the shape that the network needs.

use super::embedding_table::{EmbeddingTable, dequantize};
use super::tensor::{Dtype, TensorData};
use bytes::Bytes;
use candle_core::quantized::GgmlDType;
use std::collections::HashMap;
use tealight_core::{Error, Result};

/// The arithmetic of a model. Only encoders can also be computed in [`Precision::F32`]; Llama and Whisper are always in int8,
/// except that the 4-bit weights of Llama files stay 4-bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// int8 weights and activations, with one scale per group along the inner dimension.
    #[default]
    Int8,
    /// f32, the reference for the accuracy of int8.
    F32,
}

impl Precision {
    /// `int8` or `f32`.
    pub fn as_str(self) -> &'static str {
        match self {
            Precision::Int8 => "int8",
            Precision::F32 => "f32",
        }
    }
}

/// The tensors of a model file.
#[derive(Debug, Default)]
pub struct Weights {
    tensors: HashMap<String, TensorData>,
}

impl Weights {
    /// Tensors by name.
    pub fn new(tensors: HashMap<String, TensorData>) -> Self {
        Self { tensors }
    }

    /// The names of all tensors, in no particular order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The first dimension of a tensor, packed or not; 0 for a scalar.
    ///
    /// # Errors
    /// The tensor is missing.
    pub fn first_dim(&self, name: &str) -> Result<usize> {
        let tensor = self.tensors.get(&packed_name(name)).map_or_else(|| self.tensor(name), Ok)?;
        Ok(tensor.shape.first().copied().unwrap_or(0))
    }

    /// The shape of a tensor.
    ///
    /// # Errors
    /// The tensor is missing.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.tensor(name)?.shape)
    }

    /// A tensor as it was read from the file.
    ///
    /// # Errors
    /// The tensor is missing.
    pub fn tensor(&self, name: &str) -> Result<&TensorData> {
        self.tensors.get(name).ok_or_else(|| Error::invalid_model(format!("tensor {name:?} is missing")))
    }

    /// The encoding and the bytes of a tensor that is not packed.
    fn ggml_data(&self, name: &str, expected: &[usize]) -> Result<(GgmlDType, &Bytes)> {
        let TensorData { shape, dtype, data } = self.tensor(name)?;
        if shape != expected {
            return Err(Error::invalid_model(format!(
                "tensor {name:?} has the shape {shape:?}; expected {expected:?}"
            )));
        }
        match dtype {
            Dtype::Ggml(dtype) => Ok((*dtype, data)),
            Dtype::Packed => {
                Err(Error::invalid_model(format!("tensor {name:?} is packed (I8); expected one of ggml's types")))
            }
        }
    }

    /// All values as f32, row-major.
    ///
    /// # Errors
    /// The tensor is missing, has another shape, or holds a value that is not finite.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.floats_of_part(name, shape, 0, 1)
    }

    /// Part `index` of `count` equal parts of a tensor; the other parts are not decoded. A part must consist of whole rows.
    ///
    /// # Errors
    /// As [`Weights::floats`].
    pub fn floats_of_part(&self, name: &str, shape: &[usize], index: usize, count: usize) -> Result<Vec<f32>> {
        let (dtype, data) = self.ggml_data(name, shape)?;
        let (values, bytes) = (shape.iter().product::<usize>() / count, data.len() / count);
        let part = data.get(index * bytes..(index + 1) * bytes).unwrap_or_default();
        let values = dequantize(dtype, part, values).map_err(|e| with_tensor_name(name, e))?;
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(i) => Err(Error::invalid_model(format!("tensor {name:?} has the value {} at index {i}", values[i]))),
        }
    }

    /// A table `[rows, row_len]` that decodes rows when they are read.
    ///
    /// # Errors
    /// The tensor is missing or has another shape.
    pub fn embedding_table(&self, name: &str, rows: usize, row_len: usize) -> Result<EmbeddingTable> {
        if let Some(packed) = self.packed(name) {
            return EmbeddingTable::int8(packed.clone(), rows, row_len).map_err(|e| with_tensor_name(name, e));
        }
        let (dtype, data) = self.ggml_data(name, &[rows, row_len])?;
        EmbeddingTable::ggml(dtype, data.clone(), rows, row_len).map_err(|e| with_tensor_name(name, e))
    }

    /// The bytes of a tensor in the layout of tealight's kernels, if the file is packed.
    pub fn packed(&self, name: &str) -> Option<&Bytes> {
        self.tensors.get(&packed_name(name)).filter(|t| t.dtype == Dtype::Packed).map(|t| &t.data)
    }

    /// A tensor converted to f32, for a packed file.
    ///
    /// # Errors
    /// As [`Weights::floats`].
    pub fn f32_tensor(&self, name: &str, shape: &[usize]) -> Result<TensorData> {
        Ok(TensorData::f32(shape.to_vec(), &self.floats(name, shape)?))
    }
}

/// The name that a tensor has in a packed file.
pub fn packed_name(name: &str) -> String {
    format!("{name}.packed")
}

fn with_tensor_name(name: &str, error: Error) -> Error {
    error.with_context(format_args!("tensor {name:?}"))
}
