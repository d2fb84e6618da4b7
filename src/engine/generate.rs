//! The text-generation job: prompt to completion.

use super::job::{Engine, Job, JobContext};
use super::model_cache::{LoadedModel, ModelCache};
use super::model_task::ModelTask;
use super::registry::{ModelAndWait, ModelDetails, Registry, ServedModel};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result};
use tealight_models::Embedder;
use tealight_models::families::llama::Sequence;
use tealight_models::tasks::generate::chat_template::{self, ChatInput};
use tealight_models::tasks::generate::{Constraint, Generator, Sampler, SamplingParams, StopBuffer, token_logprobs};
use tealight_models::tokenizer::LlamaTokenizer;

impl ServedModel for Generator {
    const TASK: ModelTask = ModelTask::Text;

    fn cache(registry: &Registry) -> &ModelCache<Self> {
        &registry.caches.text
    }

    fn load(registry: &Registry, _: &str, path: &Path) -> Result<Self> {
        Generator::load(&registry.cpu, path)
    }

    fn details(&self) -> ModelDetails {
        ModelDetails {
            dimension: None,
            max_tokens: Some(self.llama.config.max_position_embeddings),
            license: self.llama.info.license.clone(),
        }
    }
}

impl Registry {
    /// The text-generation model of this name, or the default one. Loads it if necessary.
    ///
    /// # Errors
    /// As [`Registry::embedder`].
    pub fn text_model(&self, name: Option<&str>) -> Result<ModelAndWait<Generator>> {
        self.get(name)
    }

    /// The embedding model that shares the weights of a text-generation model.
    pub(super) fn embedder_of_text_model(&self, name: &str, path: &Path) -> Result<Embedder> {
        let text: ModelAndWait<Generator> = self.get_or_load(name.into(), || Ok(path.into()))?;
        Embedder::from_llama(text.0.model.llama.clone())
    }
}

impl JobContext<'_> {
    /// The text-generation model of this name, or the default one.
    ///
    /// # Errors
    /// As [`Registry::text_model`].
    pub fn text_model(&self, name: Option<&str>) -> Result<Arc<LoadedModel<Generator>>> {
        Ok(self.record_wait(self.engine.registry.text_model(name)?))
    }
}

/// The start that a completion continues.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// A text to continue.
    Text(String),
    /// Token ids.
    Tokens(Vec<u32>),
    /// A chat: messages, and descriptions of the functions that the model may call.
    Chat(Vec<Value>, Option<Value>),
}

impl Prompt {
    /// The request field that errors name.
    fn field(&self) -> &'static str {
        if matches!(self, Prompt::Chat(..)) { "messages" } else { "prompt" }
    }

    fn tokenize(&self, tokenizer: &LlamaTokenizer) -> Result<Vec<u32>> {
        match self {
            Prompt::Tokens(ids) => Ok(ids.clone()),
            Prompt::Text(text) => {
                let mut tokens = tokenizer.prefix.clone();
                tokens.extend(tokenizer.encode(text)?);
                Ok(tokens)
            }
            Prompt::Chat(messages, tools) => {
                let template = tokenizer.chat_template.as_deref().ok_or_else(|| {
                    let advice = "complete a prompt instead (/v1/completions, or generate without --chat)";
                    Error::invalid_value("messages", format!("the model has no chat template; {advice}"))
                })?;
                let name = |id: Option<u32>| id.and_then(|id| tokenizer.special_token(id)).unwrap_or_default();
                let input = ChatInput {
                    messages,
                    tools: tools.as_ref(),
                    add_generation_prompt: true,
                    bos_token: name(tokenizer.bos),
                    eos_token: name(tokenizer.eog_ids.first().copied()),
                };
                // Templates write the token that starts a text themselves.
                tokenizer.encode(&chat_template::render(template, &input)?)
            }
        }
    }
}

/// OpenAI's finish reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model generated an end-of-text token or a stop sequence, or completed the schema.
    Stop,
    /// A token limit or the deadline was reached.
    Length,
}

impl FinishReason {
    /// OpenAI's name.
    pub fn as_str(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        }
    }
}

/// The probability of a token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// Token id.
    pub id: u32,
    /// The natural logarithm of the probability; `None` for the first token of a text.
    pub logprob: Option<f32>,
    /// The most likely tokens at this position, with their log probabilities.
    pub top: Vec<(u32, f32)>,
}

impl TokenLogprob {
    fn new(logits: &[f32], id: u32, count: usize) -> Self {
        let (logprob, top) = token_logprobs(logits, id, count);
        Self { id, logprob: Some(logprob), top }
    }
}

/// A further part of a completion.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TextDelta {
    /// Text, which never ends within a character.
    pub text: String,
    /// The tokens of this part, if log probabilities were requested.
    pub logprobs: Vec<TokenLogprob>,
}

/// Job: completes a prompt.
pub struct Generate<'a> {
    /// The name of the model; `None` is the default model.
    pub model: Option<String>,
    /// What to continue.
    pub prompt: Prompt,
    /// How tokens are sampled.
    pub sampling: SamplingParams,
    /// Maximum tokens of the completion; `None` is what the context has room for.
    pub max_tokens: Option<usize>,
    /// Stop sequences, which are not part of the completion.
    pub stop: Vec<String>,
    /// Log probabilities of each token, with this number of alternatives; `None` computes no log probabilities.
    pub top_logprobs: Option<usize>,
    /// Whether the completion starts with the prompt.
    pub echo: bool,
    /// A JSON schema that the completion must match.
    pub schema: Option<Value>,
    /// Called repeatedly; an error, such as of a client that has disconnected, ends the job.
    pub check_cancelled: &'a (dyn Fn() -> Result<()> + Sync),
    /// Called with each part of the completion; an error ends the job.
    pub on_delta: &'a mut dyn FnMut(&TextDelta, &LlamaTokenizer) -> Result<()>,
}

impl std::fmt::Debug for Generate<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generate").finish_non_exhaustive()
    }
}

/// The result of [`Generate`].
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The text, without stop sequence.
    pub text: String,
    /// Whether the text is complete or was cut off.
    pub finish_reason: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were in the prefix cache.
    pub cached_tokens: usize,
    /// Generated tokens, including the end-of-text token.
    pub completion_tokens: usize,
    /// All tokens of the text, if log probabilities were requested.
    pub logprobs: Vec<TokenLogprob>,
}

impl Completion {
    /// A completion that did not start before the deadline.
    pub fn empty() -> Self {
        Self {
            text: String::new(),
            finish_reason: FinishReason::Length,
            prompt_tokens: 0,
            cached_tokens: 0,
            completion_tokens: 0,
            logprobs: vec![],
        }
    }
}

/// Time reserved for sending the response, in addition to the time of three tokens.
const RESPONSE_MARGIN: Duration = Duration::from_millis(100);

impl Job for Generate<'_> {
    type Output = Completion;

    fn run(self, context: &JobContext) -> Result<Completion> {
        let loaded = context.text_model(self.model.as_deref())?;
        let (generator, config) = (&loaded.model, &loaded.model.llama.config);
        self.sampling.validate(config.vocab_size)?;
        let tokens = self.prompt.tokenize(&generator.llama.tokenizer)?;
        let context_len = config.max_position_embeddings;
        if tokens.is_empty() {
            let error = Error::new(ErrorKind::Empty, "the prompt has no tokens");
            return Err(error.with_param(self.prompt.field()));
        }
        if tokens.len() >= context_len {
            let message =
                format!("prompt has {} tokens; prompt and completion must fit in {context_len} tokens", tokens.len());
            return Err(Error::new(ErrorKind::TooLong, message).with_param(self.prompt.field()));
        }
        let limit = self.max_tokens.unwrap_or(context_len).min(context_len - tokens.len());
        let constraint = self.schema.as_ref().map(|schema| generator.constraint(schema)).transpose()?;
        // Echoed log probabilities need the logits of every token of the prompt.
        let reusable = if self.echo { &[][..] } else { &tokens };
        let mut sequence = generator.restore_prefix(reusable, tokens.len() + limit.min(256));
        let mut state = GenerationState {
            engine: context.engine,
            generator,
            deadline: context.deadline,
            constraint,
            stop_buffer: StopBuffer::new(self.stop.iter().map(String::as_str)),
            sampler: Sampler::new(self.sampling.clone(), &tokens),
            completion: Completion {
                prompt_tokens: tokens.len(),
                cached_tokens: sequence.tokens().len(),
                ..Completion::empty()
            },
            job: self,
        };
        let outcome = state.run(&mut sequence, &tokens, limit);
        generator.store_prefix(sequence);
        outcome.map(|()| state.completion)
    }
}

/// A completion in progress.
struct GenerationState<'a, 'j> {
    engine: &'a Engine,
    generator: &'a Generator,
    deadline: Deadline,
    job: Generate<'j>,
    sampler: Sampler,
    constraint: Option<Constraint>,
    stop_buffer: StopBuffer,
    completion: Completion,
}

impl GenerationState<'_, '_> {
    /// Processes the tokens of the prompt that `sequence` does not have, and generates at most `limit` tokens.
    fn run(&mut self, sequence: &mut Sequence, prompt: &[u32], limit: usize) -> Result<()> {
        let (cpu, deadline) = (&self.engine.cpu, self.deadline);
        let llama = &self.generator.llama;
        let check_cancelled = self.job.check_cancelled;
        let mut logits = self.prefill(sequence, prompt)?;
        while self.completion.completion_tokens < limit {
            let start = Instant::now();
            check_cancelled()?;
            let before_sampling = self.job.top_logprobs.map(|count| (logits.clone(), count));
            let id = self.sample(&mut logits)?;
            self.completion.completion_tokens += 1;
            if llama.tokenizer.is_eog(id) {
                self.completion.finish_reason = FinishReason::Stop;
                break;
            }
            let logprobs = before_sampling.iter().map(|(logits, count)| TokenLogprob::new(logits, id, *count));
            let text = self.stop_buffer.push(llama.tokenizer.token_bytes(id));
            self.emit(TextDelta { text, logprobs: logprobs.collect() })?;
            if self.stop_buffer.is_stopped() || self.constraint.as_ref().is_some_and(Constraint::is_complete) {
                self.completion.finish_reason = FinishReason::Stop;
                break;
            }
            if self.completion.completion_tokens == limit
                || deadline.expires_within(RESPONSE_MARGIN + 3 * start.elapsed())
            {
                break;
            }
            logits = llama.forward(cpu, sequence, &[id], 1, || Ok(()))?;
        }
        let text = self.stop_buffer.finish();
        self.emit(TextDelta { text, logprobs: vec![] })
    }

    /// Processes the prompt, echoes it if requested, and returns the logits after its last token.
    fn prefill(&mut self, sequence: &mut Sequence, prompt: &[u32]) -> Result<Vec<f32>> {
        let (cached, last) = (sequence.tokens().len(), prompt.len() - 1);
        let top_logprobs = self.job.top_logprobs.filter(|_| self.job.echo);
        let logits_count = if top_logprobs.is_some() { prompt.len() } else { 1 };
        let check = || self.deadline.check().and_then(|()| (self.job.check_cancelled)());
        let (mut logprobs, mut last_logits) = (vec![], vec![]);
        let llama = &self.generator.llama;
        llama.forward_with(
            &self.engine.cpu,
            sequence,
            &prompt[cached..],
            logits_count,
            check,
            |i, logits| match prompt.get(cached + i + 1).zip(top_logprobs) {
                Some((next, count)) => logprobs.push(TokenLogprob::new(logits, *next, count)),
                None if cached + i == last => last_logits.extend_from_slice(logits),
                None => {}
            },
        )?;
        if self.job.echo {
            self.emit_prompt(prompt, logprobs)?;
        }
        Ok(last_logits)
    }

    fn sample(&mut self, logits: &mut [f32]) -> Result<u32> {
        let isa = self.engine.cpu.isa;
        let Some(constraint) = &mut self.constraint else { return self.sampler.sample(isa, logits, None) };
        let mask = constraint.compute_mask()?;
        let id = self.sampler.sample(isa, logits, Some(&|id| mask.is_allowed(id)))?;
        if !self.generator.llama.tokenizer.is_eog(id) {
            constraint.consume_token(id)?;
        }
        Ok(id)
    }

    /// Emits the prompt as a part of the completion; `following` has the log probabilities of all tokens but the first.
    fn emit_prompt(&mut self, prompt: &[u32], following: Vec<TokenLogprob>) -> Result<()> {
        let mut buffer = StopBuffer::default();
        let tokenizer = &self.generator.llama.tokenizer;
        let mut text: String = prompt.iter().map(|id| buffer.push(tokenizer.token_bytes(*id))).collect();
        text.push_str(&buffer.finish());
        let mut logprobs = vec![];
        if self.job.top_logprobs.is_some() {
            logprobs.push(TokenLogprob { id: prompt[0], logprob: None, top: vec![] });
            logprobs.extend(following);
        }
        self.emit(TextDelta { text, logprobs })
    }

    fn emit(&mut self, delta: TextDelta) -> Result<()> {
        if delta.text.is_empty() && delta.logprobs.is_empty() {
            return Ok(());
        }
        (self.job.on_delta)(&delta, &self.generator.llama.tokenizer)?;
        self.completion.text.push_str(&delta.text);
        self.completion.logprobs.extend(delta.logprobs);
        Ok(())
    }
}
