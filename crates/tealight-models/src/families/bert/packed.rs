//! A packed BERT: which channels are evened out, and the tensors of the file in the order of use.
//!
//! Input channel `k` of a product is divided by `s_k = sqrt(max |x_k| / max |W_k|)`, the largest over calibration texts and
//! over outputs (SmoothQuant, Xiao et al. 2022, arXiv 2211.10438, with alpha 1/2): then activations and weights are equally
//! hard to quantise.

use super::{Bert, Config, Network, Site};
use crate::Batch;
use crate::formats::embedding_table::Table;
use crate::formats::gguf::{Dtype, TensorData};
use crate::formats::weights::{Weights, packed_name};
use crate::int8::with_values;
use candle_core::Tensor;
use tealight_core::{Error, Result};
use tealight_kernels::CpuContext;
use tealight_kernels::int8::PackedRhs;

/// Smaller magnitudes count as this: a channel without values or without weights.
const SMALLEST: f32 = 1e-5;

/// The largest magnitude of each input channel, by block and site.
#[derive(Debug)]
pub struct Ranges(Vec<[Vec<f32>; 4]>);

impl Site {
    /// Values along K that share a scale in a packed file.
    ///
    /// Attended values differ little between channels; one scale for all of 384 loses nothing there.
    fn group(self) -> usize {
        match self {
            Site::Output => 384,
            Site::Qkv | Site::Up | Site::Down => 192,
        }
    }
}

impl Bert {
    /// Runs batches of texts through the network, which must be in f32.
    ///
    /// # Errors
    /// The network is not in f32, or has values that are not finite.
    pub fn ranges(&self, cpu: &CpuContext, batches: &[Batch]) -> Result<Ranges> {
        let Network::Operations(blocks) = &self.network else {
            return Err(Error::internal("ranges of a network that is not in f32"));
        };
        let sites = || Site::ALL.map(|site| vec![SMALLEST; site.shape(&self.config).1]);
        let mut ranges: Vec<_> = blocks.iter().map(|_| sites()).collect();
        let mut observe = |block: usize, site: Site, x: &Tensor| {
            let range = &mut ranges[block][site as usize];
            with_values(x, |x| {
                for row in x.chunks_exact(range.len()) {
                    // A NaN would be lost here, and is infinity's equal.
                    let magnitude = |v: &f32| if v.is_nan() { f32::INFINITY } else { v.abs() };
                    range.iter_mut().zip(row).for_each(|(r, v)| *r = r.max(magnitude(v)));
                }
                Ok(())
            })
        };
        for batch in batches {
            self.operate(cpu, blocks, batch, &mut observe)?;
        }
        if ranges.iter().flatten().flatten().any(|r| !r.is_finite()) {
            return Err(Error::invalid_model("a value of the network is not finite: its weights are damaged"));
        }
        Ok(Ranges(ranges))
    }
}

/// What input channels are divided by, `[K]`: `range [K]` evened out with `weights [N, K]`.
pub fn smoothing(range: &[f32], weights: &[f32]) -> Vec<f32> {
    let mut largest = vec![SMALLEST; range.len()];
    for row in weights.chunks_exact(range.len()) {
        largest.iter_mut().zip(row).for_each(|(l, w)| *l = l.max(w.abs()));
    }
    range.iter().zip(largest).map(|(r, w)| (r / w).sqrt()).collect()
}

/// The tensors of a model for a packed file, in the order in which they are used.
pub fn tensors(config: &Config, weights: &Weights, ranges: &Ranges) -> Result<Vec<(String, TensorData)>> {
    let d = config.hidden;
    let mut tensors = vec![];
    let mut add = |name: &str, tensor: TensorData| tensors.push((name.to_string(), tensor));
    let floats = |name: &str, shape: &[usize]| weights.packed_floats(name, shape);
    let table = Table::pack(&weights.floats("token_embd.weight", &[config.vocab, d])?, d);
    let shape = vec![config.vocab, table.len() / config.vocab];
    add(&packed_name("token_embd.weight"), TensorData { shape, dtype: Dtype::I8, data: table.into() });
    add("position_embd.weight", floats("position_embd.weight", &[config.positions, d])?);
    add("token_types.weight", floats("token_types.weight", &[config.types, d])?);
    let norm = |name: &str| {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        Ok::<_, Error>([(weight.clone(), floats(&weight, &[d])?), (bias.clone(), floats(&bias, &[d])?)])
    };
    norm("token_embd_norm")?.into_iter().for_each(|(name, tensor)| add(&name, tensor));
    for (i, ranges) in ranges.0.iter().enumerate() {
        for site in Site::ALL {
            let (matrix, bias) = site.floats(i, config, weights)?;
            let packed = PackedRhs::pack(&matrix, &bias, &smoothing(&ranges[site as usize], &matrix), site.group())?;
            add(&packed_name(&site.tensor(i)), TensorData::bytes(packed.bytes().clone()));
            let following = match site {
                Site::Output => norm(&format!("blk.{i}.attn_output_norm"))?,
                Site::Down => norm(&format!("blk.{i}.layer_output_norm"))?,
                Site::Qkv | Site::Up => continue,
            };
            following.into_iter().for_each(|(name, tensor)| add(&name, tensor));
        }
    }
    Ok(tensors)
}
