//! The route table, and looking up a request in it. Only this module knows all handlers.

use super::context::{ApiResponse, RequestContext};
use super::route::{ApiStyle, Method, Route};
use super::{documents, openai, openapi, prometheus, status, tei};
use crate::pipeline::format::Encoded;
use ApiStyle::{OpenAi, Tei};
use tealight_core::Result;

const CREATE_EMBEDDINGS: &str = "Create embeddings";
const HEALTH: &str = "Health check: 200 if the process responds";

/// Every route of the function and the server.
pub const ROUTES: &[Route] = &[
    Route::post("/v1/embeddings", OpenAi, CREATE_EMBEDDINGS, openai::embeddings)
        .accepts::<openai::EmbeddingsRequest>()
        .returns::<openai::EmbeddingsResponse>(),
    Route::post("/embeddings", OpenAi, CREATE_EMBEDDINGS, openai::embeddings)
        .accepts::<openai::EmbeddingsRequest>()
        .returns::<openai::EmbeddingsResponse>(),
    #[cfg(feature = "speech")]
    Route::post("/v1/audio/transcriptions", ApiStyle::Audio, "Transcribe audio", super::audio::transcriptions)
        .accepts::<super::audio::AudioRequest>()
        .returns::<crate::pipeline::format::transcript::TranscriptionResponse>()
        .long_running(),
    #[cfg(feature = "speech")]
    Route::post("/v1/audio/translations", ApiStyle::Audio, "Translate audio to English", super::audio::translations)
        .accepts::<super::audio::AudioRequest>()
        .returns::<crate::pipeline::format::transcript::TranscriptionResponse>()
        .long_running(),
    #[cfg(feature = "speech")]
    Route::post(
        "/v1/audio/embeddings",
        ApiStyle::Audio,
        "Transcribe audio and embed each segment",
        super::audio::embeddings,
    )
    .accepts::<super::audio::AudioRequest>()
    .returns::<super::audio::AudioEmbeddingsResponse>()
    .own()
    .long_running(),
    #[cfg(feature = "text")]
    Route::post("/v1/chat/completions", OpenAi, "Create a chat completion", super::text::chat::chat)
        .accepts::<super::text::chat::ChatRequest>()
        .returns::<super::text::chat::ChatResponse>()
        .long_running(),
    #[cfg(feature = "text")]
    Route::post("/v1/completions", OpenAi, "Create a completion", super::text::completions::completions)
        .accepts::<super::text::completions::CompletionRequest>()
        .returns::<super::text::completions::CompletionResponse>()
        .long_running(),
    #[cfg(feature = "index")]
    Route::post("/search", OpenAi, "Search the configured index", super::search::search)
        .accepts::<super::search::SearchRequest>()
        .returns::<super::search::SearchResponse>()
        .own(),
    Route::post("/documents", OpenAi, "Embed documents for a vector database", documents::documents)
        .accepts::<documents::DocumentsRequest>()
        .returns::<serde_json::Value>()
        .own(),
    Route::get("/v1/models", OpenAi, "List models", openai::models).returns::<openai::ModelList>(),
    Route::get("/v1/models/{model}", OpenAi, "Describe a model", openai::model).returns::<openai::Model>(),
    Route::post("/embed", Tei, CREATE_EMBEDDINGS, tei::embed).accepts::<tei::EmbedRequest>().returns::<Vec<Encoded>>(),
    Route::post("/", Tei, CREATE_EMBEDDINGS, tei::embed).accepts::<tei::EmbedRequest>().returns::<Vec<Encoded>>(),
    Route::post("/invocations", Tei, CREATE_EMBEDDINGS, tei::embed)
        .accepts::<tei::EmbedRequest>()
        .returns::<Vec<Encoded>>(),
    Route::post("/embed_all", Tei, "Create an embedding of every token, without pooling", tei::embed_all)
        .accepts::<tei::EmbedAllRequest>()
        .returns::<Vec<Vec<Vec<f32>>>>(),
    Route::post("/similarity", Tei, "Compute the cosine similarity of one text with others", tei::similarity)
        .accepts::<tei::SimilarityRequest>()
        .returns::<Vec<f32>>(),
    Route::post("/tokenize", Tei, "Tokenize texts", tei::tokenize)
        .accepts::<tei::TokenizeRequest>()
        .returns::<Vec<Vec<tei::SimpleToken>>>(),
    Route::post("/decode", Tei, "Convert token ids to text", tei::decode)
        .accepts::<tei::DecodeRequest>()
        .returns::<Vec<String>>(),
    Route::get("/info", Tei, "Describe the default model and the limits", tei::info).returns::<tei::Info>(),
    Route::get("/health", Tei, HEALTH, tei::health).public(),
    Route::get("/ping", Tei, HEALTH, tei::health).public(),
    #[cfg(not(feature = "ui"))]
    Route::get("/", Tei, HEALTH, tei::health).own().public(),
    #[cfg(feature = "ui")]
    Route::get("/", Tei, "Demo page for browsers; for other clients the same as /health", super::ui::render)
        .own()
        .public(),
    Route::get("/status", OpenAi, "Installed models, limits and counters of this process", status::render)
        .returns::<status::Status>()
        .own(),
    Route::get("/metrics", Tei, "Metrics for Prometheus", prometheus::render).public(),
    Route::get("/openapi.json", OpenAi, "This OpenAPI document", openapi).own().public(),
];

/// Paths that need a feature.
const FEATURE_PATHS: [(&str, &str); 6] = [
    ("/v1/audio/transcriptions", "speech"),
    ("/v1/audio/translations", "speech"),
    ("/v1/audio/embeddings", "speech"),
    ("/v1/chat/completions", "text"),
    ("/v1/completions", "text"),
    ("/search", "index"),
];

/// The feature whose routes include this path, if any. A path that has no route in this build needs it.
pub(super) fn disabled_feature(path: &str) -> Option<&'static str> {
    let path = path.trim_end_matches('/');
    FEATURE_PATHS.iter().find(|(known, _)| *known == path).map(|(_, feature)| *feature)
}

/// Handles `GET /openapi.json`. It is in this module because the document lists the routes of the table.
fn openapi(_: &RequestContext) -> Result<ApiResponse> {
    ApiResponse::json(&openapi::document(ROUTES)?)
}

/// The route of a request, looked up once and passed on.
#[derive(Debug, Clone)]
pub enum RouteMatch {
    /// A route matches.
    Found {
        /// Its row of the table.
        route: &'static Route,
        /// The part of the path that `{model}` stands for, percent-decoded.
        path_param: Option<String>,
    },
    /// The path exists, but not with this method.
    MethodNotAllowed {
        /// The API that the path is compatible with, which decides the format of the error.
        style: ApiStyle,
        /// The methods of the path, for the `Allow` header.
        allowed: Vec<&'static str>,
    },
    /// No route has this path.
    NotFound,
}

impl RouteMatch {
    /// The matching route, if any.
    pub fn route(&self) -> Option<&'static Route> {
        match self {
            RouteMatch::Found { route, .. } => Some(route),
            _ => None,
        }
    }

    /// The API whose format the error has.
    pub fn style(&self) -> ApiStyle {
        match self {
            RouteMatch::Found { route, .. } => route.style,
            RouteMatch::MethodNotAllowed { style, .. } => *style,
            RouteMatch::NotFound => ApiStyle::OpenAi,
        }
    }
}

/// Looks up the route of a request. `path` has no query string.
pub fn find(method: &http::Method, path: &str) -> RouteMatch {
    PathRoutes::find(path).select(method)
}

/// The routes of one path, which differ by method.
#[derive(Debug)]
pub struct PathRoutes(Vec<(&'static Route, Option<String>)>);

impl PathRoutes {
    /// Looks up the routes of a path.
    pub fn find(path: &str) -> Self {
        // Clients that join paths often append a slash.
        let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        let path = if path.is_empty() { "/" } else { path };
        Self(ROUTES.iter().filter_map(|route| Some((route, match_path(route.path, path)?))).collect())
    }

    /// Whether no route has this path.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the path has a route of this method.
    pub fn has(&self, method: Method) -> bool {
        self.0.iter().any(|(route, _)| route.method == method)
    }

    /// Selects the route of a method.
    pub fn select(&self, method: &http::Method) -> RouteMatch {
        // HEAD is GET without the body, which the transport leaves out.
        let name = if method == http::Method::HEAD { "GET" } else { method.as_str() };
        if let Some((route, path_param)) = self.0.iter().find(|(route, _)| route.method.as_str() == name) {
            return RouteMatch::Found { route, path_param: path_param.clone() };
        }
        match self.0.first() {
            Some((route, _)) => RouteMatch::MethodNotAllowed {
                style: route.style,
                allowed: self.0.iter().map(|(route, _)| route.method.as_str()).collect(),
            },
            None => RouteMatch::NotFound,
        }
    }
}

/// Compares a path with a route's path. Returns the part that `{model}` stands for, if the route has it.
fn match_path(pattern: &str, path: &str) -> Option<Option<String>> {
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

    fn path_param(path: &str) -> Option<String> {
        match find(&http::Method::GET, path) {
            RouteMatch::Found { path_param, .. } => path_param,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn model_in_path_may_contain_slash() {
        assert_eq!(path_param("/v1/models/a%2Fb").as_deref(), Some("a/b"));
        assert_eq!(path_param("/v1/models/a/b").as_deref(), Some("a/b"));
        assert_eq!(path_param("/v1/models/"), None);
        assert_eq!(path_param("/v1/models"), None);
    }

    #[test]
    fn wrong_method_differs_from_unknown_path() {
        let found = find(&http::Method::GET, "/embed");
        assert!(matches!(found, RouteMatch::MethodNotAllowed { style: ApiStyle::Tei, allowed } if allowed == ["POST"]));
        assert!(matches!(find(&http::Method::GET, "/nothing"), RouteMatch::NotFound));
    }

    #[test]
    fn path_has_routes_if_its_feature_is_enabled() {
        let enabled = |feature| match feature {
            "speech" => cfg!(feature = "speech"),
            "text" => cfg!(feature = "text"),
            "index" => cfg!(feature = "index"),
            other => panic!("{other}"),
        };
        for (path, feature) in FEATURE_PATHS {
            assert_eq!(PathRoutes::find(path).is_empty(), !enabled(feature), "{path}");
        }
    }
}
