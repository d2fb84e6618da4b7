//! `POST /documents`: chunks and embeds documents, and returns request bodies for a vector database.

use super::context::{ApiResponse, RequestContext};
use super::json::parse;
use crate::pipeline::chunk::Chunking;
use crate::pipeline::document::Document;
use crate::pipeline::embed::EmbedDocuments;
use crate::pipeline::format::{BodyBuilder, Format, VectorEncoding};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Documents per request.
const MAX_DOCUMENTS: usize = 2048;

/// The body of `POST /documents`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DocumentsRequest {
    /// `{"id": ..., "text": "...", "metadata": {...}}` per document.
    #[cfg_attr(test, schemars(with = "Vec<DocumentSchema>"))]
    pub documents: Vec<Box<RawValue>>,
    /// `jsonl`, `json`, or the vector database that the response is for: `qdrant`, `pinecone`, `s3-vectors`, `opensearch`,
    /// `elasticsearch`, `pgvector`, `pgvector-sql`, `chroma`, `weaviate`, `milvus` or `turbopuffer`; default `json`.
    pub format: Option<String>,
    /// Encoding of the embeddings; default `float`.
    pub encoding_format: Option<VectorEncoding>,
    /// The collection, class or table; default `documents`.
    pub collection: Option<String>,
    /// A model's name; default: the default embedding model.
    pub model: Option<String>,
    /// Truncates embeddings to this dimension.
    pub dimensions: Option<usize>,
    /// How documents are split into chunks.
    #[serde(default)]
    pub chunk: ChunkRequest,
    /// The name of a prompt of the model to prepend to each chunk.
    pub prompt_name: Option<String>,
}

/// A document of a `DocumentsRequest`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DocumentSchema {
    /// A string or a number; default: a hash of the text.
    pub id: Option<Value>,
    /// The text to embed.
    pub text: String,
    /// Stored with each point.
    pub metadata: Option<Map<String, Value>>,
}

/// How documents are split into chunks.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ChunkRequest {
    /// Maximum tokens per chunk, without special tokens and the prompt; default: as many as the model accepts.
    pub tokens: Option<usize>,
    /// Maximum tokens that adjacent chunks share; default 0.
    #[serde(default)]
    pub overlap: usize,
}

/// Handles `POST /documents`: one request body per line.
///
/// # Errors
/// The first invalid document, by its index and id.
pub fn documents(context: &RequestContext) -> Result<ApiResponse> {
    let request: DocumentsRequest = parse(context.body)?;
    let mut builder = body_builder(&request)?;
    let documents = parse_documents(&request.documents)?;
    let ids = documents.iter().map(Document::id_or_hash).collect::<Result<Vec<_>>>()?;
    let job = EmbedDocuments {
        model: request.model,
        documents,
        chunking: Chunking { tokens: request.chunk.tokens, overlap: request.chunk.overlap },
        dimensions: request.dimensions,
        prompt: request.prompt_name,
    };
    let embedded = context.run(job)?;
    let mut body = vec![];
    for (index, (points, id)) in embedded.points.into_iter().zip(ids).enumerate() {
        let with_position = |error| with_position(error, index, Some(&id));
        for point in points.map_err(with_position)? {
            body.extend(builder.push(builder.encode(&point).map_err(with_position)?).unwrap_or_default());
        }
    }
    body.extend(builder.finish().unwrap_or_default());
    let text =
        String::from_utf8(body).map_err(|_| Error::internal("the request body for the database is not UTF-8"))?;
    Ok(ApiResponse::text(text, content_type(builder.format())).with_usage(embedded.usage).with_model(embedded.model))
}

fn body_builder(request: &DocumentsRequest) -> Result<BodyBuilder> {
    let name = request.format.as_deref().unwrap_or(Format::Json.as_str());
    let format = Format::from_name(name).filter(|format| !format.is_file()).ok_or_else(|| {
        let supported: Vec<_> = Format::ALL.into_iter().filter(|f| !f.is_file()).map(Format::as_str).collect();
        let message = format!("format is {:?}; expected one of {}", truncate_for_display(name), supported.join(", "));
        Error::invalid_value("format", message)
    })?;
    let encoding = request.encoding_format.unwrap_or_default();
    BodyBuilder::new(format, encoding, request.collection.as_deref()).map_err(|error| match error.param.as_deref() {
        Some("encoding") => error.with_param("encoding_format"),
        _ => error,
    })
}

fn parse_documents(documents: &[Box<RawValue>]) -> Result<Vec<Document>> {
    if documents.is_empty() {
        return Err(Error::new(ErrorKind::Empty, "documents is an empty list").with_param("documents"));
    }
    if documents.len() > MAX_DOCUMENTS {
        let message = format!("documents has {} documents; the limit is {MAX_DOCUMENTS}", documents.len());
        return Err(Error::invalid_value("documents", message));
    }
    let parse = |(index, json): (usize, &RawValue)| {
        Document::parse(json.get().as_bytes()).map_err(|error| with_position(error, index, None))
    };
    documents.iter().map(AsRef::as_ref).enumerate().map(parse).collect()
}

/// Adds the index of a document, and its id if known, to an error.
fn with_position(error: Error, index: usize, id: Option<&str>) -> Error {
    let error = match id {
        Some(id) => error.with_context(format_args!("documents[{index}], {:?}", truncate_for_display(id))),
        None => error.with_context(format_args!("documents[{index}]")),
    };
    error.with_param("documents")
}

fn content_type(format: Format) -> &'static str {
    match format {
        Format::Json => "application/json",
        Format::Pgvector | Format::PgvectorSql => "text/plain; charset=utf-8",
        // One JSON body per line. A single body is also plain JSON.
        _ => "application/x-ndjson",
    }
}
