//! Embeddings: from token ids to one vector per text.

use crate::batch::TokenBatch;
use crate::model_info::ModelInfo;
use crate::sentence_transformers::{EmbeddingPipeline, pool};
use crate::text_encoder::TextEncoder;
use crate::tokenizer::EmbeddingTokenizer;
use tealight_core::{Error, ErrorKind, Result};
use tealight_kernels::{CpuContext, rowwise};

/// A model that turns texts into vectors: tokenizer, encoder, pooling and dense layers.
#[derive(Debug)]
pub struct Embedder {
    /// Text to token ids.
    pub tokenizer: EmbeddingTokenizer,
    /// Prompts, pooling and dense layers.
    pub pipeline: EmbeddingPipeline,
    /// Name, license and origin.
    pub info: ModelInfo,
    encoder: Box<dyn TextEncoder>,
    dimension: usize,
}

impl Embedder {
    /// Joins the parts of a model.
    ///
    /// # Errors
    /// The parts do not fit each other.
    pub fn new(
        encoder: Box<dyn TextEncoder>,
        tokenizer: EmbeddingTokenizer,
        pipeline: EmbeddingPipeline,
        info: ModelInfo,
    ) -> Result<Self> {
        if tokenizer.vocab_size() > encoder.vocab_size() {
            return Err(Error::invalid_model(format!(
                "the tokenizer has {} token ids; the token embedding table has {} rows",
                tokenizer.vocab_size(),
                encoder.vocab_size()
            )));
        }
        let dimension = pipeline.embedding_dim(encoder.hidden_size())?;
        let this = Self { tokenizer, pipeline, info, encoder, dimension };
        if this.max_tokens() <= this.tokenizer.num_special_tokens() {
            return Err(Error::invalid_model(format!(
                "the longest text has {} tokens, which are all special tokens",
                this.max_tokens()
            )));
        }
        Ok(this)
    }

    /// Values of an embedding, D.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The longest text in tokens, including special tokens.
    pub fn max_tokens(&self) -> usize {
        let limit = self.encoder.max_tokens();
        self.pipeline.max_tokens.map_or(limit, |n| n.min(limit))
    }

    /// One more than the highest token id.
    pub fn vocab_size(&self) -> usize {
        self.encoder.vocab_size()
    }

    /// Values of a token embedding, before pooling and dense layers.
    pub fn hidden_size(&self) -> usize {
        self.encoder.hidden_size()
    }

    /// Operations of the matrix products for a text of `tokens` tokens; a multiplication and an addition count as two.
    pub fn matmul_ops(&self, tokens: usize) -> u64 {
        self.encoder.matmul_ops(tokens)
    }

    /// The token embeddings of each text, `[T, hidden_size]` row-major.
    ///
    /// # Errors
    /// The encoder fails, or a value is not finite.
    pub fn token_embeddings(&self, cpu: &CpuContext, batch: &TokenBatch) -> Result<Vec<Vec<f32>>> {
        let d = self.encoder.hidden_size();
        let x = self.encoder.encode(cpu, batch)?;
        let texts: Vec<_> = batch.cu_seqlens.windows(2).map(|w| x[w[0] * d..w[1] * d].to_vec()).collect();
        texts.iter().try_for_each(|t| require_finite(t))?;
        Ok(texts)
    }

    /// An embedding `[D]` for each text, after pooling and dense layers, not normalized.
    ///
    /// # Errors
    /// As for [`Embedder::token_embeddings`].
    pub fn sentence_embeddings(&self, cpu: &CpuContext, batch: &TokenBatch) -> Result<Vec<Vec<f32>>> {
        let d = self.encoder.hidden_size();
        let finish = |tokens: &Vec<f32>| {
            let pooled = pool(tokens, d, self.pipeline.pooling);
            self.pipeline.dense.iter().fold(pooled, |x, layer| layer.forward(cpu, &x))
        };
        let vectors: Vec<_> = self.token_embeddings(cpu, batch)?.iter().map(finish).collect();
        vectors.iter().try_for_each(|v| require_finite(v))?;
        Ok(vectors)
    }
}

/// Keeps the first `dimensions` values of a vector if given (Matryoshka embeddings, arXiv 2205.13147); a larger number changes
/// nothing. Then scales the vector to norm 1 if `normalize` is set.
pub fn truncate_and_normalize(vector: &mut Vec<f32>, dimensions: Option<usize>, normalize: bool) {
    if let Some(n) = dimensions {
        vector.truncate(n);
    }
    if normalize {
        rowwise::normalize(vector);
    }
}

fn require_finite(values: &[f32]) -> Result<()> {
    if values.iter().all(|v| v.is_finite()) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::ModelLoad, "the model computed a value that is not finite: its weights are damaged"))
}
