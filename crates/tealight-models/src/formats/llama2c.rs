//! llama2.c's model file, `.bin` of versions 0, 1 and 2 (<https://github.com/karpathy/llama2.c/blob/master/export.py>), and its
//! `tokenizer.bin`. Tensors get the names that GGUF files use.

use super::gguf::{MetadataValue, token_type};
use super::tensor::{Dtype, TensorData};
use bytes::Bytes;
use candle_core::quantized::GgmlDType;
use std::collections::HashMap;
use tealight_core::{Error, Result};

/// The first bytes of versions 1 and 2; version 0 starts with its sizes.
const MAGIC: &[u8] = b"24ka";
/// Bytes before the weights in versions 1 and 2.
const HEADER_BYTES: usize = 256;
const NUM_SIZES: usize = 7;
/// A larger size means that the file is damaged.
const MAX_SIZE: usize = 1 << 24;
const MAX_LAYERS: usize = 1024;

/// The header of a model file; sizes have the names of `Config` in llama2.c's `run.c`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Values of a hidden state.
    pub dim: usize,
    /// Inner dimension of the feed-forward network.
    pub hidden_dim: usize,
    /// Decoder layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Rows of the token embedding table.
    pub vocab_size: usize,
    /// Longest sequence, in tokens.
    pub seq_len: usize,
    /// Whether the output matrix is the token embedding table.
    pub shared_classifier: bool,
    version: i32,
    /// Weights that share a scale, in version 2.
    group_size: usize,
    /// Offset of the first weight, in bytes.
    weights_offset: usize,
}

impl Header {
    /// Reads the header of a model file.
    ///
    /// # Errors
    /// The file is too short, its version is unknown, or a size is out of range.
    pub fn parse(file: &[u8]) -> Result<Self> {
        let has_magic = file.starts_with(MAGIC);
        let number = |offset: usize| -> Result<i32> {
            let bytes = file.get(offset..offset + 4).and_then(|b| b.first_chunk());
            let short = || Error::invalid_model(format!("not a llama2.c file: {} bytes hold no header", file.len()));
            Ok(i32::from_le_bytes(*bytes.ok_or_else(short)?))
        };
        let version = if has_magic { number(4)? } else { 0 };
        if !(0..=2).contains(&version) || has_magic && version == 0 {
            return Err(Error::invalid_model(format!("llama2.c file version {version}; expected 0, 1 or 2")));
        }
        let first = if has_magic { 8 } else { 0 };
        let numbers = (0..NUM_SIZES).map(|i| number(first + 4 * i)).collect::<Result<Vec<_>>>()?;
        let size = |i: usize| numbers[i].unsigned_abs() as usize;
        let end = first + 4 * NUM_SIZES;
        let header = Self {
            dim: size(0),
            hidden_dim: size(1),
            n_layers: size(2),
            n_heads: size(3),
            n_kv_heads: size(4),
            vocab_size: size(5),
            seq_len: size(6),
            // In version 0 a negative vocabulary size means that the output matrix has separate weights.
            shared_classifier: if has_magic { file.get(end) == Some(&1) } else { numbers[5] > 0 },
            version,
            group_size: if version == 2 { number(end + 1)?.unsigned_abs() as usize } else { 1 },
            weights_offset: if has_magic { HEADER_BYTES } else { end },
        };
        header.validate().map(|()| header)
    }

    fn validate(&self) -> Result<()> {
        let Self { dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len, group_size, .. } = *self;
        let sizes = [dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len];
        if sizes.iter().any(|n| !(1..=MAX_SIZE).contains(n)) || n_layers > MAX_LAYERS {
            return Err(Error::invalid_model(format!("not a llama2.c file: its header has the sizes {sizes:?}")));
        }
        if group_size == 0 || !dim.is_multiple_of(group_size) {
            return Err(Error::invalid_model(format!(
                "llama2.c group size is {group_size}; expected a divisor of dim, {dim}"
            )));
        }
        Ok(())
    }

    /// Values of an attention head.
    pub fn head_dim(&self) -> usize {
        self.dim / self.n_heads
    }

    /// Names and shapes of the tensors in the order of the file.
    fn layout(&self) -> Vec<(String, Vec<usize>)> {
        let Self { dim, hidden_dim, vocab_size, .. } = *self;
        let (q, kv) = (self.n_heads * self.head_dim(), self.n_kv_heads * self.head_dim());
        let single = |name: &str, shape: &[usize]| vec![(format!("{name}.weight"), shape.to_vec())];
        let per_layer = |name: &str, shape: &[usize]| -> Vec<_> {
            (0..self.n_layers).map(|i| (format!("blk.{i}.{name}.weight"), shape.to_vec())).collect()
        };
        let embeddings = single("token_embd", &[vocab_size, dim]);
        let (attn_norm, ffn_norm) = (per_layer("attn_norm", &[dim]), per_layer("ffn_norm", &[dim]));
        let output_norm = single("output_norm", &[dim]);
        let attention = [
            per_layer("attn_q", &[q, dim]),
            per_layer("attn_k", &[kv, dim]),
            per_layer("attn_v", &[kv, dim]),
            per_layer("attn_output", &[dim, q]),
        ]
        .concat();
        let feed_forward = [
            per_layer("ffn_gate", &[hidden_dim, dim]),
            per_layer("ffn_down", &[dim, hidden_dim]),
            per_layer("ffn_up", &[hidden_dim, dim]),
        ]
        .concat();
        let output = if self.shared_classifier { vec![] } else { single("output", &[vocab_size, dim]) };
        if self.version == 0 {
            [embeddings, attn_norm, attention, ffn_norm, feed_forward, output_norm, output].concat()
        } else {
            [attn_norm, ffn_norm, output_norm, embeddings, attention, feed_forward, output].concat()
        }
    }

    /// Reads the tensors of the file that this is the header of.
    ///
    /// # Errors
    /// The file has more or fewer bytes than its sizes need.
    pub fn tensors(&self, file: &Bytes) -> Result<HashMap<String, TensorData>> {
        let mut reader = Reader { file, offset: self.weights_offset, group_size: self.group_size };
        let mut tensors = HashMap::new();
        for (name, shape) in self.layout() {
            let is_quantized = self.version == 2 && shape.len() == 2;
            let tensor = if is_quantized { reader.q8_0(&shape)? } else { reader.f32(&shape)? };
            if self.version == 0 && name == "output_norm.weight" {
                reader.skip_rope_tables(self.seq_len, self.head_dim())?;
            }
            tensors.insert(name, tensor);
        }
        if reader.offset != file.len() {
            return Err(Error::invalid_model(format!(
                "llama2.c file has {} bytes; its sizes need {}",
                file.len(),
                reader.offset
            )));
        }
        Ok(tensors)
    }
}

/// Whether a file is a llama2.c model. Version 0 has no magic number, so its sizes must account for every byte.
pub fn is_llama2c(file: &Bytes) -> bool {
    file.starts_with(MAGIC) || Header::parse(file).and_then(|header| header.tensors(file)).is_ok()
}

struct Reader<'a> {
    file: &'a Bytes,
    offset: usize,
    group_size: usize,
}

impl Reader<'_> {
    fn read_bytes(&mut self, count: usize) -> Result<Bytes> {
        let remaining = self.file.len().saturating_sub(self.offset);
        if count > remaining {
            return Err(Error::invalid_model(format!(
                "llama2.c file ends early: {remaining} bytes after byte {}, expected {count}",
                self.offset
            )));
        }
        self.offset += count;
        Ok(self.file.slice(self.offset - count..self.offset))
    }

    fn f32(&mut self, shape: &[usize]) -> Result<TensorData> {
        let data = self.read_bytes(product(4, shape))?;
        Ok(TensorData { shape: shape.to_vec(), dtype: Dtype::Ggml(GgmlDType::F32), data })
    }

    /// Reads int8 weights followed by one f32 scale per group, as f32.
    fn q8_0(&mut self, shape: &[usize]) -> Result<TensorData> {
        let count = product(1, shape);
        let quantized = self.read_bytes(count)?;
        let scales = self.read_bytes(count / self.group_size * 4)?;
        let scales: Vec<f32> = scales.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let weight = |(i, q): (usize, &u8)| *q as i8 as f32 * scales[i / self.group_size];
        let values: Vec<f32> = quantized.iter().enumerate().map(weight).collect();
        Ok(TensorData::f32(shape.to_vec(), &values))
    }

    /// Skips the cosines and sines of version 0.
    fn skip_rope_tables(&mut self, seq_len: usize, head_dim: usize) -> Result<()> {
        self.read_bytes(product(4, &[seq_len, head_dim])).map(drop)
    }
}

/// `first` times all dimensions, or `usize::MAX` on overflow.
fn product(first: usize, shape: &[usize]) -> usize {
    shape.iter().try_fold(first, |n, d| n.checked_mul(*d)).unwrap_or(usize::MAX)
}

/// llama2.c's `tokenizer.bin`: a SentencePiece vocabulary. Token 1 starts a text, token 2 ends it, tokens 3 to 258 are single
/// bytes.
#[derive(Debug, Clone)]
pub struct TokenizerBin {
    /// Tokens by id, with U+2581 for a space.
    pub tokens: Vec<String>,
    /// The score of each token: if two merges are possible, the one with the higher score comes first.
    pub scores: Vec<f32>,
    /// GGUF's type of each token.
    pub token_types: Vec<i32>,
}

impl TokenizerBin {
    /// The token that starts a text.
    pub const BOS: u32 = 1;
    /// The token that ends a text.
    pub const EOS: u32 = 2;

    /// Reads the file of a model with `vocab_size` tokens.
    ///
    /// # Errors
    /// The file is too short, or a token is not UTF-8.
    pub fn parse(file: &[u8], vocab_size: usize) -> Result<Self> {
        let short = || Error::invalid_model(format!("tokenizer.bin is too short for {vocab_size} tokens"));
        let four =
            |offset: usize| file.get(offset..offset + 4).and_then(|b| b.first_chunk()).copied().ok_or_else(short);
        // The first four bytes are the length of the longest token.
        let (mut offset, mut tokens, mut scores) = (4, vec![], vec![]);
        for _ in 0..vocab_size {
            scores.push(f32::from_le_bytes(four(offset)?));
            let length = u32::from_le_bytes(four(offset + 4)?) as usize;
            let text = offset.checked_add(8 + length).and_then(|end| file.get(offset + 8..end)).ok_or_else(short)?;
            let text = std::str::from_utf8(text)
                .map_err(|_| Error::invalid_model("tokenizer.bin has a token that is not UTF-8"))?;
            tokens.push(text.replace(' ', "\u{2581}"));
            offset += 8 + length;
        }
        // llama2.c writes line breaks around the names of two of these tokens.
        for (id, name) in [(0, "<unk>"), (1, "<s>"), (2, "</s>")] {
            if let Some(token) = tokens.get_mut(id) {
                *token = name.to_string();
            }
        }
        let token_types = (0..vocab_size as i32).map(|id| match id {
            0 => token_type::UNKNOWN,
            1 | 2 => token_type::CONTROL,
            3..=258 => token_type::BYTE,
            _ => token_type::NORMAL,
        });
        Ok(Self { tokens, scores, token_types: token_types.map(|t| t as i32).collect() })
    }

    /// The same tokenizer as the metadata of a GGUF file.
    pub fn gguf_metadata(&self) -> Vec<(String, MetadataValue)> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        vec![
            (key("model"), MetadataValue::String("llama".into())),
            (key("tokens"), MetadataValue::Strings(self.tokens.clone())),
            (key("scores"), MetadataValue::Floats(self.scores.clone())),
            (key("token_type"), MetadataValue::Ints(self.token_types.clone())),
            (key("bos_token_id"), MetadataValue::Uint(Self::BOS)),
            (key("eos_token_id"), MetadataValue::Uint(Self::EOS)),
        ]
    }
}
