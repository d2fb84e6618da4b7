//! The search job: embeds a query and searches an index.

use super::embed::Embed;
use super::inputs::{EmbedInputs, Input, Truncation};
use super::job::{Job, JobContext};
use std::sync::Arc;
use tealight_core::{Error, ErrorKind, Result, Usage};
use tealight_index::{Filter, Index, SearchHit, SearchQuery};
use tealight_models::tokenizer::TruncationDirection;

/// Name of the prompt for queries in the models that have one.
const QUERY_PROMPT: &str = "query";

/// How a text is searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SearchMode {
    /// Semantic search, by the embedding of the text.
    #[default]
    Vector,
    /// Keyword search, by BM25.
    Lexical,
    /// Both, combined by reciprocal rank fusion.
    Hybrid,
}

impl SearchMode {
    /// All modes, in the order of error messages.
    pub const ALL: [SearchMode; 3] = [SearchMode::Vector, SearchMode::Lexical, SearchMode::Hybrid];

    /// The name in requests and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            SearchMode::Vector => "vector",
            SearchMode::Lexical => "lexical",
            SearchMode::Hybrid => "hybrid",
        }
    }

    /// Former names, which requests and the command line still accept.
    pub fn aliases(self) -> &'static [&'static str] {
        match self {
            SearchMode::Lexical => &["words"],
            _ => &[],
        }
    }

    /// The mode with this name or alias.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == name || mode.aliases().contains(&name))
    }
}

/// Searches an index by text, by vector, or by both.
#[derive(Debug, Clone)]
pub struct Search {
    /// The query text; required unless there is a vector.
    pub text: Option<String>,
    /// The embedding of the query, used instead of embedding the text.
    pub vector: Option<Vec<f32>>,
    /// How the text is searched for.
    pub mode: SearchMode,
    /// Maximum number of hits.
    pub top_k: usize,
    /// Only documents that match are returned.
    pub filter: Option<Filter>,
    /// Only hits with at least this score are returned.
    pub min_score: Option<f32>,
    /// Whether to scan all rows even if the index has an HNSW graph.
    pub exact: bool,
    /// The index; by default the configured one.
    pub index: Option<Arc<Index>>,
}

/// The result of a [`Search`].
#[derive(Debug, Clone)]
pub struct SearchResults {
    /// Hits in descending order of score.
    pub hits: Vec<SearchHit>,
    /// The model that embedded the query, if one did.
    pub model: Option<String>,
    /// Tokens of the query.
    pub usage: Usage,
}

impl Job for Search {
    type Output = SearchResults;

    fn run(self, context: &JobContext) -> Result<SearchResults> {
        let (engine, deadline) = (context.engine, context.deadline);
        let index = self.index.clone().map_or_else(|| engine.index(deadline), Ok)?;
        let (mut model, mut usage, mut vector) = (None, Usage::default(), self.vector);
        let text = self.text.as_deref().filter(|text| !text.trim().is_empty());
        if text.is_none() && vector.is_none() {
            return Err(
                Error::new(ErrorKind::Empty, "the request has neither a query nor a vector").with_param("query")
            );
        }
        let lexical = text.filter(|_| self.mode != SearchMode::Vector);
        if let Some(text) = text.filter(|_| vector.is_none() && self.mode != SearchMode::Lexical) {
            let embedded = embed_query(context, &index, text)?;
            (model, usage, vector) = (Some(embedded.0), embedded.1, Some(embedded.2));
        }
        deadline.check()?;
        let vector = vector.filter(|_| self.mode != SearchMode::Lexical || lexical.is_none());
        let Search { top_k, filter, min_score, exact, .. } = self;
        let query = SearchQuery { vector: vector.as_deref(), lexical, top_k, filter, min_score, exact };
        Ok(SearchResults { hits: index.search(&engine.cpu, &query)?, model, usage })
    }
}

/// Embeds a query with the model that the index was built with. Returns the name of the model, the usage and the vector.
fn embed_query(context: &JobContext, index: &Index, text: &str) -> Result<(String, Usage, Vec<f32>)> {
    let name = index.model().ok_or_else(|| {
        let message = "the index names no model; search by vector or with mode lexical, or rebuild it with --model";
        Error::invalid_value("query", message)
    })?;
    let loaded =
        context.embedder(Some(name)).map_err(|e| e.with_context(format_args!("the index was built with {name:?}")))?;
    let prompt = loaded.model.pipeline.prompts.contains_key(QUERY_PROMPT).then(|| QUERY_PROMPT.to_string());
    let inputs = EmbedInputs {
        model: Some(name.into()),
        prompt,
        truncation: Truncation::Truncate(TruncationDirection::Right),
        field: "query",
        ..EmbedInputs::new(vec![Input::Text(text.into())])
    };
    let mut embeddings = context.run(Embed { inputs, normalize: true, dimensions: Some(index.dimension()) })?;
    Ok((loaded.name.clone(), embeddings.usage, embeddings.vectors.pop().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_mode_accepts_names_and_aliases() {
        for mode in SearchMode::ALL {
            assert_eq!(SearchMode::from_name(mode.as_str()), Some(mode));
        }
        assert_eq!(SearchMode::Lexical.as_str(), "lexical");
        assert_eq!(SearchMode::from_name("words"), Some(SearchMode::Lexical));
        assert_eq!(SearchMode::from_name("magic"), None);
    }
}
