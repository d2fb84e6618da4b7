//! CTranslate2's `model.bin`, in which faster-whisper's models come: little-endian, without alignment.
//!
//! Layout: <https://github.com/OpenNMT/CTranslate2/blob/master/python/ctranslate2/specs/model_spec.py>. Tensors get the names
//! that Hugging Face's files have.

use crate::formats::tensor::{Dtype, TensorData};
use bytes::Bytes;
use candle_core::quantized::GgmlDType;
use std::collections::HashMap;
use tealight_core::{Error, Result};

/// The one version that is read: of CTranslate2 3 and 4.
const VERSION: u32 = 6;
const SPEC: &str = "WhisperSpec";
/// Counts beyond these are damage, not models.
const MAX_VARIABLES: u32 = 1 << 16;
const MAX_RANK: u8 = 4;

/// The tensors of a file, by Hugging Face's names for them, and the heads of attention where the file tells.
///
/// # Errors
/// The file is another, of another version, cut short, or has a tensor that Whisper has not.
pub(crate) fn read(file: &Bytes) -> Result<(HashMap<String, TensorData>, Option<usize>)> {
    let mut cursor = Cursor { file, at: 0 };
    let (version, spec) = (cursor.u32("version")?, cursor.string("specification")?);
    if version != VERSION || spec != SPEC {
        return Err(Error::invalid_model(format!(
            "model.bin is {spec:?} of version {version}; {SPEC:?} of {VERSION} is read"
        )));
    }
    cursor.u32("revision")?;
    let count = cursor.u32("number of variables")?;
    if count > MAX_VARIABLES {
        return Err(Error::invalid_model(format!("model.bin has {count} variables, the limit is {MAX_VARIABLES}")));
    }
    let variables = (0..count).map(|_| cursor.variable()).collect::<Result<HashMap<_, _>>>()?;
    let heads = variables.get("encoder/num_heads").and_then(|v| v.data.first().map(|b| *b as usize));
    let mut tensors = HashMap::new();
    for (name, variable) in &variables {
        for (renamed, rows) in renamed(name) {
            let tensor = variable.tensor(variables.get(&format!("{name}_scale")));
            let tensor =
                tensor.and_then(|t| part(t, rows)).map_err(|e| e.with_context(format_args!("variable {name:?}")))?;
            tensors.insert(renamed, tensor);
        }
    }
    Ok((tensors, heads))
}

/// A variable as it stands in the file.
struct Variable {
    shape: Vec<usize>,
    kind: u8,
    data: Bytes,
}

impl Variable {
    /// In a format that is read elsewhere, too: whole numbers by their scales become f32.
    fn tensor(&self, scale: Option<&Variable>) -> Result<TensorData> {
        let count = self.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let (width, dtype) = match self.kind {
            0 => (4, GgmlDType::F32),
            1 => (1, GgmlDType::F32),
            2 => (2, GgmlDType::F32),
            4 => (2, GgmlDType::F16),
            5 => (2, GgmlDType::BF16),
            other => return Err(Error::invalid_model(format!("has the type {other}, which is not read"))),
        };
        if count.and_then(|n| n.checked_mul(width)) != Some(self.data.len()) {
            return Err(Error::invalid_model(format!("of shape {:?} has {} bytes", self.shape, self.data.len())));
        }
        if !matches!(self.kind, 1 | 2) {
            return Ok(TensorData { shape: self.shape.clone(), dtype: Dtype::Ggml(dtype), data: self.data.clone() });
        }
        let scale = scale.ok_or_else(|| Error::invalid_model("has whole numbers and no scale"))?;
        let scales: Vec<f32> = scale.data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let rows = self.shape.first().copied().unwrap_or(1);
        if rows == 0 || scales.is_empty() || (scales.len() != rows && scales.len() != 1) {
            return Err(Error::invalid_model(format!("of {rows} rows has {} scales", scales.len())));
        }
        let row = self.data.len() / width / rows;
        let number = |i: usize| match self.kind {
            1 => self.data[i] as i8 as f32,
            _ => i16::from_le_bytes([self.data[2 * i], self.data[2 * i + 1]]) as f32,
        };
        let values: Vec<f32> = (0..rows * row).map(|i| number(i) / scales[(i / row) % scales.len()]).collect();
        Ok(TensorData::f32(self.shape.clone(), &values))
    }
}

/// The `index`-th of `of` equal parts of the rows.
fn part(tensor: TensorData, (index, of): (usize, usize)) -> Result<TensorData> {
    let TensorData { mut shape, dtype, data } = tensor;
    let rows = shape.first().copied().unwrap_or(0);
    if !rows.is_multiple_of(of) {
        return Err(Error::invalid_model(format!("of {rows} rows is not {of} matrices")));
    }
    shape[0] = rows / of;
    let bytes = data.len() / of;
    Ok(TensorData { shape, dtype, data: data.slice(index * bytes..(index + 1) * bytes) })
}

/// Hugging Face's names for the parts of a variable: name, and which of how many parts it is.
fn renamed(name: &str) -> Vec<(String, (usize, usize))> {
    let whole = |name: String| vec![(name, (0, 1))];
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
        let ours: &[&str] = match layer {
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
        let name = |part: &str| format!("{side}.layers.{index}.{part}.{kind}");
        return ours.iter().enumerate().map(|(i, part)| (name(part), (i, ours.len()))).collect();
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

/// A place in a file that is being read.
struct Cursor<'a> {
    file: &'a Bytes,
    at: usize,
}

impl Cursor<'_> {
    fn take(&mut self, what: &str, count: usize) -> Result<Bytes> {
        let left = self.file.len() - self.at;
        if count > left {
            return Err(Error::invalid_model(format!(
                "model.bin: {what} at byte {} needs {count} bytes, {left} are left",
                self.at
            )));
        }
        self.at += count;
        Ok(self.file.slice(self.at - count..self.at))
    }

    fn number<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let bytes = self.take(what, N)?;
        bytes.first_chunk().copied().ok_or_else(|| Error::internal("a number is shorter than asked for"))
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.number(what)?))
    }

    /// A length with the zero byte at the end, and the text.
    fn string(&mut self, what: &str) -> Result<String> {
        let length = u16::from_le_bytes(self.number(what)?) as usize;
        let bytes = self.take(what, length)?;
        let text = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
        String::from_utf8(text.to_vec()).map_err(|_| Error::invalid_model(format!("model.bin: {what} is not UTF-8")))
    }

    fn variable(&mut self) -> Result<(String, Variable)> {
        let name = self.string("name of a variable")?;
        let [rank] = self.number("rank")?;
        if rank > MAX_RANK {
            return Err(Error::invalid_model(format!(
                "variable {name:?} has {rank} dimensions, the limit is {MAX_RANK}"
            )));
        }
        let shape = (0..rank).map(|_| Ok(self.u32("dimension")? as usize)).collect::<Result<_>>()?;
        let [kind] = self.number("type")?;
        let length = self.u32("length")? as usize;
        let data = self.take(&name, length)?;
        Ok((name, Variable { shape, kind, data }))
    }
}
