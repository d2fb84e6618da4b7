//! The routes of text-embeddings-inference (TEI): <https://huggingface.github.io/text-embeddings-inference>.

use super::context::{ApiResponse, RequestContext};
use super::json::{Inputs, OneOrMany, check_count, check_none_empty, parse};
use crate::engine::{Detokenize, Embed, EmbedInputs, EmbedTokens, Input, Similarity, Tokenize, Truncation};
use crate::pipeline::format::{Encoded, VectorEncoding, encode};
use serde::{Deserialize, Serialize};
use tealight_core::{Error, ErrorKind, Result};
use tealight_models::tokenizer::{self, Token};

/// The end at which a text is truncated.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum TruncationDirection {
    /// Removes the beginning.
    #[serde(alias = "left")]
    Left,
    /// Removes the end.
    #[default]
    #[serde(alias = "right")]
    Right,
}

/// The body of `POST /embed`.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EmbedRequest {
    /// Texts or token ids to embed.
    pub inputs: Inputs,
    /// Whether to truncate inputs that are too long; default `TEALIGHT_AUTO_TRUNCATE`.
    #[serde(default)]
    pub truncate: Option<bool>,
    /// The end at which inputs are truncated; default right.
    #[serde(default)]
    pub truncation_direction: TruncationDirection,
    /// The name of a prompt of the model to prepend to each text.
    #[serde(default)]
    pub prompt_name: Option<String>,
    /// Whether to scale embeddings to unit length; default true.
    #[serde(default)]
    pub normalize: Option<bool>,
    /// Truncates embeddings to this dimension.
    #[serde(default)]
    pub dimensions: Option<usize>,
    /// Encoding of the embeddings; default `float`. Not in TEI's API.
    #[serde(default)]
    pub encoding_format: Option<VectorEncoding>,
}

/// The body of `POST /embed_all`.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EmbedAllRequest {
    /// Texts or token ids to embed.
    pub inputs: Inputs,
    /// Whether to truncate inputs that are too long; default `TEALIGHT_AUTO_TRUNCATE`.
    #[serde(default)]
    pub truncate: Option<bool>,
    /// The end at which inputs are truncated; default right.
    #[serde(default)]
    pub truncation_direction: TruncationDirection,
    /// The name of a prompt of the model to prepend to each text.
    #[serde(default)]
    pub prompt_name: Option<String>,
}

/// The body of `POST /similarity`.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SimilarityRequest {
    /// The texts to compare.
    pub inputs: SimilarityInputs,
    /// How to embed the texts.
    #[serde(default)]
    pub parameters: Option<SimilarityParameters>,
}

/// The texts of a `SimilarityRequest`.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SimilarityInputs {
    /// The text that is compared with the others.
    pub source_sentence: String,
    /// The texts to compare with `source_sentence`.
    pub sentences: Vec<String>,
}

/// The options of a `SimilarityRequest`.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SimilarityParameters {
    /// Whether to truncate inputs that are too long; default `TEALIGHT_AUTO_TRUNCATE`.
    #[serde(default)]
    pub truncate: Option<bool>,
    /// The end at which inputs are truncated; default right.
    #[serde(default)]
    pub truncation_direction: TruncationDirection,
    /// The name of a prompt of the model to prepend to each text.
    #[serde(default)]
    pub prompt_name: Option<String>,
}

/// The body of `POST /tokenize`.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TokenizeRequest {
    /// Texts to tokenize.
    pub inputs: OneOrMany<String>,
    /// Whether to add special tokens to each text; default true.
    #[serde(default = "default_true")]
    pub add_special_tokens: bool,
    /// The name of a prompt of the model to prepend to each text.
    #[serde(default)]
    pub prompt_name: Option<String>,
}

/// The body of `POST /decode`.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DecodeRequest {
    /// Token ids of one text, or of several.
    pub ids: OneOrMany<Vec<u32>>,
    /// Whether to leave out special tokens; default true.
    #[serde(default = "default_true")]
    pub skip_special_tokens: bool,
}

fn default_true() -> bool {
    true
}

/// A token, in the response to a `TokenizeRequest`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SimpleToken {
    id: u32,
    text: String,
    special: bool,
    /// Offset of its first byte in the text; null for special tokens.
    start: Option<usize>,
    /// Offset after its last byte.
    stop: Option<usize>,
}

impl From<Token> for SimpleToken {
    fn from(token: Token) -> Self {
        let Token { id, text, special, offsets } = token;
        Self { id, text, special, start: offsets.map(|o| o.0), stop: offsets.map(|o| o.1) }
    }
}

/// The response of `GET /info`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Info {
    model_id: String,
    model_sha: Option<String>,
    model_dtype: &'static str,
    served_model_name: String,
    model_type: ModelType,
    max_concurrent_requests: usize,
    max_input_length: usize,
    max_batch_tokens: usize,
    max_batch_requests: Option<usize>,
    max_client_batch_size: usize,
    auto_truncate: bool,
    tokenization_workers: usize,
    version: &'static str,
    sha: Option<&'static str>,
    docker_label: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
enum ModelType {
    Embedding { pooling: &'static str },
}

fn embed_inputs(
    context: &RequestContext,
    inputs: Vec<Input>,
    truncate: Option<bool>,
    direction: TruncationDirection,
    prompt: Option<String>,
) -> EmbedInputs {
    let direction = match direction {
        TruncationDirection::Left => tokenizer::TruncationDirection::Left,
        TruncationDirection::Right => tokenizer::TruncationDirection::Right,
    };
    let truncate = truncate.unwrap_or(context.engine().config.auto_truncate);
    EmbedInputs {
        model: None,
        items: inputs,
        prompt,
        truncation: if truncate { Truncation::Truncate(direction) } else { Truncation::Error },
        field: "inputs",
        first_index: 0,
    }
}

/// Handles `POST /embed`.
pub fn embed(context: &RequestContext) -> Result<ApiResponse> {
    let request: EmbedRequest = parse(context.body)?;
    let inputs = request.inputs.validate("inputs", context.engine().config.max_client_batch_size)?;
    let job = Embed {
        inputs: embed_inputs(context, inputs, request.truncate, request.truncation_direction, request.prompt_name),
        normalize: request.normalize.unwrap_or(true),
        dimensions: request.dimensions,
    };
    let output = context.run(job)?;
    let encoding = request.encoding_format.unwrap_or_default();
    let vectors: Vec<Encoded> = output.vectors.into_iter().map(|v| encode(v, encoding).0).collect();
    Ok(ApiResponse::json(&vectors)?.with_usage(output.usage).with_model(output.model))
}

/// Handles `POST /embed_all`.
pub fn embed_all(context: &RequestContext) -> Result<ApiResponse> {
    let request: EmbedAllRequest = parse(context.body)?;
    let inputs = request.inputs.validate("inputs", context.engine().config.max_client_batch_size)?;
    let inputs = embed_inputs(context, inputs, request.truncate, request.truncation_direction, request.prompt_name);
    let output = context.run(EmbedTokens(inputs))?;
    Ok(ApiResponse::json(&output.texts)?.with_usage(output.usage))
}

/// Handles `POST /similarity`.
pub fn similarity(context: &RequestContext) -> Result<ApiResponse> {
    let request: SimilarityRequest = parse(context.body)?;
    let SimilarityInputs { source_sentence, sentences } = request.inputs;
    check_count(
        "inputs.sentences",
        sentences.len(),
        context.engine().config.max_client_batch_size.saturating_sub(1).max(1),
    )?;
    check_none_empty("inputs.sentences", &sentences, String::is_empty)?;
    if source_sentence.is_empty() {
        let field = "inputs.source_sentence";
        return Err(Error::new(ErrorKind::Empty, format!("{field} is empty")).with_param(field));
    }
    let inputs = std::iter::once(source_sentence).chain(sentences).map(Input::Text).collect();
    let p = request.parameters.unwrap_or_default();
    let job = Similarity(embed_inputs(context, inputs, p.truncate, p.truncation_direction, p.prompt_name));
    let (scores, usage) = context.run(job)?;
    Ok(ApiResponse::json(&scores)?.with_usage(usage))
}

/// Handles `POST /tokenize`.
pub fn tokenize(context: &RequestContext) -> Result<ApiResponse> {
    let request: TokenizeRequest = parse(context.body)?;
    let texts = request.inputs.into_vec();
    check_count("inputs", texts.len(), context.engine().config.max_client_batch_size)?;
    check_none_empty("inputs", &texts, String::is_empty)?;
    let job = Tokenize { model: None, texts, special: request.add_special_tokens, prompt: request.prompt_name };
    let tokens = context.run(job)?;
    let simple = |t: Vec<Token>| t.into_iter().map(SimpleToken::from).collect();
    let tokens: Vec<Vec<SimpleToken>> = tokens.into_iter().map(simple).collect();
    ApiResponse::json(&tokens)
}

/// Handles `POST /decode`.
pub fn decode(context: &RequestContext) -> Result<ApiResponse> {
    let request: DecodeRequest = parse(context.body)?;
    let ids = request.ids.into_vec();
    check_count("ids", ids.len(), context.engine().config.max_client_batch_size)?;
    let job = Detokenize { model: None, ids, skip_special: request.skip_special_tokens };
    ApiResponse::json(&context.run(job)?)
}

/// Handles `GET /info`.
pub fn info(context: &RequestContext) -> Result<ApiResponse> {
    let engine = context.engine();
    let loaded = context.job_context.embedder(None)?;
    ApiResponse::json(&Info {
        model_id: engine.config.model.clone(),
        model_sha: None,
        model_dtype: engine.config.precision.as_str(),
        served_model_name: loaded.name.clone(),
        model_type: ModelType::Embedding { pooling: loaded.model.pipeline.pooling.as_str() },
        max_concurrent_requests: engine.config.max_concurrent_requests,
        max_input_length: loaded.model.max_tokens(),
        max_batch_tokens: crate::engine::MAX_BATCH_TOKENS,
        max_batch_requests: None,
        max_client_batch_size: engine.config.max_client_batch_size,
        auto_truncate: engine.config.auto_truncate,
        tokenization_workers: engine.cpu.threads(),
        version: env!("CARGO_PKG_VERSION"),
        sha: None,
        docker_label: None,
    })
}

/// Handles `GET /health`.
pub fn health(_: &RequestContext) -> Result<ApiResponse> {
    Ok(ApiResponse::empty())
}
