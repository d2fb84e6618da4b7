//! Jobs: embeddings of texts or of their tokens, and cosine similarity.

use super::inputs::{EmbedInputs, Input, prompt_text, token_ids};
use super::job::{Job, JobContext};
use std::time::Instant;
use tealight_core::{Error, Result, Usage};
use tealight_kernels::{CpuContext, rowwise};
use tealight_models::{Embedder, TokenBatch, truncate_and_normalize};

/// Maximum tokens per forward pass; a single longer text still runs as one pass. 4096 tokens are enough work for all threads, and
/// few enough for their activations to fit in a small Lambda function. Splitting a batch does not change its embeddings.
pub const MAX_BATCH_TOKENS: usize = 4096;

/// Job: one embedding per text.
#[derive(Debug, Clone)]
pub struct Embed {
    /// What to embed, and with which model.
    pub inputs: EmbedInputs,
    /// Whether to scale embeddings to unit length.
    pub normalize: bool,
    /// Dimensions to keep of each embedding (Matryoshka truncation); all if `None`.
    pub dimensions: Option<usize>,
}

/// The result of [`Embed`].
#[derive(Debug, Clone)]
pub struct Embeddings {
    /// Name of the model.
    pub model: String,
    /// `[B][D]`, in the order of the inputs.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens and times.
    pub usage: Usage,
}

impl Job for Embed {
    type Output = Embeddings;

    fn run(self, context: &JobContext) -> Result<Embeddings> {
        let loaded = context.embedder(self.inputs.model.as_deref())?;
        check_dimensions(self.dimensions, loaded.model.dimension())?;
        let (mut vectors, usage) = forward(context, &loaded.model, &self.inputs, Embedder::sentence_embeddings)?;
        for vector in &mut vectors {
            truncate_and_normalize(vector, self.dimensions, self.normalize);
        }
        Ok(Embeddings { model: loaded.name.clone(), vectors, usage })
    }
}

/// Job: checks options against a model before there is any text. Loads the model.
#[derive(Debug, Clone)]
pub struct ValidateOptions {
    /// Name of the model; the default model if `None`.
    pub model: Option<String>,
    /// Dimensions to keep of each embedding.
    pub dimensions: Option<usize>,
    /// Name of a prompt.
    pub prompt: Option<String>,
}

impl Job for ValidateOptions {
    type Output = ();

    fn run(self, context: &JobContext) -> Result<()> {
        let loaded = context.embedder(self.model.as_deref())?;
        check_dimensions(self.dimensions, loaded.model.dimension())?;
        prompt_text(&loaded.model, self.prompt.as_deref()).map(drop)
    }
}

fn check_dimensions(dimensions: Option<usize>, d: usize) -> Result<()> {
    match dimensions {
        Some(n) if n == 0 || n > d => {
            Err(Error::invalid_value("dimensions", format!("dimensions is {n}; expected 1 to {d} for this model")))
        }
        _ => Ok(()),
    }
}

/// Job: the hidden state of each token of each text, neither pooled nor normalized.
#[derive(Debug, Clone)]
pub struct EmbedTokens(pub EmbedInputs);

/// The result of [`EmbedTokens`].
#[derive(Debug, Clone)]
pub struct TokenEmbeddings {
    /// `[B][T of the text][D]`.
    pub texts: Vec<Vec<Vec<f32>>>,
    /// Tokens and times.
    pub usage: Usage,
}

impl Job for EmbedTokens {
    type Output = TokenEmbeddings;

    fn run(self, context: &JobContext) -> Result<TokenEmbeddings> {
        let loaded = context.embedder(self.0.model.as_deref())?;
        let d = loaded.model.hidden_size();
        let (texts, usage) = forward(context, &loaded.model, &self.0, Embedder::token_embeddings)?;
        let split = |hidden: Vec<f32>| hidden.chunks_exact(d).map(<[f32]>::to_vec).collect();
        Ok(TokenEmbeddings { texts: texts.into_iter().map(split).collect(), usage })
    }
}

/// Job: cosine similarity of the first text and each of the others.
#[derive(Debug, Clone)]
pub struct Similarity(pub EmbedInputs);

impl Job for Similarity {
    type Output = (Vec<f32>, Usage);

    fn run(self, context: &JobContext) -> Result<Self::Output> {
        let job = Embed { inputs: self.0, normalize: true, dimensions: None };
        let Embeddings { vectors, usage, .. } = context.run(job)?;
        let Some((source, others)) = vectors.split_first() else {
            return Ok((vec![], usage));
        };
        let isa = context.engine.cpu.isa;
        // Rounding can make the cosine of equal vectors exceed 1.
        Ok((others.iter().map(|v| rowwise::dot(isa, source, v).clamp(-1.0, 1.0)).collect(), usage))
    }
}

/// Tokenizes inputs, splits them into batches and runs each batch through `f`. Returns one result per input.
fn forward<R>(
    context: &JobContext,
    model: &Embedder,
    inputs: &EmbedInputs,
    f: fn(&Embedder, &CpuContext, &TokenBatch) -> Result<Vec<R>>,
) -> Result<(Vec<R>, Usage)> {
    let (cpu, deadline, start) = (&context.engine.cpu, context.deadline, Instant::now());
    let prompt = prompt_text(model, inputs.prompt.as_deref())?;
    deadline.check()?;
    let indexed: Vec<_> = inputs.items.iter().enumerate().collect();
    let ids = cpu.par_map(&indexed, |(i, input)| token_ids(model, input, prompt, inputs, inputs.first_index + *i));
    let ids = ids.into_iter().collect::<Result<Vec<_>>>()?;
    let tokenized = Instant::now();
    let mut results = Vec::with_capacity(ids.len());
    for batch in batches(&ids) {
        deadline.check()?;
        results.extend(f(model, cpu, &TokenBatch::new(batch.iter().map(Vec::as_slice)))?);
    }
    let usage = Usage {
        tokens: ids.iter().map(Vec::len).sum(),
        characters: inputs.items.iter().map(characters).sum(),
        tokenization_time: tokenized - start,
        inference_time: tokenized.elapsed(),
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

/// Splits texts, in order, into batches of at most [`MAX_BATCH_TOKENS`] tokens. A longer text is a separate batch.
fn batches(ids: &[Vec<u32>]) -> Vec<&[Vec<u32>]> {
    let (mut batches, mut start, mut tokens) = (vec![], 0, 0);
    for (i, text) in ids.iter().enumerate() {
        if i > start && tokens + text.len() > MAX_BATCH_TOKENS {
            batches.push(&ids[start..i]);
            (start, tokens) = (i, 0);
        }
        tokens += text.len();
    }
    if start < ids.len() {
        batches.push(&ids[start..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_order_and_token_limit() {
        let ids: Vec<Vec<u32>> = [4000, 96, 1, 5000, 7].map(|n| vec![1; n]).to_vec();
        let sizes: Vec<_> = batches(&ids).iter().map(|batch| batch.len()).collect();
        assert_eq!(sizes, [2, 1, 1, 1]);
        assert!(batches(&[]).is_empty());
    }
}
