//! llama2.c's `.bin`: <https://github.com/karpathy/llama2.c/blob/master/export.py>, of versions 0, 1 and 2, and its
//! `tokenizer.bin`. Tensors get GGUF's names.

use super::gguf::{Dtype, Entry, TensorData};
use crate::families::llama::{Config, Pairs, Rope};
use bytes::Bytes;
use candle_core::quantized::GgmlDType;
use std::collections::HashMap;
use tealight_core::{Error, Result};

/// What files of version 1 and 2 begin with; version 0 begins with its sizes.
const MAGIC: &[u8] = b"24ka";
/// Bytes before the weights of version 1 and 2.
const HEADER: usize = 256;
const SIZES: usize = 7;
/// Of RMSNorm, in every file.
const EPS: f32 = 1e-5;
/// The base of rotary positions, in every file.
const BASE: f64 = 10_000.0;

/// Sizes as files have them.
struct Sizes {
    width: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    kv: usize,
    vocabulary: usize,
    context: usize,
}

/// Reads a file: sizes and tensors.
///
/// # Errors
/// It is another, or has more or fewer bytes than its sizes need.
pub(crate) fn read(file: &Bytes) -> Result<(Config, HashMap<String, TensorData>)> {
    let is_new = file.starts_with(MAGIC);
    let number = |at: usize| -> Result<i32> {
        let bytes = file.get(at..at + 4).and_then(|b| b.first_chunk());
        let bytes =
            bytes.ok_or_else(|| Error::invalid_model(format!("has {} bytes, no header of llama2.c", file.len())))?;
        Ok(i32::from_le_bytes(*bytes))
    };
    let version = if is_new { number(4)? } else { 0 };
    if !(0..=2).contains(&version) || is_new && version == 0 {
        return Err(Error::invalid_model(format!("is llama2.c's version {version}; 0, 1 and 2 are read")));
    }
    let first = if is_new { 8 } else { 0 };
    let numbers = (0..SIZES).map(|i| number(first + 4 * i)).collect::<Result<Vec<_>>>()?;
    // In version 0 a vocabulary below 0 says that the last product has weights of its own.
    let size = |i: usize| numbers[i].unsigned_abs() as usize;
    let at = first + 4 * SIZES;
    let is_shared = if is_new { file.get(at) == Some(&1) } else { numbers[5] > 0 };
    let sizes = Sizes {
        width: size(0),
        inner: size(1),
        layers: size(2),
        heads: size(3),
        kv: size(4),
        vocabulary: size(5),
        context: size(6),
    };
    let config = sizes.config()?;
    let group = if version == 2 { number(at + 1)?.unsigned_abs() as usize } else { 1 };
    if group == 0 || (version == 2 && !config.width.is_multiple_of(group)) {
        return Err(Error::invalid_model(format!("groups of {group} weights do not fit rows of {}", config.width)));
    }
    let start = if is_new { HEADER } else { at };
    if file.len() < start {
        return Err(Error::invalid_model(format!("has {} bytes, the header alone has {start}", file.len())));
    }
    let mut reader = Reader { file, at: start, group, tensors: HashMap::new() };
    match version {
        0 => reader.version_0(&config, is_shared)?,
        1 => reader.version_1(&config, is_shared)?,
        _ => reader.version_2(&config, is_shared)?,
    }
    if reader.at != file.len() {
        return Err(Error::invalid_model(format!("has {} bytes, its sizes need {}", file.len(), reader.at)));
    }
    Ok((config, reader.tensors))
}

impl Sizes {
    fn config(self) -> Result<Config> {
        let Sizes { width, inner, layers, heads, kv, vocabulary, context } = self;
        let head = width.checked_div(heads).unwrap_or(0);
        let rope = Rope { pairs: Pairs::Neighbours, width: head, base: BASE, linear: 1.0, divisors: vec![] };
        Config { width, layers, heads, kv_heads: kv, head, inner, vocabulary, context, eps: EPS, rope }.checked()
    }
}

/// A place in a file that is being read.
struct Reader<'a> {
    file: &'a Bytes,
    at: usize,
    group: usize,
    tensors: HashMap<String, TensorData>,
}

impl Reader<'_> {
    fn take(&mut self, bytes: usize) -> Result<Bytes> {
        let left = self.file.len() - self.at;
        if bytes > left {
            return Err(Error::invalid_model(format!(
                "byte {} is followed by {left} bytes, its sizes need {bytes}",
                self.at
            )));
        }
        self.at += bytes;
        Ok(self.file.slice(self.at - bytes..self.at))
    }

    fn floats(&mut self, name: String, shape: &[usize]) -> Result<()> {
        let count = shape.iter().try_fold(4usize, |n, d| n.checked_mul(*d)).unwrap_or(usize::MAX);
        let data = self.take(count)?;
        self.tensors.insert(name, TensorData { shape: shape.to_vec(), dtype: Dtype::Ggml(GgmlDType::F32), data });
        Ok(())
    }

    /// 8-bit weights, and behind them a scale for each group.
    fn codes(&mut self, name: String, shape: &[usize]) -> Result<()> {
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).unwrap_or(usize::MAX);
        let codes = self.take(count)?;
        let scales = self.take(count / self.group * 4)?;
        let scales: Vec<f32> = scales.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let weight = |(i, code): (usize, &u8)| *code as i8 as f32 * scales[i / self.group];
        let values: Vec<f32> = codes.iter().enumerate().map(weight).collect();
        self.tensors.insert(name, TensorData::f32(shape.to_vec(), &values));
        Ok(())
    }

    /// A tensor of each layer.
    fn each(
        &mut self,
        config: &Config,
        part: &str,
        shape: &[usize],
        one: fn(&mut Self, String, &[usize]) -> Result<()>,
    ) -> Result<()> {
        (0..config.layers).try_for_each(|i| one(self, format!("blk.{i}.{part}.weight"), shape))
    }

    fn version_0(&mut self, config: &Config, is_shared: bool) -> Result<()> {
        let Config { width: d, inner, head, heads, kv_heads, vocabulary, context, .. } = *config;
        let one = Self::floats;
        self.floats("token_embd.weight".into(), &[vocabulary, d])?;
        self.each(config, "attn_norm", &[d], one)?;
        self.each(config, "attn_q", &[heads * head, d], one)?;
        self.each(config, "attn_k", &[kv_heads * head, d], one)?;
        self.each(config, "attn_v", &[kv_heads * head, d], one)?;
        self.each(config, "attn_output", &[d, heads * head], one)?;
        self.each(config, "ffn_norm", &[d], one)?;
        self.each(config, "ffn_gate", &[inner, d], one)?;
        self.each(config, "ffn_down", &[d, inner], one)?;
        self.each(config, "ffn_up", &[inner, d], one)?;
        self.floats("output_norm.weight".into(), &[d])?;
        // Cosines and sines, which are computed here.
        self.take(context.saturating_mul(head).saturating_mul(4))?;
        if is_shared { Ok(()) } else { self.floats("output.weight".into(), &[vocabulary, d]) }
    }

    fn norms(&mut self, config: &Config) -> Result<()> {
        self.each(config, "attn_norm", &[config.width], Self::floats)?;
        self.each(config, "ffn_norm", &[config.width], Self::floats)?;
        self.floats("output_norm.weight".into(), &[config.width])
    }

    fn matrices(
        &mut self,
        config: &Config,
        is_shared: bool,
        one: fn(&mut Self, String, &[usize]) -> Result<()>,
    ) -> Result<()> {
        let Config { width: d, inner, head, heads, kv_heads, vocabulary, .. } = *config;
        one(self, "token_embd.weight".into(), &[vocabulary, d])?;
        self.each(config, "attn_q", &[heads * head, d], one)?;
        self.each(config, "attn_k", &[kv_heads * head, d], one)?;
        self.each(config, "attn_v", &[kv_heads * head, d], one)?;
        self.each(config, "attn_output", &[d, heads * head], one)?;
        self.each(config, "ffn_gate", &[inner, d], one)?;
        self.each(config, "ffn_down", &[d, inner], one)?;
        self.each(config, "ffn_up", &[inner, d], one)?;
        if is_shared { Ok(()) } else { one(self, "output.weight".into(), &[vocabulary, d]) }
    }

    fn version_1(&mut self, config: &Config, is_shared: bool) -> Result<()> {
        self.norms(config)?;
        self.matrices(config, is_shared, Self::floats)
    }

    fn version_2(&mut self, config: &Config, is_shared: bool) -> Result<()> {
        self.norms(config)?;
        self.matrices(config, is_shared, Self::codes)
    }
}

/// `tokenizer.bin` as GGUF's keys: 1 begins a text, 2 ends one, and 3 to 258 are bytes.
///
/// # Errors
/// It is cut short, or a token is not UTF-8.
pub(crate) fn tokens(file: &Bytes, vocabulary: usize) -> Result<Vec<(String, Entry)>> {
    let short = || Error::invalid_model(format!("tokenizer.bin has no {vocabulary} tokens"));
    let four = |at: usize| file.get(at..at + 4).and_then(|b| b.first_chunk()).copied().ok_or_else(short);
    let (mut at, mut tokens, mut scores) = (4, vec![], vec![]);
    for _ in 0..vocabulary {
        scores.push(f32::from_le_bytes(four(at)?));
        let length = u32::from_le_bytes(four(at + 4)?) as usize;
        let text = at.checked_add(8 + length).and_then(|end| file.get(at + 8..end)).ok_or_else(short)?;
        let text = std::str::from_utf8(text)
            .map_err(|_| Error::invalid_model("tokenizer.bin has a token that is not UTF-8"))?;
        // As SentencePiece writes it.
        tokens.push(text.replace(' ', "\u{2581}"));
        at += 8 + length;
    }
    // The names of the first three are those of every SentencePiece model, with line breaks around two of them.
    let kinds = (0..vocabulary as i32).map(|id| match id {
        0 => 2,
        1 | 2 => 3,
        3..=258 => 6,
        _ => 1,
    });
    for (id, name) in [(0, "<unk>"), (1, "<s>"), (2, "</s>")] {
        if let Some(token) = tokens.get_mut(id) {
            *token = name.to_string();
        }
    }
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    Ok(vec![
        (key("model"), Entry::String("llama".into())),
        (key("tokens"), Entry::Strings(tokens)),
        (key("scores"), Entry::Floats(scores)),
        (key("token_type"), Entry::Ints(kinds.collect())),
        (key("bos_token_id"), Entry::Uint(1)),
        (key("eos_token_id"), Entry::Uint(2)),
    ])
}
