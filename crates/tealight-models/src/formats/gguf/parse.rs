//! Reads the header of a file and locates its tensors.

use super::constants::{ARCHITECTURE_KEY, MAGIC};
use super::cursor::{Cursor, utf8};
use super::metadata::{Array, ParsedValue};
use crate::formats::tensor::{Dtype, TensorData, tensor_bytes};
use bytes::Bytes;
use std::collections::HashMap;
use tealight_core::{Error, Result};

const DEFAULT_ALIGNMENT: usize = 32;
/// A larger number of tensors or metadata values means that the file is damaged.
const MAX_ENTRIES: u64 = 1 << 20;
const MAX_DIMENSIONS: u32 = 4;

/// The header of a file, and its tensors.
#[derive(Debug)]
pub struct Gguf {
    /// Metadata by key.
    pub metadata: HashMap<String, ParsedValue>,
    /// Tensors by name.
    pub tensors: HashMap<String, TensorData>,
}

/// The numbers that a file starts with.
struct Counts {
    tensors: usize,
    metadata: usize,
}

/// Reads magic, version and counts.
fn read_counts(cursor: &mut Cursor) -> Result<Counts> {
    if cursor.read_bytes("magic", MAGIC.len())? != MAGIC {
        return Err(Error::invalid_model("not a GGUF file: it does not start with \"GGUF\""));
    }
    let version = cursor.read_u32("version")?;
    if !(1..=3).contains(&version) {
        return Err(Error::invalid_model(format!("GGUF version is {version}; expected 1, 2 or 3")));
    }
    cursor.has_u64_lengths = version > 1;
    let tensors = cursor.read_bounded_length("tensor count", MAX_ENTRIES)?;
    let metadata = cursor.read_bounded_length("metadata count", MAX_ENTRIES)?;
    Ok(Counts { tensors, metadata })
}

/// The architecture of a file. Reads no further than its key, which is the first one of most files.
///
/// # Errors
/// The header up to the key is damaged, or the value is not a string.
pub fn read_architecture(data: &Bytes) -> Result<Option<String>> {
    let mut cursor = Cursor::new(data, true);
    let counts = read_counts(&mut cursor)?;
    for _ in 0..counts.metadata {
        let key = cursor.read_string("metadata key")?;
        match (key == ARCHITECTURE_KEY, ParsedValue::read(&mut cursor, key)?) {
            (false, _) => {}
            (true, ParsedValue::String(bytes)) => return Ok(Some(utf8(&bytes, key)?.to_string())),
            (true, _) => return Err(type_error(key, "a string")),
        }
    }
    Ok(None)
}

impl Gguf {
    /// Reads a file of version 1, 2 or 3, little-endian.
    ///
    /// # Errors
    /// The header contradicts itself or the length of the file; the error names the entry, its value and the limit.
    pub fn parse(data: Bytes) -> Result<Self> {
        let mut cursor = Cursor::new(&data, true);
        let counts = read_counts(&mut cursor)?;
        let mut metadata = HashMap::new();
        for _ in 0..counts.metadata {
            let key = cursor.read_string("metadata key")?.to_string();
            let value = ParsedValue::read(&mut cursor, &key)?;
            metadata.insert(key, value);
        }
        let infos = (0..counts.tensors).map(|_| TensorInfo::read(&mut cursor)).collect::<Result<Vec<_>>>()?;
        let data_start = cursor.offset.next_multiple_of(alignment(&metadata)?);
        let mut tensors = HashMap::new();
        for info in infos {
            let (name, tensor) = info.locate(&data, data_start)?;
            if tensors.contains_key(&name) {
                return Err(Error::invalid_model(format!("duplicate GGUF tensor {name:?}")));
            }
            tensors.insert(name, tensor);
        }
        Ok(Self { metadata, tensors })
    }

    /// The value of a key, if the file has it.
    pub fn get(&self, key: &str) -> Option<&ParsedValue> {
        self.metadata.get(key)
    }

    /// The string of a key, if the file has it.
    ///
    /// # Errors
    /// The value has another type, or is not UTF-8.
    pub fn string(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(ParsedValue::String(bytes)) => utf8(bytes, key).map(Some),
            Some(_) => Err(type_error(key, "a string")),
        }
    }

    /// The unsigned integer of a key, if the file has it.
    ///
    /// # Errors
    /// The value has another type, or is negative.
    pub fn integer(&self, key: &str) -> Result<Option<u64>> {
        match self.get(key) {
            None => Ok(None),
            Some(ParsedValue::Uint(u)) => Ok(Some(*u)),
            Some(ParsedValue::Int(i)) if *i >= 0 => Ok(Some(*i as u64)),
            Some(_) => Err(type_error(key, "an unsigned integer")),
        }
    }

    /// The float of a key, if the file has it.
    ///
    /// # Errors
    /// The value has another type.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(ParsedValue::Float(f)) => Ok(Some(*f)),
            Some(_) => Err(type_error(key, "a float")),
        }
    }

    /// The Boolean of a key, if the file has it.
    ///
    /// # Errors
    /// The value has another type.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(ParsedValue::Bool(b)) => Ok(Some(*b)),
            Some(_) => Err(type_error(key, "a Boolean")),
        }
    }

    /// The array of a key, if the file has it.
    ///
    /// # Errors
    /// The value has another type.
    pub fn array(&self, key: &str) -> Result<Option<&Array>> {
        match self.get(key) {
            None => Ok(None),
            Some(ParsedValue::Array(array)) => Ok(Some(array)),
            Some(_) => Err(type_error(key, "an array")),
        }
    }
}

/// The error for a required key that the file does not have.
pub fn missing_key(key: &str) -> Error {
    Error::invalid_model(format!("GGUF key {key:?} is missing"))
}

fn type_error(key: &str, expected: &str) -> Error {
    Error::invalid_model(format!("GGUF key {key:?} is not {expected}"))
}

fn alignment(metadata: &HashMap<String, ParsedValue>) -> Result<usize> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(ParsedValue::Uint(n)) if n.is_power_of_two() && (8..=1 << 20).contains(n) => Ok(*n as usize),
        Some(other) => Err(Error::invalid_model(format!(
            "GGUF key \"general.alignment\" is {other:?}; expected a power of two from 8 to 1048576"
        ))),
    }
}

struct TensorInfo {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    offset: u64,
}

impl TensorInfo {
    fn read(cursor: &mut Cursor) -> Result<Self> {
        let name = cursor.read_string("tensor name")?.to_string();
        let dimensions = cursor.read_u32("number of dimensions")?;
        if dimensions > MAX_DIMENSIONS {
            return Err(Error::invalid_model(format!(
                "GGUF tensor {name:?} has {dimensions} dimensions; the limit is {MAX_DIMENSIONS}"
            )));
        }
        // GGUF lists the contiguous dimension first.
        let mut shape =
            (0..dimensions).map(|_| Ok(cursor.read_length("dimension")? as usize)).collect::<Result<Vec<_>>>()?;
        shape.reverse();
        let ggml_type = cursor.read_u32("tensor type")?;
        let dtype = Dtype::from_ggml_type(ggml_type).ok_or_else(|| {
            Error::invalid_model(format!("GGUF tensor {name:?} has the type {ggml_type}, which is not supported"))
        })?;
        let offset = cursor.read_u64("tensor offset")?;
        Ok(Self { name, shape, dtype, offset })
    }

    /// The tensor's part of the file; offsets are relative to `data_start`.
    fn locate(self, file: &Bytes, data_start: usize) -> Result<(String, TensorData)> {
        let Self { name, shape, dtype, offset } = self;
        let bytes = tensor_bytes(&shape, dtype).ok_or_else(|| {
            Error::invalid_model(format!(
                "GGUF tensor {name:?} has the shape {shape:?}; expected rows of whole {dtype:?} blocks"
            ))
        })?;
        let start = usize::try_from(offset).ok().and_then(|o| o.checked_add(data_start));
        let end = start.and_then(|b| b.checked_add(bytes));
        match (start, end) {
            (Some(start), _) if !start.is_multiple_of(8) => Err(Error::invalid_model(format!(
                "GGUF tensor {name:?} at offset {offset} starts at byte {start} of the file; expected a multiple of 8"
            ))),
            (Some(start), Some(end)) if end <= file.len() => {
                let data = file.slice(start..end);
                Ok((name, TensorData { shape, dtype, data }))
            }
            _ => Err(Error::invalid_model(format!(
                "GGUF tensor {name:?} at offset {offset} with {bytes} bytes is not inside the file of {} bytes",
                file.len()
            ))),
        }
    }
}
