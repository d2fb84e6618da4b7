//! Job: what comes after a text.

use super::job::{Engine, Job, JobContext};
use serde_json::Value;
use std::time::{Duration, Instant};
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result};
use tealight_models::families::llama::{Llama, State};
use tealight_models::tasks::generate::chat_template::{self as chat, Chat};
use tealight_models::tasks::generate::{Constraint, Sampler, Sampling, Written, log_probabilities};

/// What a text begins with.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// A text.
    Text(String),
    /// Its tokens.
    Tokens(Vec<u32>),
    /// A conversation: messages, and functions that may be called.
    Chat(Vec<Value>, Option<Value>),
}

/// Why a text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model, or one of the stops, ended it.
    Stop,
    /// As many tokens were written as were asked for, or fit; or the time ran out.
    Length,
}

impl Finish {
    /// OpenAI's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
        }
    }
}

/// How likely a token was.
#[derive(Debug, Clone, PartialEq)]
pub struct Chance {
    /// The token.
    pub id: u32,
    /// The natural logarithm of its probability; none for the first of a text, which nothing is before.
    pub log: Option<f32>,
    /// The likeliest tokens in its place.
    pub top: Vec<(u32, f32)>,
}

/// A further part of a text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Piece {
    /// Whole characters.
    pub text: String,
    /// Of its tokens, where they are asked for.
    pub chances: Vec<Chance>,
}

/// Job: what comes after a text.
pub struct Generate<'a> {
    /// A model's name; the default one where it is missing.
    pub model: Option<String>,
    /// The text before.
    pub prompt: Prompt,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens to write at most; as many as fit where it is missing.
    pub max_tokens: Option<usize>,
    /// Texts that end it, and are not part of it.
    pub stop: Vec<String>,
    /// How many of the likeliest tokens are told for each; none of any where it is missing.
    pub top_logprobs: Option<usize>,
    /// Whether the prompt is part of the text.
    pub echo: bool,
    /// A JSON schema that the text keeps to.
    pub schema: Option<Value>,
    /// Whether anybody waits for it, asked over and over; an error from it ends the job.
    pub alive: &'a (dyn Fn() -> Result<()> + Sync),
    /// Gets the text as it is written; an error from it ends the job.
    pub on_piece: &'a mut dyn FnMut(&Piece, &Llama) -> Result<()>,
}

impl std::fmt::Debug for Generate<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Generate")
    }
}

/// A text that was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// Why it ends.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them were read before.
    pub cached_tokens: usize,
    /// Tokens that were written, what ended the text among them.
    pub written_tokens: usize,
    /// Of all tokens of the text, where they are asked for.
    pub chances: Vec<Chance>,
}

impl Answer {
    /// Of a text that there was no time to begin.
    pub fn unwritten() -> Self {
        let (finish, text, chances) = (Finish::Length, String::new(), vec![]);
        Self { text, finish, prompt_tokens: 0, cached_tokens: 0, written_tokens: 0, chances }
    }
}

/// What the deadline leaves for sending the reply, beside the time of a few tokens.
const MARGIN: Duration = Duration::from_millis(100);

impl Job for Generate<'_> {
    type Output = Answer;

    fn run(self, context: &JobContext) -> Result<Answer> {
        let (engine, deadline) = (context.engine, context.deadline);
        let loaded = context.text_model(self.model.as_deref())?;
        let model = &loaded.model;
        self.sampling.check(model.config.vocabulary)?;
        let tokens = tokens(model, &self.prompt)?;
        let context_len = model.config.context;
        if tokens.is_empty() {
            return Err(Error::new(ErrorKind::Empty, "the prompt has no tokens").with_param(field(&self.prompt)));
        }
        if tokens.len() >= context_len {
            let message =
                format!("the prompt has {} tokens, the model reads {context_len} with the answer", tokens.len());
            return Err(Error::new(ErrorKind::TooLong, message).with_param(field(&self.prompt)));
        }
        let limit = self.max_tokens.unwrap_or(context_len).min(context_len - tokens.len());
        let constraint = self.schema.as_ref().map(|schema| model.constraint(schema)).transpose()?;
        let mut state = model.resume(if self.echo { &[] } else { &tokens }, tokens.len() + limit.min(256));
        let mut writing = Writing {
            engine,
            model,
            deadline,
            constraint,
            written: Written::new(self.stop.iter().map(String::as_str)),
            sampler: Sampler::new(self.sampling.clone(), &tokens),
            answer: Answer {
                text: String::new(),
                finish: Finish::Length,
                prompt_tokens: tokens.len(),
                cached_tokens: state.tokens().len(),
                written_tokens: 0,
                chances: vec![],
            },
            job: self,
        };
        let outcome = writing.run(&mut state, &tokens, limit);
        model.keep(state);
        outcome.map(|()| writing.answer)
    }
}

/// The field of requests that a prompt comes in.
fn field(prompt: &Prompt) -> &'static str {
    if matches!(prompt, Prompt::Chat(..)) { "messages" } else { "prompt" }
}

fn tokens(model: &Llama, prompt: &Prompt) -> Result<Vec<u32>> {
    match prompt {
        Prompt::Tokens(ids) => Ok(ids.clone()),
        Prompt::Text(text) => {
            let mut tokens = model.tokens.prefix.clone();
            tokens.extend(model.tokens.encode(text)?);
            Ok(tokens)
        }
        Prompt::Chat(messages, tools) => {
            let template = model.tokens.template.as_deref().ok_or_else(|| {
                Error::invalid_value("messages", "the model has no chat template; /v1/completions takes a text")
            })?;
            let name = |id: Option<u32>| id.and_then(|id| model.tokens.name(id)).unwrap_or_default();
            let chat = Chat {
                messages,
                tools: tools.as_ref(),
                add_generation_prompt: true,
                bos_token: name(model.tokens.bos),
                eos_token: name(model.tokens.ends.first().copied()),
            };
            // The template writes what begins a text itself.
            model.tokens.encode(&chat::render(template, &chat)?)
        }
    }
}

fn chance(logits: &[f32], id: u32, count: usize) -> Chance {
    let (log, top) = log_probabilities(logits, id, count);
    Chance { id, log: Some(log), top }
}

/// A text that is being written.
struct Writing<'a, 'j> {
    engine: &'a Engine,
    model: &'a Llama,
    deadline: Deadline,
    job: Generate<'j>,
    sampler: Sampler,
    constraint: Option<Constraint>,
    written: Written,
    answer: Answer,
}

impl Writing<'_, '_> {
    fn run(&mut self, state: &mut State, tokens: &[u32], limit: usize) -> Result<()> {
        let (cpu, deadline) = (&self.engine.cpu, self.deadline);
        let count = self.job.top_logprobs.filter(|_| self.job.echo);
        let (wanted, known, last) =
            (if count.is_some() { tokens.len() } else { 1 }, state.tokens().len(), tokens.len() - 1);
        let alive = self.job.alive;
        let (mut chances, mut logits) = (vec![], vec![]);
        let each = || deadline.check().and_then(|()| alive());
        self.model.read_rows(cpu, state, &tokens[known..], wanted, each, |at, row| {
            match tokens.get(known + at + 1).zip(count) {
                Some((next, count)) => chances.push(chance(row, *next, count)),
                None if known + at == last => logits.extend_from_slice(row),
                None => {}
            }
        })?;
        if self.job.echo {
            self.echo(tokens, chances)?;
        }
        let mut waiting = vec![];
        while self.answer.written_tokens < limit {
            let start = Instant::now();
            alive()?;
            waiting.extend(self.job.top_logprobs.map(|count| (logits.clone(), count)));
            let id = self.choose(&mut logits)?;
            self.answer.written_tokens += 1;
            if self.model.tokens.is_end(id) {
                waiting.clear();
                self.answer.finish = Finish::Stop;
                break;
            }
            let chances =
                waiting.drain(..).map(|(logits, count): (Vec<f32>, usize)| chance(&logits, id, count)).collect();
            let text = self.written.push(self.model.tokens.bytes(id));
            self.tell(Piece { text, chances })?;
            if self.written.is_stopped() || self.constraint.as_ref().is_some_and(Constraint::is_complete) {
                self.answer.finish = Finish::Stop;
                break;
            }
            if self.answer.written_tokens == limit || deadline.expires_within(MARGIN + 3 * start.elapsed()) {
                break;
            }
            logits = self.model.read(cpu, state, &[id], 1, || Ok(()))?;
        }
        let text = self.written.end();
        self.tell(Piece { text, chances: vec![] })
    }

    fn choose(&mut self, logits: &mut [f32]) -> Result<u32> {
        let isa = self.engine.cpu.isa;
        let Some(constraint) = &mut self.constraint else { return self.sampler.choose(isa, logits, None) };
        let allowed = constraint.allowed()?;
        let id = self.sampler.choose(isa, logits, Some(&|id| allowed.is_allowed(id)))?;
        if !self.model.tokens.is_end(id) {
            constraint.take(id)?;
        }
        Ok(id)
    }

    /// The prompt as a part of the text.
    fn echo(&mut self, tokens: &[u32], following: Vec<Chance>) -> Result<()> {
        let mut text = Written::default();
        let mut whole: String = tokens.iter().map(|id| text.push(self.model.tokens.bytes(*id))).collect();
        whole.push_str(&text.end());
        let mut chances = vec![];
        if self.job.top_logprobs.is_some() {
            chances.push(Chance { id: tokens[0], log: None, top: vec![] });
            chances.extend(following);
        }
        self.tell(Piece { text: whole, chances })
    }

    fn tell(&mut self, piece: Piece) -> Result<()> {
        if piece.text.is_empty() && piece.chances.is_empty() {
            return Ok(());
        }
        (self.job.on_piece)(&piece, self.model)?;
        self.answer.text.push_str(&piece.text);
        self.answer.chances.extend(piece.chances);
        Ok(())
    }
}
