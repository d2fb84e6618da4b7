//! Sampling: temperature, top-k, top-p, min-p, penalties.

use std::collections::HashMap;
use tealight_core::random;
use tealight_core::{Error, Result};
use tealight_kernels::{Isa, rowwise};

/// How tokens are sampled. The steps are, in this order: logit bias, constraint, penalties, temperature, `min_p`, `top_k`, `top_p`.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// From 0 to 2; 0 is greedy decoding.
    pub temperature: f32,
    /// Keep this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the most likely tokens up to this total probability (Holtzman et al. 2019, arXiv 1904.09751), from 0 to 1; 1
    /// keeps all.
    pub top_p: f32,
    /// Keep tokens with at least this fraction of the highest probability (Nguyen et al. 2024, arXiv 2407.01082), from 0 to 1; 0
    /// keeps all.
    pub min_p: f32,
    /// Positive logits of tokens in the text so far are divided by this, negative ones multiplied (Keskar et al. 2019, arXiv
    /// 1909.05858). From 0.01 to 100; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of generated tokens, from -2 to 2.
    pub presence_penalty: f32,
    /// Subtracted from the logits of generated tokens, once per occurrence; from -2 to 2.
    pub frequency_penalty: f32,
    /// Token ids, and what is added to their logits: from -100 to 100.
    pub logit_bias: Vec<(u32, f32)>,
    /// Seed of the random numbers; equal seeds give equal samples.
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: vec![],
            seed: 0,
        }
    }
}

impl SamplingParams {
    /// Checks that values are in their ranges.
    ///
    /// # Errors
    /// Names the field, the value and the range.
    pub fn validate(&self, vocab_size: usize) -> Result<()> {
        let in_range = |name: &str, value: f32, low: f32, high: f32| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(Error::invalid_value(name, format!("{name} is {value}; expected {low} to {high}")))
        };
        in_range("temperature", self.temperature, 0.0, 2.0)?;
        in_range("top_p", self.top_p, 0.0, 1.0)?;
        in_range("min_p", self.min_p, 0.0, 1.0)?;
        in_range("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        in_range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        in_range("repetition_penalty", self.repetition_penalty, 0.01, 100.0)?;
        for (id, bias) in &self.logit_bias {
            in_range("logit_bias", *bias, -100.0, 100.0)?;
            if *id as usize >= vocab_size {
                return Err(Error::invalid_value(
                    "logit_bias",
                    format!("logit_bias has token id {id}; the vocabulary has {vocab_size} tokens"),
                ));
            }
        }
        Ok(())
    }
}

/// Samples the tokens of one text.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    state: u64,
    /// Occurrences of each generated token; 0 for tokens of the prompt.
    counts: HashMap<u32, u32>,
    /// Probabilities and ids of the tokens that can be sampled.
    candidates: Vec<(f32, u32)>,
}

impl Sampler {
    /// Creates a sampler whose repetition penalty applies to the tokens of the prompt.
    pub fn new(params: SamplingParams, prompt: &[u32]) -> Self {
        let counts = prompt.iter().map(|id| (*id, 0)).collect();
        Self { state: params.seed, params, counts, candidates: vec![] }
    }

    /// Samples the next token; changes `logits`. `is_allowed` excludes tokens.
    ///
    /// # Errors
    /// Every token is excluded.
    pub fn sample(&mut self, isa: Isa, logits: &mut [f32], is_allowed: Option<&dyn Fn(u32) -> bool>) -> Result<u32> {
        for (id, bias) in &self.params.logit_bias {
            logits[*id as usize] += bias;
        }
        if let Some(is_allowed) = is_allowed {
            let excluded = logits.iter_mut().enumerate().filter(|(id, _)| !is_allowed(*id as u32));
            excluded.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
        }
        self.penalize(logits);
        let best = argmax(logits).ok_or_else(|| Error::internal("the constraint excludes every token"))?;
        let id = if self.params.temperature == 0.0 { best } else { self.draw(isa, logits, best) };
        *self.counts.entry(id).or_default() += 1;
        Ok(id)
    }

    fn penalize(&self, logits: &mut [f32]) {
        let SamplingParams { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.params;
        if repetition_penalty == 1.0 && presence_penalty == 0.0 && frequency_penalty == 0.0 {
            return;
        }
        for (id, count) in &self.counts {
            let Some(logit) = logits.get_mut(*id as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
            if *count > 0 {
                *logit -= presence_penalty + frequency_penalty * *count as f32;
            }
        }
    }

    fn draw(&mut self, isa: Isa, logits: &mut [f32], best: u32) -> u32 {
        let SamplingParams { temperature, top_k, top_p, min_p, .. } = self.params;
        logits.iter_mut().for_each(|logit| *logit /= temperature);
        rowwise::softmax(isa, logits);
        let threshold = min_p * logits[best as usize];
        let above_threshold = logits.iter().enumerate().filter(|(_, p)| **p > 0.0 && **p >= threshold);
        self.candidates.clear();
        self.candidates.extend(above_threshold.map(|(id, p)| (*p, id as u32)));
        let by_probability = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if (1..self.candidates.len()).contains(&top_k) {
            self.candidates.select_nth_unstable_by(top_k, by_probability);
            self.candidates.truncate(top_k);
        }
        if top_p < 1.0 {
            self.candidates.sort_unstable_by(by_probability);
            let total: f32 = self.candidates.iter().map(|(p, _)| p).sum();
            let mut sum = 0.0;
            let last_index = self.candidates.iter().position(|(p, _)| {
                sum += p;
                sum >= top_p * total
            });
            self.candidates.truncate(last_index.map_or(self.candidates.len(), |index| index + 1));
        }
        let total: f32 = self.candidates.iter().map(|(p, _)| p).sum();
        let mut remaining = random(&mut self.state) * total;
        for (p, id) in &self.candidates {
            remaining -= p;
            if remaining < 0.0 {
                return *id;
            }
        }
        self.candidates.last().map_or(best, |(_, id)| *id)
    }
}

/// The token with the highest logit, the first one if several are equal; `None` if all are minus infinity.
pub fn argmax(logits: &[f32]) -> Option<u32> {
    let max = |max: (Option<u32>, f32), (id, v): (usize, &f32)| if *v > max.1 { (Some(id as u32), *v) } else { max };
    logits.iter().enumerate().fold((None, f32::NEG_INFINITY), max).0
}

/// The natural logarithm of a token's probability, and the `count` most likely tokens with theirs.
pub fn token_logprobs(logits: &[f32], id: u32, count: usize) -> (f32, Vec<(u32, f32)>) {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    let sum: f64 = logits.iter().map(|v| f64::from(v - max).exp()).sum();
    let log_sum = max + sum.ln() as f32;
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if count < ids.len() {
        ids.select_nth_unstable_by(count, by_logit);
        ids.truncate(count);
    }
    ids.sort_unstable_by(by_logit);
    let logprob = |id: u32| logits[id as usize] - log_sum;
    (logprob(id), ids.into_iter().map(|id| (id, logprob(id))).collect())
}
