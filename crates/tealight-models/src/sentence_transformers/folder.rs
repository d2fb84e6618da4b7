//! Reads a sentence-transformers model folder: `modules.json`, the modules that it names, and the prompts.

use super::dense::{Dense, activation_from_name};
use super::pipeline::EmbeddingPipeline;
use super::pooling::Pooling;
use crate::formats::json::{read_json, require_json};
use crate::formats::weights::Weights;
use serde_json::Value;
use std::path::Path;
use tealight_core::mmap::map_file;
use tealight_core::{Error, Result};

impl EmbeddingPipeline {
    /// Reads a model folder. Without `modules.json` the folder is a plain encoder, whose pooling is `default` unless
    /// `1_Pooling/config.json` sets it.
    ///
    /// # Errors
    /// A file is invalid, or names a module or a pooling mode that is not supported.
    pub fn from_folder(folder: &Path, default: Pooling) -> Result<Self> {
        let mut this = Self::new(default);
        this.read_prompts(folder)?;
        let Some(modules) = read_json(&folder.join("modules.json"))? else {
            if let Some(pooling) = read_json(&folder.join("1_Pooling/config.json"))? {
                this.pooling = pooling_mode(&pooling)?;
            }
            return Ok(this);
        };
        let modules = modules.as_array().ok_or_else(|| Error::invalid_model("modules.json is not a list"))?;
        for module in modules {
            let class = module["type"].as_str().unwrap_or_default();
            let path = folder.join(module["path"].as_str().unwrap_or_default());
            // The Python path before the name of a class differs between versions; the name does not.
            match class.rsplit('.').next().unwrap_or_default() {
                "Transformer" => this.max_tokens = max_seq_length(&path)?,
                "Pooling" => this.pooling = pooling_mode(&require_json(&path.join("config.json"))?)?,
                "Dense" => this.dense.push(read_dense(&path)?),
                "Normalize" => this.normalize = true,
                _ => {
                    return Err(Error::invalid_model(format!(
                        "modules.json has the module {class:?}, which is not supported"
                    )));
                }
            }
        }
        Ok(this)
    }

    fn read_prompts(&mut self, folder: &Path) -> Result<()> {
        let Some(config) = read_json(&folder.join("config_sentence_transformers.json"))? else {
            return Ok(());
        };
        if let Some(prompts) = config["prompts"].as_object() {
            let text = |v: &Value| v.as_str().map(str::to_string);
            self.prompts = prompts.iter().filter_map(|(k, v)| Some((k.clone(), text(v)?))).collect();
        }
        self.default_prompt_name = config["default_prompt_name"].as_str().map(str::to_string);
        self.validate_default_prompt()
    }
}

/// The longest text of a `Transformer` module. Since sentence-transformers 5.4 it is the tokenizer's limit.
fn max_seq_length(folder: &Path) -> Result<Option<usize>> {
    let number = |file: &str, key: &str| {
        let json = read_json(&folder.join(file))?;
        Ok::<_, Error>(json.and_then(|j| j[key].as_u64()).map(|n| n as usize))
    };
    match number("sentence_bert_config.json", "max_seq_length")? {
        None => number("tokenizer_config.json", "model_max_length"),
        limit => Ok(limit),
    }
}

/// Reads the configuration of a `Pooling` module: a Boolean for each mode, or since sentence-transformers 5.4 a name or a list of
/// names.
fn pooling_mode(config: &Value) -> Result<Pooling> {
    let mode = &config["pooling_mode"];
    // Several modes are concatenated; a list of one mode is that mode.
    let mode = if mode.as_array().is_some_and(|m| m.len() == 1) { &mode[0] } else { mode };
    if mode.is_array() {
        return Err(Error::invalid_model(format!("pooling_mode is {mode}; concatenated poolings are not supported")));
    }
    if let Some(name) = mode.as_str() {
        return Pooling::from_name(name)
            .ok_or_else(|| Error::invalid_model(format!("pooling_mode {name:?} is not supported")));
    }
    let keys = [
        ("pooling_mode_cls_token", Pooling::Cls),
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_max_tokens", Pooling::Max),
        ("pooling_mode_lasttoken", Pooling::LastToken),
        ("pooling_mode_mean_sqrt_len_tokens", Pooling::MeanSqrtLenTokens),
    ];
    let enabled: Vec<_> = keys.iter().filter(|(key, _)| config[key] == true).collect();
    match enabled[..] {
        [(_, pooling)] if config["pooling_mode_weightedmean_tokens"] != true => Ok(*pooling),
        _ => Err(Error::invalid_model(format!(
            "the pooling config is {config}; expected exactly one of cls, mean, max, lasttoken and mean_sqrt_len"
        ))),
    }
}

fn read_dense(folder: &Path) -> Result<Dense> {
    let config = require_json(&folder.join("config.json"))?;
    let size = |key: &str| {
        let n = config[key].as_u64().map(|n| n as usize).filter(|n| *n > 0);
        n.ok_or_else(|| {
            Error::invalid_model(format!("{}: {key} is {}; expected a positive number", folder.display(), config[key]))
        })
    };
    let (k, n) = (size("in_features")?, size("out_features")?);
    let file = map_file(&folder.join("model.safetensors"))?;
    let weights = Weights::from_safetensors(&file, |name| Some(name.to_string()))?;
    let has_bias = config["bias"] != false;
    Ok(Dense {
        weight: weights.floats("linear.weight", &[n, k])?,
        bias: if has_bias { weights.floats("linear.bias", &[n])? } else { vec![0.0; n] },
        activation: activation_from_name(config["activation_function"].as_str().unwrap_or("Tanh"))?,
    })
}
