//! Hyperparameters of a BERT model: from `config.json` or GGUF metadata.

use crate::formats::gguf::{Gguf, MetadataValue, missing_key};
use crate::formats::weights::Weights;
use crate::layers::Activation;
use serde_json::Value;
use tealight_core::{Error, Result};

/// `general.architecture` of GGUF files, and `model_type` in `config.json`.
pub(crate) const ARCHITECTURE: &str = "bert";
const MAX_LAYERS: usize = 1000;
/// The attention kernel loads whole SIMD vectors of a head.
const HEAD_DIM_ALIGN: usize = 16;

/// Hyperparameters, with the names of Hugging Face's `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Rows of the token embedding table.
    pub vocab_size: usize,
    /// Values of a hidden state, D.
    pub hidden_size: usize,
    /// Encoder layers.
    pub num_hidden_layers: usize,
    /// Attention heads, H.
    pub num_attention_heads: usize,
    /// Inner dimension of the feed-forward network, I.
    pub intermediate_size: usize,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Rows of the token type table; only the first is used.
    pub type_vocab_size: usize,
    /// Added to the variance in LayerNorm.
    pub layer_norm_eps: f32,
    /// The activation of the feed-forward network.
    pub hidden_act: Activation,
}

/// Names in `config.json`; if several names mean the same activation, the first is written.
const ACTIVATIONS: [(&str, Activation); 5] = [
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("relu", Activation::Relu),
];

impl Config {
    /// Reads Hugging Face's `config.json`.
    ///
    /// # Errors
    /// A field is missing, or has a value that is not supported.
    pub fn from_json(json: &Value) -> Result<Self> {
        let size = |key: &str| {
            let n = json[key].as_u64().map(|n| n as usize);
            n.ok_or_else(|| {
                Error::invalid_model(format!("config.json: {key} is {}; expected a whole number", json[key]))
            })
        };
        let position = json["position_embedding_type"].as_str().unwrap_or("absolute");
        if position != "absolute" {
            return Err(Error::invalid_model(format!(
                "config.json: position_embedding_type is {position:?}; expected \"absolute\""
            )));
        }
        Self {
            vocab_size: size("vocab_size")?,
            hidden_size: size("hidden_size")?,
            num_hidden_layers: size("num_hidden_layers")?,
            num_attention_heads: size("num_attention_heads")?,
            intermediate_size: size("intermediate_size")?,
            max_position_embeddings: size("max_position_embeddings")?,
            type_vocab_size: size("type_vocab_size")?,
            layer_norm_eps: json["layer_norm_eps"].as_f64().unwrap_or(1e-12) as f32,
            hidden_act: activation(json["hidden_act"].as_str().unwrap_or("gelu"))?,
        }
        .validate()
    }

    /// Reads GGUF metadata; the tensors give the sizes of the tables.
    ///
    /// # Errors
    /// A key or a table is missing, or has a value that is not supported.
    pub fn from_gguf(file: &Gguf, weights: &Weights) -> Result<Self> {
        let key = |name: &str| format!("{ARCHITECTURE}.{name}");
        let size = |name: &str| {
            let n = file.integer(&key(name))?;
            n.map(|n| n as usize).ok_or_else(|| missing_key(&key(name)))
        };
        let eps = key("attention.layer_norm_epsilon");
        Self {
            vocab_size: weights.first_dim("token_embd.weight")?,
            hidden_size: size("embedding_length")?,
            num_hidden_layers: size("block_count")?,
            num_attention_heads: size("attention.head_count")?,
            intermediate_size: size("feed_forward_length")?,
            max_position_embeddings: size("context_length")?,
            type_vocab_size: weights.first_dim("token_types.weight")?,
            layer_norm_eps: file.float(&eps)?.ok_or_else(|| missing_key(&eps))? as f32,
            hidden_act: activation(file.string("tealight.hidden_act")?.unwrap_or("gelu"))?,
        }
        .validate()
    }

    fn validate(self) -> Result<Self> {
        let fail = |message: String| Err(Error::invalid_model(message));
        let (hidden_size, heads) = (self.hidden_size, self.num_attention_heads);
        if heads == 0 || hidden_size == 0 || !hidden_size.is_multiple_of(heads) {
            return fail(format!("hidden_size {hidden_size} cannot be divided between {heads} heads"));
        }
        if self.num_hidden_layers == 0 || self.num_hidden_layers > MAX_LAYERS {
            return fail(format!("num_hidden_layers is {}; expected 1 to {MAX_LAYERS}", self.num_hidden_layers));
        }
        let head_dim = hidden_size / heads;
        if !head_dim.is_multiple_of(HEAD_DIM_ALIGN) {
            return fail(format!("attention heads have {head_dim} values; expected a multiple of {HEAD_DIM_ALIGN}"));
        }
        let sizes = [self.max_position_embeddings, self.type_vocab_size, self.vocab_size, self.intermediate_size];
        if sizes.contains(&0) {
            return fail(format!("a size is 0 in {self:?}; expected at least 1"));
        }
        Ok(self)
    }

    /// The GGUF metadata that describes the model.
    pub(super) fn gguf_metadata(&self) -> Vec<(String, MetadataValue)> {
        let sizes = [
            ("block_count", self.num_hidden_layers),
            ("context_length", self.max_position_embeddings),
            ("embedding_length", self.hidden_size),
            ("feed_forward_length", self.intermediate_size),
            ("attention.head_count", self.num_attention_heads),
        ];
        let key = |name: &str| format!("{ARCHITECTURE}.{name}");
        let mut metadata: Vec<_> =
            sizes.into_iter().map(|(name, n)| (key(name), MetadataValue::Uint(n as u32))).collect();
        metadata.push((key("attention.layer_norm_epsilon"), MetadataValue::Float(self.layer_norm_eps)));
        metadata.push((key("attention.causal"), MetadataValue::Bool(false)));
        let name = ACTIVATIONS.iter().find(|(_, a)| *a == self.hidden_act).map_or("gelu", |(n, _)| n);
        metadata.push(("tealight.hidden_act".into(), MetadataValue::String(name.into())));
        metadata
    }
}

fn activation(name: &str) -> Result<Activation> {
    let known = ACTIVATIONS.iter().find(|(n, _)| *n == name).map(|(_, a)| *a);
    known.ok_or_else(|| {
        let names: Vec<_> = ACTIVATIONS.iter().map(|(n, _)| *n).collect();
        Error::invalid_model(format!("hidden_act is {name:?}; expected one of {}", names.join(", ")))
    })
}
