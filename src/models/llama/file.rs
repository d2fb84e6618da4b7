//! Files of a Llama: GGUF, and one packed file.

use super::config::Config;
use super::tensors::Tensors;
use super::tokens::Tokens;
use crate::error::{Error, Result};
use crate::models::gguf::Gguf;
use crate::models::map::map;
use crate::models::weights::{Precision, Weights};
use std::path::Path;

/// The key of a packed file's [`Config`], as JSON.
const HEADER: &str = "tealight.llama";

/// A model that is opened and not yet in memory.
#[derive(Debug)]
pub(super) struct File {
    pub config: Config,
    pub tensors: Tensors,
    pub tokens: Tokens,
}

impl File {
    /// Opens a file; `keep` keeps what is made of its tensors.
    pub(super) fn open(path: &Path, keep: bool) -> Result<Self> {
        let mut file = Gguf::parse(map(path)?)?;
        let weights = Weights::new(std::mem::take(&mut file.tensors), Precision::Int8);
        let config = match file.string(HEADER)? {
            Some(json) => serde_json::from_str::<Config>(json)
                .map_err(|e| Error::model(format!("{HEADER} cannot be read: {e}")))?
                .checked()?,
            None => {
                let mut config = Config::from_gguf(&file, weights.rows("token_embd.weight")?)?;
                if weights.contains("rope_freqs.weight") {
                    config.rope.divisors = weights.floats("rope_freqs.weight", &[config.rope.width / 2])?;
                }
                config
            }
        };
        Ok(Self { config, tensors: Tensors::new(weights, keep), tokens: Tokens::from_gguf(&file)? })
    }
}
