//! How text is cut before bytes are joined: the patterns of the models' own tokenizers, by llama.cpp's names for them
//! (`llama-vocab.cpp`).

use tealight_core::Result;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

/// A way of cutting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cuts {
    /// Each cuts what the one before left.
    patterns: &'static [&'static str],
    /// Whether a whole word that is a token is taken at once.
    pub whole: bool,
    /// Whether a text begins with a token of its own, unless the file says otherwise.
    pub begins: bool,
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
/// Chinese, Japanese and Korean.
const EAST: &str = "[一-龥ࠀ-一가-\u{d7ff}]+";

impl Cuts {
    /// The way of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let (patterns, whole, begins): (&[&str], bool, bool) = match name {
            "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2" => {
                (&[LLAMA3], true, true)
            }
            "smaug-bpe" | "dbrx" | "chatglm-bpe" => (&[LLAMA3], false, false),
            "tekken" => (&[TEKKEN], true, true),
            "gpt-2" | "olmo" | "jais" | "phi-2" | "mpt" | "gigachat" | "a.x-4.0" | "mellum" | "exaone4"
            | "trillion" | "granite-docling" => (&[GPT2], false, false),
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" | "mellum2" => {
                (&[DIGIT, GPT2], false, false)
            }
            "qwen2" | "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "stablelm2" | "megrez" | "hunyuan" | "solar-open"
            | "grok-2" => (&[QWEN2], false, false),
            "gpt-4o" | "llama4" | "kanana2" | "minimax-m2" => (&[GPT4O], false, false),
            "seed-coder" => (&[SEED], false, false),
            "deepseek-llm" => (
                &[
                    r"[\r\n]",
                    r"\s?[\p{Lu}\p{Ll}\p{Lt}]+",
                    r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
                    r"\s+$",
                    EAST,
                    r"\p{N}+",
                ],
                false,
                false,
            ),
            "deepseek-coder" => (&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", EAST, DIGIT], false, false),
            "deepseek-v3" | "hunyuan-dense" | "joyai-llm" => {
                (&[r"\p{N}{1,3}", "[一-龥\u{3040}-ゟ゠-ヿ]+", DEEPSEEK3], false, false)
            }
            "falcon" => (&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"], false, false),
            "default" => (&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], false, false),
            "viking" => (&[WORDS, DIGIT], false, false),
            "poro-chat" | "bloom" | "gpt3-finnish" => (&[WORDS], false, false),
            _ => return None,
        };
        Some(Self { patterns, whole, begins })
    }

    /// The same for the tokenizers crate.
    pub(super) fn steps(self) -> Result<Sequence> {
        let mut steps: Vec<PreTokenizerWrapper> = vec![];
        for pattern in self.patterns {
            let pattern = SplitPattern::Regex(pattern.to_string());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(super::llama::failed)?;
            steps.push(split.into());
        }
        steps.push(ByteLevel::new(false, true, false).into());
        Ok(Sequence::new(steps))
    }
}
