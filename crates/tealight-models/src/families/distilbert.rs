//! DistilBERT (Sanh et al. 2019, arXiv 1910.01108): BERT without token types, with other names.

use super::bert;
use super::encoder::{Config, EncoderFamily};
use crate::sentence_transformers::Pooling;

pub(crate) const FAMILY: EncoderFamily = EncoderFamily {
    name: "distilbert",
    model_types: &["distilbert"],
    // llama.cpp converts it to BERT.
    gguf_architectures: &[],
    prefixes: &["distilbert."],
    layer_prefix: "transformer.layer.",
    names: &bert::NAMES,
    layer_names: &[
        ("attention.q_lin", "attn_q"),
        ("attention.k_lin", "attn_k"),
        ("attention.v_lin", "attn_v"),
        ("attention.out_lin", "attn_output"),
        ("sa_layer_norm", "attn_output_norm"),
        ("ffn.lin1", "ffn_up"),
        ("ffn.lin2", "ffn_down"),
        ("output_layer_norm", "layer_output_norm"),
    ],
    pooling: Pooling::Mean,
    spec: |config: &Config| {
        let mut spec = bert::spec(config)?;
        spec.embeddings.token_types = 0;
        Ok(spec)
    },
};
