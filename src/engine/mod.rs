//! What can be asked of the models. The page to read first.
//!
//! A request becomes a [`Job`] with every default filled in, [`Engine::run`] runs it, and its output goes to a format.
//! Texts become token ids, ids are joined into batches without padding, a batch becomes rows, rows are pooled.

pub mod catalog;

pub mod generate;
pub mod hub;
pub mod inventory;
pub mod model_path;
pub mod registry;
pub mod search;
pub mod speech;

use crate::aws::secrets;
use crate::config::Config;
use registry::{LoadedModel, Registry};
use std::sync::Arc;
use std::time::Instant;
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result, Usage, truncate_for_display};
use tealight_kernels::CpuContext;
use tealight_kernels::rowwise;
use tealight_models::tokenizer::{Direction, MAX_CHARS_PER_TOKEN, Token};
use tealight_models::{Batch, Embedder, shorten};

/// Tokens of one forward pass at the most, but for a longer single text: enough to keep every thread busy, and 25 MB of activations in a BERT of MiniLM's width.
/// A longer batch runs as several, which changes no vector.
pub const MAX_BATCH_TOKENS: usize = 4096;

/// The models, and the CPU that they run on.
#[derive(Debug)]
pub struct Engine {
    /// What the environment says.
    pub config: Arc<Config>,
    /// Instruction set and threads.
    pub cpu: CpuContext,
    /// Models in memory.
    pub registry: Registry,
    /// Secrets that were read.
    pub secrets: secrets::SecretCache,
    index: search::IndexSlot,
}

/// A validated request for one of the models.
pub trait Job {
    /// What comes out.
    type Output;
    /// Runs on an engine; called by [`Engine::run`].
    fn run(self, engine: &Engine, deadline: Deadline) -> Result<Self::Output>;
}

impl Engine {
    /// An engine for this configuration; loads nothing.
    pub fn new(config: Config) -> Result<Self> {
        let config = Arc::new(config);
        let cpu = CpuContext::new(config.isa, config.threads);
        let registry = Registry::new(config.clone(), cpu.clone());
        Ok(Self {
            config,
            cpu,
            registry,
            secrets: secrets::SecretCache::default(),
            index: search::IndexSlot::default(),
        })
    }

    /// Runs a job; loads its model first if need be.
    ///
    /// # Errors
    /// The model cannot be found or loaded, the input is outside the model's limits, or the deadline passes.
    pub fn run<J: Job>(&self, job: J, deadline: Deadline) -> Result<J::Output> {
        job.run(self, deadline)
    }

    /// Loads the default model, so that the first request finds it there.
    pub fn preload(&self) -> Result<Arc<LoadedModel>> {
        self.registry.embedder(None)
    }
}

/// A text, or token ids of the model's own vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A text.
    Text(String),
    /// Ids, with or without the special tokens around them.
    Ids(Vec<u32>),
}

/// What to do with a text of more tokens than the model reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncation {
    /// Answer with an error.
    Error,
    /// Cut one end.
    Truncate(Direction),
}

/// Texts for a model.
#[derive(Debug, Clone)]
pub struct EmbedInputs {
    /// A model's name; the default model where it is missing.
    pub model: Option<String>,
    /// The inputs, at least one, none empty.
    pub inputs: Vec<Input>,
    /// The name of a prompt; the model's default prompt where it is missing.
    pub prompt: Option<String>,
    /// What to do with long ones.
    pub truncation: Truncation,
    /// The request field that the inputs came in, for errors.
    pub field: &'static str,
    /// The number of the first input, for errors.
    pub first_index: usize,
}

/// Job: a vector for each text.
#[derive(Debug, Clone)]
pub struct Embed {
    /// The texts.
    pub texts: EmbedInputs,
    /// Whether to scale vectors to length 1.
    pub normalize: bool,
    /// How many values to keep of each vector; all where it is missing.
    pub dimensions: Option<usize>,
}

/// Job: whether a model takes these options, before there is a text.
#[derive(Debug, Clone)]
pub struct ValidateOptions {
    /// A model's name; the default model where it is missing.
    pub model: Option<String>,
    /// How many values to keep of each vector.
    pub dimensions: Option<usize>,
    /// The name of a prompt.
    pub prompt: Option<String>,
}

impl Job for ValidateOptions {
    type Output = ();

    fn run(self, engine: &Engine, _: Deadline) -> Result<()> {
        let loaded = engine.registry.embedder(self.model.as_deref())?;
        check_dimensions(self.dimensions, loaded.model.dimension())?;
        prompt(&loaded.model, self.prompt.as_deref()).map(drop)
    }
}

/// Vectors of texts.
#[derive(Debug, Clone)]
pub struct Embeddings {
    /// The name of the model.
    pub model: String,
    /// `[D]` each, in the order of the inputs.
    pub vectors: Vec<Vec<f32>>,
    /// What it took.
    pub usage: Usage,
}

impl Job for Embed {
    type Output = Embeddings;

    fn run(self, engine: &Engine, deadline: Deadline) -> Result<Embeddings> {
        let loaded = engine.registry.embedder(self.texts.model.as_deref())?;
        check_dimensions(self.dimensions, loaded.model.dimension())?;
        let (mut vectors, usage) = forward(engine, &loaded.model, &self.texts, deadline, Embedder::vectors)?;
        for vector in &mut vectors {
            shorten(vector, self.dimensions, self.normalize);
        }
        Ok(Embeddings { model: loaded.name.clone(), vectors, usage })
    }
}

fn check_dimensions(dimensions: Option<usize>, d: usize) -> Result<()> {
    match dimensions {
        Some(n) if n == 0 || n > d => {
            Err(Error::invalid_value("dimensions", format!("dimensions is {n}, it must be 1 to {d} for this model")))
        }
        _ => Ok(()),
    }
}

/// Job: the row of each token of each text, neither pooled nor normalised.
#[derive(Debug, Clone)]
pub struct EmbedTokens(pub EmbedInputs);

/// Rows of texts.
#[derive(Debug, Clone)]
pub struct TokenEmbeddings {
    /// One list of rows `[D]` a text.
    pub texts: Vec<Vec<Vec<f32>>>,
    /// What it took.
    pub usage: Usage,
}

impl Job for EmbedTokens {
    type Output = TokenEmbeddings;

    fn run(self, engine: &Engine, deadline: Deadline) -> Result<TokenEmbeddings> {
        let loaded = engine.registry.embedder(self.0.model.as_deref())?;
        let d = loaded.model.row_dimension();
        let (texts, usage) = forward(engine, &loaded.model, &self.0, deadline, Embedder::rows)?;
        let split = |rows: Vec<f32>| rows.chunks_exact(d).map(<[f32]>::to_vec).collect();
        Ok(TokenEmbeddings { texts: texts.into_iter().map(split).collect(), usage })
    }
}

/// Job: the cosine of the first text with each of the others.
#[derive(Debug, Clone)]
pub struct Similarity(pub EmbedInputs);

impl Job for Similarity {
    type Output = (Vec<f32>, Usage);

    fn run(self, engine: &Engine, deadline: Deadline) -> Result<Self::Output> {
        let embed = Embed { texts: self.0, normalize: true, dimensions: None };
        let Embeddings { vectors, usage, .. } = embed.run(engine, deadline)?;
        let Some((source, others)) = vectors.split_first() else {
            return Ok((vec![], usage));
        };
        let isa = engine.cpu.isa;
        // Rounding may put the cosine of equal vectors above 1.
        Ok((others.iter().map(|v| rowwise::dot(isa, source, v).clamp(-1.0, 1.0)).collect(), usage))
    }
}

/// Job: the tokens of texts.
#[derive(Debug, Clone)]
pub struct Tokenize {
    /// A model's name.
    pub model: Option<String>,
    /// The texts.
    pub texts: Vec<String>,
    /// Whether to show the special tokens around a text.
    pub special: bool,
    /// The name of a prompt.
    pub prompt: Option<String>,
}

impl Job for Tokenize {
    type Output = Vec<Vec<Token>>;

    fn run(self, engine: &Engine, _: Deadline) -> Result<Self::Output> {
        let loaded = engine.registry.embedder(self.model.as_deref())?;
        let prompt = prompt(&loaded.model, self.prompt.as_deref())?;
        let tokens = |text: &String| {
            let text = format!("{prompt}{text}");
            check_characters(&text, loaded.model.max_tokens(), "inputs").map_err(|e| e.with_param("inputs"))?;
            loaded.model.tokenizer.tokens(&text, self.special)
        };
        engine.cpu.par_map(&self.texts, tokens).into_iter().collect()
    }
}

/// Job: the texts of token ids.
#[derive(Debug, Clone)]
pub struct Detokenize {
    /// A model's name.
    pub model: Option<String>,
    /// Ids, one list a text.
    pub ids: Vec<Vec<u32>>,
    /// Whether to leave special tokens away.
    pub skip_special: bool,
}

impl Job for Detokenize {
    type Output = Vec<String>;

    fn run(self, engine: &Engine, _: Deadline) -> Result<Self::Output> {
        let loaded = engine.registry.embedder(self.model.as_deref())?;
        let decode = |ids: &Vec<u32>| {
            check_ids(&loaded.model, ids, "ids")?;
            loaded.model.tokenizer.decode(ids, self.skip_special)
        };
        self.ids.iter().map(decode).collect()
    }
}

/// The text of a prompt: the named one, else the model's default, else nothing.
pub(crate) fn prompt<'a>(model: &'a Embedder, name: Option<&'a str>) -> Result<&'a str> {
    let prompts = &model.pipeline.prompts;
    let Some(name) = name.or(model.pipeline.default_prompt.as_deref()) else {
        return Ok("");
    };
    prompts.get(name).map(String::as_str).ok_or_else(|| {
        let known: Vec<_> = prompts.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_string() } else { known.join(", ") };
        Error::invalid_value(
            "prompt_name",
            format!("prompt_name is {:?}; this model's prompts: {known}", truncate_for_display(name)),
        )
    })
}

/// Texts to results: tokenise, join into batches, run each batch through `f`.
fn forward<R>(
    engine: &Engine,
    model: &Embedder,
    texts: &EmbedInputs,
    deadline: Deadline,
    f: fn(&Embedder, &CpuContext, &Batch) -> Result<Vec<R>>,
) -> Result<(Vec<R>, Usage)> {
    let start = Instant::now();
    let prompt = prompt(model, texts.prompt.as_deref())?;
    deadline.check()?;
    let indexed: Vec<_> = texts.inputs.iter().enumerate().collect();
    let ids = engine.cpu.par_map(&indexed, |(i, input)| token_ids(model, input, prompt, texts, texts.first_index + *i));
    let ids = ids.into_iter().collect::<Result<Vec<_>>>()?;
    let tokenized = Instant::now();
    let mut results = Vec::with_capacity(ids.len());
    for group in groups(&ids) {
        deadline.check()?;
        results.extend(f(model, &engine.cpu, &Batch::new(group.iter().map(Vec::as_slice)))?);
    }
    let usage = Usage {
        tokens: ids.iter().map(Vec::len).sum(),
        characters: texts.inputs.iter().map(characters).sum(),
        tokenization: tokenized - start,
        inference: tokenized.elapsed(),
        ..Usage::default()
    };
    Ok((results, usage))
}

fn characters(input: &Input) -> usize {
    match input {
        Input::Text(text) => text.chars().count(),
        Input::Ids(_) => 0,
    }
}

/// Splits texts, in order, into groups of at most [`MAX_BATCH_TOKENS`] tokens, or of one text.
fn groups(ids: &[Vec<u32>]) -> Vec<&[Vec<u32>]> {
    let (mut groups, mut start, mut tokens) = (vec![], 0, 0);
    for (i, text) in ids.iter().enumerate() {
        if i > start && tokens + text.len() > MAX_BATCH_TOKENS {
            groups.push(&ids[start..i]);
            (start, tokens) = (i, 0);
        }
        tokens += text.len();
    }
    if start < ids.len() {
        groups.push(&ids[start..]);
    }
    groups
}

/// The complete ids of an input: prompt, special tokens, and no more than the model reads.
fn token_ids(model: &Embedder, input: &Input, prompt: &str, texts: &EmbedInputs, index: usize) -> Result<Vec<u32>> {
    let (tokenizer, limit) = (&model.tokenizer, model.max_tokens());
    let content = match input {
        Input::Text(text) => {
            let text = format!("{prompt}{text}");
            let text = match texts.truncation {
                Truncation::Error => {
                    check_characters(&text, limit, &format!("{}[{index}]", texts.field))
                        .map_err(|e| e.with_param(texts.field))?;
                    &text
                }
                Truncation::Truncate(direction) => cut_characters(&text, limit, direction),
            };
            tokenizer.ids(text)?
        }
        Input::Ids(ids) => {
            check_ids(model, ids, texts.field)?;
            [tokenizer.ids(prompt)?, tokenizer.content(ids).to_vec()].concat()
        }
    };
    let ids = tokenizer.surround(&content);
    if ids.is_empty() {
        let message =
            format!("{}[{index}] has no tokens: white space, for a model that puts nothing around a text", texts.field);
        return Err(Error::new(ErrorKind::Empty, message).with_param(texts.field));
    }
    match texts.truncation {
        Truncation::Truncate(direction) => Ok(tokenizer.cut(&ids, limit, direction)),
        Truncation::Error if ids.len() <= limit => Ok(ids),
        Truncation::Error => Err(Error::new(
            ErrorKind::TooLong,
            format!("{}[{index}] has {} tokens, the model reads {limit}", texts.field, ids.len()),
        )
        .with_param(texts.field)),
    }
}

fn check_ids(model: &Embedder, ids: &[u32], field: &str) -> Result<()> {
    let limit = model.vocabulary();
    match ids.iter().find(|id| **id as usize >= limit) {
        None => Ok(()),
        Some(id) => Err(Error::invalid_value(
            field,
            format!("{field} has the token id {id}, this model's ids are below {limit}"),
        )),
    }
}

fn check_characters(text: &str, max_tokens: usize, what: &str) -> Result<()> {
    let limit = MAX_CHARS_PER_TOKEN * max_tokens;
    // The byte length is known without counting and bounds the characters.
    if text.len() <= limit || text.chars().count() <= limit {
        return Ok(());
    }
    let message = format!("{what} has more than {limit} characters, the model reads {max_tokens} tokens");
    Err(Error::new(ErrorKind::TooLong, message))
}

fn cut_characters(text: &str, max_tokens: usize, direction: Direction) -> &str {
    let limit = MAX_CHARS_PER_TOKEN * max_tokens;
    if text.len() <= limit {
        return text;
    }
    match direction {
        Direction::Right => text.char_indices().nth(limit).map_or(text, |(at, _)| &text[..at]),
        Direction::Left => text.char_indices().nth_back(limit - 1).map_or(text, |(at, _)| &text[at..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_keep_order_and_bound() {
        let ids: Vec<Vec<u32>> = [4000, 96, 1, 5000, 7].map(|n| vec![1; n]).to_vec();
        let sizes: Vec<_> = groups(&ids).iter().map(|g| g.len()).collect();
        assert_eq!(sizes, [2, 1, 1, 1]);
        assert!(groups(&[]).is_empty());
    }

    #[test]
    fn characters_are_cut_at_either_end_between_characters() {
        let text = "é".repeat(300);
        assert_eq!(cut_characters(&text, 1, Direction::Right).chars().count(), 250);
        let text = format!("{}end", "é".repeat(300));
        let left = cut_characters(&text, 1, Direction::Left);
        assert!(left.ends_with("end") && left.chars().count() == 250);
        assert_eq!(cut_characters("short", 1, Direction::Left), "short");
    }
}
