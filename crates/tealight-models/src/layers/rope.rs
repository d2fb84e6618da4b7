//! Rotary position embeddings (RoPE; Su et al. 2021, arXiv 2104.09864): pairs of values of queries and keys are rotated by an
//! angle proportional to the position.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::f64::consts::TAU;
use std::ops::Range;
use tealight_core::{Error, Result};

/// Which values of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pairing {
    /// Values 0 and 1, 2 and 3, …: the weights of GGUF and llama2.c files.
    #[serde(rename = "Neighbours")]
    Interleaved,
    /// Value `i` of the first half and value `i` of the second half: Hugging Face's weights.
    #[serde(rename = "Halves")]
    Half,
}

/// Parameters of RoPE. Packed files store them as JSON, with the keys given here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// Which values are rotated together.
    #[serde(rename = "pairs")]
    pub pairing: Pairing,
    /// Number of values of a head that are rotated: the first ones.
    #[serde(rename = "width")]
    pub rotary_dim: usize,
    /// Pair `i` is rotated by `rope_theta^(-2 i / rotary_dim)` radians per position.
    #[serde(rename = "base")]
    pub rope_theta: f64,
    /// Positions are divided by this factor.
    #[serde(rename = "linear")]
    pub linear_scale: f64,
    /// One divisor per pair for its frequency, or empty: Llama 3.1's scaling, `rope_freqs` in GGUF.
    #[serde(rename = "divisors")]
    pub freq_factors: Vec<f32>,
}

impl Rope {
    /// Reads `rope_scaling` or `rope_parameters` of Hugging Face's `config.json`.
    pub(crate) fn from_json(json: &Value, rotary_dim: usize, rope_theta: f64) -> Result<Self> {
        let rope_type = json["rope_type"].as_str().or_else(|| json["type"].as_str()).unwrap_or("default");
        let mut this = Self { pairing: Pairing::Half, rotary_dim, rope_theta, linear_scale: 1.0, freq_factors: vec![] };
        let number = |key: &str| {
            let value = json[key].as_f64();
            value.ok_or_else(|| Error::invalid_model(format!("config.json: rope_scaling has no {key}")))
        };
        match rope_type {
            "default" => {}
            "linear" => this.linear_scale = number("factor")?,
            "llama3" => {
                let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
                let (factor, original) = (number("factor")?, number("original_max_position_embeddings")?);
                this.freq_factors =
                    (0..rotary_dim / 2).map(|i| this.llama3_factor(i, factor, low, high, original)).collect();
            }
            other => {
                return Err(Error::invalid_model(format!(
                    "config.json: rope_type {other:?} is not supported; expected default, linear or llama3"
                )));
            }
        }
        Ok(this)
    }

    /// Llama 3.1's divisor of a frequency: low frequencies are divided by `factor`, high ones stay, and in between the divisor
    /// changes smoothly (transformers, `modeling_rope_utils.py`).
    fn llama3_factor(&self, pair: usize, factor: f64, low: f64, high: f64, original_context: f64) -> f32 {
        let rotations = original_context * self.frequency(pair) / TAU;
        let divisor = if rotations < low {
            factor
        } else if rotations > high {
            1.0
        } else {
            let smooth = (rotations - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        };
        divisor as f32
    }

    /// Checks that the rotation fits heads of `head_dim` values.
    ///
    /// # Errors
    /// The number and its value.
    pub(crate) fn validate(&self, head_dim: usize) -> Result<()> {
        let Self { rotary_dim, freq_factors, .. } = self;
        if *rotary_dim == 0 || !rotary_dim.is_multiple_of(2) || *rotary_dim > head_dim {
            return Err(Error::invalid_model(format!(
                "RoPE rotates {rotary_dim} values of a head; expected an even number from 2 to head_dim, {head_dim}"
            )));
        }
        if !freq_factors.is_empty() && freq_factors.len() != rotary_dim / 2 {
            return Err(Error::invalid_model(format!(
                "there are {} RoPE frequency factors; expected {}",
                freq_factors.len(),
                rotary_dim / 2
            )));
        }
        let numbers = [("rope_theta", self.rope_theta), ("RoPE scaling factor", self.linear_scale)];
        let factors = freq_factors.iter().map(|f| ("RoPE frequency factor", *f as f64));
        match numbers.into_iter().chain(factors).find(|(_, v)| !(v.is_finite() && *v > 0.0)) {
            Some((name, value)) => {
                Err(Error::invalid_model(format!("{name} is {value}; expected a finite number above 0")))
            }
            None => Ok(()),
        }
    }

    fn frequency(&self, pair: usize) -> f64 {
        self.rope_theta.powf(-2.0 * pair as f64 / self.rotary_dim as f64)
    }

    /// Writes the cosine and sine of each pair's angle: `[positions, rotary_dim / 2]`.
    pub(crate) fn cos_sin(&self, positions: Range<usize>, out: &mut Vec<(f32, f32)>) {
        out.clear();
        let divisor = |pair: usize| self.linear_scale * self.freq_factors.get(pair).copied().unwrap_or(1.0) as f64;
        let rates: Vec<f64> = (0..self.rotary_dim / 2).map(|pair| self.frequency(pair) / divisor(pair)).collect();
        for position in positions {
            out.extend(rates.iter().map(|rate| {
                let (sin, cos) = (position as f64 * rate).sin_cos();
                (cos as f32, sin as f32)
            }));
        }
    }

    /// Rotates heads of `head_dim` values in place; `cos_sin` holds the angles of their position.
    pub(crate) fn apply(&self, heads: &mut [f32], head_dim: usize, cos_sin: &[(f32, f32)]) {
        for head in heads.chunks_exact_mut(head_dim) {
            let head = &mut head[..self.rotary_dim];
            match self.pairing {
                Pairing::Interleaved => {
                    for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(cos_sin) {
                        (pair[0], pair[1]) = rotate(pair[0], pair[1], *cos, *sin);
                    }
                }
                Pairing::Half => {
                    let (first, second) = head.split_at_mut(self.rotary_dim / 2);
                    for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos_sin) {
                        (*a, *b) = rotate(*a, *b, *cos, *sin);
                    }
                }
            }
        }
    }
}

fn rotate(a: f32, b: f32, cos: f32, sin: f32) -> (f32, f32) {
    (a * cos - b * sin, a * sin + b * cos)
}
