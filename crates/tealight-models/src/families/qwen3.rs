//! Qwen3 (arXiv 2505.09388) as an encoder: causal, with the last token as the embedding (Zhang et al. 2025, arXiv 2506.05176).

use super::encoder::{Config, EncoderFamily, RMS_NORM_EPS, ROPE_THETA};
use crate::sentence_transformers::Pooling;
use crate::spec::{EncoderSpec, NormKind, NormPlacement, QkNorm};
use tealight_core::Result;

pub(crate) const FAMILY: EncoderFamily = EncoderFamily {
    name: "qwen3",
    model_types: &["qwen3"],
    gguf_architectures: &["qwen3"],
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
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ],
    pooling: Pooling::LastToken,
    spec,
};

fn spec(config: &Config) -> Result<EncoderSpec> {
    let mut spec = config.pre_norm_decoder()?;
    let theta = config.optional_float(ROPE_THETA)?.or(config.json("rope_parameters")["rope_theta"].as_f64());
    let rope = config.scaled_rope(spec.attention.head_dim, theta.unwrap_or(1e6))?;
    config.require_false("use_sliding_window")?;
    spec.layers.iter_mut().for_each(|layer| layer.rope = Some(rope.clone()));
    let bias = config.bias(&["attn_q"], "attention_bias", false)?;
    (spec.attention.qkv_bias, spec.attention.output_bias) = (bias, bias);
    spec.attention.qk_norm = QkNorm::Heads;
    spec.attention.causal = true;
    spec.norm.kind = NormKind::RmsNorm;
    spec.norm.eps = config.eps(RMS_NORM_EPS, 1e-6)?;
    spec.norm_placement = NormPlacement::PreNorm;
    Ok(spec)
}
