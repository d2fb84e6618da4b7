//! Rotary positions (Su et al. 2021, arXiv 2104.09864): pairs of values of queries and keys turn by the position.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::f64::consts::TAU;
use tealight_core::{Error, Result};

/// Which values turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pairs {
    /// 0 and 1, 2 and 3: llama.cpp's and llama2.c's files.
    Neighbours,
    /// Of the first half and the second: Hugging Face's.
    Halves,
}

/// How positions turn a head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// Which values turn together.
    pub pairs: Pairs,
    /// Values of a head that turn; those behind them do not.
    pub width: usize,
    /// Pair `i` turns by `base^(-2 i / width)` a position.
    pub base: f64,
    /// Positions are divided by this.
    pub linear: f64,
    /// Each pair's frequency is divided by its own, if there are any: Llama 3.1's, `rope_freqs` in GGUF.
    pub divisors: Vec<f32>,
}

impl Rope {
    /// From `rope_scaling` of Hugging Face's `config.json`.
    pub(super) fn from_json(json: &Value, width: usize, base: f64) -> Result<Self> {
        let kind = json["rope_type"].as_str().or_else(|| json["type"].as_str()).unwrap_or("default");
        let mut this = Self { pairs: Pairs::Halves, width, base, linear: 1.0, divisors: vec![] };
        let number = |key: &str| {
            json[key].as_f64().ok_or_else(|| Error::invalid_model(format!("config.json: rope_scaling has no {key}")))
        };
        match kind {
            "default" => {}
            "linear" => this.linear = number("factor")?,
            "llama3" => {
                let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
                let (factor, original) = (number("factor")?, number("original_max_position_embeddings")?);
                this.divisors = (0..width / 2).map(|i| this.llama3(i, factor, low, high, original)).collect();
            }
            other => {
                return Err(Error::invalid_model(format!("rope_scaling of the type {other:?} is not computed here")));
            }
        }
        Ok(this)
    }

    /// Llama 3.1's divisor of a pair: long waves are stretched by `factor`, short ones stay, between them it changes smoothly
    /// (transformers, `modeling_rope_utils.py`).
    fn llama3(&self, pair: usize, factor: f64, low: f64, high: f64, original: f64) -> f32 {
        let turns = original * self.frequency(pair) / TAU;
        let divisor = match turns {
            t if t < low => factor,
            t if t > high => 1.0,
            t => {
                let smooth = (t - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        };
        divisor as f32
    }

    fn frequency(&self, pair: usize) -> f64 {
        self.base.powf(-2.0 * pair as f64 / self.width as f64)
    }

    /// Cosine and sine of each pair at some positions: `[positions, width / 2]`.
    pub(super) fn turns(&self, positions: std::ops::Range<usize>, out: &mut Vec<(f32, f32)>) {
        out.clear();
        let divisor = |pair: usize| self.linear * self.divisors.get(pair).copied().unwrap_or(1.0) as f64;
        let rates: Vec<f64> = (0..self.width / 2).map(|pair| self.frequency(pair) / divisor(pair)).collect();
        for position in positions {
            out.extend(rates.iter().map(|rate| {
                let (sin, cos) = (position as f64 * rate).sin_cos();
                (cos as f32, sin as f32)
            }));
        }
    }

    /// Turns heads of `head` values each, in place, by a position's turns.
    pub(super) fn turn(&self, heads: &mut [f32], head: usize, turns: &[(f32, f32)]) {
        for head in heads.chunks_exact_mut(head) {
            let head = &mut head[..self.width];
            match self.pairs {
                Pairs::Neighbours => {
                    for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(turns) {
                        (pair[0], pair[1]) = rotated(pair[0], pair[1], *cos, *sin);
                    }
                }
                Pairs::Halves => {
                    let (low, high) = head.split_at_mut(self.width / 2);
                    for ((a, b), (cos, sin)) in low.iter_mut().zip(high).zip(turns) {
                        (*a, *b) = rotated(*a, *b, *cos, *sin);
                    }
                }
            }
        }
    }
}

fn rotated(a: f32, b: f32, cos: f32, sin: f32) -> (f32, f32) {
    (a * cos - b * sin, a * sin + b * cos)
}
