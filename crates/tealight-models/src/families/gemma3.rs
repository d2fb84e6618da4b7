//! Gemma 3 (arXiv 2503.19786) as an encoder, EmbeddingGemma (arXiv 2509.20354): bidirectional, RMSNorm with `1 + w` around each block,
//! grouped heads, and windows in most layers.

use super::encoder::{
    Config, EncoderFamily, GLOBAL_ROPE_THETA, LOCAL_ROPE_THETA, RMS_NORM_EPS, SLIDING_WINDOW, SLIDING_WINDOW_PATTERN,
};
use crate::sentence_transformers::Pooling;
use crate::spec::{EncoderSpec, NormKind, NormPlacement, QkNorm};
use tealight_core::{Error, Result};

pub(crate) const FAMILY: EncoderFamily = EncoderFamily {
    name: "gemma-embedding",
    model_types: &["gemma3_text"],
    gguf_architectures: &["gemma-embedding"],
    prefixes: &["model."],
    layer_prefix: "layers.",
    names: &[("embed_tokens", "token_embd"), ("norm", "output_norm")],
    layer_names: &[
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("post_attention_layernorm", "post_attention_norm"),
        ("pre_feedforward_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("post_feedforward_layernorm", "post_ffw_norm"),
    ],
    pooling: Pooling::Mean,
    spec,
};

fn spec(config: &Config) -> Result<EncoderSpec> {
    let mut spec = config.pre_norm_decoder()?;
    spec.feed_forward.activation = config.activation("gelu_pytorch_tanh")?;
    spec.embeddings.scale = (spec.hidden_size as f32).sqrt();
    // llama.cpp stores `1 + w`.
    spec.norm.kind = if config.is_gguf() { NormKind::RmsNorm } else { NormKind::RmsNormPlusOne };
    spec.norm.eps = config.eps(RMS_NORM_EPS, 1e-6)?;
    spec.norm_placement = NormPlacement::Both;

    let bidirectional = config.is_gguf() || config.flag("use_bidirectional_attention", false)?;
    let a = &mut spec.attention;
    (a.causal, a.qk_norm) = (!bidirectional, QkNorm::Heads);
    a.scale_dim = config.float("query_pre_attn_scalar")?.map_or(a.head_dim as f32, |v| v as f32);
    let head_dim = a.head_dim;
    let global = config.layer_rope("full_attention", GLOBAL_ROPE_THETA, head_dim, 1e6)?;
    // The older `rope_scaling` is for the other layers only.
    let mut local = config.layer_rope("sliding_attention", LOCAL_ROPE_THETA, head_dim, 1e4)?;
    if config.json("rope_parameters").is_null() {
        local = config.rope(head_dim, local.rope_theta);
    }
    for name in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if let Some(value) = config.float(name)? {
            return Err(Error::invalid_model(format!("config.json: {name} is {value}; expected null")));
        }
    }
    let window = config.optional_size(SLIDING_WINDOW)?.unwrap_or(512);
    // A bidirectional window extends half as far to each side.
    let window = if bidirectional { window / 2 } else { window.saturating_sub(1) };
    let every = config.optional_size(SLIDING_WINDOW_PATTERN)?.unwrap_or(6);
    let is_global = config.global_layers(every, every.saturating_sub(1))?;
    for (layer, is_global) in spec.layers.iter_mut().zip(is_global) {
        layer.window = if is_global { None } else { Some(window) };
        layer.rope = Some(if is_global { global.clone() } else { local.clone() });
    }
    Ok(spec)
}
