//! The request fields that all routes for text generation have.

use crate::api::json::OneOrMany;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use tealight_core::{Error, Result, truncate_for_display};
use tealight_models::tasks::generate::SamplingParams;

/// Completions of one request, which are generated one after another.
pub(super) const MAX_COMPLETIONS: usize = 128;
const MAX_STOP_SEQUENCES: usize = 16;
/// OpenAI's limit.
const MAX_TOP_LOGPROBS: usize = 20;

/// Declares a request with its own fields and those of [`SamplingOptions`]. `#[serde(flatten)]` would do the same, but it keeps the
/// fields in a buffer, from which errors come without the path of the field.
macro_rules! generation_request {
    ($(#[$attr:meta])* pub struct $name:ident { $($(#[$field_attr:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$attr])*
        #[derive(Debug, serde::Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        pub struct $name {
            $($(#[$field_attr])* pub $field: $type,)*
            /// From 0, which always takes the most likely token, to 2; default 1.
            pub temperature: Option<f32>,
            /// Samples from the most likely tokens whose probabilities add up to this.
            pub top_p: Option<f32>,
            /// Samples from this number of most likely tokens. Not in OpenAI's API.
            pub top_k: Option<usize>,
            /// Excludes tokens less likely than this, relative to the most likely one. Not in OpenAI's API.
            pub min_p: Option<f32>,
            /// Above 1, makes tokens that already occur in the text less likely. Not in OpenAI's API.
            pub repetition_penalty: Option<f32>,
            /// From -2 to 2; lowers the logits of tokens that were generated.
            pub presence_penalty: Option<f32>,
            /// From -2 to 2; lowers the logits of tokens for each time that they were generated.
            pub frequency_penalty: Option<f32>,
            /// Added to the logits of tokens, by token id; from -100 to 100.
            pub logit_bias: Option<std::collections::BTreeMap<String, f32>>,
            /// Makes sampling reproducible; default random.
            pub seed: Option<i64>,
            /// Sequences that end the completion and are not part of it; at most 16.
            pub stop: Option<$crate::api::json::OneOrMany<String>>,
            /// Completions per prompt, from 1 to 128; default 1.
            pub n: Option<usize>,
            /// Whether to stream the response as server-sent events.
            pub stream: Option<bool>,
            /// Options of a streamed response.
            pub stream_options: Option<$crate::api::text::sampling_options::StreamOptions>,
        }

        impl $name {
            fn sampling_options(&self) -> $crate::api::text::sampling_options::SamplingOptions {
                $crate::api::text::sampling_options::SamplingOptions {
                    temperature: self.temperature,
                    top_p: self.top_p,
                    top_k: self.top_k,
                    min_p: self.min_p,
                    repetition_penalty: self.repetition_penalty,
                    presence_penalty: self.presence_penalty,
                    frequency_penalty: self.frequency_penalty,
                    logit_bias: self.logit_bias.clone(),
                    seed: self.seed,
                    stop: self.stop.clone(),
                    n: self.n,
                    stream: self.stream.unwrap_or(false),
                    include_usage: self.stream_options.unwrap_or_default().include_usage,
                }
            }
        }
    };
}
pub(super) use generation_request;

/// How tokens are sampled, when a completion ends, and how the response is sent.
#[derive(Debug, Clone)]
pub(super) struct SamplingOptions {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<usize>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub logit_bias: Option<BTreeMap<String, f32>>,
    pub seed: Option<i64>,
    pub stop: Option<OneOrMany<String>>,
    pub n: Option<usize>,
    pub stream: bool,
    pub include_usage: bool,
}

/// Options of a streamed response.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StreamOptions {
    /// Whether the last event reports the token usage.
    #[serde(default)]
    pub include_usage: bool,
}

impl SamplingOptions {
    /// The parameters of the completion with this index. Each has its own seed.
    pub fn sampling_params(&self, seed: u64, index: usize) -> Result<SamplingParams> {
        let base = SamplingParams::default();
        let logit_bias = self.logit_bias.iter().flatten().map(|(id, bias)| match id.trim().parse() {
            Ok(id) => Ok((id, *bias)),
            Err(_) => {
                let message = format!("logit_bias has the key {:?}; expected a token id", truncate_for_display(id));
                Err(Error::invalid_value("logit_bias", message))
            }
        });
        Ok(SamplingParams {
            temperature: self.temperature.unwrap_or(base.temperature),
            top_k: self.top_k.unwrap_or(base.top_k),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(base.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(base.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(base.frequency_penalty),
            logit_bias: logit_bias.collect::<Result<_>>()?,
            seed: seed.wrapping_add(index as u64),
        })
    }

    /// The seed of the request, or a random one.
    pub fn seed(&self) -> u64 {
        self.seed.map_or_else(unique_number, |seed| seed as u64)
    }

    /// The stop sequences, validated.
    pub fn stop_sequences(&self) -> Result<Vec<String>> {
        let stop = self.stop.clone().map_or(vec![], OneOrMany::into_vec);
        if stop.iter().any(String::is_empty) {
            return Err(Error::invalid_value(
                "stop",
                "stop contains an empty string, which would end every completion",
            ));
        }
        match stop.len() {
            0..=MAX_STOP_SEQUENCES => Ok(stop),
            count => {
                let message = format!("stop has {count} sequences; the limit is {MAX_STOP_SEQUENCES}");
                Err(Error::invalid_value("stop", message))
            }
        }
    }

    /// The number of completions per prompt.
    pub fn completions_per_prompt(&self) -> Result<usize> {
        match self.n.unwrap_or(1) {
            n @ 1..=MAX_COMPLETIONS => Ok(n),
            n => Err(Error::invalid_value("n", format!("n is {n}; expected 1 to {MAX_COMPLETIONS}"))),
        }
    }
}

/// Checks how many of the most likely tokens are reported.
///
/// # Errors
/// [`tealight_core::ErrorKind::InvalidValue`].
pub(super) fn check_top_logprobs(name: &str, count: usize) -> Result<usize> {
    match count {
        0..=MAX_TOP_LOGPROBS => Ok(count),
        _ => Err(Error::invalid_value(name, format!("{name} is {count}; expected 0 to {MAX_TOP_LOGPROBS}"))),
    }
}

/// A number that is unique in the process: for response ids, and as the seed of requests that set none.
pub(super) fn unique_number() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos() as u64);
    now.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use crate::api::json::parse;
    use crate::api::text::chat::ChatRequest;

    #[test]
    fn error_of_shared_field_has_its_path() {
        for (field, param) in [
            (r#""temperature": "hot""#, "temperature"),
            (r#""stop": {"a": 1}"#, "stop"),
            (r#""stream_options": 3"#, "stream_options"),
            (r#""logit_bias": {"5": "x"}"#, "logit_bias.5"),
        ] {
            let error = parse::<ChatRequest>(format!("{{\"messages\": [], {field}}}").as_bytes()).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{error}");
            assert!(error.message.starts_with(param), "{error}");
        }
    }
}
