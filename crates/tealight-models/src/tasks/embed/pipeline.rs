//! What sentence-transformers puts around an encoder: prompts, pooling, dense layers, normalisation.

use super::Pooling;
use crate::formats::gguf::{Entry, Gguf, TensorData};
use crate::formats::weights::{Precision, Weights};
use crate::int8::{Activation, Dense};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use tealight_core::mmap::map_file;
use tealight_core::{Error, Result};

/// The steps before and after an encoder.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// How the rows of a text become one vector.
    pub pooling: Pooling,
    /// Layers on the pooled vector, in order.
    pub dense: Vec<Dense>,
    /// Whether the model itself ends in a normalisation.
    pub normalize: bool,
    /// The longest text in tokens, where the pipeline sets it below the encoder's own limit.
    pub max_tokens: Option<usize>,
    /// Texts put before an input, by name.
    pub prompts: BTreeMap<String, String>,
    /// The prompt used where a request names none.
    pub default_prompt: Option<String>,
}

/// The JSON of a file in a folder, or `None` where there is no such file.
pub(crate) fn json(path: &Path) -> Result<Option<Value>> {
    match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path, e)),
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| Error::invalid_model(format!("{} is not JSON: {e}", path.display()))),
    }
}

impl Pipeline {
    /// This way of pooling, and nothing else.
    pub fn new(pooling: Pooling) -> Self {
        let (dense, prompts) = (vec![], BTreeMap::new());
        Self { pooling, dense, normalize: false, max_tokens: None, prompts, default_prompt: None }
    }

    /// Reads `modules.json` and what it names; a folder without it is an encoder, pooled by `default`.
    pub fn from_folder(folder: &Path, default: Pooling) -> Result<Self> {
        let mut this = Self::new(default);
        this.read_prompts(folder)?;
        let Some(modules) = json(&folder.join("modules.json"))? else {
            if let Some(pooling) = json(&folder.join("1_Pooling/config.json"))? {
                this.pooling = pooling_of(&pooling)?;
            }
            return Ok(this);
        };
        let modules = modules.as_array().ok_or_else(|| Error::invalid_model("modules.json is not a list"))?;
        for module in modules {
            let kind = module["type"].as_str().unwrap_or_default();
            let path = folder.join(module["path"].as_str().unwrap_or_default());
            // The class path has moved between versions; the class name has not.
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => this.read_limit(&path)?,
                "Pooling" => this.pooling = pooling_of(&required(&path.join("config.json"))?)?,
                "Dense" => this.dense.push(read_dense(&path)?),
                "Normalize" => this.normalize = true,
                _ => {
                    return Err(Error::invalid_model(format!(
                        "modules.json has the module {kind:?}, which is not supported"
                    )));
                }
            }
        }
        Ok(this)
    }

    fn read_limit(&mut self, folder: &Path) -> Result<()> {
        let number = |file: &str, key: &str| {
            let json = json(&folder.join(file))?;
            Ok::<_, Error>(json.and_then(|j| j[key].as_u64()).map(|n| n as usize))
        };
        // Since sentence-transformers 5.4 the limit is the tokenizer's.
        self.max_tokens = match number("sentence_bert_config.json", "max_seq_length")? {
            None => number("tokenizer_config.json", "model_max_length")?,
            limit => limit,
        };
        Ok(())
    }

    fn read_prompts(&mut self, folder: &Path) -> Result<()> {
        let Some(config) = json(&folder.join("config_sentence_transformers.json"))? else {
            return Ok(());
        };
        if let Some(prompts) = config["prompts"].as_object() {
            let text = |v: &Value| v.as_str().map(str::to_string);
            self.prompts = prompts.iter().filter_map(|(k, v)| Some((k.clone(), text(v)?))).collect();
        }
        self.default_prompt = config["default_prompt_name"].as_str().map(str::to_string);
        self.check_default()
    }

    fn check_default(&self) -> Result<()> {
        match &self.default_prompt {
            Some(name) if !self.prompts.contains_key(name) => {
                Err(Error::invalid_model(format!("default_prompt_name is {name:?}, which is not one of the prompts")))
            }
            _ => Ok(()),
        }
    }

    /// Reads llama.cpp's pooling key and ours; where there is none it is `default`.
    pub fn from_gguf(file: &Gguf, architecture: &str, weights: &Weights, default: Pooling) -> Result<Self> {
        let this = Self {
            pooling: pooling_from_gguf(file, architecture)?.unwrap_or(default),
            dense: dense_from_gguf(file, weights)?,
            normalize: file.boolean("tealight.normalize")?.unwrap_or(true),
            max_tokens: file.integer("tealight.max_tokens")?.map(|n| n as usize),
            prompts: match file.string("tealight.prompts")? {
                None => BTreeMap::new(),
                Some(text) => serde_json::from_str(text).map_err(|e| {
                    Error::invalid_model(format!("GGUF key \"tealight.prompts\" is not a map of strings: {e}"))
                })?,
            },
            default_prompt: file.string("tealight.default_prompt")?.map(str::to_string),
        };
        this.check_default()?;
        Ok(this)
    }

    /// The metadata that describes it in a GGUF file.
    pub fn entries(&self, architecture: &str) -> Vec<(String, Entry)> {
        let mut entries = vec![
            ("tealight.pooling".to_string(), Entry::String(self.pooling.name().into())),
            ("tealight.normalize".into(), Entry::Bool(self.normalize)),
        ];
        if let Some(number) = llama_cpp_pooling(self.pooling) {
            entries.push((format!("{architecture}.pooling_type"), Entry::Uint(number)));
        }
        if let Some(n) = self.max_tokens {
            entries.push(("tealight.max_tokens".into(), Entry::Uint(n as u32)));
        }
        if !self.prompts.is_empty() {
            let text = serde_json::json!(self.prompts).to_string();
            entries.push(("tealight.prompts".into(), Entry::String(text)));
        }
        if let Some(name) = &self.default_prompt {
            entries.push(("tealight.default_prompt".into(), Entry::String(name.clone())));
        }
        for (i, dense) in self.dense.iter().enumerate() {
            let name = activation_name(dense.activation).to_string();
            entries.push((format!("tealight.dense.{i}.activation"), Entry::String(name)));
        }
        entries
    }

    /// The tensors of its dense layers.
    pub fn tensors(&self) -> Vec<(String, TensorData)> {
        self.dense
            .iter()
            .enumerate()
            .flat_map(|(i, d)| {
                let shape = vec![d.bias.len(), d.inputs()];
                [
                    (format!("dense.{i}.weight"), TensorData::f32(shape, &d.weight)),
                    (format!("dense.{i}.bias"), TensorData::f32(vec![d.bias.len()], &d.bias)),
                ]
            })
            .collect()
    }
}

fn required(path: &Path) -> Result<Value> {
    json(path)?.ok_or_else(|| Error::invalid_model(format!("{} is missing", path.display())))
}

/// Both schemas of sentence-transformers: five switches, or since 5.4 one name.
fn pooling_of(config: &Value) -> Result<Pooling> {
    let mode = &config["pooling_mode"];
    // A list joins several poolings end to end; a list of one is that one.
    let mode = if mode.as_array().is_some_and(|m| m.len() == 1) { &mode[0] } else { mode };
    if mode.is_array() {
        return Err(Error::invalid_model(format!("pooling_mode is {mode}; joined poolings are not supported")));
    }
    if let Some(name) = mode.as_str() {
        return Pooling::named(name)
            .ok_or_else(|| Error::invalid_model(format!("pooling_mode is {name:?}, which is not supported")));
    }
    let keys = [
        ("pooling_mode_cls_token", Pooling::Cls),
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_max_tokens", Pooling::Max),
        ("pooling_mode_lasttoken", Pooling::LastToken),
        ("pooling_mode_mean_sqrt_len_tokens", Pooling::MeanSqrtLenTokens),
    ];
    let on: Vec<_> = keys.iter().filter(|(key, _)| config[key] == true).collect();
    match on[..] {
        [(_, pooling)] if config["pooling_mode_weightedmean_tokens"] != true => Ok(*pooling),
        _ => Err(Error::invalid_model(format!(
            "the pooling config must switch on exactly one of cls, mean, max, lasttoken and mean_sqrt_len; it is {config}"
        ))),
    }
}

fn read_dense(folder: &Path) -> Result<Dense> {
    let config = required(&folder.join("config.json"))?;
    let size = |key: &str| {
        let n = config[key].as_u64().map(|n| n as usize).filter(|n| *n > 0);
        n.ok_or_else(|| Error::invalid_model(format!("{}: {key} is not a positive number", folder.display())))
    };
    let (k, n) = (size("in_features")?, size("out_features")?);
    let file = map_file(&folder.join("model.safetensors"))?;
    let weights = Weights::from_safetensors(&file, Precision::F32, |name| Some(name.to_string()))?;
    let bias = config["bias"] != false;
    Ok(Dense {
        weight: weights.floats("linear.weight", &[n, k])?,
        bias: if bias { weights.floats("linear.bias", &[n])? } else { vec![0.0; n] },
        activation: activation_of(config["activation_function"].as_str().unwrap_or("Tanh"))?,
    })
}

/// PyTorch's class names, with or without their module.
fn activation_of(name: &str) -> Result<Activation> {
    match name.rsplit('.').next().unwrap_or_default() {
        "Identity" => Ok(Activation::Identity),
        "Tanh" => Ok(Activation::Tanh),
        "GELU" => Ok(Activation::Gelu),
        "ReLU" => Ok(Activation::Relu),
        _ => Err(Error::invalid_model(format!("the activation function {name:?} is not supported"))),
    }
}

fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Identity => "Identity",
        Activation::Tanh => "Tanh",
        Activation::Gelu | Activation::GeluTanh => "GELU",
        Activation::Relu => "ReLU",
    }
}

fn llama_cpp_pooling(pooling: Pooling) -> Option<u32> {
    match pooling {
        Pooling::Mean => Some(1),
        Pooling::Cls => Some(2),
        Pooling::LastToken => Some(3),
        Pooling::Max | Pooling::MeanSqrtLenTokens => None,
    }
}

fn pooling_from_gguf(file: &Gguf, architecture: &str) -> Result<Option<Pooling>> {
    if let Some(name) = file.string("tealight.pooling")? {
        return Pooling::named(name).map(Some).ok_or_else(|| {
            Error::invalid_model(format!("GGUF key \"tealight.pooling\" is {name:?}, which is not known"))
        });
    }
    let key = format!("{architecture}.pooling_type");
    match file.integer(&key)? {
        None | Some(0) => Ok(None),
        Some(1) => Ok(Some(Pooling::Mean)),
        Some(2) => Ok(Some(Pooling::Cls)),
        Some(3) => Ok(Some(Pooling::LastToken)),
        Some(n) => {
            Err(Error::invalid_model(format!("GGUF key {key:?} is {n}; 1 (mean), 2 (cls) and 3 (last) are supported")))
        }
    }
}

fn dense_from_gguf(file: &Gguf, weights: &Weights) -> Result<Vec<Dense>> {
    let mut layers = vec![];
    while let Some(name) = file.string(&format!("tealight.dense.{}.activation", layers.len()))? {
        let i = layers.len();
        let (weight, bias) = (format!("dense.{i}.weight"), format!("dense.{i}.bias"));
        let (weight_shape, bias_shape) = (weights.shape(&weight)?, weights.shape(&bias)?);
        layers.push(Dense {
            weight: weights.floats(&weight, weight_shape)?,
            bias: weights.floats(&bias, bias_shape)?,
            activation: activation_of(name)?,
        });
    }
    Ok(layers)
}

/// Checks that the dense layers fit an encoder of `d` values, and returns how many values come out.
pub fn output_dimension(dense: &[Dense], d: usize) -> Result<usize> {
    dense.iter().enumerate().try_fold(d, |d, (i, layer)| {
        let fits = !layer.bias.is_empty() && layer.weight.len() == layer.bias.len() * d;
        if !fits {
            return Err(Error::invalid_model(format!(
                "dense layer {i} has {} weights for {d} inputs and {} outputs",
                layer.weight.len(),
                layer.bias.len()
            )));
        }
        Ok(layer.bias.len())
    })
}
