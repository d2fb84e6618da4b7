//! JinaBERT v2 (Günther et al. 2023, arXiv 2310.19923): BERT with ALiBi instead of positions and a gated feed-forward network. The
//! variant for code also normalizes queries and keys, and adds the input of attention twice.

use super::encoder::{Config, EncoderFamily, LAYER_NORM_EPS};
use crate::sentence_transformers::Pooling;
use crate::spec::{EncoderSpec, NormPlacement, PositionBias, QkNorm};
use serde_json::Value;
use tealight_core::Result;

pub(crate) const FAMILY: EncoderFamily = EncoderFamily {
    name: "jina-bert-v2",
    // They call themselves `bert`; see `is_jina_bert`.
    model_types: &["jina_bert"],
    gguf_architectures: &["jina-bert-v2"],
    prefixes: &["bert."],
    layer_prefix: "encoder.layer.",
    names: &[
        ("embeddings.word_embeddings", "token_embd"),
        ("embeddings.token_type_embeddings", "token_types"),
        ("embeddings.LayerNorm", "token_embd_norm"),
    ],
    layer_names: &[
        ("attention.self.query", "attn_q"),
        ("attention.self.key", "attn_k"),
        ("attention.self.value", "attn_v"),
        ("attention.self.layer_norm_q", "attn_q_norm"),
        ("attention.self.layer_norm_k", "attn_k_norm"),
        ("attention.output.dense", "attn_output"),
        ("attention.output.LayerNorm", "attn_output_norm"),
        ("layer_norm_1", "attn_norm_2"),
        ("mlp.gated_layers", "ffn_gate_up"),
        ("mlp.up_gated_layer", "ffn_up_gate"),
        ("mlp.wo", "ffn_down"),
        ("mlp.down_layer", "ffn_down"),
        ("mlp.layernorm", "layer_output_norm"),
        ("layer_norm_2", "layer_output_norm"),
    ],
    pooling: Pooling::Mean,
    spec,
};

/// Whether a configuration that says `bert` means this family.
pub(super) fn is_jina_bert(config: &Value) -> bool {
    config["model_type"] == "bert" && config["position_embedding_type"] == "alibi"
}

fn spec(config: &Config) -> Result<EncoderSpec> {
    let mut spec = config.bert_like()?;
    spec.norm.eps = config.eps(LAYER_NORM_EPS, 1e-12)?;
    spec.embeddings.positions = None;
    spec.attention.position_bias = PositionBias::Alibi;
    (spec.feed_forward.gated, spec.feed_forward.up_bias) = (true, false);
    if config.has_tensor("blk.0.attn_q_norm.weight") {
        spec.attention.qk_norm = QkNorm::All;
        spec.norm_placement = NormPlacement::PostNormTwice;
    }
    Ok(spec)
}
