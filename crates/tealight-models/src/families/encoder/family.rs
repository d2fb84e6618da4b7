//! What a family of encoders says about itself.

use super::config::Config;
use crate::families::{
    bert, deberta, distilbert, gemma3, gte, jina_bert, modernbert, mpnet, nomic_bert, qwen3, roberta,
};
use crate::sentence_transformers::Pooling;
use crate::spec::EncoderSpec;
use tealight_core::{Error, Result};

/// A family of encoders: how its files name their parts, and the network that they describe.
#[derive(Debug)]
pub(crate) struct EncoderFamily {
    /// `general.architecture` of packed files.
    pub name: &'static str,
    /// Values of `model_type` in `config.json`.
    pub model_types: &'static [&'static str],
    /// Values of `general.architecture` in llama.cpp's files.
    pub gguf_architectures: &'static [&'static str],
    /// What Hugging Face's tensor names may begin with.
    pub prefixes: &'static [&'static str],
    /// What the names of a layer's tensors begin with, before the number of the layer.
    pub layer_prefix: &'static str,
    /// Modules of Hugging Face outside the layers, and llama.cpp's names.
    pub names: &'static [(&'static str, &'static str)],
    /// Modules of a layer.
    pub layer_names: &'static [(&'static str, &'static str)],
    /// The pooling of files that do not name one.
    pub pooling: Pooling,
    /// The network that a configuration describes.
    pub spec: fn(&Config) -> Result<EncoderSpec>,
}

/// All families of encoders.
pub(crate) const FAMILIES: [&EncoderFamily; 11] = [
    &bert::FAMILY,
    &roberta::FAMILY,
    &distilbert::FAMILY,
    &mpnet::FAMILY,
    &nomic_bert::FAMILY,
    &gte::FAMILY,
    &jina_bert::FAMILY,
    &modernbert::FAMILY,
    &deberta::FAMILY,
    &qwen3::FAMILY,
    &gemma3::FAMILY,
];

impl EncoderFamily {
    /// The family of a folder with this `config.json`.
    ///
    /// # Errors
    /// There is none; the error lists the known ones.
    pub(crate) fn of_config(config: &serde_json::Value) -> Result<&'static Self> {
        let model_type = config["model_type"].as_str().unwrap_or_default();
        if jina_bert::is_jina_bert(config) {
            return Ok(&jina_bert::FAMILY);
        }
        FAMILIES.into_iter().find(|family| family.model_types.contains(&model_type)).ok_or_else(|| unknown(model_type))
    }

    /// The family of a GGUF file with this `general.architecture`.
    ///
    /// # Errors
    /// As [`EncoderFamily::of_config`].
    pub(crate) fn of_gguf(architecture: &str) -> Result<&'static Self> {
        FAMILIES
            .into_iter()
            .find(|family| family.name == architecture || family.gguf_architectures.contains(&architecture))
            .ok_or_else(|| unknown(architecture))
    }

    /// llama.cpp's name for one of Hugging Face's tensors; `None` for tensors that hidden states do not depend on.
    pub(crate) fn gguf_name(&self, name: &str) -> Option<String> {
        let name = self.prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
        // Files that were converted from TensorFlow have its names for the parameters of LayerNorm.
        let name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias");
        if let Some((index, rest)) = name.strip_prefix(self.layer_prefix).and_then(|rest| rest.split_once('.')) {
            return Some(format!("blk.{index}.{}", renamed(self.layer_names, rest)?));
        }
        renamed(self.names, &name)
    }
}

/// Replaces a module, which is followed by the name of a parameter.
fn renamed(names: &[(&str, &str)], name: &str) -> Option<String> {
    names.iter().find_map(|(hf, gguf)| {
        let rest = name.strip_prefix(hf)?;
        (rest.is_empty() || rest.starts_with('.')).then(|| format!("{gguf}{rest}"))
    })
}

/// The names of all families, as files have them.
pub(crate) fn known_families() -> String {
    FAMILIES.iter().flat_map(|family| family.model_types).copied().collect::<Vec<_>>().join(", ")
}

fn unknown(name: &str) -> Error {
    Error::invalid_model(format!(
        "architecture {name:?} is not supported for embeddings; expected one of {}",
        known_families()
    ))
}
