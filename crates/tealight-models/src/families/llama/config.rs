//! Hyperparameters of a Llama model: from GGUF metadata, Hugging Face's `config.json` or the header of a llama2.c file.

use crate::families::{LLAMA as ARCHITECTURE, LLAMA_MODEL_TYPES as MODEL_TYPES};
use crate::formats::gguf::{self, Gguf};
use crate::formats::llama2c;
use crate::layers::{Pairing, Rope};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tealight_core::{Error, Result};
use tealight_kernels::attention::gqa::HeadKvCache;

/// A larger size means that the file is damaged.
const MAX_SIZE: u64 = 1 << 24;
const MAX_LAYERS: usize = 1024;
/// The RMSNorm epsilon of every llama2.c model.
const LLAMA2C_EPS: f32 = 1e-5;
/// The base of rotary embeddings if a file does not set one.
const DEFAULT_ROPE_THETA: f64 = 10_000.0;

/// Hyperparameters, with the names of Hugging Face's `config.json`. Packed files store them as JSON, with the keys given here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Values of a hidden state, D.
    #[serde(rename = "width")]
    pub hidden_size: usize,
    /// Decoder layers.
    #[serde(rename = "layers")]
    pub num_hidden_layers: usize,
    /// Query heads.
    #[serde(rename = "heads")]
    pub num_attention_heads: usize,
    /// Key and value heads; each is shared by a group of query heads.
    #[serde(rename = "kv_heads")]
    pub num_key_value_heads: usize,
    /// Values of an attention head.
    #[serde(rename = "head")]
    pub head_dim: usize,
    /// Inner dimension of the feed-forward network.
    #[serde(rename = "inner")]
    pub intermediate_size: usize,
    /// Rows of the token embedding table.
    #[serde(rename = "vocabulary")]
    pub vocab_size: usize,
    /// Longest sequence, in tokens.
    #[serde(rename = "context")]
    pub max_position_embeddings: usize,
    /// Added to the mean square in RMSNorm.
    #[serde(rename = "eps")]
    pub rms_norm_eps: f32,
    /// Rotary position embeddings of queries and keys.
    pub rope: Rope,
}

impl Config {
    /// Reads GGUF metadata; `vocab_size` is the number of rows of the token embedding table.
    ///
    /// # Errors
    /// A key is missing, or describes an architecture, a mixture of experts or a scaling that is not supported.
    pub fn from_gguf(file: &Gguf, vocab_size: usize) -> Result<Self> {
        let architecture = file.string("general.architecture")?.unwrap_or_default();
        if architecture != ARCHITECTURE {
            return Err(Error::invalid_model(format!(
                "architecture {architecture:?} is not supported for text generation; expected {ARCHITECTURE:?}"
            )));
        }
        let optional = |key: &str| file.integer(&format!("{ARCHITECTURE}.{key}"));
        let optional_size = |key: &str| optional(key)?.map(|n| bounded(key, n)).transpose();
        let size = |key: &str| {
            let full = format!("{ARCHITECTURE}.{key}");
            let value = file.integer(&full)?.ok_or_else(|| gguf::missing_key(&full))?;
            bounded(&full, value)
        };
        let float = |key: &str| file.float(&format!("{ARCHITECTURE}.{key}"));
        if let Some(experts) = optional("expert_count")?.filter(|n| *n > 0) {
            return Err(Error::invalid_model(format!("a mixture of {experts} experts is not supported")));
        }
        let (hidden_size, heads) = (size("embedding_length")?, size("attention.head_count")?);
        let head_dim = optional_size("attention.key_length")?.unwrap_or(hidden_size / heads.max(1));
        if let Some(value_dim) = optional("attention.value_length")?.filter(|n| *n != head_dim as u64) {
            return Err(Error::invalid_model(format!(
                "attention.value_length is {value_dim}; expected attention.key_length, {head_dim}"
            )));
        }
        let scaling = file.string(&format!("{ARCHITECTURE}.rope.scaling.type"))?.unwrap_or("none");
        let linear_scale = match scaling {
            "none" => float("rope.scale_linear")?.unwrap_or(1.0),
            "linear" => float("rope.scaling.factor")?.unwrap_or(1.0),
            other => {
                return Err(Error::invalid_model(format!(
                    "RoPE scaling {other:?} is not supported; expected \"none\" or \"linear\""
                )));
            }
        };
        let rope = Rope {
            pairing: Pairing::Interleaved,
            rotary_dim: optional_size("rope.dimension_count")?.unwrap_or(head_dim),
            rope_theta: float("rope.freq_base")?.unwrap_or(DEFAULT_ROPE_THETA),
            linear_scale,
            freq_factors: vec![],
        };
        Self {
            hidden_size,
            num_hidden_layers: size("block_count")?,
            num_attention_heads: heads,
            num_key_value_heads: optional_size("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            intermediate_size: size("feed_forward_length")?,
            vocab_size,
            max_position_embeddings: size("context_length")?,
            rms_norm_eps: float("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5) as f32,
            rope,
        }
        .validate()
    }

    /// Reads Hugging Face's `config.json`; `vocab_size` is the number of rows of the token embedding table.
    ///
    /// # Errors
    /// A field is missing, or describes a model type, biases or a scaling that are not supported.
    pub fn from_json(json: &Value, vocab_size: usize) -> Result<Self> {
        let model_type = json["model_type"].as_str().unwrap_or_default();
        if !MODEL_TYPES.contains(&model_type) {
            return Err(Error::invalid_model(format!(
                "model_type {model_type:?} is not supported for text generation; expected {}",
                MODEL_TYPES.join(" or ")
            )));
        }
        for key in ["attention_bias", "mlp_bias"] {
            if json[key] == true {
                return Err(Error::invalid_model(format!("config.json: {key} is true, which is not supported")));
            }
        }
        let optional = |key: &str| json[key].as_u64().map(|n| bounded(key, n)).transpose();
        let size =
            |key: &str| optional(key)?.ok_or_else(|| Error::invalid_model(format!("config.json: {key} is missing")));
        let (hidden_size, heads) = (size("hidden_size")?, size("num_attention_heads")?);
        let head_dim = optional("head_dim")?.unwrap_or(hidden_size / heads.max(1));
        // Since transformers 5 one object holds all parameters of RoPE.
        let rope = if json["rope_parameters"].is_object() { &json["rope_parameters"] } else { &json["rope_scaling"] };
        let theta = json["rope_theta"].as_f64().or_else(|| rope["rope_theta"].as_f64()).unwrap_or(DEFAULT_ROPE_THETA);
        Self {
            hidden_size,
            num_hidden_layers: size("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: optional("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            intermediate_size: size("intermediate_size")?,
            vocab_size,
            max_position_embeddings: optional("max_position_embeddings")?.unwrap_or(2048),
            rms_norm_eps: json["rms_norm_eps"].as_f64().unwrap_or(1e-6) as f32,
            rope: Rope::from_json(rope, head_dim, theta)?,
        }
        .validate()
    }

    /// Converts the header of a llama2.c file.
    ///
    /// # Errors
    /// The sizes do not fit each other or the kernels.
    pub(super) fn from_llama2c(header: &llama2c::Header) -> Result<Self> {
        let head_dim = header.head_dim();
        let rope = Rope {
            pairing: Pairing::Interleaved,
            rotary_dim: head_dim,
            rope_theta: DEFAULT_ROPE_THETA,
            linear_scale: 1.0,
            freq_factors: vec![],
        };
        Self {
            hidden_size: header.dim,
            num_hidden_layers: header.n_layers,
            num_attention_heads: header.n_heads,
            num_key_value_heads: header.n_kv_heads,
            head_dim,
            intermediate_size: header.hidden_dim,
            vocab_size: header.vocab_size,
            max_position_embeddings: header.seq_len,
            rms_norm_eps: LLAMA2C_EPS,
            rope,
        }
        .validate()
    }

    /// Checks that the sizes fit each other and the kernels.
    pub(super) fn validate(self) -> Result<Self> {
        self.validate_sizes()?;
        self.validate_attention()?;
        let eps = self.rms_norm_eps;
        if !(eps.is_finite() && eps > 0.0) {
            return Err(Error::invalid_model(format!("rms_norm_eps is {eps}; expected a finite number above 0")));
        }
        self.rope.validate(self.head_dim)?;
        Ok(self)
    }

    fn validate_sizes(&self) -> Result<()> {
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("intermediate_size", self.intermediate_size),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        if let Some((name, size)) = sizes.iter().find(|(_, n)| *n == 0 || *n as u64 > MAX_SIZE) {
            return Err(Error::invalid_model(format!("{name} is {size}; expected 1 to {MAX_SIZE}")));
        }
        if self.num_hidden_layers > MAX_LAYERS {
            return Err(Error::invalid_model(format!(
                "num_hidden_layers is {}; the limit is {MAX_LAYERS}",
                self.num_hidden_layers
            )));
        }
        Ok(())
    }

    fn validate_attention(&self) -> Result<()> {
        let Self { hidden_size, num_attention_heads: heads, num_key_value_heads: kv_heads, head_dim, .. } = *self;
        let rows = [hidden_size, heads * head_dim, kv_heads * head_dim];
        if rows.iter().any(|n| !n.is_multiple_of(16)) {
            return Err(Error::invalid_model(format!(
                "hidden_size {hidden_size}, {heads} query heads and {kv_heads} key-value heads of {head_dim} values cannot be \
                 packed; expected multiples of 16 values"
            )));
        }
        if !heads.is_multiple_of(kv_heads) {
            return Err(Error::invalid_model(format!(
                "num_attention_heads is {heads}; expected a multiple of num_key_value_heads, {kv_heads}"
            )));
        }
        Ok(())
    }

    /// Bytes of the KV cache per token, in all layers.
    pub fn kv_bytes_per_token(&self) -> usize {
        self.num_hidden_layers * self.num_key_value_heads * HeadKvCache::bytes_per_token(self.head_dim)
    }
}

fn bounded(name: &str, value: u64) -> Result<usize> {
    if value > MAX_SIZE {
        return Err(Error::invalid_model(format!("{name} is {value}; the limit is {MAX_SIZE}")));
    }
    Ok(value as usize)
}
