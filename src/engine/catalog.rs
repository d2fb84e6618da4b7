//! Models that are known by a short name.

/// A known model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
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
}

const fn row(
    name: &'static str,
    repository: &'static str,
    dimension: usize,
    max_tokens: usize,
    license: &'static str,
) -> Entry {
    Entry { name, repository, dimension, max_tokens, license }
}

/// The known models. Any other BERT on the hub works by its repository's name.
#[rustfmt::skip]
pub const CATALOG: &[Entry] = &[
    row("all-MiniLM-L6-v2",  "sentence-transformers/all-MiniLM-L6-v2",  384, 256, "Apache-2.0"),
    row("all-MiniLM-L12-v2", "sentence-transformers/all-MiniLM-L12-v2", 384, 128, "Apache-2.0"),
    row("bge-small-en-v1.5", "BAAI/bge-small-en-v1.5",                  384, 512, "MIT"),
    row("bge-base-en-v1.5",  "BAAI/bge-base-en-v1.5",                   768, 512, "MIT"),
    row("bge-large-en-v1.5", "BAAI/bge-large-en-v1.5",                 1024, 512, "MIT"),
    row("e5-small-v2",       "intfloat/e5-small-v2",                    384, 512, "MIT"),
    row("e5-base-v2",        "intfloat/e5-base-v2",                     768, 512, "MIT"),
    row("gte-small",         "thenlper/gte-small",                      384, 512, "MIT"),
    row("gte-base",          "thenlper/gte-base",                       768, 512, "MIT"),
];

/// The known model of a short name or of a repository.
pub fn find(name: &str) -> Option<&'static Entry> {
    CATALOG.iter().find(|e| e.name == name || e.repository == name)
}

/// The short name of a model: of the catalog, or the last part of the repository.
pub fn short_name(name: &str) -> &str {
    find(name).map_or_else(|| name.rsplit('/').next().unwrap_or(name), |e| e.name)
}
