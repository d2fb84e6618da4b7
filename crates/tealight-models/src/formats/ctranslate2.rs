//! CTranslate2's `model.bin`, the format of faster-whisper's models: little-endian, unaligned.
//!
//! Layout: <https://github.com/OpenNMT/CTranslate2/blob/master/python/ctranslate2/specs/model_spec.py>. Tensors are renamed to
//! Hugging Face's names.

use super::byte_reader::ByteReader;
use crate::formats::tensor::{Dtype, TensorData};
use bytes::Bytes;
use candle_core::quantized::GgmlDType;
use std::collections::HashMap;
use tealight_core::{Error, Result};

/// The supported binary version, written by CTranslate2 3 and 4.
const VERSION: u32 = 6;
const SPEC: &str = "WhisperSpec";
/// Larger counts are a sign of corruption.
const MAX_VARIABLES: u32 = 1 << 16;
const MAX_RANK: u8 = 4;

/// The tensors of a file by Hugging Face's names, and the number of attention heads if the file has it.
///
/// # Errors
/// The file is not a Whisper model of version 6, is truncated, or has a tensor of an unsupported type.
pub(crate) fn read(file: &Bytes) -> Result<(HashMap<String, TensorData>, Option<usize>)> {
    let mut reader = ByteReader::new(file, 0);
    read_variables(&mut reader).and_then(convert).map_err(|e| e.with_context("model.bin"))
}

fn read_variables(reader: &mut ByteReader) -> Result<HashMap<String, Variable>> {
    let (version, spec) = (reader.read_u32("version")?, read_string(reader, "spec")?);
    if version != VERSION || spec != SPEC {
        return Err(Error::invalid_model(format!(
            "spec is {spec:?} version {version}; expected {SPEC:?} version {VERSION}"
        )));
    }
    reader.read_u32("revision")?;
    let count = reader.read_u32("number of variables")?;
    if count > MAX_VARIABLES {
        return Err(Error::invalid_model(format!("has {count} variables; the limit is {MAX_VARIABLES}")));
    }
    (0..count).map(|_| Variable::read(reader)).collect()
}

/// A length that includes a terminating zero, and the string.
fn read_string(reader: &mut ByteReader, name: &str) -> Result<String> {
    let length = reader.read_u16(name)? as usize;
    let bytes = reader.read_bytes(name, length)?;
    let text = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
    String::from_utf8(text.to_vec()).map_err(|_| Error::invalid_model(format!("{name} is not UTF-8")))
}

fn convert(variables: HashMap<String, Variable>) -> Result<(HashMap<String, TensorData>, Option<usize>)> {
    let num_heads = variables.get("encoder/num_heads").and_then(|v| v.data.first().map(|b| *b as usize));
    let mut tensors = HashMap::new();
    for (name, variable) in &variables {
        for (hf_name, slice) in hf_names(name) {
            let tensor = variable.to_tensor(variables.get(&format!("{name}_scale")));
            let tensor = tensor.and_then(|t| slice_rows(t, slice));
            tensors.insert(hf_name, tensor.map_err(|e| e.with_context(format_args!("variable {name:?}")))?);
        }
    }
    Ok((tensors, num_heads))
}

/// A variable as stored in the file.
struct Variable {
    shape: Vec<usize>,
    data_type: u8,
    data: Bytes,
}

impl Variable {
    fn read(reader: &mut ByteReader) -> Result<(String, Self)> {
        let name = read_string(reader, "name of a variable")?;
        let [rank] = reader.read_array("rank")?;
        if rank > MAX_RANK {
            return Err(Error::invalid_model(format!(
                "variable {name:?} has {rank} dimensions; the limit is {MAX_RANK}"
            )));
        }
        let shape = (0..rank).map(|_| Ok(reader.read_u32("dimension")? as usize)).collect::<Result<_>>()?;
        let [data_type] = reader.read_array("data type")?;
        let length = reader.read_u32("length")? as usize;
        let data = reader.read_bytes(&name, length)?;
        Ok((name, Self { shape, data_type, data }))
    }

    /// The tensor in a type that candle supports; int8 and int16 are dequantized to f32 with one scale per row or per tensor.
    fn to_tensor(&self, scale: Option<&Variable>) -> Result<TensorData> {
        let count = self.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let (item_size, dtype) = match self.data_type {
            0 => (4, GgmlDType::F32),
            1 => (1, GgmlDType::F32),
            2 => (2, GgmlDType::F32),
            4 => (2, GgmlDType::F16),
            5 => (2, GgmlDType::BF16),
            other => return Err(Error::invalid_model(format!("has data type {other}, which is not supported"))),
        };
        if count.and_then(|n| n.checked_mul(item_size)) != Some(self.data.len()) {
            return Err(Error::invalid_model(format!("has shape {:?} and {} bytes", self.shape, self.data.len())));
        }
        if !matches!(self.data_type, 1 | 2) {
            return Ok(TensorData { shape: self.shape.clone(), dtype: Dtype::Ggml(dtype), data: self.data.clone() });
        }
        let scale = scale.ok_or_else(|| Error::invalid_model("is quantized and has no scale"))?;
        let scales: Vec<f32> = scale.data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let rows = self.shape.first().copied().unwrap_or(1);
        if rows == 0 || scales.is_empty() || (scales.len() != rows && scales.len() != 1) {
            return Err(Error::invalid_model(format!("has {rows} rows and {} scales", scales.len())));
        }
        let row_len = self.data.len() / item_size / rows;
        let quantized = |i: usize| match self.data_type {
            1 => self.data[i] as i8 as f32,
            _ => i16::from_le_bytes([self.data[2 * i], self.data[2 * i + 1]]) as f32,
        };
        let values: Vec<f32> =
            (0..rows * row_len).map(|i| quantized(i) / scales[(i / row_len) % scales.len()]).collect();
        Ok(TensorData::f32(self.shape.clone(), &values))
    }
}

/// One of several tensors that CTranslate2 stacks along the first dimension.
#[derive(Clone, Copy)]
struct RowSlice {
    index: usize,
    count: usize,
}

impl RowSlice {
    const ALL: Self = Self { index: 0, count: 1 };
}

fn slice_rows(tensor: TensorData, slice: RowSlice) -> Result<TensorData> {
    let TensorData { mut shape, dtype, data } = tensor;
    let (rows, count) = (shape.first().copied().unwrap_or(0), slice.count);
    if !rows.is_multiple_of(count) {
        return Err(Error::invalid_model(format!("has {rows} rows; expected {count} matrices of equal size")));
    }
    shape[0] = rows / count;
    let bytes = data.len() / count;
    Ok(TensorData { shape, dtype, data: data.slice(slice.index * bytes..(slice.index + 1) * bytes) })
}

/// Hugging Face's names of the tensors in a variable; empty for variables that are not needed.
fn hf_names(name: &str) -> Vec<(String, RowSlice)> {
    let whole = |name: String| vec![(name, RowSlice::ALL)];
    let Some((side, rest)) = name.split_once('/') else { return vec![] };
    if let Some(rest) = rest.strip_prefix("layer_")
        && let Some((index, rest)) = rest.split_once('/')
        && let Some((layer, kind)) = rest.rsplit_once('/')
    {
        let kind = match kind {
            "gamma" => "weight",
            "beta" => "bias",
            "weight" | "bias" => kind,
            _ => return vec![],
        };
        let parts: &[&str] = match layer {
            "self_attention/layer_norm" => &["self_attn_layer_norm"],
            "self_attention/linear_0" => &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            "self_attention/linear_1" => &["self_attn.out_proj"],
            "attention/layer_norm" => &["encoder_attn_layer_norm"],
            "attention/linear_0" => &["encoder_attn.q_proj"],
            "attention/linear_1" => &["encoder_attn.k_proj", "encoder_attn.v_proj"],
            "attention/linear_2" => &["encoder_attn.out_proj"],
            "ffn/layer_norm" => &["final_layer_norm"],
            "ffn/linear_0" => &["fc1"],
            "ffn/linear_1" => &["fc2"],
            _ => return vec![],
        };
        let slice = |(i, part): (usize, &&str)| {
            (format!("{side}.layers.{index}.{part}.{kind}"), RowSlice { index: i, count: parts.len() })
        };
        return parts.iter().enumerate().map(slice).collect();
    }
    match rest {
        "conv1/weight" | "conv1/bias" | "conv2/weight" | "conv2/bias" => {
            whole(format!("{side}.{}", rest.replace('/', ".")))
        }
        "position_encodings/encodings" => whole(format!("{side}.embed_positions.weight")),
        "layer_norm/gamma" => whole(format!("{side}.layer_norm.weight")),
        "layer_norm/beta" => whole(format!("{side}.layer_norm.bias")),
        "embeddings/weight" => whole(format!("{side}.embed_tokens.weight")),
        _ => vec![],
    }
}
