//! How text is split into words before BPE merges their bytes: the regular expressions of well-known models, with llama.cpp's
//! names (`llama-vocab.cpp`).

use crate::tokenizer::error::build_error;
use tealight_core::Result;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

/// A pre-tokenizer.
#[derive(Debug, Clone, Copy)]
pub struct Pretokenizer {
    /// Regular expressions, applied in order, each to the parts that the previous ones produced.
    patterns: &'static [&'static str],
    /// Whether a word that is a token becomes that token without merges.
    pub ignore_merges: bool,
    /// Whether a text starts with a special token if the file does not say so.
    pub add_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const DIGIT: &str = r"\p{N}";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SEED: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const WORDS: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
/// Chinese, Japanese and Korean characters.
const CJK: &str = "[一-龥ࠀ-一가-\u{d7ff}]+";

/// Pre-tokenizers that ignore merges and start a text with a special token.
const LIKE_LLAMA3: [&str; 9] =
    ["llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken"];

impl Pretokenizer {
    /// The pre-tokenizer of a name in `tokenizer.ggml.pre`; `None` for an unsupported one.
    pub fn from_name(name: &str) -> Option<Self> {
        let patterns: &[&str] = match name {
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2"
            | "smaug-bpe" | "dbrx" | "chatglm-bpe" => &[LLAMA3],
            "tekken" => &[TEKKEN],
            "gpt-2" | "olmo" | "jais" | "phi-2" | "mpt" | "gigachat" | "a.x-4.0" | "mellum" | "exaone4"
            | "trillion" | "granite-docling" => &[GPT2],
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" | "mellum2" => {
                &[DIGIT, GPT2]
            }
            "qwen2" | "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "stablelm2" | "megrez" | "hunyuan" | "solar-open"
            | "grok-2" => &[QWEN2],
            "gpt-4o" | "llama4" | "kanana2" | "minimax-m2" => &[GPT4O],
            "seed-coder" => &[SEED],
            "deepseek-llm" => &[
                r"[\r\n]",
                r"\s?[\p{Lu}\p{Ll}\p{Lt}]+",
                r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
                r"\s+$",
                CJK,
                r"\p{N}+",
            ],
            "deepseek-coder" => &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, DIGIT],
            "deepseek-v3" | "hunyuan-dense" | "joyai-llm" => &[r"\p{N}{1,3}", "[一-龥\u{3040}-ゟ゠-ヿ]+", DEEPSEEK3],
            "falcon" => &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
            "default" => &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
            "viking" => &[WORDS, DIGIT],
            "poro-chat" | "bloom" | "gpt3-finnish" => &[WORDS],
            _ => return None,
        };
        let is_like_llama3 = LIKE_LLAMA3.contains(&name);
        Some(Self { patterns, ignore_merges: is_like_llama3, add_bos: is_like_llama3 })
    }

    pub(super) fn build(self) -> Result<Sequence> {
        let mut steps: Vec<PreTokenizerWrapper> = vec![];
        for pattern in self.patterns {
            let pattern = SplitPattern::Regex(pattern.to_string());
            steps.push(Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(build_error)?.into());
        }
        steps.push(ByteLevel::new(false, true, false).into());
        Ok(Sequence::new(steps))
    }
}
