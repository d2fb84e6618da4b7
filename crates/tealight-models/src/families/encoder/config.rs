//! The hyperparameters of an encoder, from `config.json` or GGUF metadata, under all names that they have.

use crate::formats::gguf::{Gguf, missing_key};
use crate::formats::weights::Weights;
use crate::layers::{Activation, Pairing, Rope};
use crate::spec::{
    AttentionSpec, EmbeddingSpec, EncoderSpec, FeedForwardSpec, LayerSpec, LearnedPositions, MAX_LAYERS, Norm,
    NormKind, NormPlacement, PositionBias, QkNorm,
};
use serde_json::Value;
use tealight_core::{Error, Result};

/// A hyperparameter: its names in `config.json`, the usual one first, and in GGUF, after the architecture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    json: &'static [&'static str],
    gguf: &'static str,
}

const fn key(json: &'static [&'static str], gguf: &'static str) -> Key {
    Key { json, gguf }
}

pub(crate) const VOCAB_SIZE: Key = key(&["vocab_size"], "vocab_size");
pub(crate) const HIDDEN_SIZE: Key = key(&["hidden_size", "n_embd", "dim", "d_model"], "embedding_length");
pub(crate) const NUM_LAYERS: Key = key(&["num_hidden_layers", "n_layer", "n_layers", "num_layers"], "block_count");
pub(crate) const NUM_HEADS: Key = key(&["num_attention_heads", "n_head", "n_heads"], "attention.head_count");
pub(crate) const NUM_KV_HEADS: Key = key(&["num_key_value_heads"], "attention.head_count_kv");
pub(crate) const HEAD_DIM: Key = key(&["head_dim"], "attention.key_length");
pub(crate) const INTERMEDIATE_SIZE: Key = key(&["intermediate_size", "n_inner", "hidden_dim"], "feed_forward_length");
pub(crate) const MAX_POSITIONS: Key = key(&["max_position_embeddings", "n_positions"], "context_length");
pub(crate) const TOKEN_TYPES: Key = key(&["type_vocab_size"], "token_type_count");
pub(crate) const LAYER_NORM_EPS: Key =
    key(&["layer_norm_eps", "layer_norm_epsilon", "norm_eps"], "attention.layer_norm_epsilon");
pub(crate) const RMS_NORM_EPS: Key = key(&["rms_norm_eps"], "attention.layer_norm_rms_epsilon");
pub(crate) const ROPE_THETA: Key = key(&["rope_theta", "rotary_emb_base"], "rope.freq_base");
pub(crate) const SLIDING_WINDOW: Key = key(&["sliding_window", "local_attention"], "attention.sliding_window");
pub(crate) const SLIDING_WINDOW_PATTERN: Key =
    key(&["sliding_window_pattern", "_sliding_window_pattern"], "attention.sliding_window_pattern");
pub(crate) const MOE_EVERY_N_LAYERS: Key = key(&["moe_every_n_layers"], "moe_every_n_layers");
pub(crate) const NUM_EXPERTS: Key = key(&["num_experts"], "expert_count");
pub(crate) const MOE_TOP_K: Key = key(&["moe_top_k"], "expert_used_count");
pub(crate) const GLOBAL_ROPE_THETA: Key = key(&["global_rope_theta", "rope_theta"], "rope.freq_base");
pub(crate) const LOCAL_ROPE_THETA: Key = key(&["local_rope_theta", "rope_local_base_freq"], "rope.freq_base_swa");
const HIDDEN_ACT: Key =
    key(&["hidden_act", "hidden_activation", "activation_function", "activation"], "tealight.hidden_act");

/// Names of activations; if several names mean the same one, the first is written.
const ACTIVATIONS: [(&str, Activation); 9] = [
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("swiglu", Activation::Silu),
    ("geglu", Activation::Gelu),
    ("relu", Activation::Relu),
];

/// Where hyperparameters come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Config<'a> {
    /// Hugging Face's `config.json`, and the tensors with llama.cpp's names.
    Json(&'a Value, &'a Weights),
    /// GGUF metadata with an architecture's name before each key, and the tensors, whose shapes give the sizes of tables.
    Gguf(&'a Gguf, &'a str, &'a Weights),
}

impl Config<'_> {
    /// A field of `config.json`; null in GGUF.
    pub(crate) fn json(&self, name: &str) -> &Value {
        match self {
            Config::Json(json, _) => &json[name],
            Config::Gguf(..) => &Value::Null,
        }
    }

    pub(crate) fn is_gguf(&self) -> bool {
        matches!(self, Config::Gguf(..))
    }

    /// A whole number; `None` if it is not set.
    pub(crate) fn optional_size(&self, key: Key) -> Result<Option<usize>> {
        let number = match self {
            Config::Json(json, _) => typed_field(json, key.json, Value::as_u64, "a whole number")?,
            Config::Gguf(file, architecture, _) => file.integer(&format!("{architecture}.{}", key.gguf))?,
        };
        Ok(number.map(|n| n as usize))
    }

    /// A whole number that must be set.
    pub(crate) fn size(&self, key: Key) -> Result<usize> {
        self.optional_size(key)?.ok_or_else(|| self.missing(key))
    }

    /// A number; `None` if it is not set.
    pub(crate) fn optional_float(&self, key: Key) -> Result<Option<f64>> {
        match self {
            Config::Json(json, _) => typed_field(json, key.json, Value::as_f64, "a number"),
            Config::Gguf(file, architecture, _) => file.float(&format!("{architecture}.{}", key.gguf)),
        }
    }

    fn missing(&self, key: Key) -> Error {
        match self {
            Config::Json(..) => {
                Error::invalid_model(format!("config.json: {} is null; expected a whole number", key.json[0]))
            }
            Config::Gguf(_, architecture, _) => missing_key(&format!("{architecture}.{}", key.gguf)),
        }
    }

    /// The epsilon of norms: in GGUF it must be set.
    pub(crate) fn eps(&self, key: Key, default: f64) -> Result<f32> {
        match self.optional_float(key)? {
            Some(eps) => Ok(eps as f32),
            None if self.is_gguf() => Err(self.missing(key)),
            None => Ok(default as f32),
        }
    }

    /// A field of `config.json` with the right type; `None` if it is not set, and in GGUF.
    fn typed<'a, T>(&'a self, name: &str, read: impl Fn(&'a Value) -> Option<T>, expected: &str) -> Result<Option<T>> {
        match self {
            Config::Json(json, _) => typed_field(json, &[name], read, expected),
            Config::Gguf(..) => Ok(None),
        }
    }

    /// A Boolean of `config.json`; `default` if it is not set.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.typed(name, Value::as_bool, "true or false")?.unwrap_or(default))
    }

    /// A size of `config.json`, or `default`.
    pub(crate) fn size_or(&self, name: &str, default: usize) -> Result<usize> {
        Ok(self.typed(name, Value::as_u64, "a whole number")?.map_or(default, |n| n as usize))
    }

    /// A number of `config.json`.
    pub(crate) fn float(&self, name: &str) -> Result<Option<f64>> {
        self.typed(name, Value::as_f64, "a number")
    }

    /// Fails if a Boolean of `config.json` is true: the network that it describes is not supported.
    pub(crate) fn require_false(&self, name: &str) -> Result<()> {
        if self.flag(name, false)? {
            return Err(Error::invalid_model(format!("config.json: {name} is true; expected false")));
        }
        Ok(())
    }

    /// Whether the first layer has a bias: as a file of llama.cpp shows, or a flag of `config.json`.
    pub(crate) fn bias(&self, tensors: &[&str], flag: &str, default: bool) -> Result<bool> {
        if self.is_gguf() {
            return Ok(tensors.iter().any(|name| self.has_tensor(&format!("blk.0.{name}.bias"))));
        }
        self.flag(flag, default)
    }

    fn vocab_size(&self) -> Result<usize> {
        match self {
            Config::Json(..) => self.size(VOCAB_SIZE),
            Config::Gguf(_, _, weights) => weights.first_dim("token_embd.weight"),
        }
    }

    fn token_types(&self) -> Result<usize> {
        match self {
            Config::Json(..) => Ok(self.optional_size(TOKEN_TYPES)?.unwrap_or(0)),
            Config::Gguf(_, _, weights) => Ok(weights.first_dim("token_types.weight").unwrap_or(0)),
        }
    }

    /// The activation of the feed-forward network.
    pub(crate) fn activation(&self, default: &str) -> Result<Activation> {
        let name = match self {
            Config::Json(json, _) => typed_field(json, HIDDEN_ACT.json, Value::as_str, "a text")?,
            Config::Gguf(file, ..) => file.string(HIDDEN_ACT.gguf)?,
        };
        let name = name.unwrap_or(default);
        let known = ACTIVATIONS.iter().find(|(n, _)| *n == name).map(|(_, a)| *a);
        known.ok_or_else(|| {
            let names: Vec<_> = ACTIVATIONS.iter().map(|(n, _)| *n).collect();
            Error::invalid_model(format!("hidden_act is {name:?}; expected one of {}", names.join(", ")))
        })
    }

    /// Values of a head: `head_dim`, or an equal share of the hidden state.
    fn head_dim(&self, hidden_size: usize, heads: usize) -> Result<usize> {
        if let Some(head_dim) = self.optional_size(HEAD_DIM)? {
            return Ok(head_dim);
        }
        if heads == 0 || hidden_size == 0 || !hidden_size.is_multiple_of(heads) {
            return Err(Error::invalid_model(format!(
                "hidden_size {hidden_size} cannot be divided between {heads} heads"
            )));
        }
        Ok(hidden_size / heads)
    }

    /// A network like BERT, of which the other families change what is different: learned positions, LayerNorm after each residual
    /// connection, biases everywhere, and a feed-forward network without a gate.
    pub(crate) fn bert_like(&self) -> Result<EncoderSpec> {
        let (vocab_size, hidden_size) = (self.vocab_size()?, self.size(HIDDEN_SIZE)?);
        let (layers, heads) = (self.size(NUM_LAYERS)?, self.size(NUM_HEADS)?);
        let head_dim = self.head_dim(hidden_size, heads)?;
        let max_tokens = self.size(MAX_POSITIONS)?;
        if !(1..=MAX_LAYERS).contains(&layers) {
            return Err(Error::invalid_model(format!("num_hidden_layers is {layers}; expected 1 to {MAX_LAYERS}")));
        }
        Ok(EncoderSpec {
            vocab_size,
            hidden_size,
            max_tokens,
            embeddings: EmbeddingSpec {
                scale: 1.0,
                positions: Some(LearnedPositions { rows: max_tokens, offset: 0 }),
                token_types: self.token_types()?,
                norm: true,
            },
            attention: AttentionSpec {
                heads,
                kv_heads: self.optional_size(NUM_KV_HEADS)?.unwrap_or(heads),
                head_dim,
                scale_dim: head_dim as f32,
                qkv_bias: true,
                output_bias: true,
                qk_norm: QkNorm::None,
                causal: false,
                position_bias: PositionBias::None,
            },
            feed_forward: FeedForwardSpec {
                intermediate_size: self.size(INTERMEDIATE_SIZE)?,
                gated: false,
                activation: self.activation("gelu")?,
                up_bias: true,
                down_bias: true,
            },
            layers: vec![LayerSpec::default(); layers],
            norm: Norm { kind: NormKind::LayerNorm, eps: 0.0 },
            norm_placement: NormPlacement::PostNorm,
            final_norm: false,
        })
    }

    /// A network like Llama: no positions, RMSNorm before each block and at the end, no biases, and a gated feed-forward network.
    pub(crate) fn pre_norm_decoder(&self) -> Result<EncoderSpec> {
        let mut spec = self.bert_like()?;
        spec.embeddings = EmbeddingSpec { scale: 1.0, positions: None, token_types: 0, norm: false };
        (spec.attention.qkv_bias, spec.attention.output_bias) = (false, false);
        let activation = self.activation("silu")?;
        spec.feed_forward =
            FeedForwardSpec { gated: true, activation, up_bias: false, down_bias: false, ..spec.feed_forward };
        spec.final_norm = true;
        Ok(spec)
    }

    /// Whether each layer attends to whole texts and not only within a window: as `layer_types` says, otherwise every layer with
    /// the remainder `first` when its index is divided by `every`.
    pub(crate) fn global_layers(&self, every: usize, first: usize) -> Result<Vec<bool>> {
        let layers = self.size(NUM_LAYERS)?;
        let Some(types) = self.typed("layer_types", Value::as_array, "a list")? else {
            return Ok((0..layers).map(|i| every == 0 || i % every == first).collect());
        };
        if types.len() != layers {
            let message = format!("config.json: layer_types has {} elements; expected {layers}", types.len());
            return Err(Error::invalid_model(message));
        }
        let is_global = |layer_type: &Value| match layer_type.as_str() {
            Some("full_attention") => Ok(true),
            Some("sliding_attention") => Ok(false),
            _ => Err(Error::invalid_model(format!(
                "config.json: layer_types has {layer_type}; expected \"full_attention\" or \"sliding_attention\""
            ))),
        };
        types.iter().map(is_global).collect()
    }

    /// Whether the file has a tensor with this name of llama.cpp.
    pub(crate) fn has_tensor(&self, name: &str) -> bool {
        let (Config::Json(_, weights) | Config::Gguf(_, _, weights)) = self;
        weights.contains(name)
    }

    /// A rotation of whole heads, scaled as `rope_parameters` or the older `rope_scaling` says.
    ///
    /// # Errors
    /// The scaling is not supported.
    pub(crate) fn scaled_rope(&self, rotary_dim: usize, rope_theta: f64) -> Result<Rope> {
        let parameters = self.json("rope_parameters");
        Rope::from_json(
            if parameters.is_null() { self.json("rope_scaling") } else { parameters },
            rotary_dim,
            rope_theta,
        )
    }

    /// The rotation of the layers of a type: newer configurations have `rope_parameters` for each type.
    pub(crate) fn layer_rope(&self, layer_type: &str, theta: Key, rotary_dim: usize, default: f64) -> Result<Rope> {
        let parameters = &self.json("rope_parameters")[layer_type];
        let theta = parameters["rope_theta"].as_f64().or(self.optional_float(theta)?).unwrap_or(default);
        if parameters.is_null() {
            self.scaled_rope(rotary_dim, theta)
        } else {
            Rope::from_json(parameters, rotary_dim, theta)
        }
    }

    /// A rotation of whole heads.
    pub(crate) fn rope(&self, rotary_dim: usize, rope_theta: f64) -> Rope {
        Rope { pairing: Pairing::Half, rotary_dim, rope_theta, linear_scale: 1.0, freq_factors: vec![] }
    }
}

/// The first field of these names that is set, with the right type.
fn typed_field<'a, T>(
    json: &'a Value,
    names: &[&str],
    read: impl Fn(&'a Value) -> Option<T>,
    expected: &str,
) -> Result<Option<T>> {
    let Some((name, value)) = names.iter().map(|name| (name, &json[*name])).find(|(_, value)| !value.is_null()) else {
        return Ok(None);
    };
    let wrong_type = || Error::invalid_model(format!("config.json: {name} is {value}; expected {expected}"));
    read(value).map(Some).ok_or_else(wrong_type)
}
