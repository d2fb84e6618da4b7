//! Fields of a multipart form, which are all text.

use super::super::json::parse;
use super::fields::{AudioRequest, ChunkingStrategy, ServerVad};
use super::multipart;
use crate::pipeline::format::VectorEncoding;
use bytes::Bytes;
use std::str::FromStr;
use tealight_core::{Error, Result, truncate_for_display};

/// The fields of a form, and the content of its file.
pub(super) fn parse_form(content_type: &str, body: &Bytes) -> Result<(AudioRequest, Option<Bytes>)> {
    let (mut fields, mut file) = (AudioRequest::default(), None);
    for part in multipart::parse(content_type, body)? {
        if part.name == "file" {
            file = Some(part.content);
            continue;
        }
        let text = String::from_utf8(part.content.to_vec()).map_err(|_| {
            Error::invalid_value(&part.name, format!("{} is not UTF-8", truncate_for_display(&part.name)))
        })?;
        set_field(&mut fields, &part.name, text)?;
    }
    Ok((fields, file))
}

/// Ignores empty fields, which browsers send, and unknown ones, because OpenAI's clients send fields that do not apply to Whisper.
fn set_field(fields: &mut AudioRequest, name: &str, text: String) -> Result<()> {
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
        "temperature" => fields.temperature = Some(parse_number(name, &text, "a number")?),
        "dimensions" => fields.dimensions = Some(parse_number(name, &text, "an integer")?),
        "beam_size" => fields.beam_size = Some(parse_number(name, &text, "an integer")?),
        "stream" => fields.stream = Some(parse_bool(name, &text)?),
        "vad_filter" => fields.vad_filter = Some(parse_bool(name, &text)?),
        "encoding_format" => fields.encoding_format = Some(parse_encoding(name, &text)?),
        "timestamp_granularities" | "timestamp_granularities[]" => {
            fields.timestamp_granularities.get_or_insert_default().push(text);
        }
        "chunking_strategy" => {
            fields.chunking_strategy = Some(if text.trim_start().starts_with('{') {
                let vad = parse(text.as_bytes()).map_err(|e| e.with_context(name).with_param(name))?;
                ChunkingStrategy::ServerVad(vad)
            } else {
                ChunkingStrategy::Named(text)
            });
        }
        _ => {
            if let Some(key) = name.strip_prefix("chunking_strategy[").and_then(|rest| rest.strip_suffix(']')) {
                set_vad_field(fields, name, key, text)?;
            }
        }
    }
    Ok(())
}

/// Sets a field of an object as OpenAI's clients send it in forms: `chunking_strategy[threshold]`.
fn set_vad_field(fields: &mut AudioRequest, name: &str, key: &str, text: String) -> Result<()> {
    let strategy = fields.chunking_strategy.get_or_insert_with(|| ChunkingStrategy::ServerVad(ServerVad::default()));
    let ChunkingStrategy::ServerVad(vad) = strategy else {
        return Err(Error::invalid_value("chunking_strategy", "chunking_strategy is both a name and an object"));
    };
    match key {
        "type" => vad.kind = Some(text),
        "threshold" => vad.threshold = Some(parse_number(name, &text, "a number")?),
        "prefix_padding_ms" => vad.prefix_padding_ms = Some(parse_number(name, &text, "an integer")?),
        "silence_duration_ms" => vad.silence_duration_ms = Some(parse_number(name, &text, "an integer")?),
        _ => {}
    }
    Ok(())
}

fn parse_number<T: FromStr>(name: &str, text: &str, expected: &str) -> Result<T> {
    let invalid =
        |_| Error::invalid_value(name, format!("{name} is {:?}; expected {expected}", truncate_for_display(text)));
    text.trim().parse().map_err(invalid)
}

fn parse_bool(name: &str, text: &str) -> Result<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Error::invalid_value(
            name,
            format!("{name} is {:?}; expected true or false", truncate_for_display(text)),
        )),
    }
}

fn parse_encoding(name: &str, text: &str) -> Result<VectorEncoding> {
    VectorEncoding::ALL.into_iter().find(|encoding| encoding.as_str() == text).ok_or_else(|| {
        let expected = VectorEncoding::ALL.map(VectorEncoding::as_str).join(", ");
        let value = truncate_for_display(text);
        Error::invalid_value(name, format!("{name} is {value:?}; expected one of {expected}"))
    })
}
