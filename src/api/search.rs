//! `POST /search`: searches the configured index.

use super::context::{ApiResponse, RequestContext};
use super::json::parse;
use crate::engine::search::{Search, SearchMode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tealight_core::{Error, Result, truncate_for_display};
use tealight_index::{Filter, SearchHit};

/// Default of `k`.
const DEFAULT_K: usize = 10;

/// The body of `POST /search`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
    /// `vector` (semantic search, the default), `lexical` (keyword search with BM25) or `hybrid` (both).
    pub mode: Option<String>,
    /// Whether to scan all rows even if the index has a graph; default false.
    #[serde(default)]
    pub exact: bool,
}

/// The response of `/search`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SearchResponse {
    /// Results in descending order of score.
    pub results: Vec<SearchResult>,
    /// The model that embedded the query, if one did.
    pub model: Option<String>,
}

/// A row of the index that matches the search: a document, or a chunk of a long one.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SearchResult {
    /// Id of the document; of a chunk, `ID#N`.
    pub id: String,
    /// Higher is better.
    pub score: f32,
    /// Text of the row.
    pub text: String,
    /// Metadata of the document; of a chunk also `document_id`, `chunk`, `start` and `end`.
    pub metadata: Map<String, Value>,
}

/// Handles `POST /search`.
pub fn search(context: &RequestContext) -> Result<ApiResponse> {
    let request: SearchRequest = parse(context.body)?;
    let mode = match request.mode.as_deref() {
        None => SearchMode::default(),
        Some(name) => SearchMode::from_name(name).ok_or_else(|| {
            let (name, modes) = (truncate_for_display(name), SearchMode::ALL.map(SearchMode::as_str).join(", "));
            Error::invalid_value("mode", format!("mode is {name:?}; expected one of {modes}"))
        })?,
    };
    let job = Search {
        text: request.query,
        vector: request.vector,
        mode,
        top_k: request.k.unwrap_or(DEFAULT_K),
        filter: request.filter.as_ref().map(Filter::parse).transpose()?,
        min_score: request.min_score,
        exact: request.exact,
        index: None,
    };
    let found = context.run(job)?;
    let result = |hit: SearchHit| SearchResult {
        id: hit.document.id,
        score: hit.score,
        text: hit.document.text,
        metadata: hit.document.metadata,
    };
    let results = found.hits.into_iter().map(result).collect();
    let response = SearchResponse { results, model: found.model.clone() };
    let response = ApiResponse::json(&response)?.with_usage(found.usage);
    Ok(ApiResponse { model: found.model, ..response })
}
