//! One window to tokens: greedily, by beams, or drawn at a temperature.

use super::Task;
use super::logit_filters::{Choice, Rules};
use crate::families::whisper::Whisper;
use crate::families::whisper::decoder::{Cache, Heard, Scratch};
use tealight_core::random;
use tealight_kernels::CpuContext;
use tealight_kernels::rowwise;

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Search {
    /// The likeliest, one after another.
    Greedy,
    /// The likeliest text of so many that are followed at once.
    Beam(usize),
    /// The best of so many drawn at a temperature.
    Draw(usize, f32),
}

/// What a window is decoded with.
#[derive(Debug)]
pub(super) struct Prompt<'a> {
    /// Tokens of the text before the window.
    pub previous: &'a [u32],
    /// The language's token, of multilingual models.
    pub language: Option<u32>,
    /// What to write.
    pub task: Task,
    /// Whether moments are wanted.
    pub timestamps: bool,
}

/// The tokens of a window.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Decoded {
    /// Text and moments.
    pub tokens: Vec<u32>,
    /// Mean natural logarithm of the tokens' probabilities, the end among them.
    pub log_probability: f32,
    /// How likely it is that nobody speaks.
    pub no_speech: f32,
}

/// A text that is being decoded.
#[derive(Debug, Clone)]
struct Hypothesis {
    tokens: Vec<u32>,
    sum: f32,
    ended: bool,
}

impl Hypothesis {
    const NEW: Self = Self { tokens: vec![], sum: 0.0, ended: false };

    fn push(&mut self, id: u32, log_probability: f32, end: u32) {
        self.sum += log_probability;
        self.ended = id == end;
        if !self.ended {
            self.tokens.push(id);
        }
    }

    /// By which texts of different lengths are compared.
    fn mean(&self) -> f32 {
        self.sum / self.tokens.len().max(1) as f32
    }
}

/// A window that the decoder has heard, with its prompt in the cache.
pub(super) struct Decoding<'a> {
    model: &'a Whisper,
    cpu: &'a CpuContext,
    heard: &'a Heard,
    rules: Rules,
    cache: Cache,
    /// Logits behind the prompt.
    first: Vec<f32>,
    no_speech: f32,
    scratch: Scratch,
}

impl<'a> Decoding<'a> {
    /// Runs the prompt.
    pub(super) fn new(model: &'a Whisper, cpu: &'a CpuContext, heard: &'a Heard, prompt: &Prompt) -> Self {
        let tokens = prompt.tokens(model);
        let special = &model.vocabulary.special;
        let start = tokens.iter().position(|t| *t == special.start).unwrap_or(0);
        let mut this = Self {
            model,
            cpu,
            heard,
            rules: Rules::new(model, prompt.timestamps),
            cache: model.decoder.cache(),
            first: vec![],
            no_speech: 0.0,
            scratch: Scratch::default(),
        };
        let cache = std::slice::from_mut(&mut this.cache);
        model.decoder.step(cpu, heard, cache, &tokens, &mut this.scratch);
        model.decoder.logits(cpu, start..start + 1, &mut this.scratch, &mut this.first);
        this.no_speech = probability(cpu, &this.first[..model.config.vocabulary], special.no_speech);
        model.decoder.logits(cpu, tokens.len() - 1..tokens.len(), &mut this.scratch, &mut this.first);
        this
    }

    /// Decodes; `seed` is what draws begin from.
    pub(super) fn run(&mut self, search: Search, seed: u64) -> Decoded {
        let done = match search {
            Search::Greedy => self.follow(1, &mut |choice| choice.best()),
            Search::Beam(width) => self.beams(width),
            Search::Draw(count, temperature) => {
                let (isa, mut state) = (self.cpu.isa, seed);
                self.follow(count, &mut |choice| choice.draw(isa, temperature, random(&mut state)))
            }
        };
        let likelier = |a: Hypothesis, b: Hypothesis| if b.mean() > a.mean() { b } else { a };
        let best = done.into_iter().reduce(likelier).unwrap_or(Hypothesis::NEW);
        let log_probability = best.sum / (best.tokens.len() + 1) as f32;
        Decoded { tokens: best.tokens, log_probability, no_speech: self.no_speech }
    }

    /// Tokens that a window may have.
    fn limit(&self) -> usize {
        let text = self.model.config.text_tokens;
        (text / 2).min(text - self.cache.tokens())
    }

    /// What may come next in each of some texts, given their logits.
    fn choices<'t>(
        &self,
        texts: &'t mut [Hypothesis],
        logits: &[f32],
        mut f: impl FnMut(&'t mut Hypothesis, &mut Choice),
    ) {
        let mut choice = Choice::default();
        for (text, logits) in texts.iter_mut().zip(logits.chunks_exact(self.first.len())) {
            let logits = &logits[..self.model.config.vocabulary];
            self.rules.apply(self.cpu.isa, &text.tokens, logits, &mut choice);
            f(text, &mut choice);
        }
    }

    /// Follows `count` texts, each by itself.
    fn follow(&mut self, count: usize, choose: &mut dyn FnMut(&mut Choice) -> u32) -> Vec<Hypothesis> {
        let end = self.model.vocabulary.special.end;
        let (mut texts, mut done) = (vec![Hypothesis::NEW; count], vec![]);
        let (mut caches, mut logits) = (vec![self.cache.clone(); count], self.first.repeat(count));
        for step in 1..=self.limit() {
            self.choices(&mut texts, &logits, |text, choice| {
                let id = choose(choice);
                text.push(id, choice.log_probability(id), end);
            });
            // What has ended needs no more steps.
            let mut going = texts.iter().map(|t| !t.ended);
            caches.retain(|_| going.next().unwrap_or(false));
            done.extend(texts.extract_if(.., |t| t.ended));
            if texts.is_empty() || step == self.limit() {
                break;
            }
            self.step(&mut caches, &texts, &mut logits);
        }
        done.extend(texts);
        done
    }

    /// Follows the `width` likeliest texts (openai/whisper's beam search, without patience).
    fn beams(&mut self, width: usize) -> Vec<Hypothesis> {
        let end = self.model.vocabulary.special.end;
        let (mut texts, mut done) = (vec![Hypothesis::NEW], vec![]);
        let (mut caches, mut logits) = (vec![self.cache.clone()], self.first.clone());
        for step in 1..=self.limit() {
            let (mut candidates, mut index) = (vec![], 0);
            self.choices(&mut texts, &logits, |text, choice| {
                for id in choice.top(width + 1) {
                    let mut longer = text.clone();
                    longer.push(id, choice.log_probability(id), end);
                    candidates.push((index, longer));
                }
                index += 1;
            });
            candidates.sort_by(|(_, a), (_, b)| b.sum.total_cmp(&a.sum));
            let (mut next, mut sources) = (vec![], vec![]);
            for (source, text) in candidates {
                match text.ended {
                    true => done.push(text),
                    false => {
                        next.push(text);
                        sources.push(source);
                    }
                }
                if next.len() == width {
                    break;
                }
            }
            texts = next;
            if done.len() >= width || texts.is_empty() || step == self.limit() {
                break;
            }
            caches = sources.into_iter().map(|i| caches[i].clone()).collect();
            self.step(&mut caches, &texts, &mut logits);
        }
        // What has not ended counts only where too few have.
        let missing = width.saturating_sub(done.len());
        done.extend(texts.into_iter().take(missing));
        done
    }

    fn step(&mut self, caches: &mut [Cache], texts: &[Hypothesis], logits: &mut Vec<f32>) {
        let last: Vec<u32> = texts.iter().filter_map(|t| t.tokens.last().copied()).collect();
        self.model.decoder.step(self.cpu, self.heard, caches, &last, &mut self.scratch);
        self.model.decoder.logits(self.cpu, 0..texts.len(), &mut self.scratch, logits);
    }
}

impl Prompt<'_> {
    /// The text before, cut to what leaves room, and the commands.
    fn tokens(&self, model: &Whisper) -> Vec<u32> {
        let special = &model.vocabulary.special;
        let mut tokens = vec![];
        if !self.previous.is_empty() {
            let room = model.config.text_tokens / 2 - 1;
            tokens.push(special.previous);
            tokens.extend(&self.previous[self.previous.len().saturating_sub(room)..]);
        }
        tokens.push(special.start);
        if let Some(language) = self.language {
            tokens.push(language);
            tokens.push(match self.task {
                Task::Transcribe => special.transcribe,
                Task::Translate => special.translate,
            });
        }
        if !self.timestamps {
            tokens.push(special.no_timestamps);
        }
        tokens
    }
}

/// The probability of a token by its logits.
pub(super) fn probability(cpu: &CpuContext, logits: &[f32], id: u32) -> f32 {
    let mut logits = logits.to_vec();
    rowwise::softmax(cpu.isa, &mut logits);
    logits[id as usize]
}
