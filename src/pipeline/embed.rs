//! Job: points of documents.

use super::chunk::{Chunk, Chunking, split_into_chunks};
use super::input::Document;
use super::point::{Point, PointSource};
use crate::engine::inputs::prompt_text;
use crate::engine::search::passage;
use crate::engine::{Embed, EmbedInputs, Input, Job, JobContext, Truncation};
use std::sync::Arc;
use tealight_core::Usage;
use tealight_core::{Error, Result};
use tealight_models::Embedder;
use tealight_models::tokenizer::TruncationDirection;

/// Job: points of documents, each of which is cut into chunks that the model can read.
#[derive(Debug, Clone)]
pub struct EmbedDocuments {
    /// A model's name; the default model where it is missing.
    pub model: Option<String>,
    /// The documents.
    pub documents: Vec<Document>,
    /// How they are cut.
    pub chunking: Chunking,
    /// How many values to keep of each vector; all where it is missing.
    pub dimensions: Option<usize>,
    /// The name of a prompt; where it is missing, the model's for documents, or its default prompt.
    pub prompt: Option<String>,
}

/// Points of documents.
#[derive(Debug, Clone)]
pub struct DocumentEmbeddings {
    /// The name of the model.
    pub model: String,
    /// For each document its points, or why it has none; all points of a document, or none.
    pub points: Vec<Result<Vec<Point>>>,
    /// What it took.
    pub usage: Usage,
}

impl Job for EmbedDocuments {
    type Output = DocumentEmbeddings;

    fn run(mut self, context: &JobContext) -> Result<DocumentEmbeddings> {
        let loaded = context.embedder(self.model.as_deref())?;
        self.prompt = self.prompt.or_else(|| passage(&loaded.model));
        let chunker = Chunker::new(&loaded.model, self.chunking, self.prompt.as_deref())?;
        context.deadline.check()?;
        let parts = context.engine.cpu.par_map(&self.documents, |document| chunker.chunks(document, &loaded.name));
        let texts = self.documents.iter().zip(&parts).flat_map(|(document, parts)| {
            let chunks = parts.as_ref().map_or(&[][..], |(_, chunks)| chunks);
            chunks.iter().map(|chunk| document.text[chunk.bytes.clone()].to_string())
        });
        let texts: Vec<_> = texts.collect();
        let (vectors, usage) = match texts.is_empty() {
            true => (vec![], Usage::default()),
            false => {
                let embedded = context.run(self.embed(&texts))?;
                (embedded.vectors, embedded.usage)
            }
        };
        let mut rows = texts.into_iter().zip(vectors);
        let points = parts.into_iter().map(|parts| {
            let (source, chunks) = parts?;
            let parts = chunks.into_iter().enumerate().zip(rows.by_ref());
            Ok(parts.map(|(part, row)| point(&source, part, row)).collect())
        });
        Ok(DocumentEmbeddings { points: points.collect(), model: loaded.name.clone(), usage })
    }
}

impl EmbedDocuments {
    fn embed(&self, texts: &[String]) -> Embed {
        let texts = EmbedInputs {
            model: self.model.clone(),
            inputs: texts.iter().cloned().map(Input::Text).collect(),
            prompt: self.prompt.clone(),
            // A single character may have more tokens than a chunk.
            truncation: Truncation::Truncate(TruncationDirection::Right),
            field: "documents",
            first_index: 0,
        };
        Embed { texts, normalize: true, dimensions: self.dimensions }
    }
}

/// Cuts documents for a model.
struct Chunker<'a> {
    model: &'a Embedder,
    limit: usize,
    overlap: usize,
}

impl<'a> Chunker<'a> {
    fn new(model: &'a Embedder, chunking: Chunking, name: Option<&str>) -> Result<Self> {
        let taken = model.tokenizer.num_special_tokens() + model.tokenizer.encode(prompt_text(model, name)?)?.len();
        let limit = chunking.max_tokens(model.max_tokens().saturating_sub(taken))?;
        Ok(Self { model, limit, overlap: chunking.overlap })
    }

    fn chunks(&self, document: &Document, model: &str) -> Result<(Arc<PointSource>, Vec<Chunk>)> {
        let source = PointSource::new(document, model)?;
        let count = |text: &str| Ok(self.model.tokenizer.encode(text)?.len());
        let chunks = split_into_chunks(&document.text, self.limit, self.overlap, &count)?;
        if self.model.tokenizer.num_special_tokens() == 0
            && chunks.iter().any(|c| count(&document.text[c.bytes.clone()]).ok() == Some(0))
        {
            return Err(Error::new(tealight_core::ErrorKind::Empty, "the document has a part without tokens")
                .with_param("text"));
        }
        Ok((Arc::new(source), chunks))
    }
}

fn point(source: &Arc<PointSource>, (number, chunk): (usize, Chunk), (text, vector): (String, Vec<f32>)) -> Point {
    let (id, source) = (source.point_id(number), source.clone());
    Point { id, source, chunk_index: number, text, start: chunk.chars.start, end: chunk.chars.end, vector }
}
