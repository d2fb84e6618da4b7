//! Which token may come next: openai/whisper's logit filters in their order, and the choice among the remaining tokens.

use crate::families::whisper::Whisper;
use tealight_kernels::{Isa, rowwise};

/// Maximum first timestamp of a window, as an index: 1 s.
const MAX_INITIAL_TIMESTAMP_INDEX: usize = 50;

/// SuppressBlank, SuppressTokens and ApplyTimestampRules of openai/whisper.
#[derive(Debug)]
pub(super) struct LogitFilters {
    suppress_tokens: Vec<u32>,
    /// Not allowed as the first token: a single space, and the end.
    begin_suppress_tokens: Vec<u32>,
    timestamp_begin: usize,
    no_timestamps: usize,
    eot: usize,
}

/// The distribution of the next token.
#[derive(Debug, Default)]
pub(super) struct NextToken {
    /// Filtered logits, `[V]`.
    logits: Vec<f32>,
    /// Probabilities before normalization, `[V]`.
    weights: Vec<f32>,
    /// Sum of the weights.
    total: f32,
}

impl LogitFilters {
    pub(super) fn new(model: &Whisper) -> Self {
        let special = &model.tokenizer.special;
        let never_decoded =
            [special.sot, special.translate, special.transcribe, special.sot_lm, special.sot_prev, special.no_speech];
        let mut suppress_tokens = model.config.suppress_tokens.clone();
        suppress_tokens.extend(never_decoded);
        suppress_tokens.retain(|id| (*id as usize) < model.config.vocab_size);
        Self {
            suppress_tokens,
            begin_suppress_tokens: model.tokenizer.token_id(b" ").into_iter().chain([special.eot]).collect(),
            timestamp_begin: special.timestamp_begin() as usize,
            no_timestamps: special.no_timestamps as usize,
            eot: special.eot as usize,
        }
    }

    /// Writes the distribution of the token after `tokens`, which are those of this window so far.
    pub(super) fn apply(&self, isa: Isa, tokens: &[u32], logits: &[f32], next: &mut NextToken) {
        let NextToken { logits: filtered, weights, total } = next;
        filtered.clear();
        filtered.extend_from_slice(logits);
        if tokens.is_empty() {
            suppress(filtered, &self.begin_suppress_tokens);
        }
        suppress(filtered, &self.suppress_tokens);
        self.apply_timestamp_rules(tokens, filtered);
        weights.clear();
        weights.extend_from_slice(filtered);
        rowwise::softmax(isa, weights);
        *total = 1.0;
        // If all timestamps together are more probable than any text token, the next token is a timestamp.
        let (text, timestamps) = weights.split_at(self.timestamp_begin);
        let sum: f32 = timestamps.iter().sum();
        if sum > text.iter().fold(0.0, |m, p| p.max(m)) {
            weights[..self.timestamp_begin].fill(0.0);
            filtered[..self.timestamp_begin].fill(f32::NEG_INFINITY);
            *total = sum;
        }
    }

    /// Timestamps come in pairs, the end of a segment and the start of the next, and never decrease.
    fn apply_timestamp_rules(&self, tokens: &[u32], logits: &mut [f32]) {
        let first = self.timestamp_begin;
        let is_timestamp = |id: &u32| *id as usize >= first;
        logits[self.no_timestamps] = f32::NEG_INFINITY;
        let last_was_timestamp = tokens.last().is_some_and(is_timestamp);
        let penultimate_was_timestamp = tokens.len() < 2 || is_timestamp(&tokens[tokens.len() - 2]);
        if last_was_timestamp && penultimate_was_timestamp {
            logits[first..].fill(f32::NEG_INFINITY);
        } else if last_was_timestamp {
            logits[..self.eot].fill(f32::NEG_INFINITY);
        }
        if let Some(latest) = tokens.iter().rev().find(|id| is_timestamp(id)) {
            // A segment may start at the end of the previous one, but must not be empty.
            let min = *latest as usize + usize::from(!last_was_timestamp || penultimate_was_timestamp);
            logits[first..min].fill(f32::NEG_INFINITY);
        }
        if tokens.is_empty() {
            logits[..first].fill(f32::NEG_INFINITY);
            logits[first + MAX_INITIAL_TIMESTAMP_INDEX + 1..].fill(f32::NEG_INFINITY);
        }
    }
}

fn suppress(logits: &mut [f32], ids: &[u32]) {
    ids.iter().for_each(|id| logits[*id as usize] = f32::NEG_INFINITY);
}

impl NextToken {
    /// The most probable token.
    pub(super) fn argmax(&self) -> u32 {
        let larger = |best: (usize, f32), (id, p): (usize, &f32)| if *p > best.1 { (id, *p) } else { best };
        self.weights.iter().enumerate().fold((0, -1.0), larger).0 as u32
    }

    /// Natural log probability of a token.
    pub(super) fn logprob(&self, id: u32) -> f32 {
        (self.weights[id as usize] / self.total).ln()
    }

    /// At most `count` tokens in descending order of probability.
    pub(super) fn top_k(&self, count: usize) -> Vec<u32> {
        let mut ids: Vec<u32> = (0..self.weights.len() as u32).filter(|id| self.weights[*id as usize] > 0.0).collect();
        let by_weight = |a: &u32, b: &u32| self.weights[*b as usize].total_cmp(&self.weights[*a as usize]);
        if ids.len() > count {
            ids.select_nth_unstable_by(count, by_weight);
            ids.truncate(count);
        }
        ids.sort_by(by_weight);
        ids
    }

    /// Samples a token at a temperature; `uniform` is a random number from 0 to 1. Overwrites the logits.
    pub(super) fn sample(&mut self, isa: Isa, temperature: f32, uniform: f32) -> u32 {
        self.logits.iter_mut().for_each(|v| *v /= temperature);
        rowwise::softmax(isa, &mut self.logits);
        let mut remaining = uniform;
        for (id, p) in self.logits.iter().enumerate().filter(|(_, p)| **p > 0.0) {
            remaining -= p;
            if remaining <= 0.0 {
                return id as u32;
            }
        }
        self.argmax()
    }
}
