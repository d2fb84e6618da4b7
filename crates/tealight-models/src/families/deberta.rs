//! DeBERTa v2 and v3 (He et al. 2020, arXiv 2006.03654; 2021, arXiv 2111.09543): BERT with disentangled attention.

use super::bert;
use super::encoder::{Config, EncoderFamily, LAYER_NORM_EPS};
use crate::sentence_transformers::Pooling;
use crate::spec::{EncoderSpec, PositionBias};
use serde_json::Value;
use tealight_core::{Error, Result};

pub(crate) const FAMILY: EncoderFamily = EncoderFamily {
    name: "deberta-v2",
    model_types: &["deberta-v2"],
    gguf_architectures: &[],
    prefixes: &["deberta."],
    layer_prefix: "encoder.layer.",
    names: &[
        ("embeddings.word_embeddings", "token_embd"),
        ("embeddings.position_embeddings", "position_embd"),
        ("embeddings.token_type_embeddings", "token_types"),
        ("embeddings.LayerNorm", "token_embd_norm"),
        ("encoder.rel_embeddings", "rel_embd"),
        ("encoder.LayerNorm", "rel_embd_norm"),
    ],
    layer_names: &[
        ("attention.self.query_proj", "attn_q"),
        ("attention.self.key_proj", "attn_k"),
        ("attention.self.value_proj", "attn_v"),
        ("attention.self.pos_query_proj", "attn_pos_q"),
        ("attention.self.pos_key_proj", "attn_pos_k"),
        ("attention.output.dense", "attn_output"),
        ("attention.output.LayerNorm", "attn_output_norm"),
        ("intermediate.dense", "ffn_up"),
        ("output.dense", "ffn_down"),
        ("output.LayerNorm", "layer_output_norm"),
    ],
    pooling: Pooling::Mean,
    spec,
};

fn spec(config: &Config) -> Result<EncoderSpec> {
    let mut spec = bert::spec(config)?;
    spec.norm.eps = config.eps(LAYER_NORM_EPS, 1e-7)?;
    if !config.flag("position_biased_input", true)? {
        spec.embeddings.positions = None;
    }
    let embedding_size = config.size_or("embedding_size", spec.hidden_size)?;
    let convolution = config.size_or("conv_kernel_size", 0)?;
    if embedding_size != spec.hidden_size || convolution != 0 {
        return Err(Error::invalid_model(format!(
            "config.json: embedding_size is {embedding_size} and conv_kernel_size {convolution}; expected {} and 0",
            spec.hidden_size
        )));
    }
    if !config.flag("relative_attention", false)? {
        return Ok(spec);
    }
    let types: Vec<&str> = match config.json("pos_att_type") {
        Value::String(types) => types.split('|').collect(),
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    let (content_to_position, position_to_content) = (types.contains(&"c2p"), types.contains(&"p2c"));
    let positive = |name: &str| config.json(name).as_i64().filter(|n| *n > 0).map(|n| n as usize);
    let max_distance = positive("max_relative_positions").unwrap_or(spec.max_tokens);
    let buckets = positive("position_buckets");
    spec.attention.position_bias = PositionBias::Disentangled {
        span: buckets.unwrap_or(max_distance),
        max_distance: if buckets.is_some() { max_distance } else { 0 },
        content_to_position,
        position_to_content,
        shared_projections: config.flag("share_att_key", false)?,
        norm: config.json("norm_rel_ebd").as_str().is_some_and(|norms| norms.contains("layer_norm")),
    };
    let terms = 1 + content_to_position as usize + position_to_content as usize;
    spec.attention.scale_dim = spec.attention.head_dim as f32 * terms as f32;
    Ok(spec)
}
