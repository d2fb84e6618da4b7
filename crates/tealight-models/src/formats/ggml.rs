//! whisper.cpp's `.bin`: little-endian, without alignment, with the vocabulary inside.
//!
//! Layout: <https://github.com/ggml-org/whisper.cpp/blob/master/models/convert-pt-to-ggml.py>. Tensors get the names that
//! Hugging Face's files have.

use crate::formats::tensor::{Dtype, TensorData, tensor_bytes};
use bytes::Bytes;
use std::collections::HashMap;
use tealight_core::{Error, Result};

/// What such a file begins with.
pub(crate) const MAGIC: &[u8] = b"lmgg";
/// Counts beyond these are damage, not models.
const MOST_TEXTS: usize = 1 << 17;
const MOST_DIMENSIONS: usize = 4;

/// What such a file holds.
pub(crate) struct File {
    pub tensors: HashMap<String, TensorData>,
    /// Heads of attention.
    pub heads: usize,
    /// Token ids of the model.
    pub ids: usize,
    /// The bytes of text tokens, in the order of their ids.
    pub texts: Vec<Bytes>,
}

/// Reads a file.
///
/// # Errors
/// It is another, cut short, or has a tensor of a type that is not read.
pub(crate) fn read(file: &Bytes) -> Result<File> {
    let mut cursor = Cursor { file, at: MAGIC.len() };
    let numbers = (0..11).map(|_| cursor.number("size")).collect::<Result<Vec<_>>>()?;
    // Vocabulary, then for audio: rows, width, heads, layers; the same for text; mel bands, type of most tensors.
    let (ids, heads) = (numbers[0], numbers[3]);
    let (bands, bins) = (cursor.number("mel bands")?, cursor.number("frequencies")?);
    let filters = bands.checked_mul(bins).and_then(|n| n.checked_mul(4));
    cursor.take("filters", filters.unwrap_or(usize::MAX))?;
    let count = cursor.number("number of tokens")?;
    if count > MOST_TEXTS {
        return Err(Error::invalid_model(format!("has {count} tokens, the limit is {MOST_TEXTS}")));
    }
    let texts = (0..count).map(|_| cursor.text()).collect::<Result<_>>()?;
    let mut tensors = HashMap::new();
    while cursor.at < file.len() {
        let (name, tensor) = cursor.tensor()?;
        if let Some(renamed) = renamed(&name) {
            tensors.insert(renamed, tensor);
        }
    }
    Ok(File { tensors, heads, ids, texts })
}

/// Hugging Face's name for a tensor.
fn renamed(name: &str) -> Option<String> {
    let (side, rest) = name.split_once('.')?;
    if let Some(rest) = rest.strip_prefix("blocks.") {
        let (index, rest) = rest.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let ours = match part {
            "attn_ln" => "self_attn_layer_norm",
            "attn.query" => "self_attn.q_proj",
            "attn.key" => "self_attn.k_proj",
            "attn.value" => "self_attn.v_proj",
            "attn.out" => "self_attn.out_proj",
            "cross_attn_ln" => "encoder_attn_layer_norm",
            "cross_attn.query" => "encoder_attn.q_proj",
            "cross_attn.key" => "encoder_attn.k_proj",
            "cross_attn.value" => "encoder_attn.v_proj",
            "cross_attn.out" => "encoder_attn.out_proj",
            "mlp_ln" => "final_layer_norm",
            "mlp.0" => "fc1",
            "mlp.2" => "fc2",
            _ => return None,
        };
        return Some(format!("{side}.layers.{index}.{ours}.{kind}"));
    }
    let ours = match rest {
        "positional_embedding" => "embed_positions.weight",
        "token_embedding.weight" => "embed_tokens.weight",
        "ln_post.weight" | "ln.weight" => "layer_norm.weight",
        "ln_post.bias" | "ln.bias" => "layer_norm.bias",
        other => other,
    };
    Some(format!("{side}.{ours}"))
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
                "{what} at byte {} needs {count} bytes, {left} are left",
                self.at
            )));
        }
        self.at += count;
        Ok(self.file.slice(self.at - count..self.at))
    }

    fn number(&mut self, what: &str) -> Result<usize> {
        let bytes = self.take(what, 4)?;
        let bytes = bytes.first_chunk().ok_or_else(|| Error::internal("a number is shorter than asked for"))?;
        Ok(u32::from_le_bytes(*bytes) as usize)
    }

    fn text(&mut self) -> Result<Bytes> {
        let length = self.number("length of a token")?;
        self.take("token", length)
    }

    fn tensor(&mut self) -> Result<(String, TensorData)> {
        let dimensions = self.number("number of dimensions")?;
        let (length, kind) = (self.number("length of a name")?, self.number("type")?);
        if dimensions > MOST_DIMENSIONS {
            return Err(Error::invalid_model(format!(
                "a tensor has {dimensions} dimensions, the limit is {MOST_DIMENSIONS}"
            )));
        }
        // The last dimension comes first.
        let mut shape = (0..dimensions).map(|_| self.number("dimension")).collect::<Result<Vec<_>>>()?;
        shape.reverse();
        let name = String::from_utf8(self.take("name of a tensor", length)?.to_vec())
            .map_err(|_| Error::invalid_model("the name of a tensor is not UTF-8"))?;
        // Biases of convolutions are columns.
        if shape.len() == 2 && shape[1] == 1 {
            shape.pop();
        }
        let dtype = Dtype::from_ggml_type(kind as u32).filter(|dtype| matches!(dtype, Dtype::Ggml(_)));
        let dtype = dtype
            .ok_or_else(|| Error::invalid_model(format!("tensor {name:?} has the type {kind}, which is not read")))?;
        let bytes = tensor_bytes(&shape, dtype).ok_or_else(|| {
            Error::invalid_model(format!("tensor {name:?} of shape {shape:?} is no whole number of blocks"))
        })?;
        let data = self.take(&name, bytes)?;
        Ok((name, TensorData { shape, dtype, data }))
    }
}
