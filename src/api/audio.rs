//! OpenAI's routes for speech: <https://platform.openai.com/docs/api-reference/audio>.

use super::form;
use super::routes::{Call, Reply};
use super::wire::parse;
use crate::engine::Check;
use crate::engine::speech::{self, Said, Transcribe};
use crate::error::{Error, Kind, Result, shown};
use crate::format::transcript::{Form, Parts, Usage, render};
use crate::format::{Encoded, Encoding, encode};
use crate::models::whisper::{Options, Segment, Task, language_code, language_name};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST /v1/audio/transcriptions` and `/v1/audio/translations`: a form, or JSON with the file in base64.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct AudioRequest {
    /// The recording; in JSON in base64.
    pub file: Option<String>,
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
    /// Of `/v1/audio/embeddings`: the model that makes vectors; the default one where it is missing.
    pub embedding_model: Option<String>,
    /// Of `/v1/audio/embeddings`: how many values to keep of each vector, which is then scaled to length 1 again.
    pub dimensions: Option<usize>,
    /// Of `/v1/audio/embeddings`: how vectors are written; `float` where it is missing.
    pub encoding_format: Option<Encoding>,
}

/// The reply of `/v1/audio/embeddings`, which takes an [`AudioRequest`] and is not OpenAI's.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AudioEmbeddingsResponse {
    /// `list`.
    pub object: &'static str,
    /// A document for each segment, in order.
    pub data: Vec<SegmentEmbedding>,
    /// The model that made the vectors.
    pub model: String,
    /// The model that heard.
    pub speech_model: String,
    /// The name of the language.
    pub language: String,
    /// Seconds.
    pub duration: f32,
    /// What it cost.
    pub usage: Usage,
}

/// What was said, when, and its vector.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SegmentEmbedding {
    /// `embedding`.
    pub object: &'static str,
    /// Which segment.
    pub index: usize,
    /// What was said.
    pub text: String,
    /// Seconds.
    pub start: f32,
    /// Seconds.
    pub end: f32,
    /// The vector.
    pub embedding: Encoded,
    /// For int8 and uint8: value = scale × code, or scale × (code − 128).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
}

/// A request with its file.
struct Request {
    fields: AudioRequest,
    file: Bytes,
    form: Form,
}

/// Answers `POST /v1/audio/transcriptions`.
pub fn transcriptions(call: &Call) -> Result<Reply> {
    answer(call, Task::Transcribe)
}

/// Answers `POST /v1/audio/translations`.
pub fn translations(call: &Call) -> Result<Reply> {
    answer(call, Task::Translate)
}

/// Answers `POST /v1/audio/embeddings`: what is said, in segments, and their vectors.
pub fn embeddings(call: &Call) -> Result<Reply> {
    let Request { fields, file, .. } = read(call)?;
    let options = options(&fields, Task::Transcribe)?;
    call.engine.run(Check { dimensions: fields.dimensions, prompt: None }, call.deadline)?;
    let progress = &mut |_: &[_], _, _| Ok(());
    let job = Transcribe { model: fields.model, audio: file, prompt: fields.prompt, options, progress };
    let Said { model: speech_model, transcript } = call.engine.run(job, call.deadline)?;
    let vectors = speech::embed(call.engine, &transcript, fields.embedding_model, fields.dimensions, call.deadline)?;
    let document = |(index, (segment, vector)): (usize, (&Segment, Vec<f32>))| {
        let (embedding, scale) = encode(vector, fields.encoding_format.unwrap_or_default());
        let (text, start, end) = (segment.text.trim().to_string(), segment.start, segment.end);
        SegmentEmbedding { object: "embedding", index, text, start, end, embedding, scale }
    };
    Reply::json(&AudioEmbeddingsResponse {
        object: "list",
        data: transcript.segments.iter().zip(vectors.vectors).enumerate().map(document).collect(),
        model: vectors.model,
        speech_model,
        language: language_name(&transcript.language).into(),
        duration: transcript.duration,
        usage: Usage::of(transcript.duration),
    })
}

fn answer(call: &Call, task: Task) -> Result<Reply> {
    let Request { fields, file, form } = read(call)?;
    let options = options(&fields, task)?;
    let parts = Parts { segments: !options.words || wants(&fields, "segment"), words: options.words };
    let mut events = String::new();
    let job = Transcribe {
        model: fields.model,
        audio: file,
        prompt: fields.prompt,
        options,
        progress: &mut |segments, _, _| {
            segments.iter().try_for_each(|s| {
                event(&mut events, &serde_json::json!({"type": "transcript.text.delta", "delta": s.text}))
            })
        },
    };
    let Said { transcript, .. } = call.engine.run(job, call.deadline)?;
    if fields.stream == Some(true) {
        let text = transcript.text();
        let usage = Usage::of(transcript.duration);
        event(&mut events, &serde_json::json!({"type": "transcript.text.done", "text": text.trim(), "usage": usage}))?;
        return Ok(Reply::text(events, "text/event-stream"));
    }
    let body = render(&transcript, task, form, parts).map_err(not_json)?;
    Ok(Reply::text(body, form.content_type()))
}

fn not_json(error: serde_json::Error) -> Error {
    Error::internal(format!("a reply is not JSON: {error}"))
}

/// A server-sent event.
fn event(events: &mut String, value: &serde_json::Value) -> Result<()> {
    let data = serde_json::to_string(value).map_err(not_json)?;
    events.push_str(&format!("data: {data}\n\n"));
    Ok(())
}

fn read(call: &Call) -> Result<Request> {
    let (fields, file) =
        match call.content_type.filter(|t| t.trim_start().to_ascii_lowercase().starts_with("multipart/")) {
            Some(content_type) => of_form(content_type, call.body)?,
            None => of_json(call.body)?,
        };
    let name = fields.response_format.as_deref().unwrap_or("json");
    let form = Form::named(name).ok_or_else(|| {
        let known = Form::ALL.map(Form::name).join(", ");
        Error::value("response_format", format!("response_format is {:?}; known: {known}", shown(name)))
    })?;
    Ok(Request { fields, file, form })
}

fn of_json(body: &Bytes) -> Result<(AudioRequest, Bytes)> {
    let mut fields: AudioRequest = parse(body)?;
    let text = fields.file.take().ok_or_else(no_file)?;
    let file =
        BASE64_STANDARD.decode(text.trim()).map_err(|e| Error::value("file", format!("file is not base64: {e}")))?;
    Ok((fields, file.into()))
}

fn no_file() -> Error {
    Error::new(Kind::InvalidShape, "the request has no file").param("file")
}

fn of_form(content_type: &str, body: &Bytes) -> Result<(AudioRequest, Bytes)> {
    let (mut fields, mut file) = (AudioRequest::default(), None);
    for part in form::parse(content_type, body)? {
        if part.name == "file" {
            file = Some(part.content);
            continue;
        }
        let text = String::from_utf8(part.content.to_vec())
            .map_err(|_| Error::value(&part.name, format!("{} is not UTF-8", shown(&part.name))))?;
        set(&mut fields, &part.name, text)?;
    }
    Ok((fields, file.ok_or_else(no_file)?))
}

fn set(fields: &mut AudioRequest, name: &str, text: String) -> Result<()> {
    match name {
        "model" => fields.model = Some(text),
        "language" => fields.language = Some(text),
        "prompt" => fields.prompt = Some(text),
        "response_format" => fields.response_format = Some(text),
        "temperature" => {
            let number = text.trim().parse();
            fields.temperature = Some(
                number.map_err(|_| Error::value(name, format!("{name} is {:?}, it must be a number", shown(&text))))?,
            );
        }
        "embedding_model" => fields.embedding_model = Some(text),
        "dimensions" => {
            let number = text.trim().parse();
            let wrong = |_| Error::value(name, format!("{name} is {:?}, it must be a whole number", shown(&text)));
            fields.dimensions = Some(number.map_err(wrong)?);
        }
        "encoding_format" => {
            let found = Encoding::ALL.into_iter().find(|e| e.name() == text);
            let known = Encoding::ALL.map(Encoding::name).join(", ");
            let wrong = || Error::value(name, format!("{name} is {:?}; known: {known}", shown(&text)));
            fields.encoding_format = Some(found.ok_or_else(wrong)?);
        }
        "stream" => {
            fields.stream = Some(match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" => true,
                "false" | "0" | "" => false,
                _ => return Err(Error::value(name, format!("{name} is {:?}, it must be true or false", shown(&text)))),
            });
        }
        "timestamp_granularities" | "timestamp_granularities[]" => {
            fields.timestamp_granularities.get_or_insert_default().push(text);
        }
        // What OpenAI's clients send besides has no meaning for Whisper.
        _ => {}
    }
    Ok(())
}

fn wants(fields: &AudioRequest, granularity: &str) -> bool {
    fields.timestamp_granularities.iter().flatten().any(|g| g == granularity)
}

fn options(fields: &AudioRequest, task: Task) -> Result<Options> {
    for granularity in fields.timestamp_granularities.iter().flatten() {
        if !matches!(granularity.as_str(), "segment" | "word") {
            let message = format!("timestamp_granularities has {:?}; known: segment, word", shown(granularity));
            return Err(Error::value("timestamp_granularities", message));
        }
    }
    let mut options = Options { task, beams: 1, words: wants(fields, "word"), ..Options::default() };
    options.language = fields.language.as_deref().filter(|l| !l.trim().is_empty()).map(language_code);
    if let Some(temperature) = fields.temperature {
        if !(0.0..=1.0).contains(&temperature) {
            return Err(Error::value("temperature", format!("temperature is {temperature}, it must be from 0 to 1")));
        }
        // At 0, as OpenAI has it, higher ones are tried; a temperature that is asked for is the only one.
        if temperature > 0.0 {
            options.temperatures = vec![temperature];
        }
    }
    Ok(options)
}
