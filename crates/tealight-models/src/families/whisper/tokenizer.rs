//! What token ids stand for: bytes of text, languages, moments and commands.

use super::languages;
use crate::tokenizer::bytes::decode_byte_level;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;
use tealight_core::{Error, Result};

/// The ids with a meaning of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Special {
    /// `<|endoftext|>`.
    pub end: u32,
    /// `<|startoftranscript|>`.
    pub start: u32,
    /// `<|translate|>`.
    pub translate: u32,
    /// `<|transcribe|>`.
    pub transcribe: u32,
    /// `<|startoflm|>`.
    pub language_model: u32,
    /// `<|startofprev|>`.
    pub previous: u32,
    /// `<|nospeech|>`, of old `<|nocaptions|>`.
    pub no_speech: u32,
    /// `<|notimestamps|>`.
    pub no_timestamps: u32,
}

impl Special {
    /// `<|0.00|>`; each of the ids behind it is 0.02 s later.
    pub fn first_timestamp(&self) -> u32 {
        self.no_timestamps + 1
    }
}

/// All tokens of a model.
pub struct Vocabulary {
    bytes: Bytes,
    /// Where the bytes of each text token begin, and the end.
    starts: Vec<u32>,
    /// Commands.
    pub special: Special,
    /// Codes such as `en`, in the order of their ids.
    pub languages: Vec<String>,
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vocabulary of {} texts and {} languages", self.special.end, self.languages.len())
    }
}

/// Moments of a window, from 0.00 s to 30.00 s.
const MOMENTS: usize = 1501;
/// Text tokens of a multilingual model; an English one has one fewer.
const TEXTS: u32 = 50_257;
/// Ids of a multilingual model, or more.
const MULTILINGUAL_IDS: usize = 51_865;
/// Tokens that are neither text nor languages nor moments.
const COMMANDS: usize = 8;

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    model: Model<'a>,
    #[serde(borrow)]
    added_tokens: Vec<Added<'a>>,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(borrow)]
    vocab: HashMap<Cow<'a, str>, u32>,
}

#[derive(Deserialize)]
struct Added<'a> {
    id: u32,
    #[serde(borrow)]
    content: Cow<'a, str>,
}

impl Vocabulary {
    /// From the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// It is no such file, ids have gaps or are beyond `ids`, or a command is missing.
    pub fn from_json(json: &[u8], ids: usize) -> Result<Self> {
        let file: File = serde_json::from_slice(json)
            .map_err(|e| Error::invalid_model(format!("tokenizer.json cannot be read: {e}")))?;
        let added: HashMap<&str, u32> = file.added_tokens.iter().map(|a| (&*a.content, a.id)).collect();
        let find = |name: &str| {
            added.get(name).copied().ok_or_else(|| Error::invalid_model(format!("there is no token {name}")))
        };
        let special = Special {
            end: find("<|endoftext|>")?,
            start: find("<|startoftranscript|>")?,
            translate: find("<|translate|>")?,
            transcribe: find("<|transcribe|>")?,
            language_model: find("<|startoflm|>")?,
            previous: find("<|startofprev|>")?,
            no_speech: find("<|nospeech|>").or_else(|_| find("<|nocaptions|>"))?,
            no_timestamps: find("<|notimestamps|>")?,
        };
        let by_id: HashMap<u32, &str> = added.iter().map(|(name, id)| (*id, *name)).collect();
        let code = |id: u32| Some(by_id.get(&id)?.strip_prefix("<|")?.strip_suffix("|>")?.to_string());
        let languages = (special.start + 1..special.translate.min(special.transcribe)).map_while(code).collect();
        let mut tokens = vec![None; special.end as usize];
        for (token, id) in &file.model.vocab {
            if let Some(slot) = tokens.get_mut(*id as usize) {
                *slot = Some(decode_byte_level(token)?);
            }
        }
        let (mut bytes, mut starts) = (vec![], 0u32.to_le_bytes().to_vec());
        for (id, token) in tokens.into_iter().enumerate() {
            bytes.extend_from_slice(
                &token.ok_or_else(|| Error::invalid_model(format!("there is no token of id {id}")))?,
            );
            starts.extend((bytes.len() as u32).to_le_bytes());
        }
        Self::new(bytes.into(), &starts, special, languages, ids)
    }

    /// From the bytes of the text tokens in order, for a model of so many ids: commands stand where openai/whisper has them.
    ///
    /// # Errors
    /// There are fewer texts than such a model has, or fewer ids.
    pub(super) fn from_texts(texts: &[Bytes], ids: usize) -> Result<Self> {
        let is_multilingual = ids >= MULTILINGUAL_IDS;
        let end = if is_multilingual { TEXTS } else { TEXTS - 1 };
        let others = end as usize + COMMANDS + MOMENTS;
        let languages = ids.checked_sub(others).filter(|_| texts.len() >= end as usize);
        let languages = languages.ok_or_else(|| {
            Error::invalid_model(format!("{ids} ids and {} texts of them are not Whisper's", texts.len()))
        })?;
        let at = |place: u32| end + 1 + languages as u32 + place;
        let special = Special {
            end,
            start: end + 1,
            translate: at(1),
            transcribe: at(2),
            language_model: at(3),
            previous: at(4),
            no_speech: at(5),
            no_timestamps: at(6),
        };
        let texts = &texts[..end as usize];
        let begin = texts.iter().scan(0, |at, text| Some(std::mem::replace(at, *at + text.len() as u32)));
        let total = texts.iter().map(Bytes::len).sum::<usize>() as u32;
        let starts: Vec<u8> = begin.chain([total]).flat_map(u32::to_le_bytes).collect();
        Self::new(texts.concat().into(), &starts, special, languages::first(languages), ids)
    }

    /// From the bytes of all text tokens, and where each begins, as little-endian u32, and the end.
    pub(super) fn new(
        bytes: Bytes,
        starts: &[u8],
        special: Special,
        languages: Vec<String>,
        ids: usize,
    ) -> Result<Self> {
        let starts: Vec<u32> = starts.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        if starts.len() != special.end as usize + 1
            || !starts.is_sorted()
            || starts.last() != Some(&(bytes.len() as u32))
        {
            return Err(Error::invalid_model(format!(
                "{} bytes of tokens do not begin at {} places",
                bytes.len(),
                starts.len()
            )));
        }
        let Special { end, start, translate, transcribe, language_model, previous, no_speech, no_timestamps } = special;
        let commands = [end, start, translate, transcribe, language_model, previous, no_speech, no_timestamps];
        let last = special.no_timestamps as usize + MOMENTS;
        let spoken = special.start as usize + languages.len();
        if commands.iter().any(|id| *id as usize >= ids) || last >= ids || spoken >= ids {
            return Err(Error::invalid_model(format!(
                "commands, languages or moments are beyond the {ids} ids of the model"
            )));
        }
        Ok(Self { bytes, starts, special, languages })
    }

    /// What [`Vocabulary::new`] takes: bytes and places.
    pub(super) fn parts(&self) -> (Bytes, Bytes) {
        (self.bytes.clone(), self.starts.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<_>>().into())
    }

    /// The bytes of a text token; none for any other.
    pub fn bytes(&self, id: u32) -> &[u8] {
        match self.starts.get(id as usize..id as usize + 2) {
            Some([start, end]) => &self.bytes[*start as usize..*end as usize],
            _ => &[],
        }
    }

    /// The text of ids: those that are no text are left out, bytes that are no UTF-8 become U+FFFD.
    pub fn text(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| self.bytes(*id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The token of exactly these bytes.
    pub fn id(&self, bytes: &[u8]) -> Option<u32> {
        (0..self.special.end).find(|id| self.bytes(*id) == bytes)
    }

    /// Whether the model knows more than English.
    pub fn is_multilingual(&self) -> bool {
        // English models have one text token fewer, so that all commands stand one lower.
        self.special.end == TEXTS
    }

    /// The id of a language.
    pub fn language(&self, code: &str) -> Option<u32> {
        let index = self.languages.iter().position(|l| l == code)?;
        Some(self.special.start + 1 + index as u32)
    }
}
