//! The tokenizer of a text-generation model: text to token ids, ids to bytes, and the special tokens that its file describes.

use super::piece::decode_piece;
use super::spec::{BpeModel, BpeSpec};
use crate::formats::gguf::{Gguf, token_type};
use crate::formats::json::read_json;
use crate::tokenizer::bytes::decode_byte_level;
use crate::tokenizer::encode::EmbeddingTokenizer;
use crate::tokenizer::error::build_error;
use ahash::AHashMap;
use serde_json::Value;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Arc;
use tealight_core::{Error, Result};
use tokenizers::Tokenizer;

/// Names of tokens that end the generation (EOG, llama.cpp's end of generation), in addition to those that a file declares.
const EOG_TOKENS: [&str; 8] =
    ["<|eot_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>", "<|eom_id|>", "</s>"];

/// Text to token ids and back.
pub struct LlamaTokenizer {
    tokenizer: Arc<Tokenizer>,
    vocabulary: TokenBytes,
    /// The token that starts a text.
    pub bos: Option<u32>,
    /// Tokens that end the generation: the file's own first, then those of well-known names.
    pub eog_ids: Vec<u32>,
    /// Added before a prompt that is not a chat.
    pub prefix: Vec<u32>,
    /// Added after a text that is embedded.
    pub suffix: Vec<u32>,
    /// The chat template, in Jinja.
    pub chat_template: Option<String>,
}

impl std::fmt::Debug for LlamaTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LlamaTokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

/// The bytes of all tokens, one after another.
struct TokenBytes {
    bytes: Vec<u8>,
    /// `[tokens + 1]`: where the bytes of each token start, and where the last ones end.
    offsets: Vec<usize>,
    /// Names of special tokens, which have no bytes.
    special: AHashMap<u32, String>,
}

impl TokenBytes {
    /// `decode` returns the bytes of a token, or `None` for a special token.
    fn new<'a>(
        tokens: impl Iterator<Item = (usize, &'a str)>,
        count: usize,
        decode: impl Fn(usize, &str) -> Option<Vec<u8>>,
    ) -> Self {
        let (mut all, mut special) = (vec![vec![]; count], AHashMap::new());
        for (id, token) in tokens {
            match decode(id, token) {
                Some(bytes) => all[id] = bytes,
                None => drop(special.insert(id as u32, token.to_string())),
            }
        }
        let mut offsets = vec![0];
        offsets.extend(all.iter().scan(0, |end, bytes| {
            *end += bytes.len();
            Some(*end)
        }));
        Self { bytes: all.concat(), offsets, special }
    }

    /// Appends the special tokens whose names say that they end the generation, and removes duplicates.
    fn with_eog_by_name(&self, mut eog_ids: Vec<u32>) -> Vec<u32> {
        let is_eog = |name: &String| EOG_TOKENS.contains(&name.as_str());
        let mut by_name: Vec<u32> = self.special.iter().filter(|(_, name)| is_eog(name)).map(|(id, _)| *id).collect();
        by_name.sort_unstable();
        eog_ids.extend(by_name);
        let mut seen = vec![];
        eog_ids.retain(|id| !seen.contains(id) && (seen.push(*id), true).1);
        eog_ids
    }
}

impl LlamaTokenizer {
    /// Reads GGUF metadata.
    ///
    /// # Errors
    /// As for [`BpeSpec::from_gguf`] and [`LlamaTokenizer::from_spec`].
    pub fn from_gguf(file: &Gguf) -> Result<Self> {
        Self::from_spec(&BpeSpec::from_gguf(file)?)
    }

    /// Builds the tokenizer of a description.
    ///
    /// # Errors
    /// Merges or scores do not fit the tokens.
    pub fn from_spec(spec: &BpeSpec) -> Result<Self> {
        let tokenizer = spec.build()?;
        let is_sentencepiece = matches!(spec.model, BpeModel::SentencePiece { .. });
        let decode = |id: usize, token: &str| {
            let has_type = |token_type| spec.has_type(id, token_type);
            if has_type(token_type::CONTROL) || has_type(token_type::UNKNOWN) || has_type(token_type::UNUSED) {
                None
            } else if has_type(token_type::USER_DEFINED) && !is_sentencepiece {
                Some(token.as_bytes().to_vec())
            } else if is_sentencepiece {
                Some(decode_piece(token))
            } else {
                // Some models have added tokens that are not byte-level.
                Some(decode_byte_level(token).unwrap_or_else(|_| token.into()))
            }
        };
        let vocabulary = TokenBytes::new(spec.tokens.iter().copied().enumerate(), spec.tokens.len(), decode);
        let eog_ids = vocabulary.with_eog_by_name(spec.eog_ids.clone());
        Ok(Self {
            tokenizer: Arc::new(tokenizer),
            bos: spec.bos,
            prefix: spec.bos.filter(|_| spec.add_bos).into_iter().collect(),
            suffix: eog_ids.first().copied().filter(|_| spec.add_eos).into_iter().collect(),
            eog_ids,
            vocabulary,
            chat_template: spec.chat_template.clone(),
        })
    }

    /// Reads a Hugging Face model folder: `tokenizer.json`, `tokenizer_config.json`, `generation_config.json` and
    /// `chat_template.jinja`.
    ///
    /// # Errors
    /// `tokenizer.json` is missing or invalid.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let text = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        let config = read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let generation = read_json(&folder.join("generation_config.json"))?.unwrap_or_default();
        let template = std::fs::read_to_string(folder.join("chat_template.jinja")).ok();
        Self::from_json(&text, &config, &generation, template)
    }

    /// As [`LlamaTokenizer::from_folder`], from the contents of the files.
    ///
    /// # Errors
    /// `tokenizer.json` is invalid.
    pub fn from_json(text: &[u8], config: &Value, generation: &Value, template: Option<String>) -> Result<Self> {
        let json: Value = serde_json::from_slice(text)
            .map_err(|e| Error::invalid_model(format!("tokenizer.json is not JSON: {e}")))?;
        // The tokenizers crate panics on some JSON that is not a tokenizer.
        let parsed = catch_unwind(|| Tokenizer::from_bytes(text));
        let mut tokenizer =
            parsed.unwrap_or_else(|_| Err("tokenizer.json does not describe one".into())).map_err(build_error)?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(build_error)?;
        let (prefix, suffix) = added_around(&tokenizer)?;

        let is_byte_level = json["decoder"].to_string().contains("ByteLevel");
        let ids = tokenizer.get_vocab(true);
        let count = ids.values().max().map_or(0, |id| *id as usize + 1);
        let added = tokenizer.get_added_tokens_decoder().clone();
        let decode = |id: usize, token: &str| match added.get(&(id as u32)) {
            Some(added) if added.special => None,
            Some(_) => Some(token.as_bytes().to_vec()),
            None if is_byte_level => Some(decode_byte_level(token).unwrap_or_else(|_| token.into())),
            None => Some(decode_piece(token)),
        };
        let vocabulary = TokenBytes::new(ids.iter().map(|(token, id)| (*id as usize, token.as_str())), count, decode);

        let special = |key: &str| {
            let value = &config[key];
            let name = value.as_str().or_else(|| value["content"].as_str())?;
            ids.get(name).copied()
        };
        let eos = &generation["eos_token_id"];
        let eos = eos.as_array().map_or_else(|| vec![eos.clone()], Clone::clone);
        let mut eog_ids: Vec<u32> = eos.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect();
        eog_ids.extend(special("eos_token"));
        Ok(Self {
            bos: special("bos_token"),
            eog_ids: vocabulary.with_eog_by_name(eog_ids),
            tokenizer: Arc::new(tokenizer),
            vocabulary,
            prefix,
            suffix,
            chat_template: template.or_else(|| stored_template(&config["chat_template"])),
        })
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.offsets.len() - 1
    }

    /// Token ids of a text, without a prefix; names of special tokens in the text become those tokens.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer.encode_fast(text, false).map_err(build_error)?.get_ids().to_vec())
    }

    /// The same tokenizer for texts that are embedded.
    pub(crate) fn for_embedding(&self) -> EmbeddingTokenizer {
        EmbeddingTokenizer::with_special_tokens(self.tokenizer.clone(), self.prefix.clone(), self.suffix.clone())
    }

    /// The bytes of a token; empty for special tokens.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        match self.vocabulary.offsets.get(id as usize..id as usize + 2) {
            Some([start, end]) => &self.vocabulary.bytes[*start..*end],
            _ => &[],
        }
    }

    /// The name of a special token; `None` for other tokens.
    pub fn special_token(&self, id: u32) -> Option<&str> {
        self.vocabulary.special.get(&id).map(String::as_str)
    }

    /// Whether a token ends the generation.
    pub fn is_eog(&self, id: u32) -> bool {
        self.eog_ids.contains(&id)
    }
}

/// The special tokens that a tokenizer adds before and after a text.
fn added_around(tokenizer: &Tokenizer) -> Result<(Vec<u32>, Vec<u32>)> {
    let without_special = tokenizer.encode("a", false).map_err(build_error)?;
    let with_special = tokenizer.encode("a", true).map_err(build_error)?;
    let (without_special, with_special) = (without_special.get_ids(), with_special.get_ids());
    let start = with_special.windows(without_special.len().max(1)).position(|w| w == without_special);
    Ok(start.map_or((vec![], vec![]), |start| {
        (with_special[..start].to_vec(), with_special[start + without_special.len()..].to_vec())
    }))
}

/// `chat_template` of `tokenizer_config.json`: a template, or a list of which the one named `default` is used.
fn stored_template(value: &Value) -> Option<String> {
    let default = || value.as_array()?.iter().find(|t| t["name"] == "default")?["template"].as_str();
    value.as_str().or_else(default).map(String::from)
}
