//! BERT (Devlin et al. 2018, arXiv 1810.04805): MiniLM, BGE, E5 and GTE are of this shape.
//!
//! Tensors go by llama.cpp's names for them; the names of Hugging Face are translated when a folder is opened.

mod config;
mod packed;

pub use config::Config;
pub use packed::{smoothing, tensors};

use crate::formats::embedding_table::Table;
use crate::formats::weights::{Precision, Weights};
use crate::int8::{self, Activation, LayerNorm, Linear, attention, rows};
use crate::{Batch, Encoder};
use candle_core::Tensor;
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;
use tealight_kernels::int8::PackedRhs;
use tealight_kernels::rowwise;

/// llama.cpp's name of this architecture.
pub const ARCHITECTURE: &str = "bert";

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

/// A matrix product of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// Query, key and value, joined.
    Qkv,
    /// From attended values to the residual.
    Output,
    /// Into the feed-forward network.
    Up,
    /// Out of it.
    Down,
}

/// Values along K that share a scale in a model that is packed when it loads: few, since nothing evens out its channels.
const LOAD_GROUP: usize = 64;

impl Site {
    /// In the order of use.
    pub const ALL: [Site; 4] = [Site::Qkv, Site::Output, Site::Up, Site::Down];

    /// Its name in a packed file.
    fn name(self) -> &'static str {
        match self {
            Site::Qkv => "attn_qkv",
            Site::Output => "attn_output",
            Site::Up => "ffn_up",
            Site::Down => "ffn_down",
        }
    }

    /// The tensors that it joins.
    fn parts(self) -> &'static [&'static str] {
        match self {
            Site::Qkv => &["attn_q", "attn_k", "attn_v"],
            Site::Output => &["attn_output"],
            Site::Up => &["ffn_up"],
            Site::Down => &["ffn_down"],
        }
    }

    /// N of a part, and K.
    fn shape(self, config: &Config) -> (usize, usize) {
        match self {
            Site::Qkv | Site::Output => (config.hidden, config.hidden),
            Site::Up => (config.intermediate, config.hidden),
            Site::Down => (config.hidden, config.intermediate),
        }
    }

    /// Weights `[N, K]` and bias `[N]` of block `index`, as the file has them.
    fn floats(self, index: usize, config: &Config, weights: &Weights) -> Result<(Vec<f32>, Vec<f32>)> {
        if weights.packed(&self.tensor(index)).is_some() {
            return Ok(self.packed(index, config, weights)?.dequantize());
        }
        let (n, k) = self.shape(config);
        let (mut matrix, mut bias) = (vec![], vec![]);
        for part in self.parts() {
            matrix.extend(weights.floats(&format!("blk.{index}.{part}.weight"), &[n, k])?);
            bias.extend(weights.floats(&format!("blk.{index}.{part}.bias"), &[n])?);
        }
        Ok((matrix, bias))
    }

    /// The matrix of block `index` in int8: the file's own bytes where it is packed, else packed here.
    fn packed(self, index: usize, config: &Config, weights: &Weights) -> Result<PackedRhs> {
        let (n, k) = self.shape(config);
        match weights.packed(&self.tensor(index)) {
            Some(bytes) => PackedRhs::from_bytes(bytes.clone(), self.parts().len() * n, k)
                .map_err(|e| Error::from(e).with_context(format_args!("tensor {:?}", self.tensor(index)))),
            None => {
                let (matrix, bias) = self.floats(index, config, weights)?;
                Ok(PackedRhs::pack(&matrix, &bias, &vec![1.0; k], LOAD_GROUP)?)
            }
        }
    }

    fn tensor(self, index: usize) -> String {
        format!("blk.{index}.{}", self.name())
    }
}

/// A model in memory, its large tensors still in the mapped file where that is packed.
#[derive(Debug)]
pub struct Bert {
    config: Config,
    tokens: Table,
    positions: Table,
    /// `[D]`: of the one segment in use.
    segment: Vec<f32>,
    norm: LayerNorm,
    network: Network,
}

#[derive(Debug)]
enum Network {
    /// Operations on tensors, in f32.
    Operations(Vec<Block>),
    /// Whole blocks in int8.
    Fused(Vec<int8::Block>, int8::Arenas),
}

#[derive(Debug)]
struct Block {
    qkv: [Linear; 3],
    output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    output_norm: LayerNorm,
}

impl Bert {
    /// Takes the tensors of a model of this configuration, packing those that are not packed in the file.
    pub fn new(cpu: &CpuContext, config: Config, weights: &Weights) -> Result<Self> {
        let d = config.hidden;
        let mut segment = weights.floats("token_types.weight", &[config.types, d])?;
        segment.truncate(d);
        Ok(Self {
            tokens: weights.table("token_embd.weight", config.vocab, d)?,
            positions: weights.table("position_embd.weight", config.positions, d)?,
            segment,
            norm: norm(weights, "token_embd_norm", d, config.eps)?,
            network: Network::new(cpu, &config, weights)?,
            config,
        })
    }

    /// `[T, D]`: token, position and segment rows added and normalised.
    fn embed(&self, cpu: &CpuContext, batch: &Batch) -> Result<Vec<f32>> {
        let d = self.config.hidden;
        let (mut out, mut position) = (vec![0.0; batch.ids.len() * d], vec![0.0; d]);
        for text in batch.starts.windows(2) {
            let own = out[text[0] * d..text[1] * d].chunks_exact_mut(d);
            for (i, (row, id)) in own.zip(&batch.ids[text[0]..text[1]]).enumerate() {
                self.tokens.row(*id as usize, row)?;
                self.positions.row(i, &mut position)?;
                rowwise::add(&mut position, &self.segment);
                rowwise::add(row, &position);
            }
        }
        self.norm.apply(cpu.isa, &mut out);
        Ok(out)
    }

    /// `encode` in f32, which shows `observe` the input of each product of each block.
    fn operate(
        &self,
        cpu: &CpuContext,
        blocks: &[Block],
        batch: &Batch,
        observe: &mut dyn FnMut(usize, Site, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let mut x = rows(self.embed(cpu, batch)?, self.config.hidden)?;
        for (i, block) in blocks.iter().enumerate() {
            x = block.forward(cpu, &x, &batch.starts, &self.config, &mut |site, x| observe(i, site, x))?;
        }
        Ok(x)
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
    fn new(cpu: &CpuContext, config: &Config, weights: &Weights) -> Result<Self> {
        let indices: Vec<_> = (0..config.layers).collect();
        let fits = PackedRhs::can_pack(config.hidden) && PackedRhs::can_pack(config.intermediate);
        if !fits && weights.precision() == Precision::Int8 {
            let (d, inner) = (config.hidden, config.intermediate);
            tracing::warn!("rows of {d} and {inner} values are no multiples of 16: the model runs in f32, and slowly");
        }
        if !fits || weights.precision() == Precision::F32 {
            let blocks = cpu.par_map(&indices, |i| Block::new(*i, config, weights));
            return Ok(Network::Operations(blocks.into_iter().collect::<Result<_>>()?));
        }
        // What is packed in the file is only looked at.
        let packed = weights.packed(&Site::Qkv.tensor(0)).is_some();
        let cpu = if packed { &cpu.single_threaded() } else { cpu };
        let blocks = cpu.par_map(&indices, |i| fused_block(*i, config, weights));
        Ok(Network::Fused(blocks.into_iter().collect::<Result<_>>()?, int8::Arenas::default()))
    }
}

fn fused_block(index: usize, config: &Config, weights: &Weights) -> Result<int8::Block> {
    let packed = |site: Site| site.packed(index, config, weights);
    let norm = |name: &str| norm(weights, &format!("blk.{index}.{name}"), config.hidden, config.eps);
    Ok(int8::Block {
        norms: int8::Norms::After,
        qkv: packed(Site::Qkv)?,
        output: packed(Site::Output)?,
        attention_norm: norm("attn_output_norm")?,
        up: packed(Site::Up)?,
        activation: config.activation,
        down: packed(Site::Down)?,
        output_norm: norm("layer_output_norm")?,
    })
}

impl Block {
    fn new(index: usize, config: &Config, weights: &Weights) -> Result<Self> {
        let d = config.hidden;
        let linear = |site: Site| {
            let (weight, bias) = site.floats(index, config, weights)?;
            Linear::new(weight, bias)
        };
        let (qkv, bias) = Site::Qkv.floats(index, config, weights)?;
        let part = |i: usize| Linear::new(qkv[i * d * d..(i + 1) * d * d].to_vec(), bias[i * d..(i + 1) * d].to_vec());
        let norm = |name: &str| norm(weights, &format!("blk.{index}.{name}"), d, config.eps);
        Ok(Self {
            qkv: [part(0)?, part(1)?, part(2)?],
            output: linear(Site::Output)?,
            attention_norm: norm("attn_output_norm")?,
            up: linear(Site::Up)?,
            down: linear(Site::Down)?,
            output_norm: norm("layer_output_norm")?,
        })
    }

    fn forward(
        &self,
        cpu: &CpuContext,
        x: &Tensor,
        starts: &[usize],
        config: &Config,
        observe: &mut dyn FnMut(Site, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let linear = |layer: &Linear, x: &Tensor| layer.forward(cpu, x, Activation::Identity);
        observe(Site::Qkv, x)?;
        let [q, k, v] = &self.qkv;
        let attended = attention(cpu, &linear(q, x)?, &linear(k, x)?, &linear(v, x)?, starts, config.heads)?;
        observe(Site::Output, &attended)?;
        let x = self.attention_norm.forward_residual(cpu, &linear(&self.output, &attended)?, x)?;
        observe(Site::Up, &x)?;
        let inner = self.up.forward(cpu, &x, config.activation)?;
        observe(Site::Down, &inner)?;
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

    fn encode(&self, cpu: &CpuContext, batch: &Batch) -> Result<Tensor> {
        match &self.network {
            Network::Fused(blocks, arenas) => {
                let mut x = self.embed(cpu, batch)?;
                int8::encode(cpu, blocks, self.config.heads, &mut x, &batch.starts, arenas);
                rows(x, self.config.hidden)
            }
            Network::Operations(blocks) => self.operate(cpu, blocks, batch, &mut |_, _, _| Ok(())),
        }
    }
}
