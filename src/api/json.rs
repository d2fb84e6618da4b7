//! Parts of requests that both families of routes share.

use crate::engine::Input;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use tealight_core::{Error, ErrorKind, Result};

/// More fields are not looked through for the one that an error is about.
const MOST_FIELDS: usize = 64;

/// A body as JSON.
///
/// # Errors
/// [`ErrorKind::InvalidJson`], with the place in the body; [`ErrorKind::InvalidType`], with the field.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(body).map_err(|e| {
        Error::new(ErrorKind::InvalidJson, format!("the body is not UTF-8 at byte {}", e.valid_up_to()))
    })?;
    // A value decodes what the fields do not name: a lone half of a pair, a number beyond any float.
    fields(text).map_err(|error| match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) if error.param.is_none() => culprit::<T>(&value, error).truncate_message(),
        Ok(_) => error.truncate_message(),
        Err(e) => Error::new(ErrorKind::InvalidJson, format!("the body is not JSON: {e}")),
    })
}

/// An error with the field that it is about, where serde does not say: of structs inside of others, flattened.
fn culprit<T: DeserializeOwned>(body: &Value, error: Error) -> Error {
    let missing = error.message.strip_prefix("missing field `").and_then(|rest| rest.split_once('`'));
    if let Some((field, _)) = missing {
        let field = field.to_string();
        return error.with_param(field);
    }
    let said = |body: Value| serde_json::from_value::<T>(body).err().map(|e| in_words(&e));
    let few = body.as_object().filter(|fields| fields.len() <= MOST_FIELDS);
    let Some((whole, fields)) = few.and_then(|fields| Some((said(body.clone())?, fields))) else { return error };
    // Without the field that it is about, there is another error or none.
    let is_about = |field: &&String| {
        let mut without = fields.clone();
        without.remove(*field);
        said(without.into()).is_none_or(|other| other != whole && !other.starts_with("missing field"))
    };
    if let Some(field) = fields.keys().find(is_about) {
        return Error::new(ErrorKind::InvalidType, format!("{field}: {whole}")).with_param(field.clone());
    }
    error
}

/// The fields of an object; an error of what is no JSON at all still has to be told apart.
fn fields<T: DeserializeOwned>(text: &str) -> Result<T> {
    // serde would read a list as the fields of a request in their order.
    if text.trim_start().starts_with('[') {
        return Err(Error::new(ErrorKind::InvalidType, "the body is a list, it must be an object"));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|e| {
        let (path, inner) = (e.path().to_string(), e.into_inner());
        match path.as_str() {
            "." => Error::new(ErrorKind::InvalidType, in_words(&inner)),
            _ => Error::new(ErrorKind::InvalidType, format!("{path}: {}", in_words(&inner))).with_param(path),
        }
    })?;
    deserializer.end().map_err(|e| Error::new(ErrorKind::InvalidJson, e.to_string()))?;
    Ok(value)
}

/// serde's text without Rust's names for types.
fn in_words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text
        .replace("expected usize", "expected a whole number")
        .replace("expected i64", "expected a whole number")
        .replace("expected u32", "expected a token id")
        .replace("expected f32", "expected a number");
    match text.split_once("expected struct ") {
        Some((before, _)) => format!("{before}expected an object"),
        None => text,
    }
}

/// `"text"`, `[1, 2]` (one input of token ids), or a list of texts and lists of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs(pub Vec<Input>);

enum Item {
    Whole(Input),
    Id(u32),
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a token id or a list of token ids")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Whole(Input::Text(text.to_string())))
    }

    fn visit_u64<E: de::Error>(self, id: u64) -> Result<Item, E> {
        let id = u32::try_from(id).map_err(|_| E::custom(format_args!("token id {id} is above 4294967295")))?;
        Ok(Item::Id(id))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item, A::Error> {
        let mut ids = vec![];
        while let Some(id) = list.next_element()? {
            ids.push(id);
        }
        Ok(Item::Whole(Input::Ids(ids)))
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct InputsVisitor;

impl<'de> Visitor<'de> for InputsVisitor {
    type Value = Inputs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a list of strings, a list of token ids or a list of lists of token ids")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Inputs, E> {
        Ok(Inputs(vec![Input::Text(text.to_string())]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Inputs, A::Error> {
        let (mut inputs, mut ids) = (vec![], vec![]);
        while let Some(item) = list.next_element()? {
            match item {
                Item::Whole(input) => inputs.push(input),
                Item::Id(id) => ids.push(id),
            }
        }
        match (inputs.is_empty(), ids.is_empty()) {
            (false, false) => Err(de::Error::custom("a list mixes token ids with other inputs")),
            (true, false) => Ok(Inputs(vec![Input::Ids(ids)])),
            _ => Ok(Inputs(inputs)),
        }
    }
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputsVisitor)
    }
}

impl JsonSchema for Inputs {
    fn schema_name() -> Cow<'static, str> {
        "Inputs".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let id = serde_json::json!({"type": "integer", "minimum": 0, "maximum": u32::MAX});
        json_schema!({
            "description": "A text, a list of texts, token ids, or a list of lists of token ids.",
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "minItems": 1, "items": {"anyOf": [
                    {"type": "string", "minLength": 1},
                    {"type": "array", "minItems": 1, "items": id},
                ]}},
                {"type": "array", "minItems": 1, "items": id},
            ]
        })
    }
}

impl Inputs {
    /// The inputs, checked: at least one, at most `limit`, none empty.
    pub fn checked(self, field: &str, limit: usize) -> Result<Vec<Input>> {
        check_count(field, self.0.len(), limit)?;
        check_none_empty(field, &self.0, |input| match input {
            Input::Text(text) => text.is_empty(),
            Input::Ids(ids) => ids.is_empty(),
        })?;
        Ok(self.0)
    }
}

/// Checks that no item of a list in a request is empty.
pub fn check_none_empty<T>(field: &str, items: &[T], is_empty: impl Fn(&T) -> bool) -> Result<()> {
    match items.iter().position(is_empty) {
        None => Ok(()),
        Some(i) => Err(Error::new(ErrorKind::Empty, format!("{field}[{i}] is empty")).with_param(field)),
    }
}

/// Checks the length of a list in a request.
pub fn check_count(field: &str, count: usize, limit: usize) -> Result<()> {
    if count == 0 {
        return Err(Error::new(ErrorKind::Empty, format!("{field} is an empty list")).with_param(field));
    }
    if count > limit {
        return Err(Error::invalid_value(field, format!("{field} has {count} items, the limit is {limit}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Body {
        input: Inputs,
    }

    fn inputs(json: &str) -> Result<Vec<Input>> {
        parse::<Body>(json.as_bytes()).map(|b| b.input.0)
    }

    #[test]
    fn every_shape_of_input() {
        let text = |t: &str| Input::Text(t.into());
        assert_eq!(inputs(r#"{"input":"a"}"#).unwrap(), [text("a")]);
        assert_eq!(inputs(r#"{"input":["a","b"]}"#).unwrap(), [text("a"), text("b")]);
        assert_eq!(inputs(r#"{"input":[1,2]}"#).unwrap(), [Input::Ids(vec![1, 2])]);
        assert_eq!(inputs(r#"{"input":[[1],[2,3]]}"#).unwrap(), [Input::Ids(vec![1]), Input::Ids(vec![2, 3])]);
        assert_eq!(inputs(r#"{"input":["a",[2]]}"#).unwrap(), [text("a"), Input::Ids(vec![2])]);
        assert_eq!(inputs(r#"{"input":[]}"#).unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, kind, word) in [
            (r#"{"input":5}"#, ErrorKind::InvalidType, "input: invalid type: integer `5`"),
            (r#"{"input":["a",null]}"#, ErrorKind::InvalidType, "input[1]"),
            (r#"{"input":[-1]}"#, ErrorKind::InvalidType, "input[0]"),
            (r#"{"input":[1.5]}"#, ErrorKind::InvalidType, "input[0]"),
            (r#"{"input":[4294967296]}"#, ErrorKind::InvalidType, "4294967296"),
            (r#"{"input":[[1,"a"]]}"#, ErrorKind::InvalidType, "input[0][1]"),
            (r#"{"input":[1,"a"]}"#, ErrorKind::InvalidType, "mixes"),
            (r#"{}"#, ErrorKind::InvalidType, "missing field `input`"),
            (r#"["a"]"#, ErrorKind::InvalidType, "a list"),
            (r#"["a"#, ErrorKind::InvalidJson, "EOF"),
            (r#"{"input":"a"#, ErrorKind::InvalidJson, "EOF"),
            (r#"{"input":"a"} x"#, ErrorKind::InvalidJson, "trailing"),
            (r#"{"input":5} x"#, ErrorKind::InvalidJson, "trailing"),
            ("", ErrorKind::InvalidJson, "EOF"),
        ] {
            let error = inputs(json).unwrap_err();
            assert_eq!(error.kind, kind, "{json}: {error}");
            assert!(error.message.contains(word), "{json}: {error}");
        }
        assert_eq!(parse::<Body>(b"{\"input\":\"\xff\"}").unwrap_err().kind, ErrorKind::InvalidJson);
    }
}
