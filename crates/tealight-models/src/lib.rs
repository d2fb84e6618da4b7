//! Models: from a file to an [`Embedder`].
//!
//! To add an architecture: implement [`Encoder`] in a file of its own, and choose it by its name in `Parts` and `Embedder::load`.

pub mod families;
pub mod formats;
pub mod int8;
mod memory;
pub mod pack;
pub mod tasks;
pub mod tokenizer;

use crate::int8::with_values;
use candle_core::Tensor;
use families::bert;
use formats::gguf::{self, Gguf};
use formats::weights::{Precision, Weights};
use std::path::{Path, PathBuf};
use tasks::embed::pipeline::{self, Pipeline, output_dimension};
use tasks::embed::{Pooling, pool};
use tealight_core::{Error, ErrorKind, Result};
use tealight_kernels::CpuContext;
use tealight_kernels::rowwise;
use tokenizer::{Source, Tokenizer};
use tracing::trace_span;

/// Texts as token ids, one after another, with no padding.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Batch {
    /// `[T]`: the ids of all texts.
    pub ids: Vec<u32>,
    /// `[B + 1]`: where each text begins, and the end.
    pub starts: Vec<usize>,
}

impl Batch {
    /// A batch of texts.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut this = Self { ids: vec![], starts: vec![0] };
        for ids in texts {
            this.ids.extend_from_slice(ids);
            this.starts.push(this.ids.len());
        }
        this
    }
}

/// A network that turns each token of a text into a row.
pub trait Encoder: std::fmt::Debug + Send + Sync {
    /// Width of a row, D.
    fn dimension(&self) -> usize;
    /// The longest text, in tokens.
    fn max_tokens(&self) -> usize;
    /// One more than the highest id.
    fn vocabulary(&self) -> usize;
    /// Multiplications and additions, counted as two, of the matrix products for a text of so many tokens.
    fn operations(&self, tokens: usize) -> u64;
    /// `[T, D]` for the texts of a batch, none of which is empty, longer than `max_tokens` or has an id beyond
    /// `vocabulary`. A text's rows depend on no other text.
    fn encode(&self, cpu: &CpuContext, batch: &Batch) -> Result<Tensor>;
}

/// What a model says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// Its name.
    pub name: Option<String>,
    /// Its licence, as an SPDX name.
    pub license: Option<String>,
    /// Where it comes from.
    pub source: Option<String>,
    /// `bert` or `llama`.
    pub architecture: String,
    /// `gguf`, `safetensors` or `llama2.c`.
    pub format: &'static str,
}

/// A model that turns text into vectors.
#[derive(Debug)]
pub struct Embedder {
    /// Text to ids.
    pub tokenizer: Tokenizer,
    /// Prompts, pooling and what follows.
    pub pipeline: Pipeline,
    /// What the file says about itself.
    pub about: About,
    encoder: Box<dyn Encoder>,
    dimension: usize,
}

impl Embedder {
    /// Loads a GGUF file, or a folder of a sentence-transformers model.
    ///
    /// # Errors
    /// [`ErrorKind::ModelLoad`] and [`ErrorKind::Io`], which name the file and what in it is wrong.
    pub fn load(cpu: &CpuContext, path: &Path, precision: Precision) -> Result<Self> {
        let loaded = Parts::open(path, precision).and_then(|parts| {
            let _network = trace_span!("network").entered();
            let encoder = bert::Bert::new(cpu, parts.config, &parts.weights)?;
            Self::assemble(Box::new(encoder), parts.tokenizer, parts.pipeline, parts.about)
        });
        loaded.map_err(|e| e.with_context(format_args!("model {}", path.display())))
    }

    fn assemble(encoder: Box<dyn Encoder>, tokenizer: Tokenizer, pipeline: Pipeline, about: About) -> Result<Self> {
        if tokenizer.vocabulary() > encoder.vocabulary() {
            return Err(Error::invalid_model(format!(
                "the tokenizer has {} ids, the token table {} rows",
                tokenizer.vocabulary(),
                encoder.vocabulary()
            )));
        }
        let dimension = output_dimension(&pipeline.dense, encoder.dimension())?;
        let this = Self { tokenizer, pipeline, about, encoder, dimension };
        if this.max_tokens() <= this.tokenizer.added() {
            return Err(Error::invalid_model(format!(
                "the longest text is {} tokens, which leaves no room for text",
                this.max_tokens()
            )));
        }
        Ok(this)
    }

    /// Values of a vector, D.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The longest text in tokens, special tokens included.
    pub fn max_tokens(&self) -> usize {
        let limit = self.encoder.max_tokens();
        self.pipeline.max_tokens.map_or(limit, |n| n.min(limit))
    }

    /// One more than the highest token id.
    pub fn vocabulary(&self) -> usize {
        self.encoder.vocabulary()
    }

    /// Operations of the matrix products for a text of so many tokens.
    pub fn operations(&self, tokens: usize) -> u64 {
        self.encoder.operations(tokens)
    }

    /// The rows of each text of a batch: `[T of the text, D of the encoder]`, one list of values a text.
    pub fn rows(&self, cpu: &CpuContext, batch: &Batch) -> Result<Vec<Vec<f32>>> {
        let d = self.encoder.dimension();
        let x = self.encoder.encode(cpu, batch)?;
        let texts = with_values(&x, |x| {
            Ok(batch.starts.windows(2).map(|w| x[w[0] * d..w[1] * d].to_vec()).collect::<Vec<_>>())
        })?;
        texts.iter().try_for_each(|t| finite(t))?;
        Ok(texts)
    }

    /// Width of the rows that [`Embedder::rows`] gives.
    pub fn row_dimension(&self) -> usize {
        self.encoder.dimension()
    }

    /// A vector `[D]` for each text of a batch, pooled and through the dense layers, not normalised.
    pub fn vectors(&self, cpu: &CpuContext, batch: &Batch) -> Result<Vec<Vec<f32>>> {
        let d = self.encoder.dimension();
        let texts = self.rows(cpu, batch)?;
        let vectors: Vec<_> = texts.iter().map(|rows| self.finish(cpu, pool(rows, d, self.pipeline.pooling))).collect();
        vectors.iter().try_for_each(|v| finite(v))?;
        Ok(vectors)
    }

    fn finish(&self, cpu: &CpuContext, pooled: Vec<f32>) -> Vec<f32> {
        self.pipeline.dense.iter().fold(pooled, |x, layer| layer.forward(cpu, &x))
    }
}

/// Cuts a vector to its first `dimensions` values (Matryoshka, arXiv 2205.13147) and scales it to length 1, as asked.
pub fn shorten(vector: &mut Vec<f32>, dimensions: Option<usize>, normalize: bool) {
    if let Some(n) = dimensions {
        vector.truncate(n);
    }
    if normalize {
        rowwise::normalize(vector);
    }
}

fn finite(values: &[f32]) -> Result<()> {
    if values.iter().all(|v| v.is_finite()) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::ModelLoad, "the model gave a value that is not a number: its weights are damaged"))
}

/// A model file or folder, opened but not yet a network.
struct Parts {
    config: bert::Config,
    weights: Weights,
    /// Where they are.
    file: PathBuf,
    tokenizer: Tokenizer,
    source: Source,
    pipeline: Pipeline,
    about: About,
}

impl Parts {
    fn open(path: &Path, precision: Precision) -> Result<Self> {
        if path.is_dir() { Self::of_folder(path, precision) } else { Self::of_gguf(path, precision) }
    }

    fn of_gguf(path: &Path, precision: Precision) -> Result<Self> {
        let header = trace_span!("file and header").entered();
        let mut file = Gguf::parse(tealight_core::mmap::map_file(path)?)?;
        header.exit();
        let weights = Weights::new(std::mem::take(&mut file.tensors), precision);
        let key = "general.architecture";
        let architecture = file.string(key)?.ok_or_else(|| gguf::missing(key))?.to_string();
        check_architecture(&architecture)?;
        let text = |key: &str| Ok::<_, Error>(file.string(key)?.map(str::to_string));
        let about = About {
            name: text("general.name")?,
            license: text("general.license")?,
            source: text("general.source.url")?,
            architecture: architecture.clone(),
            format: "gguf",
        };
        let (tokenizer, source) = trace_span!("tokenizer").in_scope(|| Tokenizer::from_gguf(&file))?;
        let pipeline = Pipeline::from_gguf(&file, &architecture, &weights, Pooling::Mean)?;
        let config = bert::Config::from_gguf(&file, &weights)?;
        Ok(Self { config, weights, file: path.into(), tokenizer, source, pipeline, about })
    }

    fn of_folder(folder: &Path, precision: Precision) -> Result<Self> {
        let config = pipeline::json(&folder.join("config.json"))?
            .ok_or_else(|| Error::invalid_model("config.json is missing"))?;
        let architecture = config["model_type"].as_str().unwrap_or_default().to_string();
        check_architecture(&architecture)?;
        let (weights, file) = Weights::from_folder(folder, precision, bert::canonical)?;
        let (tokenizer, source) = Tokenizer::from_folder(folder)?;
        let pipeline = Pipeline::from_folder(folder, Pooling::Mean)?;
        let about = About { architecture, format: "safetensors", ..About::default() };
        Ok(Self { config: bert::Config::from_json(&config)?, weights, file, tokenizer, source, pipeline, about })
    }
}

fn check_architecture(architecture: &str) -> Result<()> {
    if architecture == bert::ARCHITECTURE {
        return Ok(());
    }
    Err(Error::invalid_model(format!("the architecture is {architecture:?}; {:?} is supported", bert::ARCHITECTURE)))
}
