//! Named tensors of a model file, asked for with the shape that the model needs.

use super::embedding_table::{Table, decode};
use super::gguf::{Dtype, TensorData};
use crate::tasks::embed::pipeline::json;
use bytes::Bytes;
use candle_core::quantized::GgmlDType;
use safetensors::SafeTensors;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use tealight_core::mmap::map_file;
use tealight_core::{Error, Result};

/// The weights of a folder in one file, and the list of the files where they are in several.
const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// How matrices are kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 8 bits a weight and an activation, with a scale for each group along K.
    #[default]
    Int8,
    /// f32, for measuring what quantisation costs.
    F32,
}

impl Precision {
    /// Its name: `int8` or `f32`.
    pub fn name(self) -> &'static str {
        match self {
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
    /// Tensors by their names.
    pub fn new(tensors: HashMap<String, TensorData>, precision: Precision) -> Self {
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
        let mut this = Self { tensors: HashMap::new(), precision };
        this.add(file, rename)?;
        Ok(this)
    }

    /// The same of a folder with one such file or several, and the path of the one, or of the list of the several.
    ///
    /// # Errors
    /// There are none, one that the list names is missing, or as of [`Weights::from_safetensors`].
    pub fn from_folder(
        folder: &Path,
        precision: Precision,
        rename: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, PathBuf)> {
        let one = folder.join(WHOLE);
        if one.exists() {
            return Ok((Self::from_safetensors(&map_file(&one)?, precision, rename)?, one));
        }
        let list = folder.join(INDEX);
        let missing =
            || Error::invalid_model(format!("{WHOLE} is missing, and so is {INDEX}; other weight files are not read"));
        let index = json(&list)?.ok_or_else(missing)?;
        let files = index["weight_map"]
            .as_object()
            .ok_or_else(|| Error::invalid_model(format!("{INDEX} has no weight_map")))?;
        // Each once, and only files of the folder itself.
        let names: BTreeSet<&str> =
            files.values().filter_map(|name| Path::new(name.as_str()?).file_name()?.to_str()).collect();
        let mut this = Self { tensors: HashMap::new(), precision };
        for name in names {
            this.add(&map_file(&folder.join(name))?, &rename).map_err(|e| e.with_context(name))?;
        }
        Ok((this, list))
    }

    fn add(&mut self, file: &Bytes, rename: impl Fn(&str) -> Option<String>) -> Result<()> {
        let parsed =
            SafeTensors::deserialize(file).map_err(|e| Error::invalid_model(format!("not a safetensors file: {e}")))?;
        for (name, view) in parsed.iter() {
            let Some(renamed) = rename(name) else { continue };
            let dtype = match view.dtype() {
                safetensors::Dtype::F32 => GgmlDType::F32,
                safetensors::Dtype::F16 => GgmlDType::F16,
                safetensors::Dtype::BF16 => GgmlDType::BF16,
                other => {
                    return Err(Error::invalid_model(format!(
                        "tensor {name:?} is {other:?}; F32, F16 and BF16 are read"
                    )));
                }
            };
            let (shape, data) = (view.shape().to_vec(), file.slice_ref(view.data()));
            self.tensors.insert(renamed, TensorData { shape, dtype: Dtype::Ggml(dtype), data });
        }
        Ok(())
    }

    /// Bytes of all tensors once they are packed: of 4 bits as they are, of others in int8.
    pub fn packed_bytes(&self) -> u64 {
        let bytes = |tensor: &TensorData| match tensor.dtype {
            Dtype::I8 | Dtype::Ggml(GgmlDType::Q4_0 | GgmlDType::Q4_1 | GgmlDType::Q4K) => tensor.data.len(),
            // A scale and a sum for each 64.
            Dtype::Ggml(_) => tensor.shape.iter().product::<usize>() / 8 * 9,
        };
        self.tensors.values().map(|tensor| bytes(tensor) as u64).sum()
    }

    /// The names of all tensors, in any order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The first dimension of a tensor, in a layout of ours or another.
    pub fn rows(&self, name: &str) -> Result<usize> {
        let tensor = self.tensors.get(&packed_name(name)).map_or_else(|| self.find(name), Ok)?;
        Ok(tensor.shape.first().copied().unwrap_or(0))
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.find(name)?.shape)
    }

    /// A tensor as it stands in the file.
    pub fn tensor(&self, name: &str) -> Result<&TensorData> {
        self.find(name)
    }

    fn find(&self, name: &str) -> Result<&TensorData> {
        self.tensors.get(name).ok_or_else(|| Error::invalid_model(format!("tensor {name:?} is missing")))
    }

    /// The format and the bytes of a tensor of numbers.
    fn numbers(&self, name: &str, expected: &[usize]) -> Result<(GgmlDType, &Bytes)> {
        let TensorData { shape, dtype, data } = self.find(name)?;
        if shape != expected {
            return Err(Error::invalid_model(format!(
                "tensor {name:?} has the shape {shape:?}, expected {expected:?}"
            )));
        }
        match dtype {
            Dtype::Ggml(dtype) => Ok((*dtype, data)),
            Dtype::I8 => Err(Error::invalid_model(format!("tensor {name:?} is I8, expected numbers of another type"))),
        }
    }

    /// All values in f32, row by row.
    ///
    /// # Errors
    /// The tensor is missing, has another shape, or holds a value that is not finite.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (dtype, data) = self.numbers(name, shape)?;
        let values = decode(dtype, data, shape.iter().product()).map_err(|e| named(name, e))?;
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(i) => Err(Error::invalid_model(format!("tensor {name:?} has the value {} at {i}", values[i]))),
        }
    }

    /// How matrices are to be kept in memory.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// A table `[rows, width]`, left in the file.
    ///
    /// # Errors
    /// The tensor is missing or has another shape.
    pub fn table(&self, name: &str, rows: usize, width: usize) -> Result<Table> {
        if let Some(packed) = self.packed(name) {
            return Table::int8(packed.clone(), rows, width).map_err(|e| named(name, e));
        }
        let (dtype, data) = self.numbers(name, &[rows, width])?;
        Table::ggml(dtype, data.clone(), rows, width).map_err(|e| named(name, e))
    }

    /// The bytes of a tensor in a layout of ours, if the file has it.
    pub fn packed(&self, name: &str) -> Option<&Bytes> {
        self.tensors.get(&packed_name(name)).filter(|t| t.dtype == Dtype::I8).map(|t| &t.data)
    }

    /// A tensor for a packed file, in f32.
    pub fn packed_floats(&self, name: &str, shape: &[usize]) -> Result<TensorData> {
        Ok(TensorData::f32(shape.to_vec(), &self.floats(name, shape)?))
    }
}

/// The name of a tensor in a layout of ours.
pub fn packed_name(name: &str) -> String {
    format!("{name}.packed")
}

fn named(name: &str, error: Error) -> Error {
    error.with_context(format_args!("tensor {name:?}"))
}
