//! The pipeline in a GGUF file: llama.cpp's key for pooling, and keys of tealight for the rest.

use super::dense::{Dense, activation_from_name, activation_name};
use super::pipeline::EmbeddingPipeline;
use super::pooling::Pooling;
use crate::formats::gguf::{Gguf, MetadataValue};
use crate::formats::tensor::TensorData;
use crate::formats::weights::Weights;
use std::collections::BTreeMap;
use tealight_core::{Error, Result};

/// llama.cpp's numbers of pooling modes (`enum llama_pooling_type`); it has no others.
const POOLING_TYPES: [(u32, Pooling); 3] = [(1, Pooling::Mean), (2, Pooling::Cls), (3, Pooling::LastToken)];

impl EmbeddingPipeline {
    /// Reads metadata and tensors; pooling is `default` if the file does not set it.
    ///
    /// # Errors
    /// A value is invalid, or names a pooling mode or an activation that is not supported.
    pub fn from_gguf(file: &Gguf, architecture: &str, weights: &Weights, default: Pooling) -> Result<Self> {
        let this = Self {
            pooling: read_pooling(file, architecture)?.unwrap_or(default),
            dense: read_dense(file, weights)?,
            normalize: file.boolean("tealight.normalize")?.unwrap_or(true),
            max_tokens: file.integer("tealight.max_tokens")?.map(|n| n as usize),
            prompts: match file.string("tealight.prompts")? {
                None => BTreeMap::new(),
                Some(text) => serde_json::from_str(text).map_err(|e| {
                    Error::invalid_model(format!("GGUF key \"tealight.prompts\" is not a map of strings: {e}"))
                })?,
            },
            default_prompt_name: file.string("tealight.default_prompt")?.map(str::to_string),
        };
        this.validate_default_prompt()?;
        Ok(this)
    }

    /// The metadata that describes the pipeline.
    pub fn gguf_metadata(&self, architecture: &str) -> Vec<(String, MetadataValue)> {
        let mut metadata = vec![
            ("tealight.pooling".to_string(), MetadataValue::String(self.pooling.as_str().into())),
            ("tealight.normalize".into(), MetadataValue::Bool(self.normalize)),
        ];
        if let Some((number, _)) = POOLING_TYPES.iter().find(|(_, pooling)| *pooling == self.pooling) {
            metadata.push((format!("{architecture}.pooling_type"), MetadataValue::Uint(*number)));
        }
        if let Some(n) = self.max_tokens {
            metadata.push(("tealight.max_tokens".into(), MetadataValue::Uint(n as u32)));
        }
        if !self.prompts.is_empty() {
            let text = serde_json::json!(self.prompts).to_string();
            metadata.push(("tealight.prompts".into(), MetadataValue::String(text)));
        }
        if let Some(name) = &self.default_prompt_name {
            metadata.push(("tealight.default_prompt".into(), MetadataValue::String(name.clone())));
        }
        for (i, dense) in self.dense.iter().enumerate() {
            let name = activation_name(dense.activation).to_string();
            metadata.push((format!("tealight.dense.{i}.activation"), MetadataValue::String(name)));
        }
        metadata
    }

    /// The tensors of the dense layers.
    pub fn tensors(&self) -> Vec<(String, TensorData)> {
        let tensors = |(i, d): (usize, &Dense)| {
            let shape = vec![d.bias.len(), d.inputs()];
            [
                (format!("dense.{i}.weight"), TensorData::f32(shape, &d.weight)),
                (format!("dense.{i}.bias"), TensorData::f32(vec![d.bias.len()], &d.bias)),
            ]
        };
        self.dense.iter().enumerate().flat_map(tensors).collect()
    }
}

fn read_pooling(file: &Gguf, architecture: &str) -> Result<Option<Pooling>> {
    if let Some(name) = file.string("tealight.pooling")? {
        let pooling = Pooling::from_name(name);
        let unknown =
            || Error::invalid_model(format!("GGUF key \"tealight.pooling\" is {name:?}, which is not supported"));
        return pooling.map(Some).ok_or_else(unknown);
    }
    let key = format!("{architecture}.pooling_type");
    match file.integer(&key)? {
        None | Some(0) => Ok(None),
        Some(number) => {
            let pooling_type = POOLING_TYPES.iter().find(|(n, _)| *n as u64 == number);
            pooling_type.map(|(_, pooling)| Some(*pooling)).ok_or_else(|| {
                Error::invalid_model(format!("GGUF key {key:?} is {number}; expected 1 (mean), 2 (cls) or 3 (last)"))
            })
        }
    }
}

fn read_dense(file: &Gguf, weights: &Weights) -> Result<Vec<Dense>> {
    let mut layers = vec![];
    while let Some(name) = file.string(&format!("tealight.dense.{}.activation", layers.len()))? {
        let i = layers.len();
        let (weight, bias) = (format!("dense.{i}.weight"), format!("dense.{i}.bias"));
        let (weight_shape, bias_shape) = (weights.shape(&weight)?, weights.shape(&bias)?);
        layers.push(Dense {
            weight: weights.floats(&weight, weight_shape)?,
            bias: weights.floats(&bias, bias_shape)?,
            activation: activation_from_name(name)?,
        });
    }
    Ok(layers)
}
