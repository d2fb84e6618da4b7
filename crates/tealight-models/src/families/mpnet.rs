//! MPNet (Song et al. 2020, arXiv 2004.09297): BERT without token types, with relative position buckets that all layers share.

use super::bert;
use super::encoder::{Config, EncoderFamily};
use super::roberta::offset_positions;
use crate::sentence_transformers::Pooling;
use crate::spec::{EncoderSpec, PositionBias};
use tealight_core::Result;

pub(crate) const FAMILY: EncoderFamily = EncoderFamily {
    name: "mpnet",
    model_types: &["mpnet"],
    gguf_architectures: &[],
    prefixes: &["mpnet."],
    layer_prefix: "encoder.layer.",
    names: &[
        ("embeddings.word_embeddings", "token_embd"),
        ("embeddings.position_embeddings", "position_embd"),
        ("embeddings.LayerNorm", "token_embd_norm"),
        ("encoder.relative_attention_bias", "attn_rel_b"),
    ],
    layer_names: &[
        ("attention.attn.q", "attn_q"),
        ("attention.attn.k", "attn_k"),
        ("attention.attn.v", "attn_v"),
        ("attention.attn.o", "attn_output"),
        ("attention.LayerNorm", "attn_output_norm"),
        ("intermediate.dense", "ffn_up"),
        ("output.dense", "ffn_down"),
        ("output.LayerNorm", "layer_output_norm"),
    ],
    pooling: Pooling::Mean,
    spec,
};

/// Configurations do not have this number; transformers has it in its code.
const MAX_DISTANCE: usize = 128;

fn spec(config: &Config) -> Result<EncoderSpec> {
    let mut spec = bert::spec(config)?;
    spec.embeddings.token_types = 0;
    offset_positions(&mut spec, config.size_or("pad_token_id", 1)?.saturating_add(1))?;
    let buckets = config.size_or("relative_attention_num_buckets", 32)?;
    spec.attention.position_bias = PositionBias::RelativeBuckets { buckets, max_distance: MAX_DISTANCE };
    Ok(spec)
}
