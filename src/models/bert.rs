//! BERT (Devlin et al. 2018, arXiv 1810.04805): MiniLM, BGE, E5 and GTE are of this shape.
//!
//! Tensors go by llama.cpp's names for them; the names of Hugging Face are translated when a folder is opened.

use super::gguf::{Entry, Gguf, TensorData, missing};
use super::weights::{Precision, Weights};
use super::{Batch, Encoder};
use crate::error::{Error, Result};
use crate::kernels::int8::Packed;
use crate::nn::{self, Activation, Cpu, LayerNorm, Linear, Matrix, attention, rows};
use candle_core::Tensor;
use serde_json::Value;
use std::sync::{Mutex, PoisonError};

/// The numbers of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Rows of the token table.
    pub vocab: usize,
    /// Width of a token's row, D.
    pub hidden: usize,
    /// Blocks.
    pub layers: usize,
    /// Attention heads, H.
    pub heads: usize,
    /// Inner width of a block's feed-forward network.
    pub intermediate: usize,
    /// The longest sequence, in tokens.
    pub positions: usize,
    /// Rows of the segment table, of which the first is used.
    pub types: usize,
    /// Added to the variance in LayerNorm.
    pub eps: f32,
    /// Of the feed-forward network.
    pub activation: Activation,
}

/// llama.cpp's name of this architecture.
pub const ARCHITECTURE: &str = "bert";

const MAX_LAYERS: usize = 1000;
/// The attention kernel reads whole vectors of a head.
const HEAD_STEP: usize = 16;

impl Config {
    /// From `config.json`.
    pub fn from_json(config: &Value) -> Result<Self> {
        let size = |key: &str| {
            let n = config[key].as_u64().map(|n| n as usize);
            n.ok_or_else(|| Error::model(format!("config.json: {key} is {}, expected a whole number", config[key])))
        };
        let position = config["position_embedding_type"].as_str().unwrap_or("absolute");
        if position != "absolute" {
            return Err(Error::model(format!(
                "config.json: position_embedding_type is {position:?}, \"absolute\" is supported"
            )));
        }
        Self {
            vocab: size("vocab_size")?,
            hidden: size("hidden_size")?,
            layers: size("num_hidden_layers")?,
            heads: size("num_attention_heads")?,
            intermediate: size("intermediate_size")?,
            positions: size("max_position_embeddings")?,
            types: size("type_vocab_size")?,
            eps: config["layer_norm_eps"].as_f64().unwrap_or(1e-12) as f32,
            activation: activation(config["hidden_act"].as_str().unwrap_or("gelu"))?,
        }
        .checked()
    }

    /// From the metadata of a GGUF file.
    pub fn from_gguf(file: &Gguf, weights: &Weights) -> Result<Self> {
        let key = |name: &str| format!("{ARCHITECTURE}.{name}");
        let size = |name: &str| {
            let n = file.integer(&key(name))?;
            n.map(|n| n as usize).ok_or_else(|| missing(&key(name)))
        };
        let first = |name: &str| Ok::<_, Error>(weights.shape(name)?.first().copied().unwrap_or(0));
        let eps = key("attention.layer_norm_epsilon");
        Self {
            vocab: first("token_embd.weight")?,
            hidden: size("embedding_length")?,
            layers: size("block_count")?,
            heads: size("attention.head_count")?,
            intermediate: size("feed_forward_length")?,
            positions: size("context_length")?,
            types: first("token_types.weight")?,
            eps: file.float(&eps)?.ok_or_else(|| missing(&eps))? as f32,
            activation: activation(file.string("tealight.hidden_act")?.unwrap_or("gelu"))?,
        }
        .checked()
    }

    fn checked(self) -> Result<Self> {
        let fail = |message: String| Err(Error::model(message));
        if self.heads == 0 || self.hidden == 0 || !self.hidden.is_multiple_of(self.heads) {
            return fail(format!("{} heads do not divide a hidden size of {}", self.heads, self.hidden));
        }
        if self.layers == 0 || self.layers > MAX_LAYERS {
            return fail(format!("the number of layers is {}, it must be 1 to {MAX_LAYERS}", self.layers));
        }
        let width = self.hidden / self.heads;
        if !width.is_multiple_of(HEAD_STEP) {
            return fail(format!("a head is {width} wide, it must be a multiple of {HEAD_STEP}"));
        }
        if self.positions == 0 || self.types == 0 || self.vocab == 0 || self.intermediate == 0 {
            return fail(format!("a size is 0 in {self:?}"));
        }
        Ok(self)
    }

    /// The metadata that describes it in a GGUF file.
    pub fn entries(&self) -> Vec<(String, Entry)> {
        let sizes = [
            ("block_count", self.layers),
            ("context_length", self.positions),
            ("embedding_length", self.hidden),
            ("feed_forward_length", self.intermediate),
            ("attention.head_count", self.heads),
        ];
        let mut entries: Vec<_> =
            sizes.into_iter().map(|(name, n)| (format!("{ARCHITECTURE}.{name}"), Entry::Uint(n as u32))).collect();
        entries.push((format!("{ARCHITECTURE}.attention.layer_norm_epsilon"), Entry::Float(self.eps)));
        entries.push((format!("{ARCHITECTURE}.attention.causal"), Entry::Bool(false)));
        let name = ACTIVATIONS.iter().find(|(_, a)| *a == self.activation).map_or("gelu", |(n, _)| n);
        entries.push(("tealight.hidden_act".into(), Entry::String(name.into())));
        entries
    }
}

/// Names in `config.json`; the first of equals is the one written.
const ACTIVATIONS: [(&str, Activation); 5] = [
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("relu", Activation::Relu),
];

fn activation(name: &str) -> Result<Activation> {
    let known = ACTIVATIONS.iter().find(|(n, _)| *n == name).map(|(_, a)| *a);
    known.ok_or_else(|| {
        let names: Vec<_> = ACTIVATIONS.iter().map(|(n, _)| *n).collect();
        Error::model(format!("hidden_act is {name:?}; supported are {}", names.join(", ")))
    })
}

/// Hugging Face's names of the tensors outside blocks, and ours.
const OUTSIDE: [(&str, &str); 4] = [
    ("embeddings.word_embeddings.weight", "token_embd.weight"),
    ("embeddings.position_embeddings.weight", "position_embd.weight"),
    ("embeddings.token_type_embeddings.weight", "token_types.weight"),
    ("embeddings.LayerNorm", "token_embd_norm"),
];

/// Hugging Face's names of a block's layers, and ours.
const INSIDE: [(&str, &str); 8] = [
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
    ("output.LayerNorm", "layer_output_norm"),
];

/// Our name for a tensor of a Hugging Face file; `None` for those that embedding does not need.
pub fn canonical(name: &str) -> Option<String> {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    // TensorFlow's names for the parameters of LayerNorm, in older files.
    let name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias");
    if let Some(rest) = name.strip_prefix("encoder.layer.") {
        let (index, rest) = rest.split_once('.')?;
        let (layer, kind) = rest.rsplit_once('.')?;
        let ours = INSIDE.iter().find(|(theirs, _)| *theirs == layer)?.1;
        return Some(format!("blk.{index}.{ours}.{kind}"));
    }
    OUTSIDE.iter().find_map(|(theirs, ours)| Some(format!("{ours}{}", name.strip_prefix(theirs)?)))
}

/// A model in memory, its large tensors still in the mapped file where that is in Q8_0.
#[derive(Debug)]
pub struct Bert {
    config: Config,
    tokens: Matrix,
    /// `[positions, D]`, with the one segment in use already added.
    positions: Vec<f32>,
    norm: LayerNorm,
    network: Network,
}

#[derive(Debug)]
enum Network {
    /// Operations on tensors, with matrices in Q8_0 or f32.
    Operations(Vec<Block>),
    /// Fused blocks in int8, with the memory of passes that are not under way.
    Fused(Vec<nn::Block>, Mutex<Vec<nn::Arena>>),
}

#[derive(Debug)]
struct Block {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    output_norm: LayerNorm,
}

impl Bert {
    /// Takes the tensors of a model of this configuration, packing what is not in Q8_0.
    pub fn new(cpu: &Cpu, config: Config, weights: &Weights) -> Result<Self> {
        let d = config.hidden;
        let segment = weights.floats("token_types.weight", &[config.types, d])?;
        let mut positions = weights.floats("position_embd.weight", &[config.positions, d])?;
        for row in positions.chunks_exact_mut(d) {
            row.iter_mut().zip(&segment[..d]).for_each(|(p, s)| *p += s);
        }
        Ok(Self {
            tokens: weights.matrix("token_embd.weight", config.vocab, d)?,
            positions,
            norm: norm(weights, "token_embd_norm", d, config.eps)?,
            network: Network::new(cpu, &config, weights)?,
            config,
        })
    }

    /// `[T, D]`: token, position and segment rows added and normalised.
    fn embed(&self, cpu: &Cpu, batch: &Batch) -> Result<Vec<f32>> {
        let d = self.config.hidden;
        let mut out = vec![0.0; batch.ids.len() * d];
        for text in batch.starts.windows(2) {
            let own = &mut out[text[0] * d..text[1] * d];
            let ids = &batch.ids[text[0]..text[1]];
            for ((id, row), position) in ids.iter().zip(own.chunks_exact_mut(d)).zip(self.positions.chunks_exact(d)) {
                self.tokens.row(*id as usize, row)?;
                row.iter_mut().zip(position).for_each(|(v, p)| *v += p);
            }
        }
        self.norm.apply(cpu.isa, &mut out);
        Ok(out)
    }
}

fn norm(weights: &Weights, name: &str, d: usize, eps: f32) -> Result<LayerNorm> {
    Ok(LayerNorm {
        weight: weights.floats(&format!("{name}.weight"), &[d])?,
        bias: weights.floats(&format!("{name}.bias"), &[d])?,
        eps,
    })
}

impl Network {
    fn new(cpu: &Cpu, config: &Config, weights: &Weights) -> Result<Self> {
        let indices: Vec<_> = (0..config.layers).collect();
        if weights.precision() == Precision::Int8 {
            let blocks = cpu.map(&indices, |i| fused_block(*i, config, weights));
            return Ok(Network::Fused(blocks.into_iter().collect::<Result<_>>()?, Mutex::default()));
        }
        let blocks = cpu.map(&indices, |i| Block::new(*i, config, weights));
        Ok(Network::Operations(blocks.into_iter().collect::<Result<_>>()?))
    }
}

/// A block with its matrices packed in int8, from whatever the file has.
fn fused_block(index: usize, config: &Config, weights: &Weights) -> Result<nn::Block> {
    let (d, inner) = (config.hidden, config.intermediate);
    if config.activation != Activation::Gelu {
        return Err(Error::model("models with another activation than gelu do not run in int8"));
    }
    let packed = |names: &[&str], n: usize, k: usize| {
        let (mut matrix, mut bias) = (vec![], vec![]);
        for name in names {
            matrix.extend(weights.floats(&format!("blk.{index}.{name}.weight"), &[n, k])?);
            bias.extend(weights.floats(&format!("blk.{index}.{name}.bias"), &[n])?);
        }
        Packed::of(&matrix, &bias, &vec![1.0; k])
    };
    let norm = |name: &str| norm(weights, &format!("blk.{index}.{name}"), d, config.eps);
    Ok(nn::Block {
        qkv: packed(&["attn_q", "attn_k", "attn_v"], d, d)?,
        output: packed(&["attn_output"], d, d)?,
        attention_norm: norm("attn_output_norm")?,
        up: packed(&["ffn_up"], inner, d)?,
        down: packed(&["ffn_down"], d, inner)?,
        output_norm: norm("layer_output_norm")?,
    })
}

impl Block {
    fn new(index: usize, config: &Config, weights: &Weights) -> Result<Self> {
        let (d, inner) = (config.hidden, config.intermediate);
        let linear = |name: &str, n: usize, k: usize| {
            let name = format!("blk.{index}.{name}");
            let weight = weights.matrix(&format!("{name}.weight"), n, k)?;
            Linear::new(weight, weights.floats(&format!("{name}.bias"), &[n])?)
        };
        let norm = |name: &str| norm(weights, &format!("blk.{index}.{name}"), d, config.eps);
        Ok(Self {
            query: linear("attn_q", d, d)?,
            key: linear("attn_k", d, d)?,
            value: linear("attn_v", d, d)?,
            output: linear("attn_output", d, d)?,
            attention_norm: norm("attn_output_norm")?,
            up: linear("ffn_up", inner, d)?,
            down: linear("ffn_down", d, inner)?,
            output_norm: norm("layer_output_norm")?,
        })
    }

    fn forward(&self, cpu: &Cpu, x: &Tensor, starts: &[usize], config: &Config) -> Result<Tensor> {
        let linear = |layer: &Linear, x: &Tensor| layer.forward(cpu, x, Activation::Identity);
        let (q, k, v) = (linear(&self.query, x)?, linear(&self.key, x)?, linear(&self.value, x)?);
        let attended = attention(cpu, &q, &k, &v, starts, config.heads)?;
        let x = self.attention_norm.forward_residual(cpu, &linear(&self.output, &attended)?, x)?;
        let inner = self.up.forward(cpu, &x, config.activation)?;
        self.output_norm.forward_residual(cpu, &linear(&self.down, &inner)?, &x)
    }
}

impl Encoder for Bert {
    fn dimension(&self) -> usize {
        self.config.hidden
    }

    fn max_tokens(&self) -> usize {
        self.config.positions
    }

    fn vocabulary(&self) -> usize {
        self.tokens.rows()
    }

    fn operations(&self, tokens: usize) -> u64 {
        let Config { hidden: d, intermediate, layers, .. } = self.config;
        // Four projections and two of the feed-forward network a token; scores and their sum a pair of tokens.
        let products = tokens * (4 * d * d + 2 * d * intermediate) + 2 * tokens * tokens * d;
        2 * (layers * products) as u64
    }

    fn encode(&self, cpu: &Cpu, batch: &Batch) -> Result<Tensor> {
        let mut x = self.embed(cpu, batch)?;
        match &self.network {
            Network::Fused(blocks, arenas) => {
                let arenas = || arenas.lock().unwrap_or_else(PoisonError::into_inner);
                let mut arena = arenas().pop().unwrap_or_default();
                nn::encode(cpu, blocks, self.config.heads, &mut x, &batch.starts, &mut arena);
                arenas().push(arena);
                rows(x, self.config.hidden)
            }
            Network::Operations(blocks) => {
                let mut x = rows(x, self.config.hidden)?;
                for block in blocks {
                    x = block.forward(cpu, &x, &batch.starts, &self.config)?;
                }
                Ok(x)
            }
        }
    }
}

/// The tensors of a model for a packed file, in the order in which they are used.
pub fn tensors(config: &Config, weights: &Weights) -> Result<Vec<(String, TensorData)>> {
    let (d, inner) = (config.hidden, config.intermediate);
    let mut tensors = vec![];
    let mut add = |(name, tensor): (String, Result<TensorData>)| -> Result<()> {
        tensors.push((name, tensor?));
        Ok(())
    };
    let floats = |name: &str, shape: &[usize]| (name.to_string(), weights.packed_floats(name, shape));
    let matrix = |name: &str, n: usize, k: usize| (name.to_string(), weights.packed_matrix(name, n, k));
    add(matrix("token_embd.weight", config.vocab, d))?;
    add(floats("position_embd.weight", &[config.positions, d]))?;
    add(floats("token_types.weight", &[config.types, d]))?;
    add(floats("token_embd_norm.weight", &[d]))?;
    add(floats("token_embd_norm.bias", &[d]))?;
    for i in 0..config.layers {
        for (_, name) in INSIDE {
            let (n, k) = match name {
                "ffn_up" => (inner, d),
                "ffn_down" => (d, inner),
                _ => (d, d),
            };
            let (weight, bias) = (format!("blk.{i}.{name}.weight"), format!("blk.{i}.{name}.bias"));
            add(if name.ends_with("norm") { floats(&weight, &[d]) } else { matrix(&weight, n, k) })?;
            add(floats(&bias, &[n]))?;
        }
    }
    Ok(tensors)
}
