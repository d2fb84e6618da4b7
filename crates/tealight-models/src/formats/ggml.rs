//! whisper.cpp's `.bin`: little-endian, unaligned, includes the vocabulary.
//!
//! Layout: <https://github.com/ggml-org/whisper.cpp/blob/master/models/convert-pt-to-ggml.py>. Tensors are renamed to Hugging
//! Face's names.

use super::GGML_MAGIC;
use super::byte_reader::ByteReader;
use crate::formats::tensor::{Dtype, TensorData, tensor_bytes};
use bytes::Bytes;
use std::collections::HashMap;
use tealight_core::{Error, Result};

/// Larger counts are a sign of corruption.
const MAX_TOKENS: usize = 1 << 17;
const MAX_DIMENSIONS: usize = 4;

/// Contents of a file.
pub(crate) struct GgmlFile {
    /// By Hugging Face's names.
    pub tensors: HashMap<String, TensorData>,
    pub num_attention_heads: usize,
    /// Number of token ids, including special tokens.
    pub vocab_size: usize,
    /// The bytes of text tokens, in the order of their ids.
    pub tokens: Vec<Bytes>,
}

/// Reads a file that starts with [`GGML_MAGIC`].
///
/// # Errors
/// The file is truncated, or has a tensor of an unsupported type.
pub(crate) fn read(file: &Bytes) -> Result<GgmlFile> {
    let mut reader = ByteReader::new(file, GGML_MAGIC.len());
    // n_vocab; n_audio_ctx, n_audio_state, n_audio_head, n_audio_layer; the same for text; n_mels, type of most tensors.
    let sizes = (0..11).map(|_| read_usize(&mut reader, "size")).collect::<Result<Vec<_>>>()?;
    let (vocab_size, num_attention_heads) = (sizes[0], sizes[3]);
    let (n_mels, bins) = (read_usize(&mut reader, "n_mels")?, read_usize(&mut reader, "frequency bins")?);
    let filter_bytes = n_mels.checked_mul(bins).and_then(|n| n.checked_mul(4));
    reader.read_bytes("mel filters", filter_bytes.unwrap_or(usize::MAX))?;
    let count = read_usize(&mut reader, "number of tokens")?;
    if count > MAX_TOKENS {
        return Err(Error::invalid_model(format!("has {count} tokens; the limit is {MAX_TOKENS}")));
    }
    let tokens = (0..count).map(|_| read_token(&mut reader)).collect::<Result<_>>()?;
    let mut tensors = HashMap::new();
    while !reader.is_at_end() {
        let (name, tensor) = read_tensor(&mut reader)?;
        if let Some(hf_name) = hf_name(&name) {
            tensors.insert(hf_name, tensor);
        }
    }
    Ok(GgmlFile { tensors, num_attention_heads, vocab_size, tokens })
}

fn read_usize(reader: &mut ByteReader, name: &str) -> Result<usize> {
    Ok(reader.read_u32(name)? as usize)
}

fn read_token(reader: &mut ByteReader) -> Result<Bytes> {
    let length = read_usize(reader, "length of a token")?;
    reader.read_bytes("token", length)
}

fn read_tensor(reader: &mut ByteReader) -> Result<(String, TensorData)> {
    let dimensions = read_usize(reader, "number of dimensions")?;
    let (name_length, ggml_type) = (read_usize(reader, "length of a tensor name")?, reader.read_u32("tensor type")?);
    if dimensions > MAX_DIMENSIONS {
        return Err(Error::invalid_model(format!(
            "a tensor has {dimensions} dimensions; the limit is {MAX_DIMENSIONS}"
        )));
    }
    // The last dimension is stored first.
    let mut shape = (0..dimensions).map(|_| read_usize(reader, "dimension")).collect::<Result<Vec<_>>>()?;
    shape.reverse();
    let name = String::from_utf8(reader.read_bytes("tensor name", name_length)?.to_vec())
        .map_err(|_| Error::invalid_model("a tensor name is not UTF-8"))?;
    // Biases of convolutions are stored as [n, 1].
    if shape.len() == 2 && shape[1] == 1 {
        shape.pop();
    }
    let dtype = Dtype::from_ggml_type(ggml_type).filter(|dtype| matches!(dtype, Dtype::Ggml(_)));
    let dtype = dtype
        .ok_or_else(|| Error::invalid_model(format!("tensor {name:?} has type {ggml_type}, which is not supported")))?;
    let bytes = tensor_bytes(&shape, dtype).ok_or_else(|| {
        Error::invalid_model(format!("tensor {name:?} has shape {shape:?}; expected rows of whole blocks"))
    })?;
    let data = reader.read_bytes(&name, bytes)?;
    Ok((name, TensorData { shape, dtype, data }))
}

/// Hugging Face's name of a tensor; `None` for tensors that are not needed.
fn hf_name(name: &str) -> Option<String> {
    let (side, rest) = name.split_once('.')?;
    if let Some(rest) = rest.strip_prefix("blocks.") {
        let (index, rest) = rest.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let hf_part = match part {
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
        return Some(format!("{side}.layers.{index}.{hf_part}.{kind}"));
    }
    let hf_rest = match rest {
        "positional_embedding" => "embed_positions.weight",
        "token_embedding.weight" => "embed_tokens.weight",
        "ln_post.weight" | "ln.weight" => "layer_norm.weight",
        "ln_post.bias" | "ln.bias" => "layer_norm.bias",
        other => other,
    };
    Some(format!("{side}.{hf_rest}"))
}
