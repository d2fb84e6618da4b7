//! Decodes one window to tokens: greedily, by beam search, or by sampling.

use super::logit_filters::{LogitFilters, NextToken};
use super::options::Task;
use crate::families::whisper::Whisper;
use crate::families::whisper::decoder::{CrossKv, DecoderCache, DecoderScratch};
use tealight_core::random;
use tealight_kernels::CpuContext;
use tealight_kernels::rowwise;

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Strategy {
    /// The most probable token at each step.
    Greedy,
    /// Beam search without patience.
    Beam { beam_size: usize },
    /// The most probable of several sampled sequences.
    Sample { best_of: usize, temperature: f32 },
}

/// What determines the prompt of a window.
#[derive(Debug)]
pub(super) struct DecodingOptions<'a> {
    /// Tokens of preceding text.
    pub prompt: &'a [u32],
    /// The language token; `None` for English-only models.
    pub language: Option<u32>,
    pub task: Task,
}

/// The tokens of a window.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DecodingResult {
    /// Text and timestamp tokens.
    pub tokens: Vec<u32>,
    /// Mean natural log probability of the tokens, including the end token.
    pub avg_logprob: f32,
    /// Probability that the window contains no speech.
    pub no_speech_prob: f32,
}

/// A hypothesis: a candidate token sequence during decoding.
#[derive(Debug, Clone)]
struct Hypothesis {
    tokens: Vec<u32>,
    sum_logprobs: f32,
    /// Whether the end token was chosen; it is not in `tokens`.
    is_completed: bool,
}

impl Hypothesis {
    const EMPTY: Self = Self { tokens: vec![], sum_logprobs: 0.0, is_completed: false };

    fn push(&mut self, id: u32, logprob: f32, eot: u32) {
        self.sum_logprobs += logprob;
        self.is_completed = id == eot;
        if !self.is_completed {
            self.tokens.push(id);
        }
    }

    /// Score for comparing sequences of different lengths.
    fn length_normalized_score(&self) -> f32 {
        self.sum_logprobs / self.tokens.len().max(1) as f32
    }
}

/// A window whose prompt has been run through the decoder; can be decoded with several strategies.
pub(super) struct DecodingTask<'a> {
    model: &'a Whisper,
    cpu: &'a CpuContext,
    cross_kv: &'a CrossKv,
    filters: LogitFilters,
    /// Self-attention cache after the prompt.
    prompt_cache: DecoderCache,
    /// Logits after the prompt, `[V padded]`.
    prompt_logits: Vec<f32>,
    no_speech_prob: f32,
    scratch: DecoderScratch,
}

impl<'a> DecodingTask<'a> {
    /// Runs the prompt.
    pub(super) fn new(
        model: &'a Whisper,
        cpu: &'a CpuContext,
        cross_kv: &'a CrossKv,
        options: &DecodingOptions,
    ) -> Self {
        let tokens = options.prompt_tokens(model);
        let special = &model.tokenizer.special;
        let sot_index = tokens.iter().position(|t| *t == special.sot).unwrap_or(0);
        let mut this = Self {
            model,
            cpu,
            cross_kv,
            filters: LogitFilters::new(model),
            prompt_cache: model.decoder.new_cache(),
            prompt_logits: vec![],
            no_speech_prob: 0.0,
            scratch: DecoderScratch::default(),
        };
        let cache = std::slice::from_mut(&mut this.prompt_cache);
        model.decoder.forward(cpu, cross_kv, cache, &tokens, &mut this.scratch);
        model.decoder.logits(cpu, sot_index..sot_index + 1, &mut this.scratch, &mut this.prompt_logits);
        this.no_speech_prob = probability(cpu, &this.prompt_logits[..model.config.vocab_size], special.no_speech);
        model.decoder.logits(cpu, tokens.len() - 1..tokens.len(), &mut this.scratch, &mut this.prompt_logits);
        this
    }

    /// Decodes the window; `seed` is used for sampling.
    pub(super) fn run(&mut self, strategy: Strategy, seed: u64) -> DecodingResult {
        let hypotheses = match strategy {
            Strategy::Greedy => self.decode_independently(1, &mut |next| next.argmax()),
            Strategy::Beam { beam_size } => self.beam_search(beam_size),
            Strategy::Sample { best_of, temperature } => {
                let (isa, mut state) = (self.cpu.isa, seed);
                self.decode_independently(best_of, &mut |next| next.sample(isa, temperature, random(&mut state)))
            }
        };
        let more_probable = |a: Hypothesis, b: Hypothesis| {
            if b.length_normalized_score() > a.length_normalized_score() { b } else { a }
        };
        let best = hypotheses.into_iter().reduce(more_probable).unwrap_or(Hypothesis::EMPTY);
        let avg_logprob = best.sum_logprobs / (best.tokens.len() + 1) as f32;
        DecodingResult { tokens: best.tokens, avg_logprob, no_speech_prob: self.no_speech_prob }
    }

    /// Maximum number of tokens for a window.
    fn sample_len(&self) -> usize {
        let n_text_ctx = self.model.config.max_target_positions;
        (n_text_ctx / 2).min(n_text_ctx - self.prompt_cache.token_count())
    }

    /// Calls `f` with each hypothesis and the filtered distribution of its next token.
    fn for_each_next_token<'h>(
        &self,
        hypotheses: &'h mut [Hypothesis],
        logits: &[f32],
        mut f: impl FnMut(&'h mut Hypothesis, &mut NextToken),
    ) {
        let mut next = NextToken::default();
        for (hypothesis, logits) in hypotheses.iter_mut().zip(logits.chunks_exact(self.prompt_logits.len())) {
            let logits = &logits[..self.model.config.vocab_size];
            self.filters.apply(self.cpu.isa, &hypothesis.tokens, logits, &mut next);
            f(hypothesis, &mut next);
        }
    }

    /// Decodes `count` hypotheses that do not compete during decoding.
    fn decode_independently(&mut self, count: usize, choose: &mut dyn FnMut(&mut NextToken) -> u32) -> Vec<Hypothesis> {
        let eot = self.model.tokenizer.special.eot;
        let (mut hypotheses, mut completed) = (vec![Hypothesis::EMPTY; count], vec![]);
        let (mut caches, mut logits) = (vec![self.prompt_cache.clone(); count], self.prompt_logits.repeat(count));
        for step in 1..=self.sample_len() {
            self.for_each_next_token(&mut hypotheses, &logits, |hypothesis, next| {
                let id = choose(next);
                hypothesis.push(id, next.logprob(id), eot);
            });
            // Completed hypotheses are not decoded further.
            let mut is_active = hypotheses.iter().map(|h| !h.is_completed);
            caches.retain(|_| is_active.next().unwrap_or(false));
            completed.extend(hypotheses.extract_if(.., |h| h.is_completed));
            if hypotheses.is_empty() || step == self.sample_len() {
                break;
            }
            self.forward(&mut caches, &hypotheses, &mut logits);
        }
        completed.extend(hypotheses);
        completed
    }

    /// openai/whisper's beam search, without patience.
    fn beam_search(&mut self, beam_size: usize) -> Vec<Hypothesis> {
        let eot = self.model.tokenizer.special.eot;
        let (mut hypotheses, mut completed) = (vec![Hypothesis::EMPTY], vec![]);
        let (mut caches, mut logits) = (vec![self.prompt_cache.clone()], self.prompt_logits.clone());
        for step in 1..=self.sample_len() {
            let (mut candidates, mut index) = (vec![], 0);
            self.for_each_next_token(&mut hypotheses, &logits, |hypothesis, next| {
                for id in next.top_k(beam_size + 1) {
                    let mut candidate = hypothesis.clone();
                    candidate.push(id, next.logprob(id), eot);
                    candidates.push((index, candidate));
                }
                index += 1;
            });
            candidates.sort_by(|(_, a), (_, b)| b.sum_logprobs.total_cmp(&a.sum_logprobs));
            let (mut beams, mut source_indices) = (vec![], vec![]);
            for (source, candidate) in candidates {
                if candidate.is_completed {
                    completed.push(candidate);
                } else {
                    beams.push(candidate);
                    source_indices.push(source);
                }
                if beams.len() == beam_size {
                    break;
                }
            }
            hypotheses = beams;
            if completed.len() >= beam_size || hypotheses.is_empty() || step == self.sample_len() {
                break;
            }
            caches = source_indices.into_iter().map(|i| caches[i].clone()).collect();
            self.forward(&mut caches, &hypotheses, &mut logits);
        }
        // Incomplete hypotheses are used only if too few are completed.
        let missing = beam_size.saturating_sub(completed.len());
        completed.extend(hypotheses.into_iter().take(missing));
        completed
    }

    /// Runs the last token of each hypothesis; writes the logits of the next, `[hypotheses, V padded]`.
    fn forward(&mut self, caches: &mut [DecoderCache], hypotheses: &[Hypothesis], logits: &mut Vec<f32>) {
        let last_tokens: Vec<u32> = hypotheses.iter().filter_map(|h| h.tokens.last().copied()).collect();
        self.model.decoder.forward(self.cpu, self.cross_kv, caches, &last_tokens, &mut self.scratch);
        self.model.decoder.logits(self.cpu, 0..hypotheses.len(), &mut self.scratch, logits);
    }
}

impl DecodingOptions<'_> {
    /// The last tokens of the preceding text, at most half of the context, and the start sequence.
    fn prompt_tokens(&self, model: &Whisper) -> Vec<u32> {
        let special = &model.tokenizer.special;
        let mut tokens = vec![];
        if !self.prompt.is_empty() {
            let max_len = model.config.max_target_positions / 2 - 1;
            tokens.push(special.sot_prev);
            tokens.extend(&self.prompt[self.prompt.len().saturating_sub(max_len)..]);
        }
        tokens.push(special.sot);
        if let Some(language) = self.language {
            tokens.push(language);
            tokens.push(match self.task {
                Task::Transcribe => special.transcribe,
                Task::Translate => special.translate,
            });
        }
        tokens
    }
}

/// The probability of a token.
fn probability(cpu: &CpuContext, logits: &[f32], id: u32) -> f32 {
    let mut probabilities = logits.to_vec();
    rowwise::softmax(cpu.isa, &mut probabilities);
    probabilities[id as usize]
}
