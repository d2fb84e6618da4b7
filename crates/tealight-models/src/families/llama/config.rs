//! Sizes of a Llama: from GGUF's keys, Hugging Face's `config.json`, or a header of llama2.c.

use super::rope::{Pairs, Rope};
use crate::formats::gguf::{self, Gguf};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tealight_core::{Error, Result};

/// The architecture of files.
pub const ARCHITECTURE: &str = "llama";
/// Sizes beyond these are damage, not models.
const MOST: u64 = 1 << 24;
const MOST_LAYERS: usize = 1024;

/// Sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Width of a row, D.
    pub width: usize,
    /// Blocks.
    pub layers: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values, which heads of queries share.
    pub kv_heads: usize,
    /// Values of a head.
    pub head: usize,
    /// Width inside the feed-forward network.
    pub inner: usize,
    /// Token ids.
    pub vocabulary: usize,
    /// The longest text that the model was made for, in tokens.
    pub context: usize,
    /// Of RMSNorm.
    pub eps: f32,
    /// How positions turn queries and keys.
    pub rope: Rope,
}

impl Config {
    /// From the keys of a GGUF file; `vocabulary` are the rows of its token table.
    ///
    /// # Errors
    /// A key is missing, or asks for what is not computed here.
    pub fn from_gguf(file: &Gguf, vocabulary: usize) -> Result<Self> {
        let found = file.string("general.architecture")?.unwrap_or_default();
        if found != ARCHITECTURE {
            return Err(Error::invalid_model(format!(
                "the architecture is {found:?}, which does not generate text here; {ARCHITECTURE:?} does"
            )));
        }
        let optional = |key: &str| file.integer(&format!("{ARCHITECTURE}.{key}"));
        let size = |key: &str| {
            let full = format!("{ARCHITECTURE}.{key}");
            let value = file.integer(&full)?.ok_or_else(|| gguf::missing(&full))?;
            bounded(&full, value)
        };
        let float = |key: &str| file.float(&format!("{ARCHITECTURE}.{key}"));
        if let Some(experts) = optional("expert_count")?.filter(|n| *n > 0) {
            return Err(Error::invalid_model(format!("a mixture of {experts} experts is not computed here")));
        }
        let (width, heads) = (size("embedding_length")?, size("attention.head_count")?);
        let head = optional("attention.key_length")?.map_or(Ok(width / heads.max(1)), |n| bounded("key_length", n))?;
        if let Some(values) = optional("attention.value_length")?.filter(|n| *n != head as u64) {
            return Err(Error::invalid_model(format!(
                "heads of {head} values for keys and {values} for values are not computed here"
            )));
        }
        let scaling = file.string(&format!("{ARCHITECTURE}.rope.scaling.type"))?.unwrap_or("none");
        let linear = match scaling {
            "none" => float("rope.scale_linear")?.unwrap_or(1.0),
            "linear" => float("rope.scaling.factor")?.unwrap_or(1.0),
            other => {
                return Err(Error::invalid_model(format!(
                    "rope scaling of the type {other:?} is not computed here; none and linear are"
                )));
            }
        };
        let rope = Rope {
            pairs: Pairs::Neighbours,
            width: optional("rope.dimension_count")?.map_or(Ok(head), |n| bounded("rope.dimension_count", n))?,
            base: float("rope.freq_base")?.unwrap_or(10_000.0),
            linear,
            divisors: vec![],
        };
        Self {
            width,
            layers: size("block_count")?,
            heads,
            kv_heads: optional("attention.head_count_kv")?.map_or(Ok(heads), |n| bounded("head_count_kv", n))?,
            head,
            inner: size("feed_forward_length")?,
            vocabulary,
            context: size("context_length")?,
            eps: float("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5) as f32,
            rope,
        }
        .checked()
    }

    /// From Hugging Face's `config.json`.
    ///
    /// # Errors
    /// A field is missing, or asks for what is not computed here.
    pub fn from_json(json: &Value, vocabulary: usize) -> Result<Self> {
        let kind = json["model_type"].as_str().unwrap_or_default();
        if !matches!(kind, "llama" | "mistral") {
            return Err(Error::invalid_model(format!(
                "the model type is {kind:?}, which does not generate text here; llama and mistral do"
            )));
        }
        for key in ["attention_bias", "mlp_bias"] {
            if json[key] == true {
                return Err(Error::invalid_model(format!("{key} is true, which is not computed here")));
            }
        }
        let optional = |key: &str| json[key].as_u64().map(|n| bounded(key, n)).transpose();
        let size = |key: &str| optional(key)?.ok_or_else(|| Error::invalid_model(format!("config.json has no {key}")));
        let (width, heads) = (size("hidden_size")?, size("num_attention_heads")?);
        let head = optional("head_dim")?.unwrap_or(width / heads.max(1));
        // Newer files put all of rope in one object.
        let about = if json["rope_parameters"].is_object() { &json["rope_parameters"] } else { &json["rope_scaling"] };
        let base = json["rope_theta"].as_f64().or_else(|| about["rope_theta"].as_f64()).unwrap_or(10_000.0);
        Self {
            width,
            layers: size("num_hidden_layers")?,
            heads,
            kv_heads: optional("num_key_value_heads")?.unwrap_or(heads),
            head,
            inner: size("intermediate_size")?,
            vocabulary,
            context: optional("max_position_embeddings")?.unwrap_or(2048),
            eps: json["rms_norm_eps"].as_f64().unwrap_or(1e-6) as f32,
            rope: Rope::from_json(about, head, base)?,
        }
        .checked()
    }

    /// Refuses sizes that do not fit each other or the kernels.
    pub(crate) fn checked(self) -> Result<Self> {
        let Self { width, layers, heads, kv_heads, head, inner, vocabulary, context, .. } = self;
        let sizes = [width, layers, heads, kv_heads, head, inner, vocabulary, context];
        if sizes.iter().any(|n| *n == 0 || *n as u64 > MOST) {
            return Err(Error::invalid_model(format!("the sizes {sizes:?} are not a Llama's")));
        }
        if !width.is_multiple_of(16) || !(heads * head).is_multiple_of(16) || !(kv_heads * head).is_multiple_of(16) {
            return Err(Error::invalid_model(format!(
                "rows of {width} with {heads} and {kv_heads} heads of {head} cannot be packed: all must be multiples of 16"
            )));
        }
        let numbers = [("eps", self.eps as f64), ("rope base", self.rope.base), ("rope scale", self.rope.linear)];
        if let Some((name, value)) = numbers.iter().find(|(_, v)| !(v.is_finite() && *v > 0.0)) {
            return Err(Error::invalid_model(format!("{name} is {value}, it must be a number above 0")));
        }
        if let Some(value) = self.rope.divisors.iter().find(|v| !(v.is_finite() && **v > 0.0)) {
            return Err(Error::invalid_model(format!("rope has the divisor {value}, it must be a number above 0")));
        }
        if layers > MOST_LAYERS {
            return Err(Error::invalid_model(format!("{layers} blocks are not a Llama's")));
        }
        if self.rope.width == 0
            || !heads.is_multiple_of(kv_heads)
            || !self.rope.width.is_multiple_of(2)
            || self.rope.width > head
        {
            return Err(Error::invalid_model(format!(
                "{heads} heads over {kv_heads} of keys, of {head} values of which {} turn, are not a Llama's",
                self.rope.width
            )));
        }
        Ok(self)
    }

    /// Bytes that a token takes in the caches of all layers.
    pub fn bytes_per_token(&self) -> usize {
        self.layers * self.kv_heads * tealight_kernels::attention::gqa::KvCache::bytes_per_token(self.head)
    }
}

fn bounded(what: &str, value: u64) -> Result<usize> {
    match value {
        0..=MOST => Ok(value as usize),
        _ => Err(Error::invalid_model(format!("{what} is {value}, the limit is {MOST}"))),
    }
}
