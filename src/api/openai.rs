//! OpenAI's routes for embeddings and models: <https://platform.openai.com/docs/api-reference/embeddings>.

use super::context::{ApiResponse, RequestContext};
use super::json::{Inputs, parse};
use crate::engine::{Embed, EmbedInputs, Truncation};
use crate::pipeline::format::{Encoded, VectorEncoding, encode};
use serde::{Deserialize, Serialize};
use tealight_core::{Error, ErrorKind, Result};

/// Inputs per request: the limit of OpenAI.
pub const MAX_INPUTS: usize = 2048;

/// The body of `POST /v1/embeddings`.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EmbeddingsRequest {
    /// Texts or token ids to embed.
    pub input: Inputs,
    /// A model's name; default: the default embedding model.
    #[serde(default)]
    pub model: Option<String>,
    /// Encoding of the embeddings; default `float`.
    #[serde(default)]
    pub encoding_format: Option<VectorEncoding>,
    /// Truncates embeddings to this dimension and scales them to unit length again.
    #[serde(default)]
    pub dimensions: Option<usize>,
    /// Ignored.
    #[serde(default)]
    pub user: Option<String>,
    /// The name of a prompt of the model to prepend to each text. Not in OpenAI's API.
    #[serde(default)]
    pub prompt_name: Option<String>,
    /// Whether to truncate inputs that are too long; default false, which rejects them. Not in OpenAI's API.
    #[serde(default)]
    pub truncate: Option<bool>,
}

/// The response to an `EmbeddingsRequest`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EmbeddingsResponse {
    /// `list`.
    pub object: &'static str,
    /// One embedding per input, in the order of the inputs.
    pub data: Vec<Embedding>,
    /// The name of the model.
    pub model: String,
    /// Token counts.
    pub usage: EmbeddingsUsage,
}

/// The embedding of one input.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Embedding {
    /// `embedding`.
    pub object: &'static str,
    /// Position of the input in the request, from 0.
    pub index: usize,
    /// The embedding, in the requested encoding.
    pub embedding: Encoded,
    /// For int8 and uint8: a value is `scale` × code, or `scale` × (code − 128).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
}

/// Token counts of a request.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EmbeddingsUsage {
    /// Tokens of the inputs, including special tokens.
    pub prompt_tokens: usize,
    /// Equal to `prompt_tokens`.
    pub total_tokens: usize,
}

/// The response of `GET /v1/models`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ModelList {
    /// `list`.
    pub object: &'static str,
    /// Models that requests can name.
    pub data: Vec<Model>,
}

/// A model, as `GET /v1/models/{model}` describes it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Model {
    /// The name that requests use.
    pub id: String,
    /// `model`.
    pub object: &'static str,
    /// When this process started, in seconds since 1970.
    pub created: u64,
    /// `tealight`.
    pub owned_by: &'static str,
}

/// Handles `POST /v1/embeddings`.
pub fn embeddings(context: &RequestContext) -> Result<ApiResponse> {
    let request: EmbeddingsRequest = parse(context.body)?;
    let encoding = request.encoding_format.unwrap_or_default();
    let job = Embed {
        inputs: EmbedInputs {
            model: request.model,
            prompt: request.prompt_name,
            truncation: Truncation::right_if(request.truncate == Some(true)),
            ..EmbedInputs::new(request.input.validate("input", MAX_INPUTS)?)
        },
        normalize: true,
        dimensions: request.dimensions,
    };
    let output = context.run(job)?;
    let embedding = |(index, vector)| {
        let (embedding, scale) = encode(vector, encoding);
        Embedding { object: "embedding", index, embedding, scale }
    };
    let tokens = output.usage.tokens;
    let response = EmbeddingsResponse {
        object: "list",
        data: output.vectors.into_iter().enumerate().map(embedding).collect(),
        model: output.model,
        usage: EmbeddingsUsage { prompt_tokens: tokens, total_tokens: tokens },
    };
    Ok(ApiResponse::json(&response)?.with_usage(output.usage).with_model(response.model))
}

/// Handles `GET /v1/models`.
pub fn models(context: &RequestContext) -> Result<ApiResponse> {
    let data = context.engine().registry.names().into_iter().map(|id| model_of(id, context)).collect();
    ApiResponse::json(&ModelList { object: "list", data })
}

/// Handles `GET /v1/models/{model}`.
pub fn model(context: &RequestContext) -> Result<ApiResponse> {
    let name = context.path_param.ok_or_else(|| Error::new(ErrorKind::ModelNotFound, "the path names no model"))?;
    ApiResponse::json(&model_of(context.engine().registry.resolve(name)?, context))
}

fn model_of(id: String, context: &RequestContext) -> Model {
    Model { id, object: "model", created: context.started, owned_by: "tealight" }
}
