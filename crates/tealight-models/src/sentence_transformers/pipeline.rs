//! The steps before and after an encoder.

use super::dense::Dense;
use super::pooling::Pooling;
use std::collections::BTreeMap;
use tealight_core::{Error, Result};

/// The steps before and after an encoder.
#[derive(Debug, Clone)]
pub struct EmbeddingPipeline {
    /// How the token embeddings of a text become one vector.
    pub pooling: Pooling,
    /// Layers that are applied to the pooled vector, in this order.
    pub dense: Vec<Dense>,
    /// Whether the model normalizes the vector, after the dense layers.
    pub normalize: bool,
    /// The longest text in tokens, if it is shorter than the encoder's limit.
    pub max_tokens: Option<usize>,
    /// Texts to prepend to an input, by name.
    pub prompts: BTreeMap<String, String>,
    /// The name in `prompts` of the prompt for requests that name none.
    pub default_prompt_name: Option<String>,
}

impl EmbeddingPipeline {
    /// Pooling and nothing else.
    pub fn new(pooling: Pooling) -> Self {
        let (dense, prompts) = (vec![], BTreeMap::new());
        Self { pooling, dense, normalize: false, max_tokens: None, prompts, default_prompt_name: None }
    }

    pub(super) fn validate_default_prompt(&self) -> Result<()> {
        match &self.default_prompt_name {
            Some(name) if !self.prompts.contains_key(name) => {
                Err(Error::invalid_model(format!("default_prompt_name is {name:?}; expected the name of a prompt")))
            }
            _ => Ok(()),
        }
    }

    /// Checks that the dense layers fit an encoder of this hidden size, and returns the embedding dimension.
    pub(crate) fn embedding_dim(&self, hidden_size: usize) -> Result<usize> {
        self.dense.iter().enumerate().try_fold(hidden_size, |inputs, (i, layer)| {
            let outputs = layer.bias.len();
            if outputs == 0 || layer.weight.len() != outputs * inputs {
                return Err(Error::invalid_model(format!(
                    "dense layer {i} has {} weights; expected {outputs} outputs x {inputs} inputs",
                    layer.weight.len()
                )));
            }
            Ok(outputs)
        })
    }
}
