//! OpenAI's routes for speech: <https://platform.openai.com/docs/api-reference/audio>.

use super::form;
use super::routes::{Call, Reply};
use super::wire::parse;
use crate::engine::speech::{Said, Transcribe};
use crate::error::{Error, Kind, Result, shown};
use crate::format::transcript::{Form, Parts, Usage, render};
use crate::models::whisper::{Options, Task, language_code};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

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
