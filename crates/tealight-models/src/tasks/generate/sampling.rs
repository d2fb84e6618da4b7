//! Which token comes next.

use std::collections::HashMap;
use tealight_core::random;
use tealight_core::{Error, Result};
use tealight_kernels::{Isa, rowwise};

/// How tokens are chosen. Steps come in this order: biases, what a schema allows, penalties, temperature, `top_k`, `top_p`, `min_p`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest.
    pub temperature: f32,
    /// So many of the likeliest; 0 takes all.
    pub top_k: usize,
    /// The likeliest whose probabilities add up to this (Holtzman et al. 2019, arXiv 1904.09751); 1 takes all.
    pub top_p: f32,
    /// Those that are at least so likely, as a part of the likeliest (Nguyen et al. 2024, arXiv 2407.01082); 0 takes all.
    pub min_p: f32,
    /// Logits of tokens that were there are divided by it, or multiplied below 0 (Keskar et al. 2019, arXiv 1909.05858).
    pub repetition: f32,
    /// Taken from logits of tokens that were written.
    pub presence: f32,
    /// The same for each time that they were written.
    pub frequency: f32,
    /// Added to logits of some tokens.
    pub bias: Vec<(u32, f32)>,
    /// What draws begin from: the same draws the same.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition: 1.0,
            presence: 0.0,
            frequency: 0.0,
            bias: vec![],
            seed: 0,
        }
    }
}

impl Sampling {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// Names the field, the value and the range.
    pub fn check(&self, vocabulary: usize) -> Result<()> {
        let within = |name: &str, value: f32, low: f32, high: f32| match value {
            v if (low..=high).contains(&v) => Ok(()),
            v => Err(Error::invalid_value(name, format!("{name} is {v}, it must be from {low} to {high}"))),
        };
        within("temperature", self.temperature, 0.0, 2.0)?;
        within("top_p", self.top_p, 0.0, 1.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        within("presence_penalty", self.presence, -2.0, 2.0)?;
        within("frequency_penalty", self.frequency, -2.0, 2.0)?;
        within("repetition_penalty", self.repetition, 0.01, 100.0)?;
        for (id, bias) in &self.bias {
            within("logit_bias", *bias, -100.0, 100.0)?;
            if *id as usize >= vocabulary {
                return Err(Error::invalid_value(
                    "logit_bias",
                    format!("logit_bias has the token {id}, the model has {vocabulary}"),
                ));
            }
        }
        Ok(())
    }
}

/// Chooses the tokens of one text.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    state: u64,
    /// Of what was written, how often; of what was read, 0.
    seen: HashMap<u32, u32>,
    order: Vec<(f32, u32)>,
}

impl Sampler {
    /// For a text that begins with `prompt`.
    pub fn new(sampling: Sampling, prompt: &[u32]) -> Self {
        let seen = prompt.iter().map(|id| (*id, 0)).collect();
        Self { state: sampling.seed, sampling, seen, order: vec![] }
    }

    /// The next token; `logits` are changed on the way, `allowed` tells what may come.
    ///
    /// # Errors
    /// Nothing may come.
    pub fn choose(&mut self, isa: Isa, logits: &mut [f32], allowed: Option<&dyn Fn(u32) -> bool>) -> Result<u32> {
        for (id, bias) in &self.sampling.bias {
            logits[*id as usize] += bias;
        }
        if let Some(allowed) = allowed {
            let forbidden = logits.iter_mut().enumerate().filter(|(id, _)| !allowed(*id as u32));
            forbidden.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
        }
        self.penalise(logits);
        let best = best(logits).ok_or_else(|| Error::internal("no token may come next"))?;
        let id = if self.sampling.temperature == 0.0 { best } else { self.draw(isa, logits, best) };
        *self.seen.entry(id).or_default() += 1;
        Ok(id)
    }

    fn penalise(&self, logits: &mut [f32]) {
        let Sampling { repetition, presence, frequency, .. } = self.sampling;
        if repetition == 1.0 && presence == 0.0 && frequency == 0.0 {
            return;
        }
        for (id, count) in &self.seen {
            let Some(logit) = logits.get_mut(*id as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
            if *count > 0 {
                *logit -= presence + frequency * *count as f32;
            }
        }
    }

    fn draw(&mut self, isa: Isa, logits: &mut [f32], best: u32) -> u32 {
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        logits.iter_mut().for_each(|logit| *logit /= temperature);
        rowwise::softmax(isa, logits);
        let least = min_p * logits[best as usize];
        let kept = logits.iter().enumerate().filter(|(_, p)| **p > 0.0 && **p >= least);
        self.order.clear();
        self.order.extend(kept.map(|(id, p)| (*p, id as u32)));
        let likelier = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if (1..self.order.len()).contains(&top_k) {
            self.order.select_nth_unstable_by(top_k, likelier);
            self.order.truncate(top_k);
        }
        if top_p < 1.0 {
            self.order.sort_unstable_by(likelier);
            let total: f32 = self.order.iter().map(|(p, _)| p).sum();
            let mut sum = 0.0;
            let enough = self.order.iter().position(|(p, _)| {
                sum += p;
                sum >= top_p * total
            });
            self.order.truncate(enough.map_or(self.order.len(), |at| at + 1));
        }
        let total: f32 = self.order.iter().map(|(p, _)| p).sum();
        let mut left = random(&mut self.state) * total;
        for (p, id) in &self.order {
            left -= p;
            if left < 0.0 {
                return *id;
            }
        }
        self.order.last().map_or(best, |(_, id)| *id)
    }
}

/// The likeliest, of equals the first; `None` where all are impossible.
pub fn best(logits: &[f32]) -> Option<u32> {
    let better = |best: (Option<u32>, f32), (id, v): (usize, &f32)| {
        if *v > best.1 { (Some(id as u32), *v) } else { best }
    };
    logits.iter().enumerate().fold((None, f32::NEG_INFINITY), better).0
}

/// The natural logarithm of a token's probability, and the likeliest `count` tokens with theirs.
pub fn log_probabilities(logits: &[f32], id: u32, count: usize) -> (f32, Vec<(u32, f32)>) {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    let sum: f64 = logits.iter().map(|v| f64::from(v - largest).exp()).sum();
    let all = largest + sum.ln() as f32;
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    let likelier = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if count < ids.len() {
        ids.select_nth_unstable_by(count, likelier);
        ids.truncate(count);
    }
    ids.sort_unstable_by(likelier);
    let log = |id: u32| logits[id as usize] - all;
    (log(id), ids.into_iter().map(|id| (id, log(id))).collect())
}
