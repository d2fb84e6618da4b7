//! The table of routes: everything that the function answers, in Lambda and locally.

use super::context::{ApiResponse, RequestContext};
use super::route::{Access, ApiStyle, Method, Route, SchemaOf};
use super::{audio, documents, openai, openapi, prometheus, search, status, tei, text, ui};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;
use std::time::Instant;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

const fn get(
    path: &'static str,
    style: ApiStyle,
    access: Access,
    summary: &'static str,
    response: Option<SchemaOf>,
    handler: fn(&RequestContext) -> Result<ApiResponse>,
) -> Route {
    Route {
        method: Method::Get,
        path,
        style,
        access,
        is_long_running: false,
        summary,
        request: None,
        response,
        handler,
    }
}

const fn post(
    path: &'static str,
    style: ApiStyle,
    summary: &'static str,
    request: SchemaOf,
    response: SchemaOf,
    handler: fn(&RequestContext) -> Result<ApiResponse>,
) -> Route {
    let (request, response) = (Some(request), Some(response));
    let (access, is_long_running) = (Access::ApiKey, false);
    Route { method: Method::Post, path, style, access, is_long_running, summary, request, response, handler }
}

const fn long(route: Route) -> Route {
    Route { is_long_running: true, ..route }
}

use Access::{ApiKey, Public};
use ApiStyle::{Audio, OpenAi, Tei};

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
    get("/v1/models",         OpenAi, ApiKey, "The models that requests can name", Some(schema::<openai::ModelList>), openai::models),
    get("/v1/models/{model}", OpenAi, ApiKey, "One model",                         Some(schema::<openai::Model>),     openai::model),
    post("/embed",       Tei, EMBED, schema::<tei::EmbedRequest>, schema::<Vec<crate::pipeline::format::Encoded>>, tei::embed),
    post("/",            Tei, EMBED, schema::<tei::EmbedRequest>, schema::<Vec<crate::pipeline::format::Encoded>>, tei::embed),
    post("/invocations", Tei, EMBED, schema::<tei::EmbedRequest>, schema::<Vec<crate::pipeline::format::Encoded>>, tei::embed),
    post("/embed_all",   Tei, "A row for each token of texts, not pooled", schema::<tei::EmbedAllRequest>, schema::<Vec<Vec<Vec<f32>>>>, tei::embed_all),
    post("/similarity",  Tei, "Cosines of one text with others", schema::<tei::SimilarityRequest>, schema::<Vec<f32>>, tei::similarity),
    post("/tokenize",    Tei, "Tokens of texts",     schema::<tei::TokenizeRequest>, schema::<Vec<Vec<tei::SimpleToken>>>, tei::tokenize),
    post("/decode",      Tei, "Texts of token ids",  schema::<tei::DecodeRequest>,   schema::<Vec<String>>, tei::decode),
    get("/info",         Tei, ApiKey, "The model and the limits", Some(schema::<tei::Info>), tei::info),
    get("/health",       Tei, Public, HEALTH, None, tei::health),
    get("/ping",         Tei, Public, HEALTH, None, tei::health),
    get("/",             Tei, Public, "The page to try all of it, for browsers; for others as /health", None, ui::render),
    get("/status",    OpenAi, ApiKey, "The models that are here, and what this process has done", Some(schema::<status::Status>), status::render),
    get("/metrics",      Tei, Public, "Counters for Prometheus", None, prometheus::render),
    get("/openapi.json", OpenAi, Public, "This description", None, describe),
];

fn describe(_: &RequestContext) -> Result<ApiResponse> {
    ApiResponse::json(&openapi::document(ROUTES))
}

/// What a path and a method lead to.
#[derive(Debug)]
pub enum RouteMatch {
    /// A route, with what stands in place of `{model}`.
    Route(&'static Route, Option<String>),
    /// The path has these methods, and not the one that was asked for.
    MethodNotAllowed(ApiStyle, Vec<&'static str>),
}

/// What was asked, and when: for what is said of a request that never came to its route.
#[derive(Debug, Clone, Copy)]
pub struct RequestInfo {
    /// The path of the route, or another word where there is none.
    pub route: &'static str,
    /// Whose conventions the reply follows.
    pub style: ApiStyle,
    /// When it came.
    pub at: Instant,
}

impl RequestInfo {
    /// A request, by its path.
    pub fn of<B>(request: &http::Request<B>) -> Self {
        let (route, style) = match find(request.method(), request.uri().path()) {
            Ok(RouteMatch::Route(route, _)) => (route.path, route.style),
            Ok(RouteMatch::MethodNotAllowed(style, _)) => (NO_ROUTE, style),
            Err(_) => (NO_ROUTE, ApiStyle::OpenAi),
        };
        Self { route, style, at: Instant::now() }
    }

    /// What cannot be read far enough to have a route.
    pub fn unknown() -> Self {
        Self { route: NO_ROUTE, style: ApiStyle::OpenAi, at: Instant::now() }
    }
}

/// The route of requests that have none.
const NO_ROUTE: &str = "unknown";

/// Finds the route of a request.
///
/// # Errors
/// [`ErrorKind::NotFound`].
pub fn find(method: &http::Method, path: &str) -> Result<RouteMatch> {
    // A trailing slash is a common slip of clients that join paths.
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    let path = if path.is_empty() { "/" } else { path };
    let here: Vec<_> = ROUTES.iter().filter_map(|r| Some((r, matches(r.path, path)?))).collect();
    // HEAD is GET without the body, which who sends the reply leaves away.
    let wanted = if method == http::Method::HEAD { "GET" } else { method.as_str() };
    if let Some((route, tail)) = here.iter().find(|(r, _)| r.method.name() == wanted) {
        return Ok(RouteMatch::Route(route, tail.clone()));
    }
    match here.first() {
        Some((route, _)) => {
            Ok(RouteMatch::MethodNotAllowed(route.style, here.iter().map(|(r, _)| r.method.name()).collect()))
        }
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
        match find(&http::Method::GET, path) {
            Ok(RouteMatch::Route(_, tail)) => tail,
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
        assert!(
            matches!(find(&http::Method::GET, "/embed"), Ok(RouteMatch::MethodNotAllowed(ApiStyle::Tei, m)) if m == ["POST"])
        );
        assert_eq!(find(&http::Method::GET, "/nothing").unwrap_err().kind, ErrorKind::NotFound);
    }
}
