//! `POST /search`: searches the configured index.

use super::context::{ApiResponse, RequestContext};
use super::json::parse;
use crate::engine::search::{Find, Mode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tealight_core::{Error, Result, truncate_for_display};
use tealight_index::Filter;

/// Default of `k`.
const DEFAULT_K: usize = 10;

/// The body of `POST /search`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SearchRequest {
    /// The text to search for.
    #[serde(alias = "text")]
    pub query: Option<String>,
    /// A vector to search for instead.
    pub vector: Option<Vec<f32>>,
    /// Maximum number of results; default 10.
    #[serde(alias = "top_k", alias = "limit")]
    pub k: Option<usize>,
    /// Restricts the search by metadata: `{"year": {"$gte": 1960}, "tags": "speech"}`.
    pub filter: Option<Value>,
    /// Leaves out results with a lower score.
    pub min_score: Option<f32>,
    /// `vector` (by meaning, the default), `lexical` (by words, with BM25) or `hybrid` (both).
    pub mode: Option<String>,
    /// Whether to scan all rows even if the index has a graph; default false.
    #[serde(default)]
    pub exact: bool,
}

/// The response of `/search`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SearchResponse {
    /// The best result first.
    pub results: Vec<SearchResult>,
    /// The model that embedded the query, if one did.
    pub model: Option<String>,
}

/// A result.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SearchResult {
    /// Id of the document.
    pub id: String,
    /// Higher is better.
    pub score: f32,
    /// Its text.
    pub text: String,
    /// Its metadata.
    pub metadata: Map<String, Value>,
}

/// Handles `POST /search`.
pub fn search(context: &RequestContext) -> Result<ApiResponse> {
    let request: SearchRequest = parse(context.body)?;
    let mode = match request.mode.as_deref() {
        None => Mode::default(),
        Some(name) => Mode::named(name).ok_or_else(|| {
            let (name, modes) = (truncate_for_display(name), Mode::ALL.map(Mode::name).join(", "));
            Error::invalid_value("mode", format!("mode is {name:?}; expected one of {modes}"))
        })?,
    };
    let job = Find {
        text: request.query,
        vector: request.vector,
        mode,
        count: request.k.unwrap_or(DEFAULT_K),
        filter: request.filter.as_ref().map(Filter::of).transpose()?,
        min_score: request.min_score,
        exact: request.exact,
        index: None,
    };
    let finds = context.run(job)?;
    let result = |found: tealight_index::Found| SearchResult {
        id: found.document.id,
        score: found.score,
        text: found.document.text,
        metadata: found.document.metadata,
    };
    let results = finds.found.into_iter().map(result).collect();
    let response = SearchResponse { results, model: finds.model.clone() };
    let response = ApiResponse::json(&response)?.with_usage(finds.usage);
    Ok(ApiResponse { model: finds.model, ..response })
}
