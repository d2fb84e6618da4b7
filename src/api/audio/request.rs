//! What a request for speech says, as a form or in JSON, and what it means.

use super::super::context::RequestContext;
use super::super::json::parse;
use super::super::multipart;
use crate::aws::s3::S3Location;
use crate::pipeline::format::Encoding;
use crate::pipeline::format::transcript::Form;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;
use tealight_audio::VadOptions;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};
use tealight_models::families::whisper::language_code;
use tealight_models::tasks::transcribe::{Options, Task};

/// How long an object of S3 may take where no deadline is nearer.
const OBJECT_TIME: Duration = Duration::from_secs(300);
/// Beams beyond these only cost time.
const MOST_BEAMS: usize = 16;

/// `POST /v1/audio/transcriptions` and `/v1/audio/translations`: a form, or JSON.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct AudioRequest {
    /// The recording; in JSON in base64.
    #[serde(alias = "audio")]
    pub file: Option<String>,
    /// Where the recording is instead: `s3://BUCKET/KEY`, under a prefix that the function allows.
    pub uri: Option<String>,
    /// A model's name; `whisper-1` is the default speech model.
    pub model: Option<String>,
    /// The language that is spoken, such as `en`; what is heard where it is missing.
    pub language: Option<String>,
    /// What was said before, or words that are said.
    pub prompt: Option<String>,
    /// How the reply is written; `json` where it is missing.
    pub response_format: Option<String>,
    /// 0 where it is missing: tries higher ones where a text is unlikely.
    pub temperature: Option<f32>,
    /// `segment`, `word` or both; `segment` where it is missing.
    #[serde(alias = "timestamp_granularities[]")]
    pub timestamp_granularities: Option<Vec<String>>,
    /// Whether the reply is a list of server-sent events.
    pub stream: Option<bool>,
    /// `auto`, or what is a voice: passes over what is none. Everything is listened to where it is missing.
    pub chunking_strategy: Option<Chunking>,
    /// The same as `chunking_strategy: auto`, by faster-whisper's name.
    pub vad_filter: Option<bool>,
    /// Texts that are followed at once, from 1 to 16; 1, the fastest, where it is missing.
    pub beam_size: Option<usize>,
    /// Of `/v1/audio/embeddings`: the model that makes vectors; the default one where it is missing.
    pub embedding_model: Option<String>,
    /// Of `/v1/audio/embeddings`: how many values to keep of each vector, which is then scaled to length 1 again.
    pub dimensions: Option<usize>,
    /// Of `/v1/audio/embeddings`: how vectors are written; `float` where it is missing.
    pub encoding_format: Option<Encoding>,
}

/// OpenAI's `chunking_strategy`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "it must be auto, or an object of the type server_vad with threshold (a number from 0 to 1), prefix_padding_ms and \
                 silence_duration_ms (whole numbers)"
)]
pub enum Chunking {
    /// `auto`.
    Named(String),
    /// What is a voice.
    Voices(ServerVad),
}

/// What is a voice.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct ServerVad {
    /// `server_vad`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// From 0 to 1: what is less like a voice is none.
    pub threshold: Option<f32>,
    /// Milliseconds that are kept before and after a voice.
    pub prefix_padding_ms: Option<u32>,
    /// Shorter pauses, in milliseconds, do not end a voice.
    pub silence_duration_ms: Option<u32>,
}

/// A request with its file.
pub(super) struct Request {
    pub fields: AudioRequest,
    pub file: Bytes,
    pub form: Form,
}

impl Request {
    pub(super) fn read(context: &RequestContext) -> Result<Self> {
        let is_form = |t: &&str| t.trim_start().to_ascii_lowercase().starts_with("multipart/");
        let (mut fields, file) = match context.content_type.filter(is_form) {
            Some(content_type) => of_form(content_type, context.body)?,
            None => (parse::<AudioRequest>(context.body)?, None),
        };
        let name = fields.response_format.as_deref().unwrap_or("json");
        let form = Form::named(name).ok_or_else(|| {
            let known = Form::ALL.map(Form::name).join(", ");
            Error::invalid_value(
                "response_format",
                format!("response_format is {:?}; known: {known}", truncate_for_display(name)),
            )
        })?;
        let file = match (file, fields.file.take(), &fields.uri) {
            (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
                return Err(Error::invalid_value("uri", "the request has both a file and a uri"));
            }
            (Some(file), ..) => file,
            (None, Some(text), _) => base64(&text)?,
            (None, None, Some(uri)) => object(context, uri)?,
            (None, None, None) => {
                return Err(Error::new(ErrorKind::InvalidType, "the request has no file").with_param("file"));
            }
        };
        Ok(Self { fields, file, form })
    }
}

fn base64(text: &str) -> Result<Bytes> {
    // Tools such as base64 break lines.
    let bytes = match text.contains(['\n', '\r']) {
        true => BASE64_STANDARD.decode(text.split_ascii_whitespace().collect::<String>()),
        false => BASE64_STANDARD.decode(text.trim()),
    };
    bytes.map(Bytes::from).map_err(|e| Error::invalid_value("file", format!("file is not base64: {e}")))
}

fn object(context: &RequestContext, uri: &str) -> Result<Bytes> {
    S3Location::parse(uri, &context.engine.config.allowed_s3_prefixes, "uri")?
        .get(context.jobs.deadline.remaining(OBJECT_TIME), "uri")
}

fn of_form(content_type: &str, body: &Bytes) -> Result<(AudioRequest, Option<Bytes>)> {
    let (mut fields, mut file) = (AudioRequest::default(), None);
    for part in multipart::parse(content_type, body)? {
        if part.name == "file" {
            file = Some(part.content);
            continue;
        }
        let text = String::from_utf8(part.content.to_vec()).map_err(|_| {
            Error::invalid_value(&part.name, format!("{} is not UTF-8", truncate_for_display(&part.name)))
        })?;
        set(&mut fields, &part.name, text)?;
    }
    Ok((fields, file))
}

/// Takes a field of a form, where everything is text.
fn set(fields: &mut AudioRequest, name: &str, text: String) -> Result<()> {
    // What a form on a page leaves empty is not there.
    if text.trim().is_empty() {
        return Ok(());
    }
    match name {
        "model" => fields.model = Some(text),
        "uri" => fields.uri = Some(text),
        "language" => fields.language = Some(text),
        "prompt" => fields.prompt = Some(text),
        "response_format" => fields.response_format = Some(text),
        "embedding_model" => fields.embedding_model = Some(text),
        "temperature" => fields.temperature = Some(number(name, &text, "a number")?),
        "dimensions" => fields.dimensions = Some(number(name, &text, "a whole number")?),
        "beam_size" => fields.beam_size = Some(number(name, &text, "a whole number")?),
        "stream" => fields.stream = Some(flag(name, &text)?),
        "vad_filter" => fields.vad_filter = Some(flag(name, &text)?),
        "encoding_format" => {
            let found = Encoding::ALL.into_iter().find(|e| e.as_str() == text);
            let known = Encoding::ALL.map(Encoding::as_str).join(", ");
            let wrong =
                || Error::invalid_value(name, format!("{name} is {:?}; known: {known}", truncate_for_display(&text)));
            fields.encoding_format = Some(found.ok_or_else(wrong)?);
        }
        "timestamp_granularities" | "timestamp_granularities[]" => {
            fields.timestamp_granularities.get_or_insert_default().push(text);
        }
        "chunking_strategy" => {
            // Text, or JSON of an object in a field.
            fields.chunking_strategy = Some(match text.trim_start().starts_with('{') {
                true => Chunking::Voices(parse(text.as_bytes()).map_err(|e| e.with_context(name).with_param(name))?),
                false => Chunking::Named(text),
            });
        }
        _ => {
            if let Some(part) = name.strip_prefix("chunking_strategy[").and_then(|rest| rest.strip_suffix(']')) {
                set_voices(fields, name, part, text)?;
            }
            // What OpenAI's clients send besides has no meaning for Whisper.
        }
    }
    Ok(())
}

/// Takes a field of an object, as OpenAI's clients write it in forms: `chunking_strategy[threshold]`.
fn set_voices(fields: &mut AudioRequest, name: &str, part: &str, text: String) -> Result<()> {
    let Chunking::Voices(voices) =
        fields.chunking_strategy.get_or_insert_with(|| Chunking::Voices(ServerVad::default()))
    else {
        return Err(Error::invalid_value("chunking_strategy", "chunking_strategy is both a name and an object"));
    };
    match part {
        "type" => voices.kind = Some(text),
        "threshold" => voices.threshold = Some(number(name, &text, "a number")?),
        "prefix_padding_ms" => voices.prefix_padding_ms = Some(number(name, &text, "a whole number")?),
        "silence_duration_ms" => voices.silence_duration_ms = Some(number(name, &text, "a whole number")?),
        _ => {}
    }
    Ok(())
}

fn number<T: std::str::FromStr>(name: &str, text: &str, what: &str) -> Result<T> {
    let wrong =
        |_| Error::invalid_value(name, format!("{name} is {:?}, it must be {what}", truncate_for_display(text)));
    text.trim().parse().map_err(wrong)
}

fn flag(name: &str, text: &str) -> Result<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Error::invalid_value(
            name,
            format!("{name} is {:?}, it must be true or false", truncate_for_display(text)),
        )),
    }
}

impl AudioRequest {
    /// Whether moments of `segment` or `word` are asked for.
    pub(super) fn wants(&self, granularity: &str) -> bool {
        self.timestamp_granularities.iter().flatten().any(|g| g == granularity)
    }

    /// How the recording is to be transcribed.
    pub(super) fn options(&self, task: Task) -> Result<Options> {
        for granularity in self.timestamp_granularities.iter().flatten() {
            if !matches!(granularity.as_str(), "segment" | "word") {
                let message = format!(
                    "timestamp_granularities has {:?}; known: segment, word",
                    truncate_for_display(granularity)
                );
                return Err(Error::invalid_value("timestamp_granularities", message));
            }
        }
        let language = self.language.as_deref().filter(|l| !l.trim().is_empty()).map(language_code);
        let (words, voices, beams) = (self.wants("word"), self.voices()?, self.beams()?);
        let mut options = Options { task, language, words, voices, beams, ..Options::default() };
        if let Some(temperature) = self.temperature {
            within("temperature", temperature, 1.0)?;
            // At 0, as OpenAI has it, higher ones are tried; a temperature that is asked for is the only one.
            if temperature > 0.0 {
                options.temperatures = vec![temperature];
            }
        }
        Ok(options)
    }

    fn beams(&self) -> Result<usize> {
        match self.beam_size.unwrap_or(1) {
            beams @ 1..=MOST_BEAMS => Ok(beams),
            other => Err(Error::invalid_value(
                "beam_size",
                format!("beam_size is {other}, it must be from 1 to {MOST_BEAMS}"),
            )),
        }
    }

    fn voices(&self) -> Result<Option<VadOptions>> {
        let default = VadOptions::default();
        match &self.chunking_strategy {
            None => Ok(self.vad_filter.unwrap_or(false).then_some(default)),
            Some(Chunking::Named(name)) if name == "auto" => Ok(Some(default)),
            Some(Chunking::Voices(vad)) if vad.kind.as_deref() == Some("server_vad") => {
                let threshold = vad.threshold.unwrap_or(default.threshold);
                within("chunking_strategy.threshold", threshold, 1.0)?;
                let seconds = |ms: Option<u32>, default: f32| ms.map_or(default, |ms| ms as f32 / 1000.0);
                let speech_pad = seconds(vad.prefix_padding_ms, default.speech_pad);
                let min_silence_duration = seconds(vad.silence_duration_ms, default.min_silence_duration);
                Ok(Some(VadOptions { threshold, speech_pad, min_silence_duration }))
            }
            Some(other) => {
                let other = match other {
                    Chunking::Named(name) => truncate_for_display(name),
                    Chunking::Voices(vad) => {
                        format!("of the type {}", truncate_for_display(vad.kind.as_deref().unwrap_or("null")))
                    }
                };
                let message = format!("chunking_strategy is {other:?}; known: auto, an object of the type server_vad");
                Err(Error::invalid_value("chunking_strategy", message))
            }
        }
    }
}

fn within(name: &str, value: f32, most: f32) -> Result<()> {
    match (0.0..=most).contains(&value) {
        true => Ok(()),
        false => Err(Error::invalid_value(name, format!("{name} is {value}, it must be from 0 to {most}"))),
    }
}
