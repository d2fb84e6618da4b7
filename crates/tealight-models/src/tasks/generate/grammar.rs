//! Constrained decoding: which tokens may follow, so that the text matches a JSON schema.

use super::large_stack::on_large_stack;
use crate::tokenizer::LlamaTokenizer;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use std::sync::Arc;
use tealight_core::{Error, Result};

/// The request field that errors name.
const FIELD: &str = "response_format";
/// Larger schemas would need more memory and stack than a process has.
const MAX_REFERENCES: usize = 1000;
const MAX_BYTES: usize = 512 << 10;
/// The first byte of a special token in a llguidance vocabulary.
const SPECIAL_MARKER: u8 = 0xff;

/// Compiles schemas for the vocabulary of a model.
pub(super) struct GrammarCompiler(ParserFactory);

impl std::fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GrammarCompiler")
    }
}

impl GrammarCompiler {
    pub(super) fn new(tokenizer: &LlamaTokenizer, vocab_size: usize) -> Result<Self> {
        let end = tokenizer.eog_ids.first().copied();
        let end =
            end.ok_or_else(|| Error::invalid_model("the model has no end-of-text token, which response_format needs"))?;
        let word = |id: u32| match tokenizer.special_token(id) {
            Some(name) => [&[SPECIAL_MARKER], name.as_bytes()].concat(),
            None => tokenizer.token_bytes(id).to_vec(),
        };
        let words: Vec<Vec<u8>> = (0..vocab_size as u32).map(word).collect();
        let trie = TokTrie::from(&TokRxInfo::new(vocab_size as u32, end), &words);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment).map_err(grammar_error)?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Self(factory))
    }

    /// Compiles a schema. JSON is constrained to a space after commas and colons and to no other whitespace outside of strings,
    /// because a model could repeat whitespace endlessly.
    pub(super) fn constraint(&self, schema: &Value) -> Result<Constraint> {
        let mut schema = schema.clone();
        if let Some(schema) = schema.as_object_mut() {
            let whitespace = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
            schema.entry("x-guidance").or_insert(whitespace);
        }
        let (references, bytes) = (references(&schema), schema.to_string().len());
        if references > MAX_REFERENCES || bytes > MAX_BYTES {
            let message = format!(
                "{FIELD} has a schema of {bytes} bytes with {references} references; the limits are {MAX_BYTES} and {MAX_REFERENCES}"
            );
            return Err(Error::invalid_value(FIELD, message));
        }
        on_large_stack(|| {
            let parser = self.0.create_parser(TopLevelGrammar::from_json_schema(schema));
            let mut matcher = Matcher::new(parser);
            match matcher.get_error() {
                Some(error) => Err(schema_error(error)),
                // Some schemas exceed the limits only when the first mask is computed.
                None => match matcher.compute_mask_or_eos() {
                    Ok(mask) => Ok(Constraint { matcher, first_mask: Some(mask) }),
                    Err(error) => Err(schema_error(error)),
                },
            }
        })
    }
}

/// Counts `$ref` in a schema; the compiler recurses into each.
fn references(schema: &Value) -> usize {
    match schema {
        Value::Array(values) => values.iter().map(references).sum(),
        Value::Object(fields) => {
            let self_reference = usize::from(fields.contains_key("$ref"));
            self_reference + fields.values().map(references).sum::<usize>()
        }
        _ => 0,
    }
}

fn schema_error(error: impl std::fmt::Display) -> Error {
    let message = error.to_string().replace("\n<non-verbose/>", "");
    Error::invalid_value(FIELD, format!("{FIELD}: unsupported JSON schema: {message}")).truncate_message()
}

fn grammar_error(error: impl std::fmt::Display) -> Error {
    Error::internal(format!("cannot create a grammar: {error}"))
}

/// The state of a grammar after the tokens so far.
pub struct Constraint {
    matcher: Matcher,
    /// The mask of the first token, which is computed when the schema is compiled.
    first_mask: Option<SimpleVob>,
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Constraint")
    }
}

impl Constraint {
    /// The tokens that may follow.
    ///
    /// # Errors
    /// The schema needs too many steps.
    pub fn compute_mask(&mut self) -> Result<SimpleVob> {
        self.first_mask.take().map_or_else(|| self.matcher.compute_mask_or_eos().map_err(schema_error), Ok)
    }

    /// Advances by a token.
    ///
    /// # Errors
    /// The token may not follow.
    pub fn consume_token(&mut self, id: u32) -> Result<()> {
        self.matcher.consume_token(id).map_err(schema_error)
    }

    /// Whether the text is complete and no token may follow.
    pub fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }
}
