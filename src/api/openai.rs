//! OpenAI's routes: <https://platform.openai.com/docs/api-reference/embeddings>.

use super::context::{ApiResponse, RequestContext};
use super::json::{Inputs, parse};
use crate::engine::{Embed, EmbedInputs, Truncation};
use crate::pipeline::format::{Encoded, Encoding, encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tealight_core::{Error, ErrorKind, Result};
use tealight_models::tokenizer::Direction;

/// Inputs of one request, as OpenAI limits them.
pub const MAX_INPUTS: usize = 2048;

/// `POST /v1/embeddings`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct EmbeddingsRequest {
    /// What to embed.
    pub input: Inputs,
    /// A model's name; the default model where it is missing.
    #[serde(default)]
    pub model: Option<String>,
    /// How vectors are written; `float` where it is missing.
    #[serde(default)]
    pub encoding_format: Option<Encoding>,
    /// How many values to keep of each vector, which is then scaled to length 1 again.
    #[serde(default)]
    pub dimensions: Option<usize>,
    /// Who asks; ignored.
    #[serde(default)]
    pub user: Option<String>,
    /// The name of a prompt of the model to put before each text. Not OpenAI's.
    #[serde(default)]
    pub prompt_name: Option<String>,
    /// Cut long inputs instead of refusing them. Not OpenAI's.
    #[serde(default)]
    pub truncate: Option<bool>,
}

/// The reply to [`EmbeddingsRequest`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct EmbeddingsResponse {
    /// `list`.
    pub object: &'static str,
    /// A vector for each input, in its order.
    pub data: Vec<Embedding>,
    /// The model that was used.
    pub model: String,
    /// Tokens.
    pub usage: Usage,
}

/// One vector.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Embedding {
    /// `embedding`.
    pub object: &'static str,
    /// Which input.
    pub index: usize,
    /// The vector.
    pub embedding: Encoded,
    /// For int8 and uint8: value = scale × code, or scale × (code − 128).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
}

/// Tokens of a request.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Usage {
    /// Of the inputs, special tokens included.
    pub prompt_tokens: usize,
    /// The same.
    pub total_tokens: usize,
}

/// `GET /v1/models`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ModelList {
    /// `list`.
    pub object: &'static str,
    /// Models that requests can name.
    pub data: Vec<Model>,
}

/// `GET /v1/models/{model}`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Model {
    /// Its name in requests.
    pub id: String,
    /// `model`.
    pub object: &'static str,
    /// When this process started, in seconds since 1970.
    pub created: u64,
    /// `tealight`.
    pub owned_by: &'static str,
}

/// Answers `POST /v1/embeddings`.
pub fn embeddings(context: &RequestContext) -> Result<ApiResponse> {
    let request: EmbeddingsRequest = parse(context.body)?;
    let encoding = request.encoding_format.unwrap_or_default();
    let job = Embed {
        texts: EmbedInputs {
            model: request.model,
            inputs: request.input.validate("input", MAX_INPUTS)?,
            prompt: request.prompt_name,
            truncation: if request.truncate == Some(true) {
                Truncation::Truncate(Direction::Right)
            } else {
                Truncation::Error
            },
            field: "input",
            first_index: 0,
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
        usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
    };
    Ok(ApiResponse::json(&response)?.with_usage(output.usage).with_model(response.model))
}

/// Answers `GET /v1/models`.
pub fn models(context: &RequestContext) -> Result<ApiResponse> {
    let data = context.engine.registry.names().into_iter().map(|id| model_of(id, context)).collect();
    ApiResponse::json(&ModelList { object: "list", data })
}

/// Answers `GET /v1/models/{model}`.
pub fn model(context: &RequestContext) -> Result<ApiResponse> {
    let name = context.path_param.ok_or_else(|| Error::new(ErrorKind::ModelNotFound, "no model is named"))?;
    ApiResponse::json(&model_of(context.engine.registry.resolve(name)?, context))
}

fn model_of(id: String, context: &RequestContext) -> Model {
    Model { id, object: "model", created: context.started, owned_by: "tealight" }
}
