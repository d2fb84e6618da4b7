//! One route of the table, and the conventions that it follows.

use super::context::{ApiResponse, RequestContext};
use schemars::{Schema, SchemaGenerator};
use tealight_core::{ErrorKind, Result};

/// Whose conventions a route follows for errors and limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiStyle {
    /// OpenAI's, and our own routes.
    OpenAi,
    /// OpenAI's for recordings, which are larger.
    Audio,
    /// text-embeddings-inference's.
    Tei,
}

impl ApiStyle {
    /// The status of an error.
    pub fn status(self, kind: ErrorKind) -> http::StatusCode {
        let status = match self {
            ApiStyle::OpenAi | ApiStyle::Audio => kind.status(),
            ApiStyle::Tei => kind.tei_status(),
        };
        http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The largest body, in bytes: TEI's default, what OpenAI takes of a recording, or what Lambda takes in one invocation.
    pub fn payload_limit(self) -> usize {
        match self {
            ApiStyle::Tei => 2_000_000,
            ApiStyle::OpenAi => 6_291_456,
            ApiStyle::Audio => 26_214_400,
        }
    }
}

/// Who may use a route where a key is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everyone.
    Public,
    /// Who has the key.
    ApiKey,
}

pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path; `{model}` at the end stands for the rest.
    pub path: &'static str,
    /// Whose conventions it follows.
    pub style: ApiStyle,
    /// Who may use it.
    pub access: Access,
    /// Whether its work may take minutes.
    pub is_long_running: bool,
    /// What it does, in a line.
    pub summary: &'static str,
    /// The schema of its body, if it takes one.
    pub request: Option<SchemaOf>,
    /// The schema of its reply, if that is JSON.
    pub response: Option<SchemaOf>,
    /// Answers it.
    pub handler: fn(&RequestContext) -> Result<ApiResponse>,
}

/// The methods in use; [`http::Method`] cannot stand in a constant table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// POST.
    Post,
}

impl Method {
    /// As on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
        }
    }
}
