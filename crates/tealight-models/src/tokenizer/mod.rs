//! From text to token ids, by the `tokenizers` crate, whatever file the tokenizer comes from.

pub(crate) mod bytes;
mod llama;
mod pretokenizer;
mod spec;
mod vocabulary;

pub use llama::Tokens;
pub use spec::{Source, WordPieceSource};
pub use vocabulary::{Vocabulary, WordPiece};

use super::gguf::Gguf;
use std::path::Path;
use std::sync::Arc;
use tealight_core::{Error, ErrorKind, Result};
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{Encoding, TokenizerImpl};

/// Which end of a long text is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// The beginning.
    Left,
    /// The end.
    #[default]
    Right,
}

/// A tokenizer, with the special tokens that its model wants around a text.
#[derive(Debug)]
pub struct Tokenizer {
    inner: Inner,
    prefix: Vec<u32>,
    suffix: Vec<u32>,
}

/// BERT's steps on our vocabulary, which is read where it lies.
type Bert = TokenizerImpl<WordPiece, BertNormalizer, BertPreTokenizer, BertProcessing, WordPieceDecoder>;

#[derive(Debug)]
enum Inner {
    Bert(Box<Bert>),
    /// Whatever a `tokenizer.json` describes.
    Any(Arc<tokenizers::Tokenizer>),
}

/// Calls a method of either.
macro_rules! inner {
    ($inner:expr, $method:ident($($arg:expr),*)) => {
        match &$inner {
            Inner::Bert(bert) => bert.$method($($arg),*),
            Inner::Any(any) => any.$method($($arg),*),
        }
    };
}

/// A token of a text, as TEI's `/tokenize` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The part of the text that it stands for, or its name if it is special.
    pub text: String,
    /// Whether it was put around the text.
    pub special: bool,
    /// The bytes of the text that it stands for.
    pub span: Option<(usize, usize)>,
}

/// The characters of a text that are looked at for each token that a model reads.
///
/// No vocabulary has longer tokens; the bound keeps a text of megabytes from being tokenised for nothing.
pub const MAX_CHARS_PER_TOKEN: usize = 250;

impl Tokenizer {
    fn new(inner: Inner) -> Result<Self> {
        let mut this = Self { inner, prefix: vec![], suffix: vec![] };
        // A probe shows what the model wants around a text, for any post-processor.
        let (bare, full) = (this.encode("a", false)?, this.encode("a", true)?);
        let (bare, full) = (bare.get_ids(), full.get_ids());
        let start = full
            .windows(bare.len().max(1))
            .position(|w| w == bare)
            .ok_or_else(|| Error::invalid_model("the tokenizer changes a text when it adds special tokens"))?;
        this.prefix = full[..start].to_vec();
        this.suffix = full[start + bare.len()..].to_vec();
        Ok(this)
    }

    /// From the text of a `tokenizer.json`.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let mut any = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|e| Error::invalid_model(format!("tokenizer.json cannot be read: {e}")))?;
        any.with_padding(None);
        any.with_truncation(None).map_err(tokenizer_error)?;
        Self::new(Inner::Any(Arc::new(any)))
    }

    /// A tokenizer that is there already, with the special tokens around a text.
    pub(super) fn around(any: Arc<tokenizers::Tokenizer>, prefix: Vec<u32>, suffix: Vec<u32>) -> Self {
        Self { inner: Inner::Any(any), prefix, suffix }
    }

    /// From a model folder: `tokenizer.json`, or else `vocab.txt` of BERT with its `tokenizer_config.json`.
    pub fn from_folder(folder: &Path) -> Result<(Self, Source)> {
        let source = Source::from_folder(folder)?;
        Ok((source.tokenizer()?, source))
    }

    /// From the metadata of a GGUF file.
    pub fn from_gguf(file: &Gguf) -> Result<(Self, Source)> {
        let source = Source::from_gguf(file)?;
        Ok((source.tokenizer()?, source))
    }

    fn encode(&self, text: &str, special: bool) -> Result<Encoding> {
        inner!(self.inner, encode_fast(text, special)).map_err(tokenizer_error)
    }

    /// The ids of a text, without special tokens.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encode(text, false)?.get_ids().to_vec())
    }

    /// How many special tokens surround a text.
    pub fn added(&self) -> usize {
        self.prefix.len() + self.suffix.len()
    }

    /// Puts the special tokens around ids, unless they are there already.
    pub fn surround(&self, ids: &[u32]) -> Vec<u32> {
        [&self.prefix, self.content(ids), &self.suffix].concat()
    }

    /// Cuts complete ids to `limit`, keeping the special tokens at both ends.
    pub fn cut(&self, ids: &[u32], limit: usize, direction: Direction) -> Vec<u32> {
        if ids.len() <= limit {
            return ids.to_vec();
        }
        let content = self.content(ids);
        let keep = limit.saturating_sub(self.added());
        let content = match direction {
            Direction::Right => &content[..keep],
            Direction::Left => &content[content.len() - keep..],
        };
        [&self.prefix, content, &self.suffix].concat()
    }

    /// The ids without the special tokens around them.
    pub fn content<'a>(&self, ids: &'a [u32]) -> &'a [u32] {
        ids.strip_prefix(&self.prefix[..]).and_then(|i| i.strip_suffix(&self.suffix[..])).unwrap_or(ids)
    }

    /// The tokens of a text, with their places in it.
    pub fn tokens(&self, text: &str, special: bool) -> Result<Vec<Token>> {
        let encoding = inner!(self.inner, encode(text, false)).map_err(tokenizer_error)?;
        let token = |i: usize| {
            let id = encoding.get_ids()[i];
            let name = || encoding.get_tokens()[i].clone();
            if encoding.get_special_tokens_mask()[i] == 1 {
                return Token { id, text: name(), special: true, span: None };
            }
            let (start, stop) = encoding.get_offsets()[i];
            let text = text.get(start..stop).map_or_else(name, str::to_string);
            Token { id, text, special: false, span: Some((start, stop)) }
        };
        let around = |ids: &[u32]| {
            let name = |id| inner!(self.inner, id_to_token(id)).unwrap_or_default();
            let tokens = ids.iter().map(|id| Token { id: *id, text: name(*id), special: true, span: None });
            if special { tokens.collect() } else { vec![] }
        };
        Ok([around(&self.prefix), (0..encoding.len()).map(token).collect(), around(&self.suffix)].concat())
    }

    /// The text of ids.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        inner!(self.inner, decode(ids, skip_special)).map_err(tokenizer_error)
    }

    /// One more than the highest id.
    pub fn vocabulary(&self) -> usize {
        match &self.inner {
            Inner::Bert(bert) => bert.get_vocab_size(true),
            Inner::Any(any) => any.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1),
        }
    }
}

fn tokenizer_error(error: tokenizers::Error) -> Error {
    Error::new(ErrorKind::InvalidValue, format!("the tokenizer cannot read this: {error}"))
}
