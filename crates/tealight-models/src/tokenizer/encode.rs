//! The tokenizer of an embedding model: token ids with the special tokens that its model expects around a text.

use super::error::encode_error;
use super::wordpiece::WordPiece;
use std::sync::Arc;
use tealight_core::{Error, Result};
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{Encoding, TokenizerImpl};

/// The side of a long text that is truncated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TruncationDirection {
    /// Keeps the end of the text.
    Left,
    /// Keeps the start of the text.
    #[default]
    Right,
}

/// A tokenizer, with the special tokens that its model expects around a text.
#[derive(Debug)]
pub struct EmbeddingTokenizer {
    inner: Inner,
    prefix: Vec<u32>,
    suffix: Vec<u32>,
}

/// BERT's normalizer, pre-tokenizer and post-processor around a vocabulary that is used in place.
pub(super) type BertTokenizer =
    TokenizerImpl<WordPiece, BertNormalizer, BertPreTokenizer, BertProcessing, WordPieceDecoder>;

#[derive(Debug)]
enum Inner {
    Bert(Box<BertTokenizer>),
    /// What a `tokenizer.json` describes.
    Any(Arc<tokenizers::Tokenizer>),
}

/// Calls a method of either variant.
macro_rules! inner {
    ($inner:expr, $method:ident($($arg:expr),*)) => {
        match &$inner {
            Inner::Bert(bert) => bert.$method($($arg),*),
            Inner::Any(any) => any.$method($($arg),*),
        }
    };
}

/// A token of a text, as text-embeddings-inference's `/tokenize` returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Token id.
    pub id: u32,
    /// The part of the text that the token covers, or the name of a special token.
    pub text: String,
    /// Whether the token is special, such as `[CLS]`.
    pub special: bool,
    /// Start and end of the covered part, in bytes of the text; `None` for special tokens.
    pub offsets: Option<(usize, usize)>,
}

/// Upper limit of the characters of a token: if a text is truncated to N tokens, only its first 250 N characters are tokenized, or its
/// last with [`TruncationDirection::Left`]. The tokens of common vocabularies are shorter.
pub const MAX_CHARS_PER_TOKEN: usize = 250;

impl EmbeddingTokenizer {
    fn new(inner: Inner) -> Result<Self> {
        let mut this = Self { inner, prefix: vec![], suffix: vec![] };
        // Encodes a probe with and without special tokens to find the special tokens that the post-processor adds.
        let (without_special, with_special) = (this.encode_fast("a", false)?, this.encode_fast("a", true)?);
        let (without_special, with_special) = (without_special.get_ids(), with_special.get_ids());
        let start =
            with_special.windows(without_special.len().max(1)).position(|w| w == without_special).ok_or_else(|| {
                Error::invalid_model("the tokenizer changes the tokens of a text when it adds special tokens")
            })?;
        this.prefix = with_special[..start].to_vec();
        this.suffix = with_special[start + without_special.len()..].to_vec();
        Ok(this)
    }

    /// Reads the content of a `tokenizer.json`.
    ///
    /// # Errors
    /// The file describes no tokenizer, or one that adds special tokens inside a text.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let mut any = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|e| Error::invalid_model(format!("tokenizer.json is invalid: {e}")))?;
        any.with_padding(None);
        any.with_truncation(None).map_err(encode_error)?;
        Self::new(Inner::Any(Arc::new(any)))
    }

    /// BERT's tokenizer.
    pub(super) fn from_bert(bert: BertTokenizer) -> Result<Self> {
        Self::new(Inner::Bert(Box::new(bert)))
    }

    /// A tokenizer of the `tokenizers` crate, with the special tokens before and after a text.
    #[cfg(feature = "text")]
    pub(super) fn with_special_tokens(any: Arc<tokenizers::Tokenizer>, prefix: Vec<u32>, suffix: Vec<u32>) -> Self {
        Self { inner: Inner::Any(any), prefix, suffix }
    }

    fn encode_fast(&self, text: &str, special: bool) -> Result<Encoding> {
        inner!(self.inner, encode_fast(text, special)).map_err(encode_error)
    }

    /// Token ids of a text, without special tokens.
    ///
    /// # Errors
    /// The tokenizer cannot encode the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encode_fast(text, false)?.get_ids().to_vec())
    }

    /// Number of special tokens around a text.
    pub fn num_special_tokens(&self) -> usize {
        self.prefix.len() + self.suffix.len()
    }

    /// Adds the special tokens before and after ids that do not have them.
    pub fn add_special_tokens(&self, ids: &[u32]) -> Vec<u32> {
        [&self.prefix, self.strip_special(ids), &self.suffix].concat()
    }

    /// Truncates ids to `limit`, keeping the special tokens at both ends.
    pub fn truncate(&self, ids: &[u32], limit: usize, direction: TruncationDirection) -> Vec<u32> {
        if ids.len() <= limit {
            return ids.to_vec();
        }
        let content = self.strip_special(ids);
        let keep = limit.saturating_sub(self.num_special_tokens());
        let content = match direction {
            TruncationDirection::Right => &content[..keep],
            TruncationDirection::Left => &content[content.len() - keep..],
        };
        [&self.prefix, content, &self.suffix].concat()
    }

    /// The ids without the special tokens before and after them.
    pub fn strip_special<'a>(&self, ids: &'a [u32]) -> &'a [u32] {
        ids.strip_prefix(&self.prefix[..]).and_then(|i| i.strip_suffix(&self.suffix[..])).unwrap_or(ids)
    }

    /// The tokens of a text with their offsets; `special` includes special tokens.
    ///
    /// # Errors
    /// The tokenizer cannot encode the text.
    pub fn tokenize(&self, text: &str, special: bool) -> Result<Vec<Token>> {
        let encoding = inner!(self.inner, encode(text, false)).map_err(encode_error)?;
        let token = |i: usize| {
            let id = encoding.get_ids()[i];
            let name = || encoding.get_tokens()[i].clone();
            if encoding.get_special_tokens_mask()[i] == 1 {
                return Token { id, text: name(), special: true, offsets: None };
            }
            let (start, end) = encoding.get_offsets()[i];
            let text = text.get(start..end).map_or_else(name, str::to_string);
            Token { id, text, special: false, offsets: Some((start, end)) }
        };
        let special_tokens = |ids: &[u32]| {
            let name = |id| inner!(self.inner, id_to_token(id)).unwrap_or_default();
            let tokens = ids.iter().map(|id| Token { id: *id, text: name(*id), special: true, offsets: None });
            if special { tokens.collect() } else { vec![] }
        };
        Ok([special_tokens(&self.prefix), (0..encoding.len()).map(token).collect(), special_tokens(&self.suffix)]
            .concat())
    }

    /// The text of token ids; `skip_special` leaves out special tokens.
    ///
    /// # Errors
    /// The decoder of the tokenizer fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        inner!(self.inner, decode(ids, skip_special)).map_err(encode_error)
    }

    /// One more than the highest token id.
    pub fn vocab_size(&self) -> usize {
        match &self.inner {
            Inner::Bert(bert) => bert.get_vocab_size(true),
            Inner::Any(any) => any.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1),
        }
    }
}
