//! `POST /documents`: documents in, bodies of an index's requests out.

use super::context::{ApiResponse, RequestContext};
use super::json::parse;
use crate::pipeline::chunk::Chunking;
use crate::pipeline::embed::EmbedDocuments;
use crate::pipeline::format::{BodyBuilder, Encoding, Format};
use crate::pipeline::input::Document;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Documents of one request.
const MOST: usize = 2048;

/// `POST /documents`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct DocumentsRequest {
    /// `{"id": ..., "text": "...", "metadata": {...}}` each.
    #[schemars(with = "Vec<DocumentSchema>")]
    pub documents: Vec<Box<RawValue>>,
    /// `jsonl`, `json`, or what takes the reply: `qdrant`, `pinecone`, `s3-vectors`, `opensearch`, `elasticsearch`, `pgvector`,
    /// `pgvector-sql`, `chroma`, `weaviate`, `milvus`, `turbopuffer`; `json` where it is missing.
    pub format: Option<String>,
    /// How vectors are written; `float` where it is missing.
    pub encoding_format: Option<Encoding>,
    /// What the index calls a collection, class or table; `documents` where it is missing.
    pub collection: Option<String>,
    /// A model's name; the default model where it is missing.
    pub model: Option<String>,
    /// How many values to keep of each vector.
    pub dimensions: Option<usize>,
    /// How long documents are cut.
    #[serde(default)]
    pub chunk: ChunkRequest,
    /// The name of a prompt of the model to put before each text.
    pub prompt_name: Option<String>,
}

/// A document of a [`DocumentsRequest`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct DocumentSchema {
    /// A text or a number; a hash of the text where it is missing.
    pub id: Option<Value>,
    /// What is embedded.
    pub text: String,
    /// What else is known of it.
    pub metadata: Option<Map<String, Value>>,
}

/// How documents are cut.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChunkRequest {
    /// Tokens of a chunk at most; as many as the model reads where it is missing.
    pub tokens: Option<usize>,
    /// Tokens that a chunk may have in common with the one before it.
    #[serde(default)]
    pub overlap: usize,
}

/// Answers `POST /documents`: a body of a request on each line.
///
/// # Errors
/// The first document that is wrong, by its number and name.
pub fn documents(context: &RequestContext) -> Result<ApiResponse> {
    let request: DocumentsRequest = parse(context.body)?;
    let mut builder = builder(&request)?;
    let documents = checked(&request.documents)?;
    let names = documents.iter().map(Document::id_or_hash).collect::<Result<Vec<_>>>()?;
    let job = EmbedDocuments {
        model: request.model,
        documents,
        chunking: Chunking { tokens: request.chunk.tokens, overlap: request.chunk.overlap },
        dimensions: request.dimensions,
        prompt: request.prompt_name,
    };
    let embedded = context.run(job)?;
    let mut body = vec![];
    for (i, (points, name)) in embedded.points.into_iter().zip(names).enumerate() {
        let named = |error| named(error, i, Some(&name));
        for point in points.map_err(named)? {
            body.extend(builder.push(builder.encode(&point).map_err(named)?).unwrap_or_default());
        }
    }
    body.extend(builder.finish().unwrap_or_default());
    let text = String::from_utf8(body).map_err(|_| Error::internal("a body is not UTF-8"))?;
    Ok(ApiResponse::text(text, content_type(builder.format())).with_usage(embedded.usage).with_model(embedded.model))
}

fn builder(request: &DocumentsRequest) -> Result<BodyBuilder> {
    let name = request.format.as_deref().unwrap_or(Format::Json.as_str());
    let format = Format::from_name(name).filter(|format| !format.is_file()).ok_or_else(|| {
        let known: Vec<_> = Format::ALL.into_iter().filter(|f| !f.is_file()).map(Format::as_str).collect();
        Error::invalid_value(
            "format",
            format!("format is {:?}; known: {}", truncate_for_display(name), known.join(", ")),
        )
    })?;
    let encoding = request.encoding_format.unwrap_or_default();
    BodyBuilder::new(format, encoding, request.collection.as_deref()).map_err(|error| match error.param.as_deref() {
        Some("encoding") => error.with_param("encoding_format"),
        _ => error,
    })
}

fn checked(documents: &[Box<RawValue>]) -> Result<Vec<Document>> {
    if documents.is_empty() {
        return Err(Error::new(ErrorKind::Empty, "documents is empty").with_param("documents"));
    }
    if documents.len() > MOST {
        let message = format!("documents has {} documents, the limit is {MOST}", documents.len());
        return Err(Error::invalid_value("documents", message));
    }
    let document =
        |(i, json): (usize, &RawValue)| Document::parse(json.get().as_bytes()).map_err(|error| named(error, i, None));
    documents.iter().map(AsRef::as_ref).enumerate().map(document).collect()
}

fn named(error: Error, i: usize, name: Option<&str>) -> Error {
    let error = match name {
        Some(name) => error.with_context(format_args!("documents[{i}], {:?}", truncate_for_display(name))),
        None => error.with_context(format_args!("documents[{i}]")),
    };
    error.with_param("documents")
}

fn content_type(format: Format) -> &'static str {
    match format {
        Format::Json => "application/json",
        Format::Pgvector | Format::PgvectorSql => "text/plain; charset=utf-8",
        // Bodies, each JSON on a line of its own; of one body it is JSON as well.
        _ => "application/x-ndjson",
    }
}
