//! Generates completions, for both routes.

use super::sampling_options::{MAX_COMPLETIONS, SamplingOptions};
use crate::api::context::{ApiResponse, RequestContext};
use crate::api::response_sender::ResponseSender;
use crate::api::sse::SseWriter;
use crate::engine::LoadedModel;
use crate::engine::generate::{Completion, Generate, Prompt, TextDelta};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tealight_core::{Error, ErrorKind, Result, Usage};
use tealight_models::tasks::generate::Generator;
use tealight_models::tokenizer::LlamaTokenizer;

/// A validated request for completions.
pub(super) struct GenerationRequest {
    pub model: Option<String>,
    pub prompts: Vec<Prompt>,
    pub options: SamplingOptions,
    pub max_tokens: Option<usize>,
    /// How many of the most likely tokens are reported per token; none without log probabilities.
    pub top_logprobs: Option<usize>,
    /// Whether completions start with their prompt.
    pub echo: bool,
    /// A JSON schema that completions must match.
    pub schema: Option<Value>,
}

/// An event of a completion while it is generated.
pub(super) enum GenerationEvent<'a> {
    /// A further part, and the tokenizer that decodes its tokens.
    Delta(&'a TextDelta, &'a LlamaTokenizer),
    /// The completion is complete.
    Done(&'a Completion),
}

/// Token counts of a request.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CompletionUsage {
    /// Tokens of the prompts.
    pub prompt_tokens: usize,
    /// Tokens of the completions.
    pub completion_tokens: usize,
    /// Tokens of both.
    pub total_tokens: usize,
    /// Details of the prompt tokens.
    pub prompt_tokens_details: PromptTokensDetails,
}

/// Details of the prompt tokens.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PromptTokensDetails {
    /// Tokens of a prefix that was in the prompt cache.
    pub cached_tokens: usize,
}

impl CompletionUsage {
    /// Adds a completion. The prompt counts once for all completions of it.
    fn add(&mut self, completion: &Completion, is_first_of_prompt: bool) {
        if is_first_of_prompt {
            self.prompt_tokens += completion.prompt_tokens;
            self.prompt_tokens_details.cached_tokens += completion.cached_tokens;
        }
        self.completion_tokens += completion.completion_tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
    }

    /// The usage as [`Usage`], for metrics and headers.
    fn engine_usage(self, inference_time: Duration) -> Usage {
        Usage {
            tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            inference_time,
            ..Usage::default()
        }
    }
}

/// The completions of a request.
pub(super) struct Generated {
    pub completions: Vec<Completion>,
    pub usage: CompletionUsage,
    pub engine_usage: Usage,
}

impl GenerationRequest {
    /// Generates all completions, and returns them when they are complete.
    pub fn run(&self, context: &RequestContext) -> Result<Generated> {
        let (mut completions, start) = (vec![], Instant::now());
        let usage = self.generate(context, &mut |_, event| {
            if let GenerationEvent::Done(completion) = event {
                completions.push(completion.clone());
            }
            Ok(())
        })?;
        Ok(Generated { completions, usage, engine_usage: usage.engine_usage(start.elapsed()) })
    }

    /// Generates all completions, and sends them as a stream of chunks. `choices` converts an event to one or more choices, each of
    /// which is sent in a chunk.
    pub fn stream(
        &self,
        context: &RequestContext,
        id: &str,
        object: &str,
        choices: &mut dyn FnMut(usize, GenerationEvent) -> Vec<Value>,
    ) -> Result<ApiResponse> {
        let (model, created) = (self.loaded_model(context)?.name.clone(), unix_time());
        let include_usage = self.options.include_usage;
        let (mut events, start) = (SseWriter::new(context.sender), Instant::now());
        let mut send = |choices: Value, usage: Option<CompletionUsage>| {
            let mut chunk = json!({"id": id, "object": object, "created": created, "model": model, "choices": choices});
            if include_usage {
                chunk["usage"] = serde_json::to_value(usage).unwrap_or_default();
            }
            events.send(&chunk)
        };
        let generated = self.generate(context, &mut |index, event| {
            choices(index, event).into_iter().try_for_each(|choice| send(json!([choice]), None))
        });
        let engine_usage =
            generated.as_ref().map_or_else(|_| Usage::default(), |usage| usage.engine_usage(start.elapsed()));
        let sent = generated.and_then(|usage| if include_usage { send(json!([]), Some(usage)) } else { Ok(()) });
        let outcome = sent.and_then(|()| events.send_done());
        Ok(events.finish(outcome)?.with_usage(engine_usage).with_model(model))
    }

    /// The model, which is in memory after the first completion.
    pub fn loaded_model(&self, context: &RequestContext) -> Result<Arc<LoadedModel<Generator>>> {
        context.job_context.text_model(self.model.as_deref())
    }

    /// Generates the completions one after another. `on_event` gets their events, with the index of the completion.
    fn generate(
        &self,
        context: &RequestContext,
        on_event: &mut dyn FnMut(usize, GenerationEvent) -> Result<()>,
    ) -> Result<CompletionUsage> {
        let per_prompt = self.options.completions_per_prompt()?;
        let (stop, seed) = (self.options.stop_sequences()?, self.options.seed());
        let count = self.prompts.len() * per_prompt;
        if count > MAX_COMPLETIONS {
            let message = format!(
                "{} prompts with n = {per_prompt} need {count} completions; the limit is {MAX_COMPLETIONS}",
                self.prompts.len()
            );
            return Err(Error::invalid_value("n", message));
        }
        let mut usage = CompletionUsage::default();
        for index in 0..count {
            let job = Generate {
                model: self.model.clone(),
                prompt: self.prompts[index / per_prompt].clone(),
                sampling: self.options.sampling_params(seed, index)?,
                max_tokens: self.max_tokens,
                stop: stop.clone(),
                top_logprobs: self.top_logprobs,
                echo: self.echo,
                schema: self.schema.clone(),
                check_cancelled: &|| context.sender.map_or(Ok(()), ResponseSender::check),
                on_delta: &mut |delta, tokenizer| on_event(index, GenerationEvent::Delta(delta, tokenizer)),
            };
            let completion = match context.run(job) {
                // The completions so far are returned even if there is no time for the others.
                Err(error) if error.kind == ErrorKind::Timeout && index > 0 => Completion::empty(),
                outcome => outcome?,
            };
            usage.add(&completion, index % per_prompt == 0);
            on_event(index, GenerationEvent::Done(&completion))?;
        }
        Ok(usage)
    }
}

/// Seconds since 1970.
pub(super) fn unix_time() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs())
}
