//! Which token may come next: openai/whisper's filters of logits, in its order, and what is chosen of the rest.

use crate::families::whisper::Whisper;
use tealight_kernels::{Isa, rowwise};

/// The first segment of a window begins in its first second.
const LATEST_START: u32 = 50;

/// What never comes, by the model and the task.
#[derive(Debug)]
pub(super) struct Rules {
    suppressed: Vec<u32>,
    /// Nothing begins with these: a space alone, or the end.
    blank: Vec<u32>,
    first_timestamp: usize,
    no_timestamps: usize,
    end: usize,
    /// Whether moments are wanted.
    timestamps: bool,
}

/// A distribution over the tokens that may come next.
#[derive(Debug, Default)]
pub(super) struct Choice {
    logits: Vec<f32>,
    /// Of each token, not normalised.
    weights: Vec<f32>,
    /// Their sum.
    total: f32,
}

impl Rules {
    pub(super) fn new(model: &Whisper, timestamps: bool) -> Self {
        let special = &model.vocabulary.special;
        let commands = [
            special.start,
            special.translate,
            special.transcribe,
            special.language_model,
            special.previous,
            special.no_speech,
        ];
        let mut suppressed = model.config.suppressed.clone();
        suppressed.extend(commands);
        suppressed.retain(|id| (*id as usize) < model.config.vocabulary);
        Self {
            suppressed,
            blank: model.vocabulary.id(b" ").into_iter().chain([special.end]).collect(),
            first_timestamp: special.first_timestamp() as usize,
            no_timestamps: special.no_timestamps as usize,
            end: special.end as usize,
            timestamps,
        }
    }

    /// What may follow `tokens`, those of this window so far.
    pub(super) fn apply(&self, isa: Isa, tokens: &[u32], logits: &[f32], choice: &mut Choice) {
        let Choice { logits: kept, weights, total } = choice;
        kept.clear();
        kept.extend_from_slice(logits);
        if tokens.is_empty() {
            forbid(kept, self.blank.iter().copied());
        }
        forbid(kept, self.suppressed.iter().copied());
        if self.timestamps {
            self.order_timestamps(tokens, kept);
        }
        weights.clear();
        weights.extend_from_slice(kept);
        rowwise::softmax(isa, weights);
        *total = 1.0;
        if self.timestamps {
            // A moment comes where all moments together are likelier than any text.
            let (text, moments) = weights.split_at(self.first_timestamp);
            let sum: f32 = moments.iter().sum();
            if sum > text.iter().fold(0.0, |m, p| p.max(m)) {
                weights[..self.first_timestamp].fill(0.0);
                kept[..self.first_timestamp].fill(f32::NEG_INFINITY);
                *total = sum;
            }
        }
    }

    /// Moments come in pairs, an end and the next beginning, and never go back.
    fn order_timestamps(&self, tokens: &[u32], logits: &mut [f32]) {
        let first = self.first_timestamp;
        let is_moment = |id: &u32| *id as usize >= first;
        logits[self.no_timestamps] = f32::NEG_INFINITY;
        let last = tokens.last().is_some_and(is_moment);
        let before = tokens.len() < 2 || is_moment(&tokens[tokens.len() - 2]);
        if last && before {
            logits[first..].fill(f32::NEG_INFINITY);
        } else if last {
            logits[..self.end].fill(f32::NEG_INFINITY);
        }
        if let Some(latest) = tokens.iter().rev().find(|id| is_moment(id)) {
            // The beginning of a segment may be the end of the one before it; a segment has a length.
            let least = *latest as usize + usize::from(!last || before);
            logits[first..least].fill(f32::NEG_INFINITY);
        }
        if tokens.is_empty() {
            logits[..first].fill(f32::NEG_INFINITY);
            logits[first + LATEST_START as usize + 1..].fill(f32::NEG_INFINITY);
        }
    }
}

fn forbid(logits: &mut [f32], ids: impl Iterator<Item = u32>) {
    ids.for_each(|id| logits[id as usize] = f32::NEG_INFINITY);
}

impl Choice {
    /// The likeliest token.
    pub(super) fn best(&self) -> u32 {
        let better = |best: (usize, f32), (id, p): (usize, &f32)| if *p > best.1 { (id, *p) } else { best };
        self.weights.iter().enumerate().fold((0, -1.0), better).0 as u32
    }

    /// The natural logarithm of a token's probability.
    pub(super) fn log_probability(&self, id: u32) -> f32 {
        (self.weights[id as usize] / self.total).ln()
    }

    /// The likeliest `count` tokens, the likeliest first.
    pub(super) fn top(&self, count: usize) -> Vec<u32> {
        let mut ids: Vec<u32> = (0..self.weights.len() as u32).filter(|id| self.weights[*id as usize] > 0.0).collect();
        let by_weight = |a: &u32, b: &u32| self.weights[*b as usize].total_cmp(&self.weights[*a as usize]);
        if ids.len() > count {
            ids.select_nth_unstable_by(count, by_weight);
            ids.truncate(count);
        }
        ids.sort_by(by_weight);
        ids
    }

    /// A token drawn at a temperature by a number from 0 to 1.
    pub(super) fn draw(&mut self, isa: Isa, temperature: f32, number: f32) -> u32 {
        self.logits.iter_mut().for_each(|v| *v /= temperature);
        rowwise::softmax(isa, &mut self.logits);
        let mut left = number;
        for (id, p) in self.logits.iter().enumerate().filter(|(_, p)| **p > 0.0) {
            left -= p;
            if left <= 0.0 {
                return id as u32;
            }
        }
        self.best()
    }
}
