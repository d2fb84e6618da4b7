//! RoBERTa (Liu et al. 2019, arXiv 1907.11692), XLM-RoBERTa and CamemBERT: BERT whose positions begin after that of padding.

use super::bert;
use super::encoder::{Config, EncoderFamily};
use crate::sentence_transformers::Pooling;
use crate::spec::{EncoderSpec, LearnedPositions};
use tealight_core::{Error, Result};

pub(crate) const FAMILY: EncoderFamily = EncoderFamily {
    name: "roberta",
    model_types: &["roberta", "xlm-roberta", "camembert"],
    // llama.cpp drops the positions before the first and calls the result BERT.
    gguf_architectures: &[],
    prefixes: &["roberta."],
    layer_prefix: "encoder.layer.",
    names: &bert::NAMES,
    layer_names: &bert::LAYER_NAMES,
    pooling: Pooling::Mean,
    spec,
};

fn spec(config: &Config) -> Result<EncoderSpec> {
    let mut spec = bert::spec(config)?;
    offset_positions(&mut spec, config.size_or("pad_token_id", 1)?.saturating_add(1))?;
    Ok(spec)
}

/// Positions are counted from `offset`, so that texts are shorter by as much.
pub(super) fn offset_positions(spec: &mut EncoderSpec, offset: usize) -> Result<()> {
    let rows = spec.max_tokens;
    spec.max_tokens = rows.checked_sub(offset).filter(|n| *n > 0).ok_or_else(|| {
        Error::invalid_model(format!("max_position_embeddings is {rows}; expected more than {offset}"))
    })?;
    spec.embeddings.positions = Some(LearnedPositions { rows, offset });
    Ok(())
}
