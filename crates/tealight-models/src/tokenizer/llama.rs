//! Text to tokens and back, and what a model's file says of both.

use super::Tokenizer as Around;
use super::bytes::{SPACE, of_alphabet, of_piece};
use super::pretokenizer::Cuts;
use crate::formats::gguf::{self, Gguf};
use crate::tasks::embed::pipeline::json;
use ahash::AHashMap;
use serde_json::Value;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Arc;
use tealight_core::{Error, Result};
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, NormalizerWrapper, Tokenizer};

/// GGUF's kinds of tokens.
mod kind {
    pub const UNKNOWN: i64 = 2;
    pub const CONTROL: i64 = 3;
    pub const USER: i64 = 4;
    pub const UNUSED: i64 = 5;
}

/// The key of the way of cutting text.
const PRE: &str = "tokenizer.ggml.pre";
/// Control tokens of these names end a turn, whatever else a file says.
const ENDS: [&str; 8] =
    ["<|eot_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>", "<|eom_id|>", "</s>"];

/// The way from text to tokens and back.
pub struct Tokens {
    tokenizer: Arc<Tokenizer>,
    /// The bytes of all tokens, and where each begins, and the end.
    bytes: Vec<u8>,
    starts: Vec<usize>,
    /// Names of tokens that have no text.
    names: AHashMap<u32, String>,
    /// What begins a text.
    pub bos: Option<u32>,
    /// What ends one, first the file's own.
    pub ends: Vec<u32>,
    /// What a text that is no chat begins with.
    pub prefix: Vec<u32>,
    /// What a text ends with that is read for its vector.
    pub suffix: Vec<u32>,
    /// The chat template, in Jinja.
    pub template: Option<String>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens, {} of them", self.len())
    }
}

impl Tokens {
    /// From the metadata of a GGUF file.
    ///
    /// # Errors
    /// Keys are missing, or name a way of cutting text that is not known here.
    pub fn from_gguf(file: &Gguf) -> Result<Self> {
        let key = "tokenizer.ggml.model";
        let model = file.string(key)?.ok_or_else(|| gguf::missing(key))?;
        let strings = |key: &str| {
            let array = file.array(key)?.ok_or_else(|| gguf::missing(key))?;
            array.strings()
        };
        let tokens = strings("tokenizer.ggml.tokens")?;
        let kinds = file.array("tokenizer.ggml.token_type")?.map_or_else(|| Ok(vec![]), |kinds| kinds.integers())?;
        let is = |id: usize, kind: i64| kinds.get(id) == Some(&kind);
        let vocabulary = vocabulary(&tokens);
        let is_pieces = model == "llama";
        let (mut tokenizer, begins) = match model {
            "gpt2" => {
                let cuts = cuts(file.string(PRE)?)?;
                (bytes_joined(vocabulary, &strings("tokenizer.ggml.merges")?, cuts)?, cuts.begins)
            }
            "llama" => {
                let scores =
                    file.array("tokenizer.ggml.scores")?.ok_or_else(|| gguf::missing("tokenizer.ggml.scores"))?;
                let space = file.boolean("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
                let unknown = tokens.iter().enumerate().find(|(id, _)| is(*id, kind::UNKNOWN));
                (pieces_joined(vocabulary, &tokens, &scores.floats()?, space, unknown)?, true)
            }
            other => {
                return Err(Error::invalid_model(format!(
                    "GGUF key {key:?} is {other:?}; \"gpt2\" and \"llama\" are read"
                )));
            }
        };
        let special = tokens.iter().enumerate().filter(|(id, _)| is(*id, kind::CONTROL));
        tokenizer.add_special_tokens(special.map(|(_, t)| added(t, true))).map_err(failed)?;
        let user = tokens.iter().enumerate().filter(|(id, _)| is(*id, kind::USER));
        tokenizer.add_tokens(user.map(|(_, t)| added(t, false))).map_err(failed)?;

        let spelled = |id: usize, token: &str| match () {
            () if is(id, kind::CONTROL) || is(id, kind::UNKNOWN) || is(id, kind::UNUSED) => None,
            () if is(id, kind::USER) && !is_pieces => Some(token.as_bytes().to_vec()),
            () if is_pieces => Some(of_piece(token)),
            // Some makers add tokens that are no letters of the alphabet of bytes.
            () => Some(of_alphabet(token).unwrap_or_else(|_| token.into())),
        };
        let id =
            |key: &str| Ok::<_, Error>(file.integer(&format!("tokenizer.ggml.{key}_token_id"))?.map(|id| id as u32));
        let bos = id("bos")?.filter(|id| (*id as usize) < tokens.len());
        let mut this = Self::new(tokenizer, tokens.iter().copied().enumerate(), tokens.len(), spelled);
        this.bos = bos;
        for key in ["eos", "eot", "eom"] {
            this.ends.extend(id(key)?);
        }
        this.end_by_name();
        let adds = file.boolean("tokenizer.ggml.add_bos_token")?.unwrap_or(begins);
        this.prefix = bos.filter(|_| adds).into_iter().collect();
        let adds = file.boolean("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
        this.suffix = this.ends.first().copied().filter(|_| adds).into_iter().collect();
        this.template = file.string("tokenizer.chat_template")?.map(String::from);
        Ok(this)
    }

    /// From a folder of Hugging Face's: `tokenizer.json`, and what stands in `tokenizer_config.json` and `generation_config.json`.
    ///
    /// # Errors
    /// `tokenizer.json` is missing or no tokenizer.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let text = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        let config = json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let generation = json(&folder.join("generation_config.json"))?.unwrap_or_default();
        let template = std::fs::read_to_string(folder.join("chat_template.jinja")).ok();
        Self::from_json(&text, &config, &generation, template)
    }

    /// The same from the texts of these files.
    ///
    /// # Errors
    /// As of [`Tokens::from_folder`].
    pub fn from_json(text: &[u8], config: &Value, generation: &Value, template: Option<String>) -> Result<Self> {
        let about: Value = serde_json::from_slice(text)
            .map_err(|e| Error::invalid_model(format!("tokenizer.json is not JSON: {e}")))?;
        // Of what is JSON and no tokenizer it may panic.
        let read = catch_unwind(|| Tokenizer::from_bytes(text));
        let mut tokenizer = read.unwrap_or_else(|_| Err("it is none".into())).map_err(failed)?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(failed)?;
        let is_alphabet = about["decoder"].to_string().contains("ByteLevel");
        let vocabulary = tokenizer.get_vocab(true);
        let count = vocabulary.values().max().map_or(0, |id| *id as usize + 1);
        let added = tokenizer.get_added_tokens_decoder().clone();
        let spelled = |id: usize, token: &str| match added.get(&(id as u32)) {
            Some(added) if added.special => None,
            Some(_) => Some(token.as_bytes().to_vec()),
            None if is_alphabet => Some(of_alphabet(token).unwrap_or_else(|_| token.into())),
            None => Some(of_piece(token)),
        };
        let bare = tokenizer.encode("a", false).map_err(failed)?;
        let full = tokenizer.encode("a", true).map_err(failed)?;
        let (bare, full) = (bare.get_ids(), full.get_ids());
        let at = full.windows(bare.len().max(1)).position(|w| w == bare);
        let (prefix, suffix) = at.map_or((&[][..], &[][..]), |at| (&full[..at], &full[at + bare.len()..]));
        let (prefix, suffix) = (prefix.to_vec(), suffix.to_vec());
        let tokens: Vec<(usize, &str)> = vocabulary.iter().map(|(token, id)| (*id as usize, token.as_str())).collect();
        let mut this = Self::new(tokenizer, tokens.into_iter(), count, spelled);
        let named = |key: &str| {
            let value = &config[key];
            let name = value.as_str().or_else(|| value["content"].as_str())?;
            vocabulary.get(name).copied()
        };
        this.bos = named("bos_token");
        let ids = &generation["eos_token_id"];
        let ids = ids.as_array().map_or_else(|| vec![ids.clone()], Clone::clone);
        this.ends = ids.iter().filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect();
        this.ends.extend(named("eos_token"));
        this.end_by_name();
        (this.prefix, this.suffix) = (prefix, suffix);
        let named = |list: &Value| {
            let default = list.as_array()?.iter().find(|t| t["name"] == "default")?;
            default["template"].as_str().map(String::from)
        };
        let stored = &config["chat_template"];
        this.template = template.or_else(|| stored.as_str().map(String::from)).or_else(|| named(stored));
        Ok(this)
    }

    fn new<'a>(
        tokenizer: Tokenizer,
        tokens: impl Iterator<Item = (usize, &'a str)>,
        count: usize,
        spelled: impl Fn(usize, &str) -> Option<Vec<u8>>,
    ) -> Self {
        let (mut all, mut names) = (vec![vec![]; count], AHashMap::new());
        for (id, token) in tokens {
            match spelled(id, token) {
                Some(bytes) => all[id] = bytes,
                None => drop(names.insert(id as u32, token.to_string())),
            }
        }
        let mut starts = vec![0];
        starts.extend(all.iter().scan(0, |end, bytes| {
            *end += bytes.len();
            Some(*end)
        }));
        let (bytes, ends) = (all.concat(), vec![]);
        Self {
            tokenizer: Arc::new(tokenizer),
            bytes,
            starts,
            names,
            bos: None,
            ends,
            prefix: vec![],
            suffix: vec![],
            template: None,
        }
    }

    fn end_by_name(&mut self) {
        let mut named: Vec<u32> =
            self.names.iter().filter(|(_, name)| ENDS.contains(&name.as_str())).map(|(id, _)| *id).collect();
        named.sort_unstable();
        self.ends.extend(named);
        let mut seen = vec![];
        self.ends.retain(|id| !seen.contains(id) && (seen.push(*id), true).1);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tokens of a text; names of special tokens in it are those tokens.
    ///
    /// # Errors
    /// The tokenizer cannot read it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer.encode_fast(text, false).map_err(failed)?.get_ids().to_vec())
    }

    /// The same way for texts that become vectors.
    pub(crate) fn around(&self) -> Around {
        Around::around(self.tokenizer.clone(), self.prefix.clone(), self.suffix.clone())
    }

    /// The bytes of a token; none of a special one.
    pub fn bytes(&self, id: u32) -> &[u8] {
        match self.starts.get(id as usize..id as usize + 2) {
            Some([start, end]) => &self.bytes[*start..*end],
            _ => &[],
        }
    }

    /// The name of a special token.
    pub fn name(&self, id: u32) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    /// Whether a token ends the text.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }
}

pub(super) fn failed(error: impl std::fmt::Display) -> Error {
    Error::invalid_model(format!("the tokenizer cannot be used: {error}"))
}

fn added(token: &str, special: bool) -> AddedToken {
    AddedToken::from(token.to_string(), special).normalized(false)
}

fn vocabulary(tokens: &[&str]) -> AHashMap<String, u32> {
    tokens.iter().enumerate().map(|(id, token)| (token.to_string(), id as u32)).collect()
}

/// The way of cutting text that a file names.
fn cuts(name: Option<&str>) -> Result<Cuts> {
    let name = name.ok_or_else(|| gguf::missing(PRE))?;
    Cuts::named(name).ok_or_else(|| {
        Error::invalid_model(format!("GGUF key {PRE:?} is {name:?}, a way of cutting text that is not known here"))
    })
}

/// Bytes joined by a list of merges.
fn bytes_joined(vocabulary: AHashMap<String, u32>, merges: &[&str], cuts: Cuts) -> Result<Tokenizer> {
    let pair = |merge: &&str| {
        let (left, right) =
            merge.split_once(' ').ok_or_else(|| Error::invalid_model(format!("the merge {merge:?} is no pair")))?;
        Ok((left.to_string(), right.to_string()))
    };
    let merges = merges.iter().map(pair).collect::<Result<Vec<_>>>()?;
    let model =
        BPE::builder().vocab_and_merges(vocabulary, merges).ignore_merges(cuts.whole).build().map_err(failed)?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(cuts.steps()?)).with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}

/// SentencePiece's pieces, of two the ones with the best score joined first; bytes for what no piece spells.
fn pieces_joined(
    vocabulary: AHashMap<String, u32>,
    tokens: &[&str],
    scores: &[f32],
    space: bool,
    unknown: Option<(usize, &&str)>,
) -> Result<Tokenizer> {
    if scores.len() != tokens.len() {
        return Err(Error::invalid_model(format!("there are {} tokens and {} scores", tokens.len(), scores.len())));
    }
    let mut merges: Vec<(f32, &str, &str)> = vec![];
    for (token, score) in tokens.iter().zip(scores) {
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
    if let Some((_, unknown)) = unknown {
        builder = builder.unk_token(unknown.to_string());
    }
    let mut tokenizer = Tokenizer::new(builder.build().map_err(failed)?);
    let mut steps: Vec<NormalizerWrapper> = vec![];
    if space {
        steps.push(Prepend::new(SPACE.to_string()).into());
    }
    steps.push(Replace::new(" ", SPACE.to_string()).map_err(failed)?.into());
    tokenizer.with_normalizer(Some(Normalizers::new(steps))).map_err(failed)?;
    let written = [
        Replace::new(SPACE.to_string(), " ").map_err(failed)?.into(),
        ByteFallback::default().into(),
        Fuse::default().into(),
    ];
    let mut written = written.to_vec();
    if space {
        written.push(Strip::new(' ', 1, 0).into());
    }
    tokenizer.with_decoder(Some(Decoders::new(written)));
    Ok(tokenizer)
}
