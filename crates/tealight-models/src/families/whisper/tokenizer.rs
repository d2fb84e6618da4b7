//! Tokens: the bytes of text tokens, and the ids of special, language and timestamp tokens.

use super::languages;
use crate::tokenizer::bytes::decode_byte_level;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;
use tealight_core::{Error, Result};

/// Ids of special tokens, by the names of openai/whisper's tokenizer. The serialized names are those of packed files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecialTokens {
    /// `<|endoftext|>`. Text tokens have lower ids.
    #[serde(rename = "end")]
    pub eot: u32,
    /// `<|startoftranscript|>`. Language tokens follow it.
    #[serde(rename = "start")]
    pub sot: u32,
    /// `<|translate|>`.
    pub translate: u32,
    /// `<|transcribe|>`.
    pub transcribe: u32,
    /// `<|startoflm|>`.
    #[serde(rename = "language_model")]
    pub sot_lm: u32,
    /// `<|startofprev|>`.
    #[serde(rename = "previous")]
    pub sot_prev: u32,
    /// `<|nospeech|>`, in older files `<|nocaptions|>`.
    pub no_speech: u32,
    /// `<|notimestamps|>`. Timestamp tokens follow it.
    pub no_timestamps: u32,
}

impl SpecialTokens {
    /// `<|0.00|>`; each following id is 0.02 s later.
    pub fn timestamp_begin(&self) -> u32 {
        self.no_timestamps + 1
    }
}

/// All tokens of a model.
pub struct WhisperTokenizer {
    bytes: Bytes,
    /// Start of each text token in `bytes`, and the end of the last one.
    offsets: Vec<u32>,
    /// Ids of special tokens.
    pub special: SpecialTokens,
    /// Language codes such as `en`, in the order of their token ids.
    pub languages: Vec<String>,
}

impl std::fmt::Debug for WhisperTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WhisperTokenizer of {} text tokens and {} languages", self.special.eot, self.languages.len())
    }
}

/// From 0.00 s to 30.00 s, in steps of 0.02 s.
const TIMESTAMP_TOKENS: usize = 1501;
/// Text tokens of a multilingual model; an English-only model has one less.
const MULTILINGUAL_TEXT_TOKENS: u32 = 50_257;
/// Minimum vocabulary size of a multilingual model.
const MULTILINGUAL_VOCAB_SIZE: usize = 51_865;
/// Number of fields of [`SpecialTokens`].
const SPECIAL_TOKENS: usize = 8;

#[derive(Deserialize)]
struct TokenizerJson<'a> {
    #[serde(borrow)]
    model: ModelJson<'a>,
    #[serde(borrow)]
    added_tokens: Vec<AddedTokenJson<'a>>,
}

#[derive(Deserialize)]
struct ModelJson<'a> {
    #[serde(borrow)]
    vocab: HashMap<Cow<'a, str>, u32>,
}

#[derive(Deserialize)]
struct AddedTokenJson<'a> {
    id: u32,
    #[serde(borrow)]
    content: Cow<'a, str>,
}

impl WhisperTokenizer {
    /// Reads the content of `tokenizer.json`.
    ///
    /// # Errors
    /// The content is not a tokenizer, a text or special token is missing, or an id is not less than `vocab_size`.
    pub fn from_json(json: &[u8], vocab_size: usize) -> Result<Self> {
        let json: TokenizerJson = serde_json::from_slice(json)
            .map_err(|e| Error::invalid_model(format!("cannot parse tokenizer.json: {e}")))?;
        let added: HashMap<&str, u32> = json.added_tokens.iter().map(|a| (&*a.content, a.id)).collect();
        let find = |name: &str| {
            added.get(name).copied().ok_or_else(|| Error::invalid_model(format!("the tokenizer has no token {name}")))
        };
        let special = SpecialTokens {
            eot: find("<|endoftext|>")?,
            sot: find("<|startoftranscript|>")?,
            translate: find("<|translate|>")?,
            transcribe: find("<|transcribe|>")?,
            sot_lm: find("<|startoflm|>")?,
            sot_prev: find("<|startofprev|>")?,
            no_speech: find("<|nospeech|>").or_else(|_| find("<|nocaptions|>"))?,
            no_timestamps: find("<|notimestamps|>")?,
        };
        let by_id: HashMap<u32, &str> = added.iter().map(|(name, id)| (*id, *name)).collect();
        let code = |id: u32| Some(by_id.get(&id)?.strip_prefix("<|")?.strip_suffix("|>")?.to_string());
        let languages = (special.sot + 1..special.translate.min(special.transcribe)).map_while(code).collect();
        let mut tokens = vec![None; special.eot as usize];
        for (token, id) in &json.model.vocab {
            if let Some(slot) = tokens.get_mut(*id as usize) {
                *slot = Some(decode_byte_level(token)?);
            }
        }
        let (mut bytes, mut offsets) = (vec![], 0u32.to_le_bytes().to_vec());
        for (id, token) in tokens.into_iter().enumerate() {
            let token =
                token.ok_or_else(|| Error::invalid_model(format!("the tokenizer has no token with id {id}")))?;
            bytes.extend_from_slice(&token);
            offsets.extend((bytes.len() as u32).to_le_bytes());
        }
        Self::new(bytes.into(), &offsets, special, languages, vocab_size)
    }

    /// Builds a tokenizer from the bytes of text tokens in order of their ids; special tokens have the ids that openai/whisper
    /// gives them.
    ///
    /// # Errors
    /// There are too few text tokens, or `vocab_size` is too small for special and timestamp tokens.
    pub(super) fn from_text_tokens(tokens: &[Bytes], vocab_size: usize) -> Result<Self> {
        let is_multilingual = vocab_size >= MULTILINGUAL_VOCAB_SIZE;
        let eot = if is_multilingual { MULTILINGUAL_TEXT_TOKENS } else { MULTILINGUAL_TEXT_TOKENS - 1 };
        let without_languages = eot as usize + SPECIAL_TOKENS + TIMESTAMP_TOKENS;
        let languages = vocab_size.checked_sub(without_languages).filter(|_| tokens.len() >= eot as usize);
        let languages = languages.ok_or_else(|| {
            Error::invalid_model(format!(
                "the vocabulary has {vocab_size} ids and {} text tokens; expected at least {without_languages} and {eot}",
                tokens.len()
            ))
        })?;
        let after_languages = |index: u32| eot + 1 + languages as u32 + index;
        let special = SpecialTokens {
            eot,
            sot: eot + 1,
            translate: after_languages(1),
            transcribe: after_languages(2),
            sot_lm: after_languages(3),
            sot_prev: after_languages(4),
            no_speech: after_languages(5),
            no_timestamps: after_languages(6),
        };
        let tokens = &tokens[..eot as usize];
        let starts =
            tokens.iter().scan(0, |offset, token| Some(std::mem::replace(offset, *offset + token.len() as u32)));
        let total = tokens.iter().map(Bytes::len).sum::<usize>() as u32;
        let offsets: Vec<u8> = starts.chain([total]).flat_map(u32::to_le_bytes).collect();
        Self::new(tokens.concat().into(), &offsets, special, languages::first_codes(languages), vocab_size)
    }

    /// Builds a tokenizer from the concatenated bytes of all text tokens. `offsets` are the start of each and the end of the last,
    /// as little-endian u32.
    pub(super) fn new(
        bytes: Bytes,
        offsets: &[u8],
        special: SpecialTokens,
        languages: Vec<String>,
        vocab_size: usize,
    ) -> Result<Self> {
        let offsets: Vec<u32> = offsets.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        if offsets.len() != special.eot as usize + 1
            || !offsets.is_sorted()
            || offsets.last() != Some(&(bytes.len() as u32))
        {
            return Err(Error::invalid_model(format!(
                "token offsets are invalid: {} offsets for {} tokens of {} bytes",
                offsets.len(),
                special.eot,
                bytes.len()
            )));
        }
        let SpecialTokens { eot, sot, translate, transcribe, sot_lm, sot_prev, no_speech, no_timestamps } = special;
        let ids = [eot, sot, translate, transcribe, sot_lm, sot_prev, no_speech, no_timestamps];
        let last_timestamp = no_timestamps as usize + TIMESTAMP_TOKENS;
        let last_language = sot as usize + languages.len();
        if ids.iter().any(|id| *id as usize >= vocab_size)
            || last_timestamp >= vocab_size
            || last_language >= vocab_size
        {
            return Err(Error::invalid_model(format!(
                "special, language or timestamp tokens exceed the vocabulary of {vocab_size} tokens"
            )));
        }
        Ok(Self { bytes, offsets, special, languages })
    }

    /// The first two arguments of [`WhisperTokenizer::new`].
    pub(super) fn to_bytes_and_offsets(&self) -> (Bytes, Bytes) {
        (self.bytes.clone(), self.offsets.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<_>>().into())
    }

    /// The bytes of a text token; empty for other tokens.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        match self.offsets.get(id as usize..id as usize + 2) {
            Some([start, end]) => &self.bytes[*start as usize..*end as usize],
            _ => &[],
        }
    }

    /// The text of tokens. Skips tokens other than text, and replaces invalid UTF-8 by U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| self.token_bytes(*id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The text token with exactly these bytes.
    pub fn token_id(&self, bytes: &[u8]) -> Option<u32> {
        (0..self.special.eot).find(|id| self.token_bytes(*id) == bytes)
    }

    /// False for English-only models, which have no language tokens.
    pub fn is_multilingual(&self) -> bool {
        self.special.eot == MULTILINGUAL_TEXT_TOKENS
    }

    /// The token of a language code.
    pub fn language_token(&self, code: &str) -> Option<u32> {
        let index = self.languages.iter().position(|l| l == code)?;
        Some(self.special.sot + 1 + index as u32)
    }
}
