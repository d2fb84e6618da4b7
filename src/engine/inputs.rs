//! Texts of a request, and how they become token ids.

use tealight_core::{Error, ErrorKind, Result, truncate_for_display};
use tealight_models::Embedder;
use tealight_models::tokenizer::{MAX_CHARS_PER_TOKEN, TruncationDirection};

/// Names of the prompt for documents.
const DOCUMENT_PROMPTS: [&str; 2] = ["passage", "document"];

/// One input of an embedding job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A text to tokenize.
    Text(String),
    /// Token ids of the model's vocabulary, with or without the special tokens at both ends.
    Ids(Vec<u32>),
}

/// What to do with an input that has more tokens than the model accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncation {
    /// Fail with [`ErrorKind::TooLong`].
    Error,
    /// Drop tokens at this end.
    Truncate(TruncationDirection),
}

impl Truncation {
    /// Drops tokens at the end of a text if `truncate` is true.
    pub fn right_if(truncate: bool) -> Self {
        if truncate { Truncation::Truncate(TruncationDirection::Right) } else { Truncation::Error }
    }
}

/// Inputs for an embedding model.
#[derive(Debug, Clone)]
pub struct EmbedInputs {
    /// Name of the model; the default model if `None`.
    pub model: Option<String>,
    /// At least one input, none of them empty.
    pub items: Vec<Input>,
    /// Name of one of the model's prompts, which is prepended to each text; the model's default prompt if `None`.
    pub prompt: Option<String>,
    /// What to do with inputs that are too long.
    pub truncation: Truncation,
    /// The request field that contains the inputs, for error messages.
    pub field: &'static str,
    /// Index of the first input in that field, for error messages.
    pub first_index: usize,
}

impl EmbedInputs {
    /// Inputs of the field `input` for the default model with its default prompt; inputs that are too long are errors.
    pub fn new(items: Vec<Input>) -> Self {
        Self { model: None, items, prompt: None, truncation: Truncation::Error, field: "input", first_index: 0 }
    }
}

/// The prompt of this name, or the model's default prompt; an empty string if the model has none.
///
/// # Errors
/// [`ErrorKind::InvalidValue`]: the model has no prompt of this name.
pub(crate) fn prompt_text<'a>(model: &'a Embedder, name: Option<&'a str>) -> Result<&'a str> {
    let prompts = &model.pipeline.prompts;
    let Some(name) = name.or(model.pipeline.default_prompt_name.as_deref()) else {
        return Ok("");
    };
    prompts.get(name).map(String::as_str).ok_or_else(|| {
        let known: Vec<_> = prompts.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_string() } else { known.join(", ") };
        let name = truncate_for_display(name);
        Error::invalid_value("prompt_name", format!("prompt_name is {name:?}; prompts of this model: {known}"))
    })
}

/// The name of the model's prompt for documents, if it has one.
pub(crate) fn document_prompt(model: &Embedder) -> Option<String> {
    let has = |name: &&&str| model.pipeline.prompts.contains_key(**name);
    DOCUMENT_PROMPTS.iter().find(has).map(|name| name.to_string())
}

/// The token ids of an input with its prompt and special tokens, at most as many as the model accepts. `index` is the position of
/// the input in the request field, for error messages.
pub(super) fn token_ids(
    model: &Embedder,
    input: &Input,
    prompt: &str,
    inputs: &EmbedInputs,
    index: usize,
) -> Result<Vec<u32>> {
    let (tokenizer, limit, field) = (&model.tokenizer, model.max_tokens(), inputs.field);
    let content = match input {
        Input::Text(text) => {
            let text = format!("{prompt}{text}");
            let text = match inputs.truncation {
                Truncation::Error => {
                    check_characters(&text, limit, &format!("{field}[{index}]"))
                        .map_err(|e| e.with_param(field).with_input_index(index))?;
                    &text
                }
                Truncation::Truncate(direction) => truncate_characters(&text, limit, direction),
            };
            tokenizer.encode(text)?
        }
        Input::Ids(ids) => {
            check_ids(model, ids, field)?;
            [tokenizer.encode(prompt)?, tokenizer.strip_special(ids).to_vec()].concat()
        }
    };
    let ids = tokenizer.add_special_tokens(&content);
    if ids.is_empty() {
        let error = Error::new(ErrorKind::Empty, format!("{field}[{index}] contains only white space"));
        return Err(error.with_param(field).with_input_index(index));
    }
    match inputs.truncation {
        Truncation::Truncate(direction) => Ok(tokenizer.truncate(&ids, limit, direction)),
        Truncation::Error if ids.len() <= limit => Ok(ids),
        Truncation::Error => {
            let message =
                format!("{field}[{index}] has {} tokens; the limit is {limit}. Shorten it or set truncate", ids.len());
            Err(Error::new(ErrorKind::TooLong, message).with_param(field).with_input_index(index))
        }
    }
}

/// Fails if one of the ids is not in the model's vocabulary.
pub(super) fn check_ids(model: &Embedder, ids: &[u32], field: &str) -> Result<()> {
    let size = model.vocab_size();
    match ids.iter().find(|id| **id as usize >= size) {
        None => Ok(()),
        Some(id) => {
            Err(Error::invalid_value(field, format!("{field} has token id {id}; the vocabulary has {size} tokens")))
        }
    }
}

/// Fails if a text has so many characters that it must have more than `max_tokens` tokens, to avoid tokenizing it.
pub(super) fn check_characters(text: &str, max_tokens: usize, field: &str) -> Result<()> {
    let limit = MAX_CHARS_PER_TOKEN * max_tokens;
    // The length in bytes is an upper bound of the number of characters and needs no counting.
    if text.len() <= limit || text.chars().count() <= limit {
        return Ok(());
    }
    let message = format!("{field} has more than {limit} characters; the limit is {max_tokens} tokens. Shorten it");
    Err(Error::new(ErrorKind::TooLong, message))
}

/// Drops characters that cannot be among the first (or last) `max_tokens` tokens.
fn truncate_characters(text: &str, max_tokens: usize, direction: TruncationDirection) -> &str {
    let limit = MAX_CHARS_PER_TOKEN * max_tokens;
    if text.len() <= limit {
        return text;
    }
    match direction {
        TruncationDirection::Right => text.char_indices().nth(limit).map_or(text, |(end, _)| &text[..end]),
        TruncationDirection::Left => text.char_indices().nth_back(limit - 1).map_or(text, |(start, _)| &text[start..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_truncated_at_character_boundary() {
        let text = "é".repeat(300);
        assert_eq!(truncate_characters(&text, 1, TruncationDirection::Right).chars().count(), 250);
        let text = format!("{}end", "é".repeat(300));
        let left = truncate_characters(&text, 1, TruncationDirection::Left);
        assert!(left.ends_with("end") && left.chars().count() == 250);
        assert_eq!(truncate_characters("short", 1, TruncationDirection::Left), "short");
    }
}
