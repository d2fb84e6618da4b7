//! Writes files.

use super::constants::{MAGIC, value_type as vt};
use super::metadata::ParsedValue;
use crate::formats::tensor::TensorData;
use std::io::Write;

/// A metadata value to write.
#[derive(Debug, Clone)]
pub enum MetadataValue {
    /// u32.
    Uint(u32),
    /// f32.
    Float(f32),
    /// true or false.
    Bool(bool),
    /// A string.
    String(String),
    /// An array of strings.
    Strings(Vec<String>),
    /// An array of i32.
    Ints(Vec<i32>),
    /// An array of f32.
    Floats(Vec<f32>),
    /// A value of another file, which must be of version 2 or 3.
    Raw(ParsedValue),
}

/// Alignment of tensors in written files: a cache line.
const ALIGNMENT: usize = 64;

/// Writes a file of version 3. Metadata and tensors keep their order, so equal input gives equal bytes.
///
/// # Errors
/// `out` fails.
pub fn write(
    out: &mut dyn Write,
    metadata: &[(String, MetadataValue)],
    tensors: &[(String, TensorData)],
) -> std::io::Result<()> {
    let mut header = Vec::new();
    header.extend_from_slice(MAGIC);
    push_u32(&mut header, 3);
    push_u64(&mut header, tensors.len());
    push_u64(&mut header, metadata.len() + 1);
    let alignment = ("general.alignment".to_string(), MetadataValue::Uint(ALIGNMENT as u32));
    for (key, value) in metadata.iter().chain([&alignment]) {
        push_string(&mut header, key.as_bytes());
        push_value(&mut header, value);
    }
    let mut offset = 0;
    for (name, tensor) in tensors {
        push_string(&mut header, name.as_bytes());
        push_u32(&mut header, tensor.shape.len() as u32);
        for d in tensor.shape.iter().rev() {
            push_u64(&mut header, *d);
        }
        push_u32(&mut header, tensor.dtype.ggml_type());
        push_u64(&mut header, offset);
        offset += tensor.data.len().next_multiple_of(ALIGNMENT);
    }
    out.write_all(&header)?;
    pad(out, header.len())?;
    for (_, tensor) in tensors {
        out.write_all(&tensor.data)?;
        pad(out, tensor.data.len())?;
    }
    Ok(())
}

fn pad(out: &mut dyn Write, written: usize) -> std::io::Result<()> {
    out.write_all(&[0; ALIGNMENT][..written.next_multiple_of(ALIGNMENT) - written])
}

fn push_u32(out: &mut Vec<u8>, v: u32) {
    out.extend_from_slice(&v.to_le_bytes());
}

fn push_u64(out: &mut Vec<u8>, v: usize) {
    out.extend_from_slice(&(v as u64).to_le_bytes());
}

fn push_string(out: &mut Vec<u8>, s: &[u8]) {
    push_u64(out, s.len());
    out.extend_from_slice(s);
}

/// The type of a scalar, then its bytes.
fn push_scalar(out: &mut Vec<u8>, value_type: u32, bytes: &[u8]) {
    push_u32(out, value_type);
    out.extend_from_slice(bytes);
}

fn push_array_header(out: &mut Vec<u8>, element_type: u32, count: usize) {
    push_u32(out, vt::ARRAY);
    push_u32(out, element_type);
    push_u64(out, count);
}

fn push_value(out: &mut Vec<u8>, value: &MetadataValue) {
    match value {
        MetadataValue::Uint(v) => push_scalar(out, vt::UINT32, &v.to_le_bytes()),
        MetadataValue::Float(v) => push_scalar(out, vt::FLOAT32, &v.to_le_bytes()),
        MetadataValue::Bool(v) => push_scalar(out, vt::BOOL, &[*v as u8]),
        MetadataValue::String(v) => {
            push_u32(out, vt::STRING);
            push_string(out, v.as_bytes());
        }
        MetadataValue::Strings(v) => {
            push_array_header(out, vt::STRING, v.len());
            v.iter().for_each(|s| push_string(out, s.as_bytes()));
        }
        MetadataValue::Ints(v) => {
            push_array_header(out, vt::INT32, v.len());
            v.iter().for_each(|i| out.extend_from_slice(&i.to_le_bytes()));
        }
        MetadataValue::Floats(v) => {
            push_array_header(out, vt::FLOAT32, v.len());
            v.iter().for_each(|f| out.extend_from_slice(&f.to_le_bytes()));
        }
        MetadataValue::Raw(value) => push_parsed_value(out, value),
    }
}

fn push_parsed_value(out: &mut Vec<u8>, value: &ParsedValue) {
    match value {
        ParsedValue::Uint(v) => push_scalar(out, vt::UINT64, &v.to_le_bytes()),
        ParsedValue::Int(v) => push_scalar(out, vt::INT64, &v.to_le_bytes()),
        ParsedValue::Float(v) => push_scalar(out, vt::FLOAT64, &v.to_le_bytes()),
        ParsedValue::Bool(v) => push_scalar(out, vt::BOOL, &[*v as u8]),
        ParsedValue::String(v) => {
            push_u32(out, vt::STRING);
            push_string(out, v);
        }
        ParsedValue::Array(v) => {
            push_array_header(out, v.element_type, v.len());
            out.extend_from_slice(v.data());
        }
    }
}
