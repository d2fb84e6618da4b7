//! The description of BERT's tokenizer: WordPiece with BERT's normalizer and special tokens.

use super::encode::{BertTokenizer, EmbeddingTokenizer};
use super::error::build_error;
use super::vocabulary::{CONTINUATION, WordPieceVocab, WordPosition};
use super::wordpiece::WordPiece;
use crate::formats::gguf::{self, Gguf, MetadataValue, token_type};
use crate::formats::json::read_json;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tealight_core::{Error, Result};
use tokenizers::AddedToken;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;

/// BERT's tokenizer.
#[derive(Debug, Clone)]
pub struct WordPieceSpec {
    /// Token ids and their text.
    pub vocabulary: Arc<WordPieceVocab>,
    /// Special tokens: recognized if a text contains their names, and skipped by decoding on request.
    pub special: Vec<String>,
    /// Remove control characters and replace all whitespace by spaces.
    pub clean_text: bool,
    /// Put spaces around each Chinese character.
    pub chinese_chars: bool,
    /// Remove accents; `None` is the value of `lowercase`.
    pub strip_accents: Option<bool>,
    /// Convert to lower case.
    pub lowercase: bool,
}

const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// llama.cpp writes a token that starts a word with U+2581, and one that continues a word without a prefix.
const WORD_START: char = '\u{2581}';

impl WordPieceSpec {
    pub(super) fn build(&self) -> Result<EmbeddingTokenizer> {
        let id = |name: &str| {
            let id = self.vocabulary.id(name);
            id.ok_or_else(|| Error::invalid_model(format!("the vocabulary has no {name} token")))
        };
        let (cls, sep) = (id("[CLS]")?, id("[SEP]")?);
        let mut bert = BertTokenizer::new(WordPiece::new(self.vocabulary.clone())?);
        let normalizer = BertNormalizer::new(self.clean_text, self.chinese_chars, self.strip_accents, self.lowercase);
        bert.with_normalizer(Some(normalizer)).map_err(build_error)?;
        bert.with_pre_tokenizer(Some(BertPreTokenizer));
        bert.with_post_processor(Some(BertProcessing::new(("[SEP]".into(), sep), ("[CLS]".into(), cls))));
        bert.with_decoder(Some(WordPieceDecoder::default()));
        let special = self.special.iter().map(|s| AddedToken::from(s.clone(), true));
        bert.add_special_tokens(special).map_err(build_error)?;
        EmbeddingTokenizer::from_bert(bert)
    }

    /// Reads a `tokenizer.json` that describes exactly what [`WordPieceSpec::build`] builds; `None` for any other.
    pub(super) fn from_json(json: &Value) -> Option<Self> {
        let model = &json["model"];
        let is_standard = model["type"] == "WordPiece"
            && model["unk_token"] == "[UNK]"
            && model["continuing_subword_prefix"] == "##"
            && model["max_input_chars_per_word"] == 100
            && json["pre_tokenizer"]["type"] == "BertPreTokenizer"
            && json["normalizer"]["type"] == "BertNormalizer"
            && adds_cls_and_sep(&json["post_processor"]);
        if !is_standard {
            return None;
        }
        let mut tokens = vec![None; model["vocab"].as_object()?.len()];
        for (token, id) in model["vocab"].as_object()? {
            *tokens.get_mut(id.as_u64()? as usize)? = Some(token.as_str());
        }
        let normalizer = &json["normalizer"];
        let tokens: Vec<&str> = tokens.into_iter().collect::<Option<_>>()?;
        Some(Self {
            vocabulary: Arc::new(WordPieceVocab::from_tokens(tokens.into_iter()).ok()?),
            special: json["added_tokens"].as_array()?.iter().map(plain_special_token).collect::<Option<_>>()?,
            clean_text: normalizer["clean_text"].as_bool()?,
            chinese_chars: normalizer["handle_chinese_chars"].as_bool()?,
            strip_accents: normalizer["strip_accents"].as_bool(),
            lowercase: normalizer["lowercase"].as_bool()?,
        })
    }

    /// Whether every token is the same after it was written to a GGUF file and read again.
    pub(super) fn survives_gguf(&self) -> bool {
        let round_trip = |t: &String| from_gguf_token(&to_gguf_token(t), self.special.contains(t)) == *t;
        self.vocabulary.tokens().all(|t| round_trip(&t))
    }

    /// Reads the lines of `vocab.txt`, and `do_lower_case` in `tokenizer_config.json` of its folder.
    pub(super) fn from_vocab_txt(text: &str, folder: &Path) -> Result<Self> {
        let config = read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        Ok(Self {
            vocabulary: Arc::new(WordPieceVocab::from_tokens(text.lines())?),
            special: SPECIAL_TOKENS.map(str::to_string).to_vec(),
            clean_text: true,
            chinese_chars: true,
            strip_accents: None,
            lowercase: config["do_lower_case"].as_bool().unwrap_or(true),
        })
    }

    /// llama.cpp's metadata keys, and two of tealight.
    pub(super) fn gguf_metadata(&self) -> Vec<(String, MetadataValue)> {
        let token_type = |token: String| {
            if self.special.contains(&token) { token_type::CONTROL as i32 } else { token_type::NORMAL as i32 }
        };
        let token_types = self.vocabulary.tokens().map(token_type).collect();
        let mut metadata = vec![
            ("tokenizer.ggml.model".into(), MetadataValue::String("bert".into())),
            ("tokenizer.ggml.token_type_count".into(), MetadataValue::Uint(2)),
            ("tokenizer.ggml.token_type".into(), MetadataValue::Ints(token_types)),
            ("tealight.tokenizer.clean_text".into(), MetadataValue::Bool(self.clean_text)),
            ("tealight.tokenizer.chinese_chars".into(), MetadataValue::Bool(self.chinese_chars)),
            ("tokenizer.ggml.normalizer.lowercase".into(), MetadataValue::Bool(self.lowercase)),
        ];
        if let Some(strip) = self.strip_accents {
            metadata.push(("tokenizer.ggml.normalizer.strip_accents".into(), MetadataValue::Bool(strip)));
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
                metadata.push((format!("tokenizer.ggml.{key}_token_id"), MetadataValue::Uint(id)));
            }
        }
        let tokens = self.vocabulary.tokens().map(|t| to_gguf_token(&t)).collect();
        metadata.push(("tokenizer.ggml.tokens".into(), MetadataValue::Strings(tokens)));
        metadata
    }

    pub(super) fn from_gguf(file: &Gguf) -> Result<Self> {
        let key = "tokenizer.ggml.tokens";
        let array = file.array(key)?.ok_or_else(|| gguf::missing_key(key))?;
        let stored = array.strings()?;
        let token_types = match file.array("tokenizer.ggml.token_type")? {
            Some(token_types) => token_types.integers()?,
            None => vec![],
        };
        let is_control = |i: usize| token_types.get(i) == Some(&token_type::CONTROL);
        let special = stored.iter().enumerate().filter(|(i, t)| is_control(*i) || SPECIAL_TOKENS.contains(t));
        let special = special.map(|(i, t)| from_gguf_token(t, is_control(i))).collect();
        let start = array.data().as_ptr() as usize;
        let tokens = stored.iter().enumerate().map(|(i, token)| {
            let (text, position) = parse_gguf_token(token, is_control(i));
            let offset = text.as_ptr() as usize - start;
            (offset..offset + text.len(), position)
        });
        let normalizer = |name: &str| file.boolean(&format!("tokenizer.ggml.normalizer.{name}"));
        let option = |name: &str| file.boolean(&format!("tealight.tokenizer.{name}"));
        Ok(Self {
            special,
            vocabulary: Arc::new(WordPieceVocab::new(array.data().clone(), tokens)?),
            clean_text: option("clean_text")?.unwrap_or(true),
            chinese_chars: option("chinese_chars")?.unwrap_or(true),
            strip_accents: normalizer("strip_accents")?,
            lowercase: normalizer("lowercase")?.unwrap_or(true),
        })
    }
}

fn is_bracketed(token: &str) -> bool {
    token.starts_with('[') && token.ends_with(']')
}

fn to_gguf_token(token: &str) -> String {
    if is_bracketed(token) {
        return token.to_string();
    }
    match token.strip_prefix(CONTINUATION) {
        Some(rest) => rest.to_string(),
        None => format!("{WORD_START}{token}"),
    }
}

/// The text of a token in llama.cpp's notation, and its position in a word.
fn parse_gguf_token(token: &str, is_control: bool) -> (&str, WordPosition) {
    if is_control || is_bracketed(token) {
        return (token, WordPosition::Start);
    }
    match token.strip_prefix(WORD_START) {
        Some(rest) => (rest, WordPosition::Start),
        None => (token, WordPosition::Continuation),
    }
}

fn from_gguf_token(token: &str, is_control: bool) -> String {
    match parse_gguf_token(token, is_control) {
        (text, WordPosition::Start) => text.to_string(),
        (text, WordPosition::Continuation) => format!("{CONTINUATION}{text}"),
    }
}

/// The name of a special token without further rules about the text around it; `None` for any other.
fn plain_special_token(token: &Value) -> Option<String> {
    let is_plain =
        token["special"] == true && ["single_word", "lstrip", "rstrip", "normalized"].iter().all(|k| token[k] == false);
    if is_plain { token["content"].as_str().map(str::to_string) } else { None }
}

fn adds_cls_and_sep(post_processor: &Value) -> bool {
    if post_processor["type"] == "BertProcessing" {
        return post_processor["cls"][0] == "[CLS]" && post_processor["sep"][0] == "[SEP]";
    }
    let single = &post_processor["single"];
    post_processor["type"] == "TemplateProcessing"
        && single.as_array().is_some_and(|s| s.len() == 3)
        && single[0]["SpecialToken"]["id"] == "[CLS]"
        && single[1]["Sequence"]["id"] == "A"
        && single[2]["SpecialToken"]["id"] == "[SEP]"
}
