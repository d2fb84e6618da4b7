//! Job: the documents of an index that fit a query.

use super::{Embed, EmbedInputs, Engine, Input, Job, Truncation};
use crate::aws::s3::S3Location;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tealight_core::{Deadline, Usage};
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};
use tealight_index::{Filter, Found, Index, Search};
use tealight_models::Embedder;
use tealight_models::tokenizer::Direction;

/// Names that models give to what is put before a query, and before a document.
const QUERY: &str = "query";
const PASSAGE: [&str; 2] = ["passage", "document"];
/// How long an index may take from S3, where nothing else ends it.
const FETCH_TIME: Duration = Duration::from_secs(300);
/// The folder of a Lambda layer.
const LAYER: &str = "/opt";

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

    fn run(self, engine: &Engine, deadline: Deadline) -> Result<Finds> {
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
            let made = query(engine, &index, text, deadline)?;
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
fn query(engine: &Engine, index: &Index, text: &str, deadline: Deadline) -> Result<(String, Usage, Vec<f32>)> {
    let name = index.model().ok_or_else(|| {
        let message = "the index has vectors from outside, so that only a vector or words can be searched for";
        Error::invalid_value("query", message)
    })?;
    let loaded = engine
        .registry
        .embedder(Some(name))
        .map_err(|e| e.with_context(format_args!("the index was built with {name:?}")))?;
    let prompt = loaded.model.pipeline.prompts.contains_key(QUERY).then(|| QUERY.to_string());
    let (truncation, inputs) = (Truncation::Truncate(Direction::Right), vec![Input::Text(text.into())]);
    let texts = EmbedInputs { model: Some(name.into()), inputs, prompt, truncation, field: "query", first_index: 0 };
    let mut made = engine.run(Embed { texts, normalize: true, dimensions: Some(index.dimension()) }, deadline)?;
    Ok((loaded.name.clone(), made.usage, made.vectors.pop().unwrap_or_default()))
}

/// The name of the prompt that a model puts before documents, if it has one.
pub fn passage(model: &Embedder) -> Option<String> {
    let has = |name: &&&str| model.pipeline.prompts.contains_key(**name);
    PASSAGE.iter().find(has).map(|name| name.to_string())
}

/// The configured index, once it is open.
#[derive(Debug, Default)]
pub struct IndexSlot(Mutex<Option<Arc<Index>>>);

impl Engine {
    /// The configured index, if it is open already; never waits.
    pub fn index_if_open(&self) -> Option<Arc<Index>> {
        self.index.0.try_lock().ok()?.clone()
    }

    /// The configured index; opens it if need be, after getting it from S3 if it is there.
    ///
    /// # Errors
    /// [`ErrorKind::IndexNotFound`], [`ErrorKind::IndexLoad`], or as of [`S3Location::get`].
    pub fn index(&self, deadline: Deadline) -> Result<Arc<Index>> {
        let mut place = self.index.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = &*place {
            return Ok(index.clone());
        }
        let name = self.config.index.as_deref().ok_or_else(|| {
            Error::new(ErrorKind::IndexNotFound, "there is no index to search: TEALIGHT_INDEX names none")
        })?;
        let path = match name.starts_with("s3://") {
            true => fetched(name, deadline)?,
            false => local(name, self.config.task_root.as_deref())?,
        };
        Ok(place.insert(Arc::new(Index::open(&path)?)).clone())
    }
}

/// A file as it is named, in the function's package, or in a layer.
fn local(name: &str, package: Option<&Path>) -> Result<PathBuf> {
    let folders = std::iter::once(Path::new("")).chain(package).chain([Path::new(LAYER)]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        Error::new(
            ErrorKind::IndexNotFound,
            format!("TEALIGHT_INDEX is {:?}, which is no file here", truncate_for_display(name)),
        )
    })
}

/// An index from S3, in the temporary folder.
fn fetched(uri: &str, deadline: Deadline) -> Result<PathBuf> {
    let bytes = S3Location::parse(uri, &[uri.to_string()], "TEALIGHT_INDEX")?
        .get(deadline.remaining(FETCH_TIME), "TEALIGHT_INDEX")?;
    let path = std::env::temp_dir().join(format!("tealight-{}.tlx", std::process::id()));
    std::fs::write(&path, &bytes).map_err(|e| Error::io("write", &path, e))?;
    Ok(path)
}
