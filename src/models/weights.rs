//! Named tensors of a model file, asked for with the shape that the model needs.

use super::gguf::TensorData;
use crate::error::{Error, Result};
use crate::kernels::q8_0;
use crate::nn::Matrix;
use bytes::Bytes;
use candle_core::Device;
use candle_core::quantized::{GgmlDType, ggml_file};
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;

/// How matrices are kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 8 bits a weight in blocks of 32, and activations quantised alike.
    #[default]
    Q8_0,
    /// 8 bits a weight with one scale an output, and activations quantised by row, in fused kernels: many times as fast,
    /// less exact.
    Int8,
    /// As the file has them, for measuring what quantisation costs.
    F32,
}

impl Precision {
    /// Its name: `q8_0`, `int8` or `f32`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Q8_0 => "q8_0",
            Precision::Int8 => "int8",
            Precision::F32 => "f32",
        }
    }
}

/// The tensors of a model file, still in the file's formats.
#[derive(Debug, Default)]
pub struct Weights {
    tensors: HashMap<String, TensorData>,
    precision: Precision,
}

impl Weights {
    /// The tensors of a GGUF file.
    pub fn from_gguf(tensors: HashMap<String, TensorData>, precision: Precision) -> Self {
        Self { tensors, precision }
    }

    /// The tensors of a mapped safetensors file, under names that `rename` gives them; `None` leaves one out.
    ///
    /// # Errors
    /// The header does not fit the file, or a tensor is of a type other than F32, F16 and BF16.
    pub fn from_safetensors(
        file: &Bytes,
        precision: Precision,
        rename: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let parsed =
            SafeTensors::deserialize(file).map_err(|e| Error::model(format!("not a safetensors file: {e}")))?;
        let mut tensors = HashMap::new();
        for (name, view) in parsed.iter() {
            let Some(renamed) = rename(name) else { continue };
            let dtype = match view.dtype() {
                Dtype::F32 => GgmlDType::F32,
                Dtype::F16 => GgmlDType::F16,
                Dtype::BF16 => GgmlDType::BF16,
                other => return Err(Error::model(format!("tensor {name:?} is {other:?}; F32, F16 and BF16 are read"))),
            };
            let (shape, data) = (view.shape().to_vec(), file.slice_ref(view.data()));
            tensors.insert(renamed, TensorData { shape, dtype, data });
        }
        Ok(Self { tensors, precision })
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.find(name)?.shape)
    }

    fn find(&self, name: &str) -> Result<&TensorData> {
        self.tensors.get(name).ok_or_else(|| Error::model(format!("tensor {name:?} is missing")))
    }

    fn checked(&self, name: &str, expected: &[usize]) -> Result<&TensorData> {
        let tensor = self.find(name)?;
        if tensor.shape == expected {
            return Ok(tensor);
        }
        Err(Error::model(format!("tensor {name:?} has the shape {:?}, expected {expected:?}", tensor.shape)))
    }

    /// All values in f32, row by row.
    ///
    /// # Errors
    /// The tensor is missing, has another shape, or holds a value that is not finite.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let values = dequantise(name, self.checked(name, shape)?)?;
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(i) => Err(Error::model(format!("tensor {name:?} has the value {} at {i}", values[i]))),
        }
    }

    /// A matrix `[n, k]`: the file's own bytes where it is stored in Q8_0, else quantised to it here; in f32 where that
    /// is asked for, or where rows are not whole blocks.
    pub fn matrix(&self, name: &str, n: usize, k: usize) -> Result<Matrix> {
        let tensor = self.checked(name, &[n, k])?;
        if self.precision == Precision::F32 || !k.is_multiple_of(q8_0::BLOCK) {
            return Matrix::f32(self.floats(name, &[n, k])?, n, k);
        }
        let blocks = match tensor.dtype {
            GgmlDType::Q8_0 => tensor.data.clone(),
            _ => self.quantised(name, n, k)?,
        };
        Matrix::q8_0(blocks, n, k)
    }

    /// How matrices are to be kept in memory.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    fn quantised(&self, name: &str, n: usize, k: usize) -> Result<Bytes> {
        let values = self.floats(name, &[n, k])?;
        let mut out = Vec::with_capacity(values.len() / q8_0::BLOCK * q8_0::BLOCK_BYTES);
        q8_0::quantise_row(&values, &mut out);
        Ok(out.into())
    }

    /// A matrix `[n, k]` for a packed file: in Q8_0, or in f32 where rows are not whole blocks.
    pub fn packed_matrix(&self, name: &str, n: usize, k: usize) -> Result<TensorData> {
        if !k.is_multiple_of(q8_0::BLOCK) {
            return self.packed_floats(name, &[n, k]);
        }
        Ok(TensorData { shape: vec![n, k], dtype: GgmlDType::Q8_0, data: self.quantised(name, n, k)? })
    }

    /// A tensor for a packed file, in f32.
    pub fn packed_floats(&self, name: &str, shape: &[usize]) -> Result<TensorData> {
        Ok(TensorData::f32(shape.to_vec(), &self.floats(name, shape)?))
    }
}

fn dequantise(name: &str, tensor: &TensorData) -> Result<Vec<f32>> {
    let data = &tensor.data;
    Ok(match tensor.dtype {
        GgmlDType::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        GgmlDType::F16 => data.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        GgmlDType::BF16 => data.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        dtype => ggml_file::qtensor_from_ggml(dtype, data, tensor.shape.clone(), &Device::Cpu)
            .and_then(|t| t.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1())
            .map_err(|e| Error::model(format!("tensor {name:?} cannot be decoded: {e}")))?,
    })
}
