//! The routes of text-embeddings-inference: <https://huggingface.github.io/text-embeddings-inference>.

use super::context::{ApiResponse, RequestContext};
use super::json::{Inputs, OneOrMany, check_count, check_none_empty, parse};
use crate::engine::{Detokenize, Embed, EmbedInputs, EmbedTokens, Input, Similarity, Tokenize, Truncation};
use crate::pipeline::format::{Encoded, Encoding, encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tealight_core::{Error, ErrorKind, Result};
use tealight_models::tokenizer::{Direction, Token};

/// Which end of a long text is cut.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
pub enum TruncationDirection {
    /// The beginning.
    #[serde(alias = "left")]
    Left,
    /// The end.
    #[default]
    #[serde(alias = "right")]
    Right,
}

/// `POST /embed`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct EmbedRequest {
    /// What to embed.
    pub inputs: Inputs,
    /// Whether to cut long inputs; as the server is configured where it is missing.
    #[serde(default)]
    pub truncate: Option<bool>,
    /// Which end to cut.
    #[serde(default)]
    pub truncation_direction: TruncationDirection,
    /// The name of a prompt of the model to put before each text.
    #[serde(default)]
    pub prompt_name: Option<String>,
    /// Whether to scale vectors to length 1; true where it is missing.
    #[serde(default)]
    pub normalize: Option<bool>,
    /// How many values to keep of each vector.
    #[serde(default)]
    pub dimensions: Option<usize>,
    /// How vectors are written; `float` where it is missing. Not TEI's.
    #[serde(default)]
    pub encoding_format: Option<Encoding>,
}

/// `POST /embed_all`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct EmbedAllRequest {
    /// What to embed.
    pub inputs: Inputs,
    /// Whether to cut long inputs; as the server is configured where it is missing.
    #[serde(default)]
    pub truncate: Option<bool>,
    /// Which end to cut.
    #[serde(default)]
    pub truncation_direction: TruncationDirection,
    /// The name of a prompt of the model to put before each text.
    #[serde(default)]
    pub prompt_name: Option<String>,
}

/// `POST /similarity`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct SimilarityRequest {
    /// What to compare.
    pub inputs: SimilarityInputs,
    /// How to embed.
    #[serde(default)]
    pub parameters: Option<SimilarityParameters>,
}

/// The texts of a [`SimilarityRequest`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct SimilarityInputs {
    /// The text to compare with.
    pub source_sentence: String,
    /// The texts to compare.
    pub sentences: Vec<String>,
}

/// The options of a [`SimilarityRequest`].
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct SimilarityParameters {
    /// Whether to cut long inputs; as the server is configured where it is missing.
    #[serde(default)]
    pub truncate: Option<bool>,
    /// Which end to cut.
    #[serde(default)]
    pub truncation_direction: TruncationDirection,
    /// The name of a prompt of the model to put before each text.
    #[serde(default)]
    pub prompt_name: Option<String>,
}

/// `POST /tokenize`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct TokenizeRequest {
    /// What to tokenise.
    pub inputs: OneOrMany<String>,
    /// Whether to put special tokens around each text; true where it is missing.
    #[serde(default = "yes")]
    pub add_special_tokens: bool,
    /// The name of a prompt of the model to put before each text.
    #[serde(default)]
    pub prompt_name: Option<String>,
}

/// `POST /decode`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct DecodeRequest {
    /// Token ids of one text or of several.
    pub ids: OneOrMany<Vec<u32>>,
    /// Whether to leave special tokens away; true where it is missing.
    #[serde(default = "yes")]
    pub skip_special_tokens: bool,
}

fn yes() -> bool {
    true
}

/// A token in the reply to [`TokenizeRequest`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct SimpleToken {
    id: u32,
    text: String,
    special: bool,
    /// First byte in the text; none for special tokens.
    start: Option<usize>,
    /// One past its last byte in the text.
    stop: Option<usize>,
}

impl From<Token> for SimpleToken {
    fn from(token: Token) -> Self {
        let Token { id, text, special, span } = token;
        Self { id, text, special, start: span.map(|s| s.0), stop: span.map(|s| s.1) }
    }
}

/// `GET /info`.
#[derive(Debug, Serialize, JsonSchema)]
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

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ModelType {
    Embedding { pooling: &'static str },
}

fn texts(
    context: &RequestContext,
    inputs: Vec<Input>,
    truncate: Option<bool>,
    direction: TruncationDirection,
    prompt: Option<String>,
) -> EmbedInputs {
    let direction = match direction {
        TruncationDirection::Left => Direction::Left,
        TruncationDirection::Right => Direction::Right,
    };
    let cut = truncate.unwrap_or(context.engine.config.auto_truncate);
    EmbedInputs {
        model: None,
        inputs,
        prompt,
        truncation: if cut { Truncation::Truncate(direction) } else { Truncation::Error },
        field: "inputs",
        first_index: 0,
    }
}

/// Answers `POST /embed`.
pub fn embed(context: &RequestContext) -> Result<ApiResponse> {
    let request: EmbedRequest = parse(context.body)?;
    let inputs = request.inputs.validate("inputs", context.engine.config.max_client_batch_size)?;
    let job = Embed {
        texts: texts(context, inputs, request.truncate, request.truncation_direction, request.prompt_name),
        normalize: request.normalize.unwrap_or(true),
        dimensions: request.dimensions,
    };
    let output = context.run(job)?;
    let encoding = request.encoding_format.unwrap_or_default();
    let vectors: Vec<Encoded> = output.vectors.into_iter().map(|v| encode(v, encoding).0).collect();
    Ok(ApiResponse::json(&vectors)?.with_usage(output.usage).with_model(output.model))
}

/// Answers `POST /embed_all`.
pub fn embed_all(context: &RequestContext) -> Result<ApiResponse> {
    let request: EmbedAllRequest = parse(context.body)?;
    let inputs = request.inputs.validate("inputs", context.engine.config.max_client_batch_size)?;
    let texts = texts(context, inputs, request.truncate, request.truncation_direction, request.prompt_name);
    let output = context.run(EmbedTokens(texts))?;
    Ok(ApiResponse::json(&output.texts)?.with_usage(output.usage))
}

/// Answers `POST /similarity`.
pub fn similarity(context: &RequestContext) -> Result<ApiResponse> {
    let request: SimilarityRequest = parse(context.body)?;
    let SimilarityInputs { source_sentence, sentences } = request.inputs;
    check_count(
        "inputs.sentences",
        sentences.len(),
        context.engine.config.max_client_batch_size.saturating_sub(1).max(1),
    )?;
    check_none_empty("inputs.sentences", &sentences, String::is_empty)?;
    if source_sentence.is_empty() {
        let field = "inputs.source_sentence";
        return Err(Error::new(ErrorKind::Empty, format!("{field} is empty")).with_param(field));
    }
    let inputs = std::iter::once(source_sentence).chain(sentences).map(Input::Text).collect();
    let p = request.parameters.unwrap_or_default();
    let job = Similarity(texts(context, inputs, p.truncate, p.truncation_direction, p.prompt_name));
    let (scores, usage) = context.run(job)?;
    Ok(ApiResponse::json(&scores)?.with_usage(usage))
}

/// Answers `POST /tokenize`.
pub fn tokenize(context: &RequestContext) -> Result<ApiResponse> {
    let request: TokenizeRequest = parse(context.body)?;
    let texts = request.inputs.into_vec();
    check_count("inputs", texts.len(), context.engine.config.max_client_batch_size)?;
    check_none_empty("inputs", &texts, String::is_empty)?;
    let job = Tokenize { model: None, texts, special: request.add_special_tokens, prompt: request.prompt_name };
    let tokens = context.run(job)?;
    let simple = |t: Vec<Token>| t.into_iter().map(SimpleToken::from).collect();
    let tokens: Vec<Vec<SimpleToken>> = tokens.into_iter().map(simple).collect();
    ApiResponse::json(&tokens)
}

/// Answers `POST /decode`.
pub fn decode(context: &RequestContext) -> Result<ApiResponse> {
    let request: DecodeRequest = parse(context.body)?;
    let ids = request.ids.into_vec();
    check_count("ids", ids.len(), context.engine.config.max_client_batch_size)?;
    let job = Detokenize { model: None, ids, skip_special: request.skip_special_tokens };
    ApiResponse::json(&context.run(job)?)
}

/// Answers `GET /info`.
pub fn info(context: &RequestContext) -> Result<ApiResponse> {
    let engine = context.engine;
    let loaded = context.jobs.embedder(None)?;
    ApiResponse::json(&Info {
        model_id: engine.config.model.clone(),
        model_sha: None,
        model_dtype: engine.config.precision.name(),
        served_model_name: loaded.name.clone(),
        model_type: ModelType::Embedding { pooling: loaded.model.pipeline.pooling.name() },
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

/// Answers `GET /health`.
pub fn health(_: &RequestContext) -> Result<ApiResponse> {
    Ok(ApiResponse::empty())
}
