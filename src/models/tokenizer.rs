//! From text to token ids, by the `tokenizers` crate, whatever file the tokenizer comes from.

use super::gguf::{self, Entry, Gguf};
use crate::error::{Error, Kind, Result};
use serde_json::Value;
use std::path::Path;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, Encoding};

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
    inner: tokenizers::Tokenizer,
    prefix: Vec<u32>,
    suffix: Vec<u32>,
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
    fn new(mut inner: tokenizers::Tokenizer) -> Result<Self> {
        inner.with_padding(None);
        inner.with_truncation(None).map_err(tokenizer_error)?;
        let mut this = Self { inner, prefix: vec![], suffix: vec![] };
        // A probe shows what the model wants around a text, for any post-processor.
        let (bare, full) = (this.encode("a", false)?, this.encode("a", true)?);
        let (bare, full) = (bare.get_ids(), full.get_ids());
        let start = full
            .windows(bare.len().max(1))
            .position(|w| w == bare)
            .ok_or_else(|| Error::model("the tokenizer changes a text when it adds special tokens"))?;
        this.prefix = full[..start].to_vec();
        this.suffix = full[start + bare.len()..].to_vec();
        Ok(this)
    }

    /// From the text of a `tokenizer.json`.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let inner = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|e| Error::model(format!("tokenizer.json cannot be read: {e}")))?;
        Self::new(inner)
    }

    /// From a model folder: `tokenizer.json`, or else `vocab.txt` of BERT with its `tokenizer_config.json`.
    pub fn from_folder(folder: &Path) -> Result<(Self, Source)> {
        let json = folder.join("tokenizer.json");
        if json.exists() {
            let text = std::fs::read(&json).map_err(|e| Error::io("read", &json, e))?;
            return Ok((Self::from_json(&text)?, Source::of_json(&text)?));
        }
        let vocab = folder.join("vocab.txt");
        let text = std::fs::read_to_string(&vocab)
            .map_err(|_| Error::model(format!("{} has neither tokenizer.json nor vocab.txt", folder.display())))?;
        let word_piece = WordPieceSource {
            tokens: text.lines().map(str::to_string).collect(),
            special: SPECIAL.map(str::to_string).to_vec(),
            lowercase: lowercase_of(folder)?,
            ..WordPieceSource::default()
        };
        Ok((word_piece.build()?, Source::WordPiece(word_piece)))
    }

    /// From the metadata of a GGUF file.
    pub fn from_gguf(file: &Gguf) -> Result<(Self, Source)> {
        let source = Source::from_gguf(file)?;
        let this = match &source {
            Source::Json(json) => Self::from_json(json.as_bytes())?,
            Source::WordPiece(word_piece) => word_piece.build()?,
        };
        Ok((this, source))
    }

    fn encode(&self, text: &str, special: bool) -> Result<Encoding> {
        self.inner.encode_fast(text, special).map_err(tokenizer_error)
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
        let encoding = self.inner.encode(text, special).map_err(tokenizer_error)?;
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
        Ok((0..encoding.len()).map(token).collect())
    }

    /// The text of ids.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner.decode(ids, skip_special).map_err(tokenizer_error)
    }

    /// How many ids the vocabulary has.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}

fn tokenizer_error(error: tokenizers::Error) -> Error {
    Error::new(Kind::InvalidValue, format!("the tokenizer cannot read this: {error}"))
}

/// What a tokenizer was built from, so that `pack` can write it.
#[derive(Debug, Clone)]
pub enum Source {
    /// BERT's WordPiece, which its vocabulary and four switches describe.
    WordPiece(WordPieceSource),
    /// Anything else: the text of its `tokenizer.json`.
    Json(String),
}

/// BERT's WordPiece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordPieceSource {
    /// Tokens in the order of their ids; continuations begin with `##`.
    pub tokens: Vec<String>,
    /// Tokens that a text may spell out, and that decoding can leave away.
    pub special: Vec<String>,
    /// Whether control characters are removed and spaces made equal.
    pub clean_text: bool,
    /// Whether each Chinese character is a word.
    pub chinese_chars: bool,
    /// Whether accents are removed; `None`: as `lowercase`.
    pub strip_accents: Option<bool>,
    /// Whether letters are made small.
    pub lowercase: bool,
}

const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
const JSON_KEY: &str = "tokenizer.huggingface.json";
const CONTROL: i64 = 3;

impl Default for WordPieceSource {
    fn default() -> Self {
        Self {
            tokens: vec![],
            special: vec![],
            clean_text: true,
            chinese_chars: true,
            strip_accents: None,
            lowercase: true,
        }
    }
}

impl WordPieceSource {
    fn build(&self) -> Result<Tokenizer> {
        let vocab: ahash::AHashMap<String, u32> =
            self.tokens.iter().enumerate().map(|(i, t)| (t.clone(), i as u32)).collect();
        let id = |name: &str| {
            let id = vocab.get(name).copied();
            id.ok_or_else(|| Error::model(format!("the vocabulary has no {name} token")))
        };
        let (cls, sep) = (id("[CLS]")?, id("[SEP]")?);
        id("[UNK]")?;
        let model = WordPiece::builder().vocab(vocab).unk_token("[UNK]".into()).build().map_err(tokenizer_error)?;
        let mut inner = tokenizers::Tokenizer::new(model);
        let normalizer = BertNormalizer::new(self.clean_text, self.chinese_chars, self.strip_accents, self.lowercase);
        inner.with_normalizer(Some(normalizer)).map_err(tokenizer_error)?;
        inner.with_pre_tokenizer(Some(BertPreTokenizer));
        inner.with_post_processor(Some(BertProcessing::new(("[SEP]".into(), sep), ("[CLS]".into(), cls))));
        inner.with_decoder(Some(WordPieceDecoder::default()));
        let special = self.special.iter().map(|s| AddedToken::from(s.clone(), true));
        inner.add_special_tokens(special).map_err(tokenizer_error)?;
        Tokenizer::new(inner)
    }

    /// Reads a `tokenizer.json` that is exactly what [`WordPieceSource::build`] makes.
    fn of_json(json: &Value) -> Option<Self> {
        let model = &json["model"];
        let standard = model["type"] == "WordPiece"
            && model["unk_token"] == "[UNK]"
            && model["continuing_subword_prefix"] == "##"
            && model["max_input_chars_per_word"] == 100
            && json["pre_tokenizer"]["type"] == "BertPreTokenizer"
            && json["normalizer"]["type"] == "BertNormalizer"
            && surrounds_by_cls_and_sep(&json["post_processor"]);
        if !standard {
            return None;
        }
        let mut tokens = vec![None; model["vocab"].as_object()?.len()];
        for (token, id) in model["vocab"].as_object()? {
            *tokens.get_mut(id.as_u64()? as usize)? = Some(token.clone());
        }
        let normalizer = &json["normalizer"];
        Some(Self {
            tokens: tokens.into_iter().collect::<Option<_>>()?,
            special: json["added_tokens"].as_array()?.iter().map(plain_special).collect::<Option<_>>()?,
            clean_text: normalizer["clean_text"].as_bool()?,
            chinese_chars: normalizer["handle_chinese_chars"].as_bool()?,
            strip_accents: normalizer["strip_accents"].as_bool(),
            lowercase: normalizer["lowercase"].as_bool()?,
        })
    }

    /// llama.cpp's keys: word-initial tokens begin with U+2581, continuations with nothing.
    fn entries(&self) -> Vec<(String, Entry)> {
        let kinds = self.tokens.iter().map(|t| if self.special.contains(t) { CONTROL as i32 } else { 1 });
        let mut entries = vec![
            ("tokenizer.ggml.model".into(), Entry::String("bert".into())),
            ("tokenizer.ggml.token_type_count".into(), Entry::Uint(2)),
            ("tokenizer.ggml.token_type".into(), Entry::Ints(kinds.collect())),
            ("tealight.tokenizer.clean_text".into(), Entry::Bool(self.clean_text)),
            ("tealight.tokenizer.chinese_chars".into(), Entry::Bool(self.chinese_chars)),
            ("tokenizer.ggml.normalizer.lowercase".into(), Entry::Bool(self.lowercase)),
        ];
        if let Some(strip) = self.strip_accents {
            entries.push(("tokenizer.ggml.normalizer.strip_accents".into(), Entry::Bool(strip)));
        }
        // "seperator" is llama.cpp's spelling.
        let names = [
            ("bos", "[CLS]"),
            ("eos", "[SEP]"),
            ("unknown", "[UNK]"),
            ("seperator", "[SEP]"),
            ("padding", "[PAD]"),
            ("mask", "[MASK]"),
        ];
        for (key, name) in names {
            if let Some(id) = self.tokens.iter().position(|t| t == name) {
                entries.push((format!("tokenizer.ggml.{key}_token_id"), Entry::Uint(id as u32)));
            }
        }
        let tokens = self.tokens.iter().map(|t| to_phantom(t)).collect();
        entries.push(("tokenizer.ggml.tokens".into(), Entry::Strings(tokens)));
        entries
    }

    fn from_gguf(file: &Gguf) -> Result<Self> {
        let key = "tokenizer.ggml.tokens";
        let stored = file.array(key)?.ok_or_else(|| gguf::missing(key))?.strings()?;
        let kinds = match file.array("tokenizer.ggml.token_type")? {
            Some(kinds) => kinds.integers()?,
            None => vec![],
        };
        let tokens: Vec<_> =
            stored.iter().enumerate().map(|(i, t)| from_phantom(t, kinds.get(i) == Some(&CONTROL))).collect();
        let marked = |i: usize, t: &str| kinds.get(i) == Some(&CONTROL) || SPECIAL.contains(&t);
        let special = tokens.iter().enumerate().filter(|(i, t)| marked(*i, t)).map(|(_, t)| t.clone());
        let normalizer = |name: &str| file.boolean(&format!("tokenizer.ggml.normalizer.{name}"));
        let switch = |name: &str| file.boolean(&format!("tealight.tokenizer.{name}"));
        Ok(Self {
            special: special.collect(),
            tokens,
            clean_text: switch("clean_text")?.unwrap_or(true),
            chinese_chars: switch("chinese_chars")?.unwrap_or(true),
            strip_accents: normalizer("strip_accents")?,
            lowercase: normalizer("lowercase")?.unwrap_or(true),
        })
    }
}

fn to_phantom(token: &str) -> String {
    if token.starts_with('[') && token.ends_with(']') {
        return token.to_string();
    }
    match token.strip_prefix("##") {
        Some(rest) => rest.to_string(),
        None => format!("\u{2581}{token}"),
    }
}

fn from_phantom(token: &str, control: bool) -> String {
    if control || (token.starts_with('[') && token.ends_with(']')) {
        return token.to_string();
    }
    match token.strip_prefix('\u{2581}') {
        Some(rest) => rest.to_string(),
        None => format!("##{token}"),
    }
}

fn plain_special(token: &Value) -> Option<String> {
    let plain =
        token["special"] == true && ["single_word", "lstrip", "rstrip", "normalized"].iter().all(|k| token[k] == false);
    if plain { token["content"].as_str().map(str::to_string) } else { None }
}

fn surrounds_by_cls_and_sep(processor: &Value) -> bool {
    if processor["type"] == "BertProcessing" {
        return processor["cls"][0] == "[CLS]" && processor["sep"][0] == "[SEP]";
    }
    let single = &processor["single"];
    processor["type"] == "TemplateProcessing"
        && single.as_array().is_some_and(|s| s.len() == 3)
        && single[0]["SpecialToken"]["id"] == "[CLS]"
        && single[1]["Sequence"]["id"] == "A"
        && single[2]["SpecialToken"]["id"] == "[SEP]"
}

fn lowercase_of(folder: &Path) -> Result<bool> {
    let path = folder.join("tokenizer_config.json");
    let Ok(text) = std::fs::read(&path) else { return Ok(true) };
    let json: Value =
        serde_json::from_slice(&text).map_err(|e| Error::model(format!("{} is not JSON: {e}", path.display())))?;
    Ok(json["do_lower_case"].as_bool().unwrap_or(true))
}

impl Source {
    fn of_json(text: &[u8]) -> Result<Self> {
        let json: Value =
            serde_json::from_slice(text).map_err(|e| Error::model(format!("tokenizer.json is not JSON: {e}")))?;
        let survives = |w: &WordPieceSource| {
            let back = |t: &String| from_phantom(&to_phantom(t), w.special.contains(t)) == *t;
            w.tokens.iter().all(back)
        };
        match WordPieceSource::of_json(&json).filter(survives) {
            Some(word_piece) => Ok(Source::WordPiece(word_piece)),
            None => Ok(Source::Json(String::from_utf8_lossy(text).into_owned())),
        }
    }

    fn from_gguf(file: &Gguf) -> Result<Self> {
        if let Some(json) = file.string(JSON_KEY)? {
            return Ok(Source::Json(json.to_string()));
        }
        let key = "tokenizer.ggml.model";
        match file.string(key)?.ok_or_else(|| gguf::missing(key))? {
            "bert" => Ok(Source::WordPiece(WordPieceSource::from_gguf(file)?)),
            other => Err(Error::model(format!(
                "GGUF key {key:?} is {other:?}; \"bert\" is read, or a tokenizer in {JSON_KEY:?}"
            ))),
        }
    }

    /// The metadata that describes it in a GGUF file.
    pub fn entries(&self) -> Vec<(String, Entry)> {
        match self {
            Source::WordPiece(word_piece) => word_piece.entries(),
            Source::Json(json) => vec![(JSON_KEY.into(), Entry::String(json.clone()))],
        }
    }
}
