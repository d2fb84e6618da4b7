//! Text that keeps to a JSON schema: which tokens may come next.

use super::deep_stack::on_large_stack;
use crate::tokenizer::Tokens;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use std::sync::Arc;
use tealight_core::{Error, Result};

/// The field of requests, for errors.
const FIELD: &str = "response_format";
/// Schemas beyond these would take what a process has not.
const MOST_REFERENCES: usize = 1000;
const MOST_BYTES: usize = 512 << 10;
/// What marks a special token among words of bytes.
const SPECIAL: u8 = 0xff;

/// Makes constraints for the tokens of a model.
pub(crate) struct Schemas(ParserFactory);

impl std::fmt::Debug for Schemas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Schemas")
    }
}

impl Schemas {
    pub(crate) fn new(tokens: &Tokens, vocabulary: usize) -> Result<Self> {
        let end = tokens.ends.first().copied();
        let end =
            end.ok_or_else(|| Error::invalid_model("the model has no token that ends a text, which a schema needs"))?;
        let word = |id: u32| match tokens.name(id) {
            Some(name) => [&[SPECIAL], name.as_bytes()].concat(),
            None => tokens.bytes(id).to_vec(),
        };
        let words: Vec<Vec<u8>> = (0..vocabulary as u32).map(word).collect();
        let trie = TokTrie::from(&TokRxInfo::new(vocabulary as u32, end), &words);
        let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&tokens).map_err(failed)?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Self(factory))
    }

    /// A constraint to texts of a schema, written with a space behind commas and colons, and no other outside of texts: a model
    /// could go on with spaces for ever.
    pub(crate) fn constraint(&self, schema: &Value) -> Result<Constraint> {
        let mut schema = schema.clone();
        if let Some(schema) = schema.as_object_mut() {
            let spaces = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
            schema.entry("x-guidance").or_insert(spaces);
        }
        let (references, bytes) = (references(&schema), schema.to_string().len());
        if references > MOST_REFERENCES || bytes > MOST_BYTES {
            let message = format!(
                "{FIELD} has a schema of {bytes} bytes with {references} references, the limits are {MOST_BYTES} and {MOST_REFERENCES}"
            );
            return Err(Error::invalid_value(FIELD, message));
        }
        on_large_stack(|| {
            let parser = self.0.create_parser(TopLevelGrammar::from_json_schema(schema));
            let mut matcher = Matcher::new(parser);
            match matcher.get_error() {
                Some(error) => Err(unfit(error)),
                // Some of what is too much shows when the first token is asked for.
                None => match matcher.compute_mask_or_eos() {
                    Ok(first) => Ok(Constraint { matcher, first: Some(first) }),
                    Err(error) => Err(unfit(error)),
                },
            }
        })
    }
}

/// `$ref` in a schema: each goes deeper.
fn references(schema: &Value) -> usize {
    match schema {
        Value::Array(values) => values.iter().map(references).sum(),
        Value::Object(fields) => {
            let here = usize::from(fields.contains_key("$ref"));
            here + fields.values().map(references).sum::<usize>()
        }
        _ => 0,
    }
}

fn unfit(error: impl std::fmt::Display) -> Error {
    let said = error.to_string().replace("\n<non-verbose/>", "");
    Error::invalid_value(FIELD, format!("{FIELD} has a schema that cannot be kept to: {said}")).truncate_message()
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::internal(format!("a constraint failed: {error}"))
}

/// What a text so far lets come next.
pub struct Constraint {
    matcher: Matcher,
    /// The tokens that may come first.
    first: Option<SimpleVob>,
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Constraint")
    }
}

impl Constraint {
    /// The tokens that may come.
    ///
    /// # Errors
    /// The schema takes too long.
    pub fn allowed(&mut self) -> Result<SimpleVob> {
        self.first.take().map_or_else(|| self.matcher.compute_mask_or_eos().map_err(unfit), Ok)
    }

    /// Takes a token.
    ///
    /// # Errors
    /// It was not allowed.
    pub fn take(&mut self, id: u32) -> Result<()> {
        self.matcher.consume_token(id).map_err(unfit)
    }

    /// Whether the text is complete and nothing may follow.
    pub fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }
}
