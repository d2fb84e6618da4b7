//! The embedding step: documents are split into chunks, and each chunk becomes a point.

use super::chunk::{Chunk, Chunking, split_into_chunks};
use super::document::Document;
use super::point::{DocumentFields, Point};
use crate::engine::inputs::{document_prompt, prompt_text};
use crate::engine::{Embed, EmbedInputs, Input, Job, JobContext, Truncation};
use std::sync::Arc;
use tealight_core::{Error, ErrorKind, Result, Usage};
use tealight_models::Embedder;
use tealight_models::tokenizer::TruncationDirection;

/// A job that splits documents into chunks that fit the model, and embeds them.
#[derive(Debug, Clone)]
pub struct EmbedDocuments {
    /// Name of the model; default: the default embedding model.
    pub model: Option<String>,
    /// Valid documents; see [`Document::validate`].
    pub documents: Vec<Document>,
    /// Size and overlap of chunks, within the limits of the model.
    pub chunking: Chunking,
    /// Number of values to keep of each embedding; default: all.
    pub dimensions: Option<usize>,
    /// Name of the prompt; default: the model's prompt for documents, else its default prompt.
    pub prompt: Option<String>,
}

/// Output of [`EmbedDocuments`].
#[derive(Debug, Clone)]
pub struct DocumentEmbeddings {
    /// Name of the model.
    pub model: String,
    /// The points of each document, or the reason why the document cannot be embedded.
    pub points: Vec<Result<Vec<Point>>>,
    /// Tokens and time of all chunks together.
    pub usage: Usage,
}

/// The shared part of the points of a document, and its chunks.
type ChunkedDocument = (Arc<DocumentFields>, Vec<Chunk>);

impl Job for EmbedDocuments {
    type Output = DocumentEmbeddings;

    /// # Errors
    /// [`Error::input_index`] is the position of the document if the error is about one document.
    fn run(mut self, context: &JobContext) -> Result<DocumentEmbeddings> {
        let loaded = context.embedder(self.model.as_deref())?;
        self.prompt = self.prompt.or_else(|| document_prompt(&loaded.model));
        let chunker = Chunker::new(&loaded.model, self.chunking, self.prompt.as_deref())?;
        context.deadline.check()?;
        let chunked = context.engine.cpu.par_map(&self.documents, |document| chunker.chunk(document, &loaded.name));
        let texts = chunk_texts(&self.documents, &chunked);
        let (vectors, usage) = if texts.is_empty() {
            (vec![], Usage::default())
        } else {
            let embedded = context.run(self.embed(&texts)).map_err(|error| with_document_index(error, &chunked))?;
            (embedded.vectors, embedded.usage)
        };
        let mut embedded_texts = texts.into_iter().zip(vectors);
        let points = chunked.into_iter().map(|document| {
            let (source, chunks) = document?;
            let chunks = chunks.into_iter().enumerate().zip(embedded_texts.by_ref());
            Ok(chunks.map(|(chunk, embedded_text)| point(&source, chunk, embedded_text)).collect())
        });
        Ok(DocumentEmbeddings { points: points.collect(), model: loaded.name.clone(), usage })
    }
}

impl EmbedDocuments {
    fn embed(&self, texts: &[String]) -> Embed {
        let inputs = EmbedInputs {
            model: self.model.clone(),
            items: texts.iter().cloned().map(Input::Text).collect(),
            prompt: self.prompt.clone(),
            // A single character can have more tokens than a chunk.
            truncation: Truncation::Truncate(TruncationDirection::Right),
            field: "documents",
            first_index: 0,
        };
        Embed { inputs, normalize: true, dimensions: self.dimensions }
    }
}

/// The texts of all chunks, in order.
fn chunk_texts(documents: &[Document], chunked: &[Result<ChunkedDocument>]) -> Vec<String> {
    let texts = documents.iter().zip(chunked).flat_map(|(document, chunked)| {
        let chunks = chunked.as_ref().map_or(&[][..], |(_, chunks)| chunks);
        chunks.iter().map(|chunk| document.text[chunk.bytes.clone()].to_string())
    });
    texts.collect()
}

/// Replaces the index of a text in an error by the index of the document that the text is a chunk of.
fn with_document_index(mut error: Error, chunked: &[Result<ChunkedDocument>]) -> Error {
    error.input_index = error.input_index.and_then(|text| {
        let mut end = 0;
        chunked.iter().position(|document| {
            end += document.as_ref().map_or(0, |(_, chunks)| chunks.len());
            text < end
        })
    });
    error
}

/// Splits documents into chunks that a model accepts.
struct Chunker<'a> {
    model: &'a Embedder,
    /// Tokens per chunk.
    max_tokens: usize,
    /// Tokens that adjacent chunks share.
    overlap: usize,
}

impl<'a> Chunker<'a> {
    fn new(model: &'a Embedder, chunking: Chunking, prompt: Option<&str>) -> Result<Self> {
        let prompt_tokens = model.tokenizer.encode(prompt_text(model, prompt)?)?.len();
        let reserved = model.tokenizer.num_special_tokens() + prompt_tokens;
        let max_tokens = chunking.max_tokens(model.max_tokens().saturating_sub(reserved))?;
        Ok(Self { model, max_tokens, overlap: chunking.overlap })
    }

    fn chunk(&self, document: &Document, model: &str) -> Result<ChunkedDocument> {
        let source = DocumentFields::new(document, model)?;
        let count = |text: &str| Ok(self.model.tokenizer.encode(text)?.len());
        let chunks = split_into_chunks(&document.text, self.max_tokens, self.overlap, &count)?;
        let is_empty = |chunk: &Chunk| count(&document.text[chunk.bytes.clone()]).ok() == Some(0);
        if self.model.tokenizer.num_special_tokens() == 0 && chunks.iter().any(is_empty) {
            return Err(Error::new(ErrorKind::Empty, "the document has a chunk without tokens").with_param("text"));
        }
        Ok((Arc::new(source), chunks))
    }
}

fn point(document: &Arc<DocumentFields>, (index, chunk): (usize, Chunk), (text, vector): (String, Vec<f32>)) -> Point {
    Point {
        id: document.point_id(index),
        document: document.clone(),
        chunk_index: index,
        text,
        start: chunk.chars.start,
        end: chunk.chars.end,
        vector,
    }
}
