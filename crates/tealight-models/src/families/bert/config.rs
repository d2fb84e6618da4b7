//! The numbers of a BERT, from `config.json` or from the metadata of a GGUF file.

use super::ARCHITECTURE;
use crate::formats::gguf::{Entry, Gguf, missing};
use crate::formats::weights::Weights;
use crate::int8::Activation;
use serde_json::Value;
use tealight_core::{Error, Result};

/// The numbers of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Rows of the token table.
    pub vocab: usize,
    /// Width of a token's row, D.
    pub hidden: usize,
    /// Blocks.
    pub layers: usize,
    /// Attention heads, H.
    pub heads: usize,
    /// Inner width of a block's feed-forward network.
    pub intermediate: usize,
    /// The longest sequence, in tokens.
    pub positions: usize,
    /// Rows of the segment table, of which the first is used.
    pub types: usize,
    /// Added to the variance in LayerNorm.
    pub eps: f32,
    /// Of the feed-forward network.
    pub activation: Activation,
}

const MAX_LAYERS: usize = 1000;
/// The attention kernel reads whole vectors of a head.
const HEAD_STEP: usize = 16;

impl Config {
    /// From `config.json`.
    pub fn from_json(config: &Value) -> Result<Self> {
        let size = |key: &str| {
            let n = config[key].as_u64().map(|n| n as usize);
            n.ok_or_else(|| {
                Error::invalid_model(format!("config.json: {key} is {}, expected a whole number", config[key]))
            })
        };
        let position = config["position_embedding_type"].as_str().unwrap_or("absolute");
        if position != "absolute" {
            return Err(Error::invalid_model(format!(
                "config.json: position_embedding_type is {position:?}, \"absolute\" is supported"
            )));
        }
        Self {
            vocab: size("vocab_size")?,
            hidden: size("hidden_size")?,
            layers: size("num_hidden_layers")?,
            heads: size("num_attention_heads")?,
            intermediate: size("intermediate_size")?,
            positions: size("max_position_embeddings")?,
            types: size("type_vocab_size")?,
            eps: config["layer_norm_eps"].as_f64().unwrap_or(1e-12) as f32,
            activation: activation(config["hidden_act"].as_str().unwrap_or("gelu"))?,
        }
        .checked()
    }

    /// From the metadata of a GGUF file.
    pub fn from_gguf(file: &Gguf, weights: &Weights) -> Result<Self> {
        let key = |name: &str| format!("{ARCHITECTURE}.{name}");
        let size = |name: &str| {
            let n = file.integer(&key(name))?;
            n.map(|n| n as usize).ok_or_else(|| missing(&key(name)))
        };
        let first = |name: &str| weights.rows(name);
        let eps = key("attention.layer_norm_epsilon");
        Self {
            vocab: first("token_embd.weight")?,
            hidden: size("embedding_length")?,
            layers: size("block_count")?,
            heads: size("attention.head_count")?,
            intermediate: size("feed_forward_length")?,
            positions: size("context_length")?,
            types: first("token_types.weight")?,
            eps: file.float(&eps)?.ok_or_else(|| missing(&eps))? as f32,
            activation: activation(file.string("tealight.hidden_act")?.unwrap_or("gelu"))?,
        }
        .checked()
    }

    fn checked(self) -> Result<Self> {
        let fail = |message: String| Err(Error::invalid_model(message));
        if self.heads == 0 || self.hidden == 0 || !self.hidden.is_multiple_of(self.heads) {
            return fail(format!("{} heads do not divide a hidden size of {}", self.heads, self.hidden));
        }
        if self.layers == 0 || self.layers > MAX_LAYERS {
            return fail(format!("the number of layers is {}, it must be 1 to {MAX_LAYERS}", self.layers));
        }
        let width = self.hidden / self.heads;
        if !width.is_multiple_of(HEAD_STEP) {
            return fail(format!("a head is {width} wide, it must be a multiple of {HEAD_STEP}"));
        }
        if self.positions == 0 || self.types == 0 || self.vocab == 0 || self.intermediate == 0 {
            return fail(format!("a size is 0 in {self:?}"));
        }
        Ok(self)
    }

    /// The metadata that describes it in a GGUF file.
    pub fn entries(&self) -> Vec<(String, Entry)> {
        let sizes = [
            ("block_count", self.layers),
            ("context_length", self.positions),
            ("embedding_length", self.hidden),
            ("feed_forward_length", self.intermediate),
            ("attention.head_count", self.heads),
        ];
        let mut entries: Vec<_> =
            sizes.into_iter().map(|(name, n)| (format!("{ARCHITECTURE}.{name}"), Entry::Uint(n as u32))).collect();
        entries.push((format!("{ARCHITECTURE}.attention.layer_norm_epsilon"), Entry::Float(self.eps)));
        entries.push((format!("{ARCHITECTURE}.attention.causal"), Entry::Bool(false)));
        let name = ACTIVATIONS.iter().find(|(_, a)| *a == self.activation).map_or("gelu", |(n, _)| n);
        entries.push(("tealight.hidden_act".into(), Entry::String(name.into())));
        entries
    }
}

/// Names in `config.json`; the first of equals is the one written.
const ACTIVATIONS: [(&str, Activation); 5] = [
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("relu", Activation::Relu),
];

fn activation(name: &str) -> Result<Activation> {
    let known = ACTIVATIONS.iter().find(|(n, _)| *n == name).map(|(_, a)| *a);
    known.ok_or_else(|| {
        let names: Vec<_> = ACTIVATIONS.iter().map(|(n, _)| *n).collect();
        Error::invalid_model(format!("hidden_act is {name:?}; supported are {}", names.join(", ")))
    })
}
