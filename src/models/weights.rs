//! Named tensors of a model file, asked for with the shape that the model needs.

use super::gguf::TensorData;
use crate::error::{Error, Result};
use crate::kernels::q8_0;
use bytes::Bytes;
use candle_core::Device;
use candle_core::quantized::{GgmlDType, ggml_file};
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;

/// The tensors of a model file, still in the file's formats.
#[derive(Debug, Default)]
pub struct Weights {
    tensors: HashMap<String, TensorData>,
}

impl Weights {
    /// The tensors of a GGUF file.
    pub fn from_gguf(tensors: HashMap<String, TensorData>) -> Self {
        Self { tensors }
    }

    /// The tensors of a mapped safetensors file, under names that `rename` gives them; `None` leaves one out.
    ///
    /// # Errors
    /// The header does not fit the file, or a tensor is of a type other than F32, F16 and BF16.
    pub fn from_safetensors(file: &Bytes, rename: impl Fn(&str) -> Option<String>) -> Result<Self> {
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
        Ok(Self { tensors })
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

    /// A matrix `[n, k]` in Q8_0: the file's own bytes where it is stored so, else quantised here.
    pub fn q8_0(&self, name: &str, n: usize, k: usize) -> Result<Bytes> {
        let tensor = self.checked(name, &[n, k])?;
        if tensor.dtype == GgmlDType::Q8_0 {
            return Ok(tensor.data.clone());
        }
        if !k.is_multiple_of(q8_0::BLOCK) {
            return Err(Error::model(format!(
                "tensor {name:?} has rows of {k} values, which is not a multiple of {}",
                q8_0::BLOCK
            )));
        }
        let values = self.floats(name, &[n, k])?;
        let mut out = Vec::with_capacity(values.len() / q8_0::BLOCK * q8_0::BLOCK_BYTES);
        q8_0::quantise_row(&values, &mut out);
        Ok(out.into())
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
