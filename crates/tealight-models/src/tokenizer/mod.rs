//! Tokenizers: from text to token ids and back, with the `tokenizers` crate.
//!
//! | model | description in the file | tokenizer |
//! |---|---|---|
//! | embedding | [`EmbeddingTokenizerSpec`]: WordPiece, or any `tokenizer.json` | [`EmbeddingTokenizer`] |
//! | text generation | [`BpeSpec`]: byte-level or SentencePiece BPE, or any `tokenizer.json` | [`LlamaTokenizer`] |
//!
//! Whisper's tokenizer is in `families::whisper`.

#[cfg(feature = "text")]
mod bpe;
#[cfg(any(feature = "speech", feature = "text"))]
pub(crate) mod bytes;
mod encode;
mod error;
mod spec;
mod vocabulary;
mod wordpiece;
mod wordpiece_spec;

#[cfg(feature = "text")]
pub use bpe::{BpeModel, BpeSpec, LlamaTokenizer, Pretokenizer};
pub use encode::{EmbeddingTokenizer, MAX_CHARS_PER_TOKEN, Token, TruncationDirection};
pub use spec::EmbeddingTokenizerSpec;
pub use vocabulary::{WordPieceVocab, WordPosition};
pub use wordpiece::WordPiece;
pub use wordpiece_spec::WordPieceSpec;

#[cfg(feature = "text")]
pub(crate) use spec::TOKENIZER_JSON_KEY;
