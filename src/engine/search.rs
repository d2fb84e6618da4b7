//! Job: the documents of an index that fit a query.

use super::embed::Embed;
use super::inputs::{EmbedInputs, Input, Truncation};
use super::job::{Job, JobContext};
use std::sync::Arc;
use tealight_core::{Error, ErrorKind, Result, Usage};
use tealight_index::{Filter, Found, Index, Search};
use tealight_models::Embedder;
use tealight_models::tokenizer::TruncationDirection;

/// Names that models give to what is put before a query, and before a document.
const QUERY: &str = "query";
const PASSAGE: [&str; 2] = ["passage", "document"];

/// How a text is searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// By its vector.
    #[default]
    Vector,
    /// By its words.
    Words,
    /// By both: reciprocal ranks are added up.
    Hybrid,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 3] = [Mode::Vector, Mode::Words, Mode::Hybrid];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Vector => "vector",
            Mode::Words => "words",
            Mode::Hybrid => "hybrid",
        }
    }

    /// The mode of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

/// Job: the documents of an index that fit a query.
#[derive(Debug, Clone)]
pub struct Find {
    /// A text.
    pub text: Option<String>,
    /// A vector, instead of that of the text.
    pub vector: Option<Vec<f32>>,
    /// How the text is searched for.
    pub mode: Mode,
    /// Documents at most.
    pub count: usize,
    /// Documents that are looked at.
    pub filter: Option<Filter>,
    /// What scores below is left out.
    pub min_score: Option<f32>,
    /// Whether all rows are gone through, though the index has a graph.
    pub exact: bool,
    /// The index; the configured one where it is missing.
    pub index: Option<Arc<Index>>,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Finds {
    /// The best first.
    pub found: Vec<Found>,
    /// The model that made the query's vector, if one did.
    pub model: Option<String>,
    /// What that took.
    pub usage: Usage,
}

impl Job for Find {
    type Output = Finds;

    fn run(self, context: &JobContext) -> Result<Finds> {
        let (engine, deadline) = (context.engine, context.deadline);
        let index = self.index.clone().map_or_else(|| engine.index(deadline), Ok)?;
        let (mut model, mut usage, mut vector) = (None, Usage::default(), self.vector);
        let text = self.text.as_deref().filter(|text| !text.trim().is_empty());
        if text.is_none() && vector.is_none() {
            return Err(
                Error::new(ErrorKind::Empty, "there is neither a query nor a vector to search by").with_param("query")
            );
        }
        let words = text.filter(|_| self.mode != Mode::Vector);
        if let Some(text) = text.filter(|_| vector.is_none() && self.mode != Mode::Words) {
            let made = query(context, &index, text)?;
            (model, usage, vector) = (Some(made.0), made.1, Some(made.2));
        }
        deadline.check()?;
        let vector = vector.filter(|_| self.mode != Mode::Words || words.is_none());
        let Find { count, filter, min_score, exact, .. } = self;
        let search = Search { vector: vector.as_deref(), words, count, filter, min_score, exact };
        Ok(Finds { found: index.search(&engine.cpu, &search)?, model, usage })
    }
}

/// The vector of a query, by the model that the index was built with.
fn query(context: &JobContext, index: &Index, text: &str) -> Result<(String, Usage, Vec<f32>)> {
    let name = index.model().ok_or_else(|| {
        let message = "the index has vectors from outside, so that only a vector or words can be searched for";
        Error::invalid_value("query", message)
    })?;
    let loaded =
        context.embedder(Some(name)).map_err(|e| e.with_context(format_args!("the index was built with {name:?}")))?;
    let prompt = loaded.model.pipeline.prompts.contains_key(QUERY).then(|| QUERY.to_string());
    let (truncation, inputs) = (Truncation::Truncate(TruncationDirection::Right), vec![Input::Text(text.into())]);
    let texts = EmbedInputs { model: Some(name.into()), inputs, prompt, truncation, field: "query", first_index: 0 };
    let mut made = context.run(Embed { texts, normalize: true, dimensions: Some(index.dimension()) })?;
    Ok((loaded.name.clone(), made.usage, made.vectors.pop().unwrap_or_default()))
}

/// The name of the prompt that a model puts before documents, if it has one.
pub fn passage(model: &Embedder) -> Option<String> {
    let has = |name: &&&str| model.pipeline.prompts.contains_key(**name);
    PASSAGE.iter().find(has).map(|name| name.to_string())
}
