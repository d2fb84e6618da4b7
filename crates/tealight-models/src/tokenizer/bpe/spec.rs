//! The description of a BPE tokenizer in GGUF's terms, read from a GGUF file or llama2.c's `tokenizer.bin`.

use super::piece::SPACE;
use super::pretokenizer::Pretokenizer;
use crate::formats::gguf::{self, Gguf, token_type};
use crate::formats::llama2c::TokenizerBin;
use crate::tokenizer::error::build_error;
use ahash::AHashMap;
use tealight_core::{Error, Result};
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, Tokenizer};

/// The key of the pre-tokenizer's name.
const PRETOKENIZER_KEY: &str = "tokenizer.ggml.pre";

/// The description of a BPE tokenizer.
#[derive(Debug)]
pub struct BpeSpec<'a> {
    /// How tokens are merged.
    pub model: BpeModel<'a>,
    /// The text of each token, in the notation of `model`.
    pub tokens: Vec<&'a str>,
    /// GGUF's type of each token; [`token_type::NORMAL`] if the list is shorter.
    pub token_types: Vec<i64>,
    /// The token that starts a text.
    pub bos: Option<u32>,
    /// Tokens that end the generation (EOG), the end of a text first.
    pub eog_ids: Vec<u32>,
    /// Whether `bos` is added before a text.
    pub add_bos: bool,
    /// Whether the end of a text is added after a text that is embedded.
    pub add_eos: bool,
    /// The chat template, in Jinja.
    pub chat_template: Option<String>,
}

/// A kind of byte pair encoding.
#[derive(Debug)]
pub enum BpeModel<'a> {
    /// GPT-2's: an ordered list of merges, after a pre-tokenizer has split the text.
    ByteLevel {
        /// Pairs of tokens, separated by a space.
        merges: Vec<&'a str>,
        /// How text is split into words.
        pretokenizer: Pretokenizer,
    },
    /// SentencePiece's: if two merges are possible, the one with the higher score comes first; text without a token becomes bytes.
    SentencePiece {
        /// The score of each token.
        scores: Vec<f32>,
        /// Whether a space is added before a text.
        add_space_prefix: bool,
    },
}

impl<'a> BpeSpec<'a> {
    /// Reads GGUF metadata.
    ///
    /// # Errors
    /// A key is missing, or names a tokenizer or a pre-tokenizer that is not supported.
    pub fn from_gguf(file: &'a Gguf) -> Result<Self> {
        let key = "tokenizer.ggml.model";
        let model = file.string(key)?.ok_or_else(|| gguf::missing_key(key))?;
        let array = |key: &str| file.array(key)?.ok_or_else(|| gguf::missing_key(key));
        let tokens = array("tokenizer.ggml.tokens")?.strings()?;
        let token_types =
            file.array("tokenizer.ggml.token_type")?.map_or_else(|| Ok(vec![]), |types| types.integers())?;
        let (model, add_bos) = match model {
            "gpt2" => {
                let name = file.string(PRETOKENIZER_KEY)?.ok_or_else(|| gguf::missing_key(PRETOKENIZER_KEY))?;
                let pretokenizer = Pretokenizer::from_name(name).ok_or_else(|| {
                    Error::invalid_model(format!(
                        "GGUF key {PRETOKENIZER_KEY:?} is {name:?}, a pre-tokenizer that is not supported"
                    ))
                })?;
                let merges = array("tokenizer.ggml.merges")?.strings()?;
                (BpeModel::ByteLevel { merges, pretokenizer }, pretokenizer.add_bos)
            }
            "llama" => {
                let scores = array("tokenizer.ggml.scores")?.floats()?;
                let add_space_prefix = file.boolean("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
                (BpeModel::SentencePiece { scores, add_space_prefix }, true)
            }
            other => {
                return Err(Error::invalid_model(format!(
                    "GGUF key {key:?} is {other:?}; expected \"gpt2\" or \"llama\""
                )));
            }
        };
        let id =
            |name: &str| Ok::<_, Error>(file.integer(&format!("tokenizer.ggml.{name}_token_id"))?.map(|id| id as u32));
        let mut eog_ids = vec![];
        for name in ["eos", "eot", "eom"] {
            eog_ids.extend(id(name)?);
        }
        Ok(Self {
            bos: id("bos")?.filter(|id| (*id as usize) < tokens.len()),
            model,
            tokens,
            token_types,
            eog_ids,
            add_bos: file.boolean("tokenizer.ggml.add_bos_token")?.unwrap_or(add_bos),
            add_eos: file.boolean("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
            chat_template: file.string("tokenizer.chat_template")?.map(String::from),
        })
    }

    /// llama2.c's tokenizer.
    pub fn from_llama2c(file: &'a TokenizerBin) -> Self {
        Self {
            model: BpeModel::SentencePiece { scores: file.scores.clone(), add_space_prefix: true },
            tokens: file.tokens.iter().map(String::as_str).collect(),
            token_types: file.token_types.iter().map(|t| *t as i64).collect(),
            bos: Some(TokenizerBin::BOS).filter(|id| (*id as usize) < file.tokens.len()),
            eog_ids: vec![TokenizerBin::EOS],
            add_bos: true,
            add_eos: false,
            chat_template: None,
        }
    }

    pub(super) fn has_type(&self, id: usize, token_type: i64) -> bool {
        self.token_types.get(id) == Some(&token_type)
    }

    /// Builds the tokenizer without the special tokens around a text.
    ///
    /// # Errors
    /// Merges or scores do not fit the tokens.
    pub(super) fn build(&self) -> Result<Tokenizer> {
        let mut tokenizer = match &self.model {
            BpeModel::ByteLevel { merges, pretokenizer } => self.byte_level_bpe(merges, *pretokenizer)?,
            BpeModel::SentencePiece { scores, add_space_prefix } => self.spm_bpe(scores, *add_space_prefix)?,
        };
        let tokens_of_type = |token_type: i64, special: bool| {
            let tokens = self.tokens.iter().enumerate().filter(move |(id, _)| self.has_type(*id, token_type));
            tokens.map(move |(_, t)| AddedToken::from(t.to_string(), special).normalized(false))
        };
        tokenizer.add_special_tokens(tokens_of_type(token_type::CONTROL, true)).map_err(build_error)?;
        tokenizer.add_tokens(tokens_of_type(token_type::USER_DEFINED, false)).map_err(build_error)?;
        Ok(tokenizer)
    }

    fn vocabulary(&self) -> AHashMap<String, u32> {
        self.tokens.iter().enumerate().map(|(id, token)| (token.to_string(), id as u32)).collect()
    }

    fn byte_level_bpe(&self, merges: &[&str], pretokenizer: Pretokenizer) -> Result<Tokenizer> {
        let pair = |merge: &&str| {
            let (left, right) = merge
                .split_once(' ')
                .ok_or_else(|| Error::invalid_model(format!("the merge {merge:?} is not a pair of tokens")))?;
            Ok((left.to_string(), right.to_string()))
        };
        let merges = merges.iter().map(pair).collect::<Result<Vec<_>>>()?;
        let model = BPE::builder()
            .vocab_and_merges(self.vocabulary(), merges)
            .ignore_merges(pretokenizer.ignore_merges)
            .build()
            .map_err(build_error)?;
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_pre_tokenizer(Some(pretokenizer.build()?)).with_decoder(Some(ByteLevel::default()));
        Ok(tokenizer)
    }

    /// SentencePiece's BPE as a list of merges, sorted by score.
    fn spm_bpe(&self, scores: &[f32], add_space_prefix: bool) -> Result<Tokenizer> {
        if scores.len() != self.tokens.len() {
            return Err(Error::invalid_model(format!(
                "the tokenizer has {} tokens and {} scores; expected equal numbers",
                self.tokens.len(),
                scores.len()
            )));
        }
        let vocabulary = self.vocabulary();
        let mut merges: Vec<(f32, &str, &str)> = vec![];
        for (token, score) in self.tokens.iter().zip(scores) {
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if vocabulary.contains_key(left) && vocabulary.contains_key(right) {
                    merges.push((*score, left, right));
                }
            }
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0));
        let merges = merges.into_iter().map(|(_, left, right)| (left.to_string(), right.to_string())).collect();
        let mut builder = BPE::builder().vocab_and_merges(vocabulary, merges).byte_fallback(true).fuse_unk(true);
        let mut unknown = self.tokens.iter().enumerate().filter(|(id, _)| self.has_type(*id, token_type::UNKNOWN));
        if let Some((_, unknown)) = unknown.next() {
            builder = builder.unk_token(unknown.to_string());
        }
        let mut tokenizer = Tokenizer::new(builder.build().map_err(build_error)?);
        let mut normalizers: Vec<NormalizerWrapper> = vec![];
        if add_space_prefix {
            normalizers.push(Prepend::new(SPACE.to_string()).into());
        }
        normalizers.push(Replace::new(" ", SPACE.to_string()).map_err(build_error)?.into());
        tokenizer.with_normalizer(Some(Normalizers::new(normalizers))).map_err(build_error)?;
        let mut decoders: Vec<DecoderWrapper> = vec![
            Replace::new(SPACE.to_string(), " ").map_err(build_error)?.into(),
            ByteFallback::default().into(),
            Fuse::default().into(),
        ];
        if add_space_prefix {
            decoders.push(Strip::new(' ', 1, 0).into());
        }
        tokenizer.with_decoder(Some(Decoders::new(decoders)));
        Ok(tokenizer)
    }
}
