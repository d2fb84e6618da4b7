//! ModernBERT (Warner et al. 2024, arXiv 2412.13663): pre-norm, rotary positions, a gated feed-forward network, and windows in all but
//! every third layer.

use super::encoder::{Config, EncoderFamily, GLOBAL_ROPE_THETA, LAYER_NORM_EPS, LOCAL_ROPE_THETA, SLIDING_WINDOW};
use crate::sentence_transformers::Pooling;
use crate::spec::{EncoderSpec, NormKind, NormPlacement};
use tealight_core::Result;

pub(crate) const FAMILY: EncoderFamily = EncoderFamily {
    name: "modern-bert",
    model_types: &["modernbert"],
    gguf_architectures: &["modern-bert"],
    prefixes: &["model."],
    layer_prefix: "layers.",
    names: &[
        ("embeddings.tok_embeddings", "token_embd"),
        ("embeddings.norm", "token_embd_norm"),
        ("final_norm", "output_norm"),
    ],
    layer_names: &[
        ("attn_norm", "attn_norm"),
        ("attn.Wqkv", "attn_qkv"),
        ("attn.Wo", "attn_output"),
        ("mlp_norm", "ffn_norm"),
        ("mlp.Wi", "ffn_gate_up"),
        ("mlp.Wo", "ffn_down"),
    ],
    pooling: Pooling::Cls,
    spec,
};

fn spec(config: &Config) -> Result<EncoderSpec> {
    let mut spec = config.bert_like()?;
    let norm_bias = config.flag("norm_bias", false)?;
    spec.norm.kind = if norm_bias { NormKind::LayerNorm } else { NormKind::LayerNormNoBias };
    spec.norm.eps = config.eps(LAYER_NORM_EPS, 1e-5)?;
    spec.norm_placement = NormPlacement::PreNorm;
    spec.final_norm = true;
    (spec.embeddings.positions, spec.embeddings.token_types) = (None, 0);
    let attention_bias = config.bias(&["attn_qkv"], "attention_bias", false)?;
    (spec.attention.qkv_bias, spec.attention.output_bias) = (attention_bias, attention_bias);
    let mlp_bias = config.bias(&["ffn_up"], "mlp_bias", false)?;
    (spec.feed_forward.gated, spec.feed_forward.up_bias, spec.feed_forward.down_bias) = (true, mlp_bias, mlp_bias);

    let head_dim = spec.attention.head_dim;
    let window = config.optional_size(SLIDING_WINDOW)?.unwrap_or(128);
    let global = config.layer_rope("full_attention", GLOBAL_ROPE_THETA, head_dim, 160_000.0)?;
    let local = config.layer_rope("sliding_attention", LOCAL_ROPE_THETA, head_dim, 10_000.0)?;
    let is_global = config.global_layers(config.size_or("global_attn_every_n_layers", 3)?, 0)?;
    for (layer, is_global) in spec.layers.iter_mut().zip(is_global) {
        layer.window = if is_global { None } else { Some(window / 2) };
        layer.rope = Some(if is_global { global.clone() } else { local.clone() });
    }
    if let Some(first) = spec.layers.first_mut() {
        first.skip_attention_norm = true;
    }
    Ok(spec)
}
