//! Metadata values: numbers, strings and arrays of them.

use super::constants::value_type as vt;
use super::cursor::Cursor;
use bytes::Bytes;
use tealight_core::{Error, Result};

/// A metadata value of a file.
#[derive(Debug, Clone)]
pub enum ParsedValue {
    /// An unsigned integer of any size.
    Uint(u64),
    /// A signed integer of any size.
    Int(i64),
    /// f32 or f64.
    Float(f64),
    /// true or false.
    Bool(bool),
    /// A string; UTF-8 is checked when it is used.
    String(Bytes),
    /// Elements of one type, still encoded.
    Array(Array),
}

/// An array in the metadata, decoded when it is used.
#[derive(Debug, Clone)]
pub struct Array {
    pub(super) element_type: u32,
    pub(super) count: usize,
    has_u64_lengths: bool,
    data: Bytes,
}

impl ParsedValue {
    pub(super) fn read(cursor: &mut Cursor, key: &str) -> Result<Self> {
        let value_type = cursor.read_u32("value type")?;
        if value_type == vt::ARRAY {
            Array::read(cursor, key).map(ParsedValue::Array)
        } else {
            Self::read_scalar(cursor, value_type, key)
        }
    }

    fn read_scalar(cursor: &mut Cursor, value_type: u32, key: &str) -> Result<Self> {
        Ok(match value_type {
            vt::UINT8 => ParsedValue::Uint(cursor.read_array::<1>(key)?[0] as u64),
            vt::INT8 => ParsedValue::Int(cursor.read_array::<1>(key)?[0] as i8 as i64),
            vt::UINT16 => ParsedValue::Uint(u16::from_le_bytes(cursor.read_array(key)?) as u64),
            vt::INT16 => ParsedValue::Int(i16::from_le_bytes(cursor.read_array(key)?) as i64),
            vt::UINT32 => ParsedValue::Uint(cursor.read_u32(key)? as u64),
            vt::INT32 => ParsedValue::Int(cursor.read_u32(key)? as i32 as i64),
            vt::FLOAT32 => ParsedValue::Float(f32::from_bits(cursor.read_u32(key)?) as f64),
            vt::BOOL => ParsedValue::Bool(cursor.read_array::<1>(key)?[0] != 0),
            vt::STRING => ParsedValue::String(cursor.file.slice_ref(cursor.read_string_bytes(key)?)),
            vt::UINT64 => ParsedValue::Uint(cursor.read_u64(key)?),
            vt::INT64 => ParsedValue::Int(cursor.read_u64(key)? as i64),
            vt::FLOAT64 => ParsedValue::Float(f64::from_bits(cursor.read_u64(key)?)),
            _ => return Err(Error::invalid_model(format!("GGUF key {key:?} has the unknown type {value_type}"))),
        })
    }
}

/// Bytes of a value of fixed size.
fn value_bytes(value_type: u32) -> Option<usize> {
    match value_type {
        vt::UINT8 | vt::INT8 | vt::BOOL => Some(1),
        vt::UINT16 | vt::INT16 => Some(2),
        vt::UINT32 | vt::INT32 | vt::FLOAT32 => Some(4),
        vt::UINT64 | vt::INT64 | vt::FLOAT64 => Some(8),
        _ => None,
    }
}

impl Array {
    fn read(cursor: &mut Cursor, key: &str) -> Result<Self> {
        let element_type = cursor.read_u32("element type")?;
        let count = cursor.read_bounded_length(key, cursor.remaining() as u64)?;
        let start = cursor.offset;
        match value_bytes(element_type) {
            Some(bytes) => drop(cursor.read_bytes(key, count * bytes)?),
            None if element_type == vt::STRING => {
                for _ in 0..count {
                    cursor.read_string_bytes(key)?;
                }
            }
            None => {
                return Err(Error::invalid_model(format!(
                    "GGUF key {key:?} is an array of the unknown type {element_type}"
                )));
            }
        }
        let data = cursor.file.slice(start..cursor.offset);
        Ok(Self { element_type, count, has_u64_lengths: cursor.has_u64_lengths, data })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether the array has no elements.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether strings have lengths of 8 bytes, as in files of version 2 and 3.
    pub fn has_u64_lengths(&self) -> bool {
        self.has_u64_lengths
    }

    /// The elements as they are encoded in the file.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The elements as strings, which are parts of [`Array::data`].
    ///
    /// # Errors
    /// The elements are not strings, or a string is not UTF-8.
    pub fn strings(&self) -> Result<Vec<&str>> {
        if self.element_type != vt::STRING {
            return Err(Error::invalid_model("GGUF array does not hold strings"));
        }
        let mut cursor = Cursor::new(&self.data, self.has_u64_lengths);
        (0..self.count).map(|_| cursor.read_string("string")).collect()
    }

    /// The elements as integers.
    ///
    /// # Errors
    /// The elements are not integers.
    pub fn integers(&self) -> Result<Vec<i64>> {
        if !matches!(self.element_type, vt::UINT8..=vt::INT32 | vt::UINT64 | vt::INT64) {
            return Err(Error::invalid_model("GGUF array does not hold integers"));
        }
        let mut cursor = Cursor::new(&self.data, self.has_u64_lengths);
        let integer = |_| {
            Ok(match ParsedValue::read_scalar(&mut cursor, self.element_type, "array")? {
                ParsedValue::Int(i) => i,
                ParsedValue::Uint(u) => u as i64,
                _ => 0,
            })
        };
        (0..self.count).map(integer).collect()
    }

    /// The elements as f32.
    ///
    /// # Errors
    /// The elements are not f32.
    pub fn floats(&self) -> Result<Vec<f32>> {
        if self.element_type != vt::FLOAT32 {
            return Err(Error::invalid_model("GGUF array does not hold f32"));
        }
        Ok(self.data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }
}
