//! `POST /search`: documents of the function's own index.

use super::context::{ApiResponse, RequestContext};
use super::json::parse;
use crate::engine::search::{Find, Mode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tealight_core::{Error, Result, truncate_for_display};
use tealight_index::Filter;

/// Documents where a request says nothing.
const COUNT: usize = 10;

/// `POST /search`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SearchRequest {
    /// The text that is searched for.
    #[serde(alias = "text")]
    pub query: Option<String>,
    /// A vector that is searched for instead.
    pub vector: Option<Vec<f32>>,
    /// Documents at most; 10 where it is missing.
    #[serde(alias = "top_k", alias = "limit")]
    pub k: Option<usize>,
    /// Documents that are looked at, by their metadata: `{"year": {"$gte": 1960}, "tags": "speech"}`.
    pub filter: Option<Value>,
    /// What scores below is left out.
    pub min_score: Option<f32>,
    /// `vector`, `words`, or `hybrid`, which is both; `vector` where it is missing.
    pub mode: Option<String>,
    /// Goes through all rows, though the index has a graph; `false` where it is missing.
    #[serde(default)]
    pub exact: bool,
}

/// The reply of `/search`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SearchResponse {
    /// The best first.
    pub results: Vec<SearchResult>,
    /// The model that made the query's vector, if one did.
    pub model: Option<String>,
}

/// A document that was found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SearchResult {
    /// The document's.
    pub id: String,
    /// How well it fits.
    pub score: f32,
    /// The document's.
    pub text: String,
    /// The document's.
    pub metadata: Map<String, Value>,
}

/// Answers `POST /search`.
pub fn search(context: &RequestContext) -> Result<ApiResponse> {
    let request: SearchRequest = parse(context.body)?;
    let mode = match request.mode.as_deref() {
        None => Mode::default(),
        Some(name) => Mode::named(name).ok_or_else(|| {
            let known = Mode::ALL.map(Mode::name).join(", ");
            Error::invalid_value("mode", format!("mode is {:?}; known: {known}", truncate_for_display(name)))
        })?,
    };
    let job = Find {
        text: request.query,
        vector: request.vector,
        mode,
        count: request.k.unwrap_or(COUNT),
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
    let reply = ApiResponse::json(&SearchResponse { results, model: finds.model.clone() })?.with_usage(finds.usage);
    Ok(ApiResponse { model: finds.model, ..reply })
}
