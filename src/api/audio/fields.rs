//! Fields of an audio request, and the options that they set.

use crate::pipeline::format::VectorEncoding;
use serde::Deserialize;
use tealight_audio::VadOptions;
use tealight_core::{Error, Result, truncate_for_display};
use tealight_models::families::whisper::language_code;
use tealight_models::tasks::transcribe::{Task, TranscribeOptions};

/// Each hypothesis of a beam needs its own KV cache and forward passes, so the size bounds memory and time.
const MAX_BEAM_SIZE: usize = 16;

/// `POST /v1/audio/transcriptions`, `/v1/audio/translations` and `/v1/audio/embeddings`: a multipart form or JSON.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AudioRequest {
    /// The audio file; in JSON as base64.
    #[serde(alias = "audio")]
    pub file: Option<String>,
    /// Location of the audio file instead of `file`: `s3://BUCKET/KEY`, under a prefix that the function allows.
    pub uri: Option<String>,
    /// Name of the speech-to-text model. Default: the configured model, which is also called `whisper-1`.
    pub model: Option<String>,
    /// The spoken language, such as `en`. Default: detected.
    pub language: Option<String>,
    /// Context or vocabulary that guides the transcription.
    pub prompt: Option<String>,
    /// `json`, `text`, `srt`, `verbose_json` or `vtt`. Default: `json`.
    pub response_format: Option<String>,
    /// Sampling temperature from 0 to 1. Default: 0, with higher temperatures for improbable segments.
    pub temperature: Option<f32>,
    /// `segment`, `word` or both. Default: `segment`.
    #[serde(alias = "timestamp_granularities[]")]
    pub timestamp_granularities: Option<Vec<String>>,
    /// Whether to stream the response as server-sent events.
    pub stream: Option<bool>,
    /// `auto` or an object: skips audio without speech. Default: the whole recording is transcribed.
    pub chunking_strategy: Option<ChunkingStrategy>,
    /// faster-whisper's name of `chunking_strategy: auto`.
    pub vad_filter: Option<bool>,
    /// Beam size from 1 to 16. Default: 1, which is greedy and the fastest.
    pub beam_size: Option<usize>,
    /// For `/v1/audio/embeddings`: name of the embedding model. Default: the configured model.
    pub embedding_model: Option<String>,
    /// For `/v1/audio/embeddings`: number of dimensions to keep of each embedding, which is then normalized again.
    pub dimensions: Option<usize>,
    /// For `/v1/audio/embeddings`: encoding of the embeddings. Default: `float`.
    pub encoding_format: Option<VectorEncoding>,
}

/// OpenAI's `chunking_strategy`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(
    untagged,
    expecting = "expected auto, or an object of type server_vad with threshold (a number from 0 to 1), prefix_padding_ms and \
                 silence_duration_ms (integers)"
)]
pub enum ChunkingStrategy {
    /// `auto`.
    Named(String),
    /// Voice activity detection with other thresholds.
    ServerVad(ServerVad),
}

/// Voice activity detection.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ServerVad {
    /// `server_vad`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Speech starts where the score, from 0 to 1, is at least this.
    pub threshold: Option<f32>,
    /// Milliseconds to keep before and after speech.
    pub prefix_padding_ms: Option<u32>,
    /// Shorter pauses, in milliseconds, do not end speech.
    pub silence_duration_ms: Option<u32>,
}

impl AudioRequest {
    /// Whether `timestamp_granularities` contains `segment` or `word`.
    pub(super) fn has_granularity(&self, granularity: &str) -> bool {
        self.timestamp_granularities.iter().flatten().any(|g| g == granularity)
    }

    /// Validates the fields that concern the transcription.
    pub(super) fn transcribe_options(&self, task: Task) -> Result<TranscribeOptions> {
        for granularity in self.timestamp_granularities.iter().flatten() {
            if !matches!(granularity.as_str(), "segment" | "word") {
                let value = truncate_for_display(granularity);
                let message = format!("timestamp_granularities has {value:?}; expected segment or word");
                return Err(Error::invalid_value("timestamp_granularities", message));
            }
        }
        let mut options = TranscribeOptions {
            task,
            language: self.language.as_deref().filter(|l| !l.trim().is_empty()).map(language_code),
            word_timestamps: self.has_granularity("word"),
            vad: self.vad_options()?,
            beam_size: self.validated_beam_size()?,
            ..TranscribeOptions::default()
        };
        if let Some(temperature) = self.temperature {
            check_between_0_and_1("temperature", temperature)?;
            // Like OpenAI, 0 falls back to higher temperatures; any other temperature is the only one.
            if temperature > 0.0 {
                options.temperatures = vec![temperature];
            }
        }
        Ok(options)
    }

    fn validated_beam_size(&self) -> Result<usize> {
        match self.beam_size.unwrap_or(1) {
            beam_size @ 1..=MAX_BEAM_SIZE => Ok(beam_size),
            other => {
                let message = format!("beam_size is {other}; expected 1 to {MAX_BEAM_SIZE}");
                Err(Error::invalid_value("beam_size", message))
            }
        }
    }

    fn vad_options(&self) -> Result<Option<VadOptions>> {
        let default = VadOptions::default();
        match &self.chunking_strategy {
            None => Ok(self.vad_filter.unwrap_or(false).then_some(default)),
            Some(ChunkingStrategy::Named(name)) if name == "auto" => Ok(Some(default)),
            Some(ChunkingStrategy::ServerVad(vad)) if vad.kind.as_deref() == Some("server_vad") => {
                let threshold = vad.threshold.unwrap_or(default.threshold);
                check_between_0_and_1("chunking_strategy.threshold", threshold)?;
                let seconds = |ms: Option<u32>, default: f32| ms.map_or(default, |ms| ms as f32 / 1000.0);
                let speech_pad = seconds(vad.prefix_padding_ms, default.speech_pad);
                let min_silence_duration = seconds(vad.silence_duration_ms, default.min_silence_duration);
                Ok(Some(VadOptions { threshold, speech_pad, min_silence_duration }))
            }
            Some(other) => {
                let value = match other {
                    ChunkingStrategy::Named(name) => format!("{:?}", truncate_for_display(name)),
                    ChunkingStrategy::ServerVad(vad) => {
                        let kind = vad.kind.as_deref().unwrap_or("null");
                        format!("an object of type {}", truncate_for_display(kind))
                    }
                };
                let message = format!("chunking_strategy is {value}; expected auto or an object of type server_vad");
                Err(Error::invalid_value("chunking_strategy", message))
            }
        }
    }
}

fn check_between_0_and_1(name: &str, value: f32) -> Result<()> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid_value(name, format!("{name} is {value}; expected 0 to 1")))
}
