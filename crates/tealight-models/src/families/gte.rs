//! GTE (Zhang et al. 2024, arXiv 2407.19669), which its configurations call `new`: rotary positions and a gated feed-forward network.

use super::encoder::{Config, EncoderFamily, LAYER_NORM_EPS, ROPE_THETA};
use crate::sentence_transformers::Pooling;
use crate::spec::EncoderSpec;
use tealight_core::{Error, Result};

pub(crate) const FAMILY: EncoderFamily = EncoderFamily {
    name: "gte",
    model_types: &["new", "gte"],
    gguf_architectures: &[],
    prefixes: &["new.", "gte."],
    layer_prefix: "encoder.layer.",
    names: &[
        ("embeddings.word_embeddings", "token_embd"),
        ("embeddings.token_type_embeddings", "token_types"),
        ("embeddings.LayerNorm", "token_embd_norm"),
    ],
    layer_names: &[
        ("attention.qkv_proj", "attn_qkv"),
        ("attention.o_proj", "attn_output"),
        ("attn_ln", "attn_output_norm"),
        ("mlp.up_gate_proj", "ffn_up_gate"),
        ("mlp.down_proj", "ffn_down"),
        ("mlp_ln", "layer_output_norm"),
    ],
    pooling: Pooling::Cls,
    spec,
};

fn spec(config: &Config) -> Result<EncoderSpec> {
    let mut spec = config.bert_like()?;
    spec.norm.eps = config.eps(LAYER_NORM_EPS, 1e-12)?;
    spec.embeddings.positions = None;
    (spec.feed_forward.gated, spec.feed_forward.up_bias) = (true, false);

    let head_dim = spec.attention.head_dim;
    let parameters = config.json("rope_parameters");
    let theta = config.optional_float(ROPE_THETA)?.or(parameters["rope_theta"].as_f64()).unwrap_or(10_000.0);
    let scaling = if parameters.is_null() { config.json("rope_scaling") } else { parameters };
    let mut rope = config.rope(head_dim, theta);
    match scaling["rope_type"].as_str().or(scaling["type"].as_str()).unwrap_or("default") {
        "default" => {}
        // The base grows by the factor, and all frequencies shrink so that the highest one of the longer base is the same.
        "ntk" => {
            let factor = scaling["factor"].as_f64().filter(|f| *f > 0.0).ok_or_else(|| {
                Error::invalid_model(format!("config.json: rope_scaling is {scaling}; expected a positive factor"))
            })?;
            rope.rope_theta *= factor;
            rope.linear_scale = factor.powf(2.0 / head_dim as f64);
        }
        other => {
            return Err(Error::invalid_model(format!(
                "config.json: the type of rope_scaling is {other:?}; expected \"default\" or \"ntk\""
            )));
        }
    }
    spec.layers.iter_mut().for_each(|layer| layer.rope = Some(rope.clone()));
    Ok(spec)
}
