//! NomicBERT (Nussbaum et al. 2024, arXiv 2402.01613; with experts: 2025, arXiv 2502.07972): rotary positions, and a gated
//! feed-forward network or every few layers a mixture of experts.

use super::encoder::{Config, EncoderFamily, LAYER_NORM_EPS, MOE_EVERY_N_LAYERS, MOE_TOP_K, NUM_EXPERTS, ROPE_THETA};
use crate::layers::Activation;
use crate::sentence_transformers::Pooling;
use crate::spec::{EncoderSpec, Experts};
use tealight_core::{Error, Result};

pub(crate) const FAMILY: EncoderFamily = EncoderFamily {
    name: "nomic-bert",
    model_types: &["nomic_bert"],
    gguf_architectures: &["nomic-bert", "nomic-bert-moe"],
    prefixes: &["nomic_bert.", "bert."],
    layer_prefix: "encoder.layers.",
    names: &[
        ("embeddings.word_embeddings", "token_embd"),
        ("embeddings.token_type_embeddings", "token_types"),
        ("emb_ln", "token_embd_norm"),
    ],
    layer_names: &[
        ("attn.Wqkv", "attn_qkv"),
        ("attn.out_proj", "attn_output"),
        ("norm1", "attn_output_norm"),
        ("norm2", "layer_output_norm"),
        ("mlp.fc1", "ffn_up"),
        ("mlp.fc11", "ffn_up"),
        ("mlp.fc12", "ffn_gate"),
        ("mlp.fc2", "ffn_down"),
        ("mlp.router.layer", "ffn_gate_inp"),
        ("mlp.experts.mlp.w1", "ffn_up_exps.weight"),
        ("mlp.experts.mlp.w2", "ffn_down_exps.weight"),
        ("mlp.experts", "ffn_exps"),
    ],
    pooling: Pooling::Mean,
    spec,
};

fn spec(config: &Config) -> Result<EncoderSpec> {
    let mut spec = config.bert_like()?;
    spec.norm.eps = config.eps(LAYER_NORM_EPS, 1e-12)?;
    spec.embeddings.positions = None;
    // Configurations that also have BERT's keys give the length of the training texts there.
    spec.max_tokens = config.size_or("n_positions", spec.max_tokens)?;
    let unsupported = ["prenorm", "rotary_emb_interleaved", "moe_normalize_expert_weights", "expert_choice_router"];
    unsupported.iter().try_for_each(|name| config.require_false(name))?;
    if let Some(factor) = config.float("rotary_scaling_factor")? {
        return Err(Error::invalid_model(format!("config.json: rotary_scaling_factor is {factor}; expected null")));
    }
    let fraction = config.float("rotary_emb_fraction")?.unwrap_or(1.0);
    let rotary_dim = (spec.attention.head_dim as f64 * fraction) as usize;
    let theta = config.optional_float(ROPE_THETA)?.or(config.json("rope_parameters")["rope_theta"].as_f64());
    let rope = config.rope(rotary_dim, theta.unwrap_or(1000.0));
    spec.layers.iter_mut().for_each(|layer| layer.rope = Some(rope.clone()));

    let qkv_bias = config.bias(&["attn_qkv", "attn_q"], "qkv_proj_bias", false)?;
    (spec.attention.qkv_bias, spec.attention.output_bias) = (qkv_bias, qkv_bias);
    let f = &mut spec.feed_forward;
    f.up_bias = config.bias(&["ffn_up"], "mlp_fc1_bias", false)?;
    f.down_bias = config.bias(&["ffn_down"], "mlp_fc2_bias", false)?;
    f.gated = config.has_tensor("blk.0.ffn_gate.weight");
    if config.is_gguf() {
        // llama.cpp stores no activation: its network has SiLU with a gate, and GELU without.
        f.activation = if f.gated { Activation::Silu } else { Activation::Gelu };
    }
    let every = config.optional_size(MOE_EVERY_N_LAYERS)?.unwrap_or(0);
    let count = config.optional_size(NUM_EXPERTS)?.unwrap_or(8);
    let per_token = config.optional_size(MOE_TOP_K)?.unwrap_or(2);
    for (i, layer) in spec.layers.iter_mut().enumerate() {
        layer.experts = (every > 0 && i % every == 1).then_some(Experts { count, per_token });
    }
    Ok(spec)
}
