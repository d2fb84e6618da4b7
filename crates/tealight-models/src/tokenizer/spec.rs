//! What a tokenizer is made from: files of a model folder, or metadata of a GGUF file.

use super::vocabulary::{CONTINUATION, Place, Vocabulary, WordPiece};
use super::{Bert, Inner, Tokenizer, tokenizer_error};
use crate::formats::gguf::{self, Entry, Gguf};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tealight_core::{Error, Result};
use tokenizers::AddedToken;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;

/// What a tokenizer was built from, so that `pack` can write it.
#[derive(Debug, Clone)]
pub enum Source {
    /// BERT's WordPiece, which its vocabulary and four switches describe.
    WordPiece(WordPieceSource),
    /// Anything else: the text of its `tokenizer.json`.
    Json(String),
}

/// BERT's WordPiece.
#[derive(Debug, Clone)]
pub struct WordPieceSource {
    /// Tokens by id.
    pub vocabulary: Arc<Vocabulary>,
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

impl WordPieceSource {
    fn build(&self) -> Result<Tokenizer> {
        let id = |name: &str| {
            let id = self.vocabulary.id(name);
            id.ok_or_else(|| Error::invalid_model(format!("the vocabulary has no {name} token")))
        };
        let (cls, sep) = (id("[CLS]")?, id("[SEP]")?);
        let mut bert = Bert::new(WordPiece::new(self.vocabulary.clone())?);
        let normalizer = BertNormalizer::new(self.clean_text, self.chinese_chars, self.strip_accents, self.lowercase);
        bert.with_normalizer(Some(normalizer)).map_err(tokenizer_error)?;
        bert.with_pre_tokenizer(Some(BertPreTokenizer));
        bert.with_post_processor(Some(BertProcessing::new(("[SEP]".into(), sep), ("[CLS]".into(), cls))));
        bert.with_decoder(Some(WordPieceDecoder::default()));
        let special = self.special.iter().map(|s| AddedToken::from(s.clone(), true));
        bert.add_special_tokens(special).map_err(tokenizer_error)?;
        Tokenizer::new(Inner::Bert(Box::new(bert)))
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
            *tokens.get_mut(id.as_u64()? as usize)? = Some(token.as_str());
        }
        let normalizer = &json["normalizer"];
        let tokens: Vec<&str> = tokens.into_iter().collect::<Option<_>>()?;
        Some(Self {
            vocabulary: Arc::new(Vocabulary::of(tokens.into_iter()).ok()?),
            special: json["added_tokens"].as_array()?.iter().map(plain_special).collect::<Option<_>>()?,
            clean_text: normalizer["clean_text"].as_bool()?,
            chinese_chars: normalizer["handle_chinese_chars"].as_bool()?,
            strip_accents: normalizer["strip_accents"].as_bool(),
            lowercase: normalizer["lowercase"].as_bool()?,
        })
    }

    /// llama.cpp's keys: word-initial tokens begin with U+2581, continuations with nothing.
    fn entries(&self) -> Vec<(String, Entry)> {
        let kinds = self.vocabulary.tokens().map(|t| if self.special.contains(&t) { CONTROL as i32 } else { 1 });
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
            if let Some(id) = self.vocabulary.id(name) {
                entries.push((format!("tokenizer.ggml.{key}_token_id"), Entry::Uint(id)));
            }
        }
        let tokens = self.vocabulary.tokens().map(|t| to_phantom(&t)).collect();
        entries.push(("tokenizer.ggml.tokens".into(), Entry::Strings(tokens)));
        entries
    }

    fn from_gguf(file: &Gguf) -> Result<Self> {
        let key = "tokenizer.ggml.tokens";
        let array = file.array(key)?.ok_or_else(|| gguf::missing(key))?;
        let stored = array.strings()?;
        let kinds = match file.array("tokenizer.ggml.token_type")? {
            Some(kinds) => kinds.integers()?,
            None => vec![],
        };
        let control = |i: usize| kinds.get(i) == Some(&CONTROL);
        let special = stored.iter().enumerate().filter(|(i, t)| control(*i) || SPECIAL.contains(t));
        let special = special.map(|(i, t)| from_phantom(t, control(i))).collect();
        let start = array.data().as_ptr() as usize;
        let parts = stored.iter().enumerate().map(|(i, token)| {
            let (text, place) = part(token, control(i));
            let at = text.as_ptr() as usize - start;
            (at..at + text.len(), place)
        });
        let normalizer = |name: &str| file.boolean(&format!("tokenizer.ggml.normalizer.{name}"));
        let switch = |name: &str| file.boolean(&format!("tealight.tokenizer.{name}"));
        Ok(Self {
            special,
            vocabulary: Arc::new(Vocabulary::new(array.data().clone(), parts)?),
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
    match token.strip_prefix(CONTINUATION) {
        Some(rest) => rest.to_string(),
        None => format!("\u{2581}{token}"),
    }
}

/// The text of a token of llama.cpp's and where it may stand.
fn part(token: &str, control: bool) -> (&str, Place) {
    if control || (token.starts_with('[') && token.ends_with(']')) {
        return (token, Place::Start);
    }
    match token.strip_prefix('\u{2581}') {
        Some(rest) => (rest, Place::Start),
        None => (token, Place::Continuation),
    }
}

fn from_phantom(token: &str, control: bool) -> String {
    match part(token, control) {
        (text, Place::Start) => text.to_string(),
        (text, Place::Continuation) => format!("{CONTINUATION}{text}"),
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
    let json: Value = serde_json::from_slice(&text)
        .map_err(|e| Error::invalid_model(format!("{} is not JSON: {e}", path.display())))?;
    Ok(json["do_lower_case"].as_bool().unwrap_or(true))
}

impl Source {
    /// The tokenizer that it describes.
    pub(super) fn tokenizer(&self) -> Result<Tokenizer> {
        match self {
            Source::Json(json) => Tokenizer::from_json(json.as_bytes()),
            Source::WordPiece(word_piece) => word_piece.build(),
        }
    }

    pub(super) fn from_folder(folder: &Path) -> Result<Self> {
        let json = folder.join("tokenizer.json");
        if json.exists() {
            return Self::of_json(&std::fs::read(&json).map_err(|e| Error::io("read", &json, e))?);
        }
        let vocab = folder.join("vocab.txt");
        let text = std::fs::read_to_string(&vocab).map_err(|_| {
            Error::invalid_model(format!("{} has neither tokenizer.json nor vocab.txt", folder.display()))
        })?;
        Ok(Source::WordPiece(WordPieceSource {
            vocabulary: Arc::new(Vocabulary::of(text.lines())?),
            special: SPECIAL.map(str::to_string).to_vec(),
            clean_text: true,
            chinese_chars: true,
            strip_accents: None,
            lowercase: lowercase_of(folder)?,
        }))
    }

    fn of_json(text: &[u8]) -> Result<Self> {
        let json: Value = serde_json::from_slice(text)
            .map_err(|e| Error::invalid_model(format!("tokenizer.json is not JSON: {e}")))?;
        let survives = |w: &WordPieceSource| {
            let back = |t: &String| from_phantom(&to_phantom(t), w.special.contains(t)) == *t;
            w.vocabulary.tokens().all(|t| back(&t))
        };
        match WordPieceSource::of_json(&json).filter(survives) {
            Some(word_piece) => Ok(Source::WordPiece(word_piece)),
            None => Ok(Source::Json(String::from_utf8_lossy(text).into_owned())),
        }
    }

    pub(super) fn from_gguf(file: &Gguf) -> Result<Self> {
        if let Some(json) = file.string(JSON_KEY)? {
            return Ok(Source::Json(json.to_string()));
        }
        let key = "tokenizer.ggml.model";
        match file.string(key)?.ok_or_else(|| gguf::missing(key))? {
            "bert" => Ok(Source::WordPiece(WordPieceSource::from_gguf(file)?)),
            other => Err(Error::invalid_model(format!(
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
