//! BERT (Devlin et al. 2018, arXiv 1810.04805).

use super::encoder::{Config, EncoderFamily, LAYER_NORM_EPS};
use crate::sentence_transformers::Pooling;
use crate::spec::EncoderSpec;
use tealight_core::{Error, Result};

pub(crate) const FAMILY: EncoderFamily = EncoderFamily {
    name: "bert",
    model_types: &["bert"],
    gguf_architectures: &["bert"],
    prefixes: &["bert."],
    layer_prefix: "encoder.layer.",
    names: &NAMES,
    layer_names: &LAYER_NAMES,
    pooling: Pooling::Mean,
    spec,
};

pub(super) const NAMES: [(&str, &str); 4] = [
    ("embeddings.word_embeddings", "token_embd"),
    ("embeddings.position_embeddings", "position_embd"),
    ("embeddings.token_type_embeddings", "token_types"),
    ("embeddings.LayerNorm", "token_embd_norm"),
];

pub(super) const LAYER_NAMES: [(&str, &str); 8] = [
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
    ("output.LayerNorm", "layer_output_norm"),
];

pub(super) fn spec(config: &Config) -> Result<EncoderSpec> {
    let position = config.json("position_embedding_type").as_str().unwrap_or("absolute");
    if position != "absolute" {
        return Err(Error::invalid_model(format!(
            "config.json: position_embedding_type is {position:?}; expected \"absolute\""
        )));
    }
    let mut spec = config.bert_like()?;
    spec.norm.eps = config.eps(LAYER_NORM_EPS, 1e-12)?;
    Ok(spec)
}
