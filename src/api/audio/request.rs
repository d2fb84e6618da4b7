//! Reads an audio request: a multipart form or JSON, and the audio file in it or in S3.

use super::super::context::RequestContext;
use super::super::json::parse;
use super::fields::AudioRequest;
use super::form::parse_form;
use crate::aws::s3::S3Location;
use crate::pipeline::format::transcript::TranscriptFormat;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use std::time::Duration;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Maximum time to download an S3 object, if the request's deadline is later.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(300);

/// A request whose file has been read.
pub(super) struct ParsedRequest {
    /// [`AudioRequest::file`] is empty.
    pub fields: AudioRequest,
    pub file: Bytes,
    pub format: TranscriptFormat,
}

impl ParsedRequest {
    pub(super) fn parse(context: &RequestContext) -> Result<Self> {
        let is_form = |t: &&str| t.trim_start().to_ascii_lowercase().starts_with("multipart/");
        let (mut fields, file) = match context.content_type.filter(is_form) {
            Some(content_type) => parse_form(content_type, context.body)?,
            None => (parse::<AudioRequest>(context.body)?, None),
        };
        let name = fields.response_format.as_deref().unwrap_or("json");
        let format = TranscriptFormat::from_name(name).ok_or_else(|| {
            let expected = TranscriptFormat::ALL.map(TranscriptFormat::as_str).join(", ");
            let value = truncate_for_display(name);
            Error::invalid_value("response_format", format!("response_format is {value:?}; expected one of {expected}"))
        })?;
        let file = match (file, fields.file.take(), &fields.uri) {
            (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
                return Err(Error::invalid_value("uri", "the request has both file and uri; expected one of them"));
            }
            (Some(file), ..) => file,
            (None, Some(text), _) => decode_base64(&text)?,
            (None, None, Some(uri)) => download(context, uri)?,
            (None, None, None) => {
                return Err(Error::new(ErrorKind::InvalidType, "file is missing").with_param("file"));
            }
        };
        Ok(Self { fields, file, format })
    }
}

fn decode_base64(text: &str) -> Result<Bytes> {
    // Tools such as base64 wrap lines.
    let bytes = if text.contains(['\n', '\r']) {
        BASE64_STANDARD.decode(text.split_ascii_whitespace().collect::<String>())
    } else {
        BASE64_STANDARD.decode(text.trim())
    };
    bytes.map(Bytes::from).map_err(|e| Error::invalid_value("file", format!("file is not base64: {e}")))
}

fn download(context: &RequestContext, uri: &str) -> Result<Bytes> {
    let location = S3Location::parse(uri, &context.engine().config.allowed_s3_prefixes, "uri")?;
    location.get(context.job_context.deadline.remaining(DOWNLOAD_TIMEOUT), "uri")
}
