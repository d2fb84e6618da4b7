//! OpenAI's routes that write text: what chat and completions share.

pub mod chat;
pub mod completions;

use super::context::{ApiResponse, RequestContext};
use super::response_sender::ResponseSender;
use super::sse::SseWriter;
use crate::engine::LoadedModel;
use crate::engine::generate::{Completion, Generate, Prompt, TextDelta};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tealight_core::{Error, ErrorKind, Result, Usage, truncate_for_display};
use tealight_models::tasks::generate::Generator;
use tealight_models::tasks::generate::SamplingParams;
use tealight_models::tokenizer::LlamaTokenizer;

/// Texts of one request are written one after another.
const MOST_TEXTS: usize = 128;
/// Stops beyond these are no request.
const MOST_STOPS: usize = 16;
/// OpenAI's limit.
const MOST_LOGPROBS: usize = 20;

/// One text, or a list of them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "it must be a text, or a list of texts")]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// How tokens are chosen, and when a text ends.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct Options {
    /// From 0, the likeliest, to 2; 1 where it is missing.
    pub temperature: Option<f32>,
    /// Only the likeliest tokens whose probabilities add up to this.
    pub top_p: Option<f32>,
    /// Ours: only so many of the likeliest tokens.
    pub top_k: Option<usize>,
    /// Ours: only tokens at least so likely, as a part of the likeliest.
    pub min_p: Option<f32>,
    /// Ours: above 1 it makes tokens that were there less likely.
    pub repetition_penalty: Option<f32>,
    /// From -2 to 2.
    pub presence_penalty: Option<f32>,
    /// From -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// From -100 to 100, by token ids.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// The same draws each time.
    pub seed: Option<i64>,
    /// Texts that end it, and are not part of it.
    pub stop: Option<OneOrMany>,
    /// How many texts to write; 1 where it is missing.
    pub n: Option<usize>,
    /// Whether the reply is a list of server-sent events.
    pub stream: Option<bool>,
    /// What a stream has besides.
    pub stream_options: Option<StreamOptions>,
}

/// What a stream has besides.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
pub struct StreamOptions {
    /// Whether the last event counts the tokens.
    #[serde(default)]
    pub include_usage: bool,
}

/// Tokens of a request.
#[derive(Debug, Clone, Copy, Default, Serialize, JsonSchema)]
pub struct TextUsage {
    /// Of the prompt.
    pub prompt_tokens: usize,
    /// Of the texts that were written.
    pub completion_tokens: usize,
    /// Of both.
    pub total_tokens: usize,
    /// Of the prompt, those that were read before.
    pub prompt_tokens_details: PromptDetails,
}

/// Of a prompt.
#[derive(Debug, Clone, Copy, Default, Serialize, JsonSchema)]
pub struct PromptDetails {
    /// Tokens that a text before had, too.
    pub cached_tokens: usize,
}

impl TextUsage {
    /// Counts a text; of several texts of one prompt the prompt counts once.
    fn add(&mut self, answer: &Completion, is_first: bool) {
        if is_first {
            self.prompt_tokens += answer.prompt_tokens;
            self.prompt_tokens_details.cached_tokens += answer.cached_tokens;
        }
        self.completion_tokens += answer.completion_tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }

    /// The same for the counters.
    fn work(self, inference: Duration) -> Usage {
        Usage { tokens: self.prompt_tokens, completion_tokens: self.completion_tokens, inference, ..Usage::default() }
    }
}

impl Options {
    /// How tokens of the `index`-th text are chosen.
    fn sampling(&self, seed: u64, index: usize) -> Result<SamplingParams> {
        let base = SamplingParams::default();
        let bias = self.logit_bias.iter().flatten().map(|(id, bias)| match id.trim().parse() {
            Ok(id) => Ok((id, *bias)),
            Err(_) => Err(Error::invalid_value(
                "logit_bias",
                format!("logit_bias has {:?}, which is no token id", truncate_for_display(id)),
            )),
        });
        Ok(SamplingParams {
            temperature: self.temperature.unwrap_or(base.temperature),
            top_k: self.top_k.unwrap_or(base.top_k),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(base.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(base.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(base.frequency_penalty),
            logit_bias: bias.collect::<Result<_>>()?,
            seed: seed.wrapping_add(index as u64),
        })
    }

    fn seed(&self) -> u64 {
        self.seed.map_or_else(number, |seed| seed as u64)
    }

    fn stops(&self) -> Result<Vec<String>> {
        let stops = match &self.stop {
            None => vec![],
            Some(OneOrMany::One(stop)) => vec![stop.clone()],
            Some(OneOrMany::Many(stops)) => stops.clone(),
        };
        if stops.iter().any(String::is_empty) {
            return Err(Error::invalid_value("stop", "stop has an empty text, which ends every text"));
        }
        match stops.len() {
            0..=MOST_STOPS => Ok(stops),
            count => Err(Error::invalid_value("stop", format!("stop has {count} texts, the limit is {MOST_STOPS}"))),
        }
    }

    /// How many texts a prompt gets.
    fn texts(&self) -> Result<usize> {
        match self.n.unwrap_or(1) {
            n @ 1..=MOST_TEXTS => Ok(n),
            n => Err(Error::invalid_value("n", format!("n is {n}, it must be from 1 to {MOST_TEXTS}"))),
        }
    }

    fn is_stream(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    fn counts_tokens(&self) -> bool {
        self.stream_options.unwrap_or_default().include_usage
    }
}

/// How many of the likeliest tokens are told.
fn top(name: &str, count: Option<usize>) -> Result<usize> {
    match count.unwrap_or(0) {
        count @ 0..=MOST_LOGPROBS => Ok(count),
        count => Err(Error::invalid_value(name, format!("{name} is {count}, it must be from 0 to {MOST_LOGPROBS}"))),
    }
}

/// A request for texts, whatever the route.
struct Texts<'a> {
    model: Option<String>,
    prompts: Vec<Prompt>,
    options: &'a Options,
    max_tokens: Option<usize>,
    top_logprobs: Option<usize>,
    echo: bool,
    schema: Option<Value>,
}

impl Texts<'_> {
    /// Writes all of them, one after another; `on_part` gets the parts of each with its number.
    fn write(&self, context: &RequestContext, on_part: &mut dyn FnMut(usize, Part) -> Result<()>) -> Result<TextUsage> {
        let (each, stop, seed, mut usage) =
            (self.options.texts()?, self.options.stops()?, self.options.seed(), TextUsage::default());
        if self.prompts.len() * each > MOST_TEXTS {
            let message = format!("{} prompts of {each} texts each are more than {MOST_TEXTS}", self.prompts.len());
            return Err(Error::invalid_value("n", message));
        }
        for index in 0..self.prompts.len() * each {
            let job = Generate {
                model: self.model.clone(),
                prompt: self.prompts[index / each].clone(),
                sampling: self.options.sampling(seed, index)?,
                max_tokens: self.max_tokens,
                stop: stop.clone(),
                top_logprobs: self.top_logprobs,
                echo: self.echo,
                schema: self.schema.clone(),
                check_cancelled: &|| context.sender.map_or(Ok(()), ResponseSender::check),
                on_delta: &mut |piece, tokens| on_part(index, Part::Piece(piece, tokens)),
            };
            let answer = match context.run(job) {
                // What is written is not lost for what there was no time to begin.
                Err(error) if error.kind == ErrorKind::Timeout && index > 0 => Completion::empty(),
                outcome => outcome?,
            };
            usage.add(&answer, index % each == 0);
            on_part(index, Part::End(&answer))?;
        }
        Ok(usage)
    }

    /// Writes all of them; returns them whole, and what they took.
    fn answers(&self, context: &RequestContext) -> Result<(Vec<Completion>, TextUsage, Usage)> {
        let (mut answers, start) = (vec![], Instant::now());
        let usage = self.write(context, &mut |_, part| {
            if let Part::End(answer) = part {
                answers.push(answer.clone());
            }
            Ok(())
        })?;
        Ok((answers, usage, usage.work(start.elapsed())))
    }

    /// The model that writes them.
    fn loaded(&self, context: &RequestContext) -> Result<Arc<LoadedModel<Generator>>> {
        context.jobs.text_model(self.model.as_deref())
    }

    /// Writes all of them as a stream of chunks: `choices` makes one or more of each part.
    fn stream(
        &self,
        context: &RequestContext,
        id: &str,
        object: &str,
        choices: &mut dyn FnMut(usize, Part) -> Vec<Value>,
    ) -> Result<ApiResponse> {
        let (model, created, counts) = (self.loaded(context)?.name.clone(), now(), self.options.counts_tokens());
        let (mut events, start) = (SseWriter::new(context.sender), Instant::now());
        let mut send = |choices: Value, usage: Option<TextUsage>| {
            let mut chunk = json!({"id": id, "object": object, "created": created, "model": model, "choices": choices});
            if counts {
                chunk["usage"] = serde_json::to_value(usage).unwrap_or_default();
            }
            events.send(&chunk)
        };
        let written = self.write(context, &mut |index, part| {
            choices(index, part).into_iter().try_for_each(|choice| send(json!([choice]), None))
        });
        let work = written.as_ref().map_or_else(|_| Usage::default(), |usage| usage.work(start.elapsed()));
        let counted = written.and_then(|usage| if counts { send(json!([]), Some(usage)) } else { Ok(()) });
        let outcome = counted.and_then(|()| events.send_done());
        Ok(events.finish(outcome)?.with_usage(work).with_model(model))
    }
}

/// What comes of a text while it is written.
enum Part<'a> {
    /// A further part, and how to show its tokens.
    Piece(&'a TextDelta, &'a LlamaTokenizer),
    /// All of it.
    End(&'a Completion),
}

/// A number that no other request has.
fn number() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos() as u64);
    now.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs())
}

/// A token as text; of bytes that are no whole characters with U+FFFD.
fn shown_token(tokens: &LlamaTokenizer, id: u32) -> String {
    let bytes = tokens.token_bytes(id);
    tokens.special_token(id).map_or_else(|| String::from_utf8_lossy(bytes).into_owned(), str::to_string)
}

/// JSON has no infinity; OpenAI writes -9999 for what is impossible.
fn finite(log: f32) -> f32 {
    log.max(-9999.0)
}
