//! Jobs: text to tokens and back, with the tokenizer of an embedding model.

use super::inputs::{check_characters, check_ids, prompt_text};
use super::job::{Job, JobContext};
use tealight_core::Result;
use tealight_models::tokenizer::Token;

/// Job: the tokens of texts.
#[derive(Debug, Clone)]
pub struct Tokenize {
    /// Name of the model; the default model if `None`.
    pub model: Option<String>,
    /// Texts to tokenize.
    pub texts: Vec<String>,
    /// Whether to include the special tokens at both ends.
    pub special: bool,
    /// Name of one of the model's prompts, which is prepended to each text.
    pub prompt: Option<String>,
}

impl Job for Tokenize {
    /// The tokens of each text.
    type Output = Vec<Vec<Token>>;

    fn run(self, context: &JobContext) -> Result<Self::Output> {
        let loaded = context.embedder(self.model.as_deref())?;
        let prompt = prompt_text(&loaded.model, self.prompt.as_deref())?;
        let tokens = |text: &String| {
            let text = format!("{prompt}{text}");
            check_characters(&text, loaded.model.max_tokens(), "inputs").map_err(|e| e.with_param("inputs"))?;
            loaded.model.tokenizer.tokenize(&text, self.special)
        };
        context.engine.cpu.par_map(&self.texts, tokens).into_iter().collect()
    }
}

/// Job: the texts of token ids.
#[derive(Debug, Clone)]
pub struct Detokenize {
    /// Name of the model; the default model if `None`.
    pub model: Option<String>,
    /// One list of token ids per text.
    pub ids: Vec<Vec<u32>>,
    /// Whether to leave out special tokens.
    pub skip_special: bool,
}

impl Job for Detokenize {
    type Output = Vec<String>;

    fn run(self, context: &JobContext) -> Result<Self::Output> {
        let loaded = context.embedder(self.model.as_deref())?;
        let decode = |ids: &Vec<u32>| {
            check_ids(&loaded.model, ids, "ids")?;
            loaded.model.tokenizer.decode(ids, self.skip_special)
        };
        self.ids.iter().map(decode).collect()
    }
}
