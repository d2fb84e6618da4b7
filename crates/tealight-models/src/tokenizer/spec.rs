//! The description of an embedding model's tokenizer, read from a model folder or a GGUF file and written to packed files.

use super::encode::EmbeddingTokenizer;
use super::wordpiece_spec::WordPieceSpec;
use crate::formats::gguf::{self, Gguf, MetadataValue};
use std::path::Path;
use tealight_core::{Error, Result};

/// The key of a `tokenizer.json` in GGUF metadata.
pub(crate) const TOKENIZER_JSON_KEY: &str = "tokenizer.huggingface.json";

/// The description of a tokenizer.
#[derive(Debug, Clone)]
pub enum EmbeddingTokenizerSpec {
    /// BERT's WordPiece.
    WordPiece(WordPieceSpec),
    /// The content of a `tokenizer.json`.
    Json(String),
}

impl EmbeddingTokenizerSpec {
    /// Builds the tokenizer.
    ///
    /// # Errors
    /// The description is incomplete, or contradicts itself.
    pub fn build(&self) -> Result<EmbeddingTokenizer> {
        match self {
            EmbeddingTokenizerSpec::Json(json) => EmbeddingTokenizer::from_json(json.as_bytes()),
            EmbeddingTokenizerSpec::WordPiece(word_piece) => word_piece.build(),
        }
    }

    /// Reads `tokenizer.json` of a model folder, or if there is none, `vocab.txt` and `tokenizer_config.json`.
    ///
    /// # Errors
    /// A file is missing or invalid.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        if path.exists() {
            return Self::from_json(&std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?);
        }
        let text = std::fs::read_to_string(folder.join("vocab.txt")).map_err(|_| {
            Error::invalid_model(format!("{} has neither tokenizer.json nor vocab.txt", folder.display()))
        })?;
        WordPieceSpec::from_vocab_txt(&text, folder).map(EmbeddingTokenizerSpec::WordPiece)
    }

    /// WordPiece is preferred, because its vocabulary is used in place; other tokenizers are built by the `tokenizers` crate.
    fn from_json(text: &[u8]) -> Result<Self> {
        let json = serde_json::from_slice(text)
            .map_err(|e| Error::invalid_model(format!("tokenizer.json is not JSON: {e}")))?;
        match WordPieceSpec::from_json(&json).filter(WordPieceSpec::survives_gguf) {
            Some(word_piece) => Ok(EmbeddingTokenizerSpec::WordPiece(word_piece)),
            None => Ok(EmbeddingTokenizerSpec::Json(String::from_utf8_lossy(text).into_owned())),
        }
    }

    /// Reads GGUF metadata.
    ///
    /// # Errors
    /// A key is missing, or names a tokenizer that embedding models do not use.
    pub fn from_gguf(file: &Gguf) -> Result<Self> {
        if let Some(json) = file.string(TOKENIZER_JSON_KEY)? {
            return Ok(EmbeddingTokenizerSpec::Json(json.to_string()));
        }
        let key = "tokenizer.ggml.model";
        match file.string(key)?.ok_or_else(|| gguf::missing_key(key))? {
            "bert" => Ok(EmbeddingTokenizerSpec::WordPiece(WordPieceSpec::from_gguf(file)?)),
            other => Err(Error::invalid_model(format!(
                "GGUF key {key:?} is {other:?}; expected \"bert\", or a tokenizer in {TOKENIZER_JSON_KEY:?}"
            ))),
        }
    }

    /// The GGUF metadata that describes the tokenizer.
    pub fn gguf_metadata(&self) -> Vec<(String, MetadataValue)> {
        match self {
            EmbeddingTokenizerSpec::WordPiece(word_piece) => word_piece.gguf_metadata(),
            EmbeddingTokenizerSpec::Json(json) => {
                vec![(TOKENIZER_JSON_KEY.into(), MetadataValue::String(json.clone()))]
            }
        }
    }
}
