//! The table of routes: everything that the function answers, in Lambda and locally.

use super::sse::Sink;
use super::{audio, documents, metrics, openai, openapi, search, status, tei, text, ui};
use crate::engine::{Engine, Usage};
use bytes::Bytes;
use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;
use std::time::Instant;
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Whose conventions a route follows for errors and limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// OpenAI's, and our own routes.
    OpenAi,
    /// OpenAI's for recordings, which are larger.
    Audio,
    /// text-embeddings-inference's.
    Tei,
}

impl Family {
    /// The status of an error.
    pub fn status(self, kind: ErrorKind) -> http::StatusCode {
        let status = match self {
            Family::OpenAi | Family::Audio => kind.status(),
            Family::Tei => kind.tei_status(),
        };
        http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The largest body, in bytes: TEI's default, what OpenAI takes of a recording, or what Lambda takes in one invocation.
    pub fn payload_limit(self) -> usize {
        match self {
            Family::Tei => 2_000_000,
            Family::OpenAi => 6_291_456,
            Family::Audio => 26_214_400,
        }
    }
}

/// Who may use a route where a key is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everyone.
    Open,
    /// Who has the key.
    Key,
}

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Its method.
    pub method: Verb,
    /// Its path; `{model}` at the end stands for the rest.
    pub path: &'static str,
    /// Whose conventions it follows.
    pub family: Family,
    /// Who may use it.
    pub access: Access,
    /// Whether its work may take minutes.
    pub is_long: bool,
    /// What it does, in a line.
    pub summary: &'static str,
    /// The schema of its body, if it takes one.
    pub request: Option<SchemaOf>,
    /// The schema of its reply, if that is JSON.
    pub response: Option<SchemaOf>,
    /// Answers it.
    pub handler: fn(&Call) -> Result<Reply>,
}

/// The methods in use; [`Method`] cannot stand in a constant table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// GET.
    Get,
    /// POST.
    Post,
}

impl Verb {
    /// As on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Get => "GET",
            Verb::Post => "POST",
        }
    }
}

/// A request on its way to a handler.
#[derive(Debug)]
pub struct Call<'a> {
    /// The models.
    pub engine: &'a Engine,
    /// Counters.
    pub metrics: &'a metrics::Metrics,
    /// The body.
    pub body: &'a Bytes,
    /// Its type.
    pub content_type: Option<&'a str>,
    /// The types that the caller takes.
    pub accept: Option<&'a str>,
    /// What the path has in place of `{model}`, decoded.
    pub tail: Option<String>,
    /// When the reply must be ready.
    pub deadline: Deadline,
    /// Where the reply goes while it is made, where the transport can do that.
    pub sink: Option<&'a Sink>,
    /// When this process started, in seconds since 1970.
    pub started: u64,
}

/// A reply on its way out.
#[derive(Debug, Default)]
pub struct Reply {
    /// The body.
    pub body: Bytes,
    /// Its type; none for an empty body.
    pub content_type: Option<&'static str>,
    /// Headers besides the type.
    pub headers: Vec<(&'static str, String)>,
    /// What the models did for it.
    pub usage: Option<Usage>,
    /// The model that did most of it.
    pub model: Option<String>,
}

impl Reply {
    /// A JSON body.
    pub fn json(value: &impl serde::Serialize) -> Result<Self> {
        let body = serde_json::to_vec(value).map_err(|e| Error::internal(format!("a reply is not JSON: {e}")))?;
        Ok(Self { body: body.into(), content_type: Some("application/json"), ..Self::default() })
    }

    /// A text body.
    pub fn text(body: String, content_type: &'static str) -> Self {
        Self { body: body.into(), content_type: Some(content_type), ..Self::default() }
    }

    /// No body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Says what the models did for it.
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Names the model that did it.
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.model = Some(name.into());
        self
    }
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

const fn get(
    path: &'static str,
    family: Family,
    access: Access,
    summary: &'static str,
    response: Option<SchemaOf>,
    handler: fn(&Call) -> Result<Reply>,
) -> Route {
    Route { method: Verb::Get, path, family, access, is_long: false, summary, request: None, response, handler }
}

const fn post(
    path: &'static str,
    family: Family,
    summary: &'static str,
    request: SchemaOf,
    response: SchemaOf,
    handler: fn(&Call) -> Result<Reply>,
) -> Route {
    let (request, response) = (Some(request), Some(response));
    let (access, is_long) = (Access::Key, false);
    Route { method: Verb::Post, path, family, access, is_long, summary, request, response, handler }
}

const fn long(route: Route) -> Route {
    Route { is_long: true, ..route }
}

use Access::{Key, Open};
use Family::{Audio, OpenAi, Tei};

const EMBEDDINGS: &str = "Vectors of texts, as OpenAI gives them";
const EMBED: &str = "Vectors of texts";
const HEALTH: &str = "Whether the process answers";

/// Every route.
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    post("/v1/embeddings", OpenAi, EMBEDDINGS, schema::<openai::EmbeddingsRequest>, schema::<openai::EmbeddingsResponse>, openai::embeddings),
    post("/embeddings",    OpenAi, EMBEDDINGS, schema::<openai::EmbeddingsRequest>, schema::<openai::EmbeddingsResponse>, openai::embeddings),
    long(post("/v1/audio/transcriptions", Audio, "What is said in a recording",       schema::<audio::AudioRequest>, schema::<crate::pipeline::format::transcript::Verbose>, audio::transcriptions)),
    long(post("/v1/audio/translations",   Audio, "The same in English", schema::<audio::AudioRequest>, schema::<crate::pipeline::format::transcript::Verbose>, audio::translations)),
    long(post("/v1/audio/embeddings",     Audio, "What is said in a recording, in segments with vectors", schema::<audio::AudioRequest>, schema::<audio::AudioEmbeddingsResponse>, audio::embeddings)),
    long(post("/v1/chat/completions", OpenAi, "What is answered in a conversation", schema::<text::chat::ChatRequest>, schema::<text::chat::ChatResponse>, text::chat::chat)),
    long(post("/v1/completions",      OpenAi, "What comes after a text", schema::<text::completions::CompletionRequest>, schema::<text::completions::CompletionResponse>, text::completions::completions)),
    post("/search",      OpenAi, "Documents of the index that fit a text or a vector", schema::<search::SearchRequest>, schema::<search::SearchResponse>, search::search),
    post("/documents",   OpenAi, "Documents as points of an index: bodies of its requests", schema::<documents::DocumentsRequest>, schema::<Value>, documents::documents),
    get("/v1/models",         OpenAi, Key, "The models that requests can name", Some(schema::<openai::ModelList>), openai::models),
    get("/v1/models/{model}", OpenAi, Key, "One model",                         Some(schema::<openai::Model>),     openai::model),
    post("/embed",       Tei, EMBED, schema::<tei::EmbedRequest>, schema::<Vec<crate::pipeline::format::Encoded>>, tei::embed),
    post("/",            Tei, EMBED, schema::<tei::EmbedRequest>, schema::<Vec<crate::pipeline::format::Encoded>>, tei::embed),
    post("/invocations", Tei, EMBED, schema::<tei::EmbedRequest>, schema::<Vec<crate::pipeline::format::Encoded>>, tei::embed),
    post("/embed_all",   Tei, "A row for each token of texts, not pooled", schema::<tei::EmbedAllRequest>, schema::<Vec<Vec<Vec<f32>>>>, tei::embed_all),
    post("/similarity",  Tei, "Cosines of one text with others", schema::<tei::SimilarityRequest>, schema::<Vec<f32>>, tei::similarity),
    post("/tokenize",    Tei, "Tokens of texts",     schema::<tei::TokenizeRequest>, schema::<Vec<Vec<tei::SimpleToken>>>, tei::tokenize),
    post("/decode",      Tei, "Texts of token ids",  schema::<tei::DecodeRequest>,   schema::<Vec<String>>, tei::decode),
    get("/info",         Tei, Key,  "The model and the limits", Some(schema::<tei::Info>), tei::info),
    get("/health",       Tei, Open, HEALTH, None, tei::health),
    get("/ping",         Tei, Open, HEALTH, None, tei::health),
    get("/",             Tei, Open, "The page to try all of it, for browsers; for others as /health", None, ui::render),
    get("/status",    OpenAi, Key,  "The models that are here, and what this process has done", Some(schema::<status::Status>), status::render),
    get("/metrics",      Tei, Open, "Counters for Prometheus", None, metrics::render),
    get("/openapi.json", OpenAi, Open, "This description", None, openapi::render),
];

/// What a path and a method lead to.
#[derive(Debug)]
pub enum Found {
    /// A route, with what stands in place of `{model}`.
    Route(&'static Route, Option<String>),
    /// The path has these methods, and not the one asked for.
    OtherMethods(Family, Vec<&'static str>),
}

/// What was asked, and when: for what is said of a request that never came to its route.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The path of the route, or another word where there is none.
    pub route: &'static str,
    /// Whose conventions the reply follows.
    pub family: Family,
    /// When it came.
    pub at: Instant,
}

impl Asked {
    /// A request, by its path.
    pub fn of<B>(request: &http::Request<B>) -> Self {
        let (route, family) = match find(request.method(), request.uri().path()) {
            Ok(Found::Route(route, _)) => (route.path, route.family),
            Ok(Found::OtherMethods(family, _)) => (NO_ROUTE, family),
            Err(_) => (NO_ROUTE, Family::OpenAi),
        };
        Self { route, family, at: Instant::now() }
    }

    /// What cannot be read far enough to have a route.
    pub fn unknown() -> Self {
        Self { route: NO_ROUTE, family: Family::OpenAi, at: Instant::now() }
    }
}

/// The route of requests that have none.
const NO_ROUTE: &str = "unknown";

/// Finds the route of a request.
///
/// # Errors
/// [`ErrorKind::NotFound`].
pub fn find(method: &Method, path: &str) -> Result<Found> {
    // A trailing slash is a common slip of clients that join paths.
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    let path = if path.is_empty() { "/" } else { path };
    let here: Vec<_> = ROUTES.iter().filter_map(|r| Some((r, matches(r.path, path)?))).collect();
    // HEAD is GET without the body, which who sends the reply leaves away.
    let wanted = if method == Method::HEAD { "GET" } else { method.as_str() };
    if let Some((route, tail)) = here.iter().find(|(r, _)| r.method.name() == wanted) {
        return Ok(Found::Route(route, tail.clone()));
    }
    match here.first() {
        Some((route, _)) => Ok(Found::OtherMethods(route.family, here.iter().map(|(r, _)| r.method.name()).collect())),
        None => {
            let path = truncate_for_display(path);
            Err(Error::new(
                ErrorKind::NotFound,
                format!("there is nothing at {path:?}; /openapi.json lists the routes"),
            ))
        }
    }
}

/// Whether a route's path fits, and what stands in place of its `{model}`.
fn matches(pattern: &str, path: &str) -> Option<Option<String>> {
    match pattern.strip_suffix("{model}") {
        None => (pattern == path).then_some(None),
        Some(prefix) => {
            let rest = path.strip_prefix(prefix).filter(|rest| !rest.is_empty())?;
            Some(Some(percent_encoding::percent_decode_str(rest).decode_utf8_lossy().into_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(path: &str) -> Option<String> {
        match find(&Method::GET, path) {
            Ok(Found::Route(_, tail)) => tail,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn a_model_in_the_path_may_have_a_slash() {
        assert_eq!(tail("/v1/models/a%2Fb").as_deref(), Some("a/b"));
        assert_eq!(tail("/v1/models/a/b").as_deref(), Some("a/b"));
        assert_eq!(tail("/v1/models/"), None);
        assert_eq!(tail("/v1/models"), None);
    }

    #[test]
    fn other_methods_and_paths_are_told_apart() {
        assert!(matches!(find(&Method::GET, "/embed"), Ok(Found::OtherMethods(Family::Tei, m)) if m == ["POST"]));
        assert_eq!(find(&Method::GET, "/nothing").unwrap_err().kind, ErrorKind::NotFound);
    }
}
