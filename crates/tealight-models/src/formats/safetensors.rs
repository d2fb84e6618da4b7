//! safetensors: one file, or several with an index, in a Hugging Face model folder.

use super::json::read_json;
use super::tensor::{Dtype, TensorData};
use super::weights::Weights;
use bytes::Bytes;
use candle_core::quantized::GgmlDType;
use safetensors::SafeTensors;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use tealight_core::mmap::map_file;
use tealight_core::{Error, Result};

const SINGLE_FILE: &str = "model.safetensors";
/// Names the file of each tensor if there are several files.
const INDEX: &str = "model.safetensors.index.json";

impl Weights {
    /// The tensors of a mapped safetensors file, with the names that `rename` returns; `None` leaves a tensor out.
    ///
    /// # Errors
    /// The header does not fit the file, or a tensor has a type other than F32, F16 and BF16.
    pub fn from_safetensors(file: &Bytes, rename: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut tensors = HashMap::new();
        read(file, rename, &mut tensors)?;
        Ok(Self::new(tensors))
    }

    /// The tensors of a model folder, and the path of its only weight file, or of the index of several files.
    ///
    /// # Errors
    /// The folder has no weights, lacks a file that its index names, or as for [`Weights::from_safetensors`].
    pub fn from_folder(folder: &Path, rename: impl Fn(&str) -> Option<String>) -> Result<(Self, PathBuf)> {
        let single = folder.join(SINGLE_FILE);
        if single.exists() {
            return Ok((Self::from_safetensors(&map_file(&single)?, rename)?, single));
        }
        let index_path = folder.join(INDEX);
        let missing = || {
            Error::invalid_model(format!(
                "{SINGLE_FILE} is missing, and so is {INDEX}; other weight formats are not supported in folders"
            ))
        };
        let index = read_json(&index_path)?.ok_or_else(missing)?;
        let files = index["weight_map"]
            .as_object()
            .ok_or_else(|| Error::invalid_model(format!("{INDEX} has no weight_map")))?;
        // Each file once; only the file name counts, so that an index cannot name files of other folders.
        let names: BTreeSet<&str> =
            files.values().filter_map(|name| Path::new(name.as_str()?).file_name()?.to_str()).collect();
        let mut tensors = HashMap::new();
        for name in names {
            read(&map_file(&folder.join(name))?, &rename, &mut tensors).map_err(|e| e.with_context(name))?;
        }
        Ok((Self::new(tensors), index_path))
    }
}

fn read(
    file: &Bytes,
    rename: impl Fn(&str) -> Option<String>,
    tensors: &mut HashMap<String, TensorData>,
) -> Result<()> {
    let parsed =
        SafeTensors::deserialize(file).map_err(|e| Error::invalid_model(format!("not a safetensors file: {e}")))?;
    for (name, view) in parsed.iter() {
        let Some(renamed) = rename(name) else { continue };
        let dtype = match view.dtype() {
            safetensors::Dtype::F32 => GgmlDType::F32,
            safetensors::Dtype::F16 => GgmlDType::F16,
            safetensors::Dtype::BF16 => GgmlDType::BF16,
            other => {
                return Err(Error::invalid_model(format!("tensor {name:?} is {other:?}; expected F32, F16 or BF16")));
            }
        };
        let (shape, data) = (view.shape().to_vec(), file.slice_ref(view.data()));
        tensors.insert(renamed, TensorData { shape, dtype: Dtype::Ggml(dtype), data });
    }
    Ok(())
}
