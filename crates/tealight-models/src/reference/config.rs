//! The configurations of candle's networks, from the description of an encoder.

use crate::layers::Activation;
use crate::spec::{EncoderSpec, PositionBias};
use serde_json::{Value, json};
use tealight_core::{Error, Result};

/// A configuration of candle-transformers, by the names in Hugging Face's `config.json`.
///
/// # Errors
/// candle's network lacks something that the encoder has.
pub(super) fn config<T: serde::de::DeserializeOwned>(spec: &EncoderSpec) -> Result<T> {
    serde_json::from_value(values(spec)?)
        .map_err(|e| Error::invalid_model(format!("candle has no such network in float32: {e}")))
}

/// Every how many layers ModernBERT attends to whole texts.
pub(super) fn global_every(spec: &EncoderSpec) -> usize {
    spec.layers.iter().skip(1).position(|l| l.window.is_none()).map_or(spec.layers.len(), |i| i + 1)
}

fn values(spec: &EncoderSpec) -> Result<Value> {
    let is_bert = spec.layers[0].rope.is_none()
        && spec.attention.position_bias == PositionBias::None
        && spec.embeddings.positions.is_some_and(|p| p.offset == 0);
    let (a, f) = (&spec.attention, &spec.feed_forward);
    let positions = spec.embeddings.positions;
    let rope_theta = |layer: usize| spec.layers.get(layer).and_then(|l| Some(l.rope.as_ref()?.rope_theta));
    let activation = match f.activation {
        Activation::Gelu => "gelu",
        // candle-nn's name; BERT's differs, and the caller sets it.
        Activation::GeluTanh if is_bert => "gelu",
        Activation::GeluTanh => "gelu_pytorch_tanh",
        Activation::Silu => "silu",
        Activation::Relu => "relu",
        Activation::Tanh | Activation::Identity => {
            return Err(Error::invalid_model(format!("candle has no network with {:?} in float32", f.activation)));
        }
    };
    let mut values = json!({
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "num_hidden_layers": spec.layers.len(),
        "num_attention_heads": a.heads,
        "num_key_value_heads": a.kv_heads,
        "head_dim": a.head_dim,
        "intermediate_size": f.intermediate_size,
        "hidden_act": activation,
        "max_position_embeddings": positions.map_or(spec.max_tokens, |p| p.rows),
        // DistilBERT has no token types; candle's BERT gets a row of zeros.
        "type_vocab_size": spec.embeddings.token_types.max(1),
        "layer_norm_eps": spec.norm.eps,
        "rms_norm_eps": spec.norm.eps,
        "pad_token_id": positions.map_or(0, |p| p.offset.saturating_sub(1)),
        "position_embedding_type": "absolute",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.0,
        "attention_bias": a.qkv_bias,
        "tie_word_embeddings": true,
        "use_sliding_window": false,
        "max_window_layers": spec.layers.len(),
        "rope_theta": rope_theta(0),
        "global_rope_theta": rope_theta(0),
        "local_rope_theta": rope_theta(1).or(rope_theta(0)),
        "global_attn_every_n_layers": global_every(spec),
        "local_attention": 2 * spec.layers.iter().find_map(|l| l.window).unwrap_or(spec.max_tokens),
        // NomicBERT
        "n_embd": spec.hidden_size,
        "n_head": a.heads,
        "n_layer": spec.layers.len(),
        "n_inner": f.intermediate_size,
        "n_positions": spec.max_tokens,
        "layer_norm_epsilon": spec.norm.eps,
        "rotary_emb_base": rope_theta(0).unwrap_or(1000.0),
        "qkv_proj_bias": a.qkv_bias,
        "mlp_fc1_bias": f.up_bias,
        "mlp_fc2_bias": f.down_bias,
    });
    if let PositionBias::Disentangled {
        span,
        max_distance,
        content_to_position,
        position_to_content,
        shared_projections,
        norm,
    } = a.position_bias
    {
        let types = [(content_to_position, "c2p"), (position_to_content, "p2c")];
        values["relative_attention"] = true.into();
        values["max_relative_positions"] = (if max_distance == 0 { span } else { max_distance }).into();
        values["position_buckets"] = if max_distance == 0 { Value::from(-1) } else { span.into() };
        values["pos_att_type"] = types.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
        values["share_att_key"] = shared_projections.into();
        values["norm_rel_ebd"] = if norm { "layer_norm" } else { "none" }.into();
        values["position_biased_input"] = positions.is_some().into();
        values["type_vocab_size"] = spec.embeddings.token_types.into();
    }
    Ok(values)
}
