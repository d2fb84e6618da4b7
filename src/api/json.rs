//! Parsing request bodies, and field types that several routes share.

use crate::engine::Input;
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;
use tealight_core::{Error, ErrorKind, Result};

/// Parses a request body.
///
/// # Errors
/// [`ErrorKind::InvalidJson`], with the position in the body; [`ErrorKind::InvalidType`], with the path of the field.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(body).map_err(|e| {
        Error::new(ErrorKind::InvalidJson, format!("the body is not UTF-8 at byte {}", e.valid_up_to()))
    })?;
    // A body may have both kinds of errors. Parsing it again finds those of JSON, even in fields that no route has: half of a
    // surrogate pair, or a number beyond any float.
    parse_object(text).map_err(|error| match serde_json::from_str::<Value>(text) {
        Ok(_) => error.truncate_message(),
        Err(e) => Error::new(ErrorKind::InvalidJson, format!("the body is not JSON: {e}")),
    })
}

fn parse_object<T: DeserializeOwned>(text: &str) -> Result<T> {
    // serde would read the values of a list as fields, in their order.
    if text.trim_start().starts_with('[') {
        return Err(Error::new(ErrorKind::InvalidType, "the body is a list; expected an object"));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|e| {
        let (path, message) = (e.path().to_string(), describe_json_error(e.inner()));
        if path != "." {
            return Error::new(ErrorKind::InvalidType, format!("{path}: {message}")).with_param(path);
        }
        let named = ["missing field `", "duplicate field `"].iter().find_map(|prefix| message.strip_prefix(prefix));
        let param = named.and_then(|rest| rest.split_once('`')).map(|(field, _)| field.to_string());
        Error { param, ..Error::new(ErrorKind::InvalidType, message) }
    })?;
    deserializer.end().map_err(|e| Error::new(ErrorKind::InvalidJson, e.to_string()))?;
    Ok(value)
}

/// The message of serde, without the names of Rust types.
fn describe_json_error(error: &serde_json::Error) -> String {
    let message = error
        .to_string()
        .replace("expected usize", "expected an integer")
        .replace("expected i64", "expected an integer")
        .replace("expected u32", "expected a token id")
        .replace("expected f32", "expected a number");
    match message.split_once("expected struct ") {
        Some((before, _)) => format!("{before}expected an object"),
        None => message,
    }
}

/// One value or a list of values.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected one value or a list of values")]
pub enum OneOrMany<T> {
    /// A list of values.
    Many(Vec<T>),
    /// One value.
    One(T),
}

impl<T> OneOrMany<T> {
    /// The values, in order.
    pub fn into_vec(self) -> Vec<T> {
        match self {
            OneOrMany::One(value) => vec![value],
            OneOrMany::Many(values) => values,
        }
    }
}

/// `"text"`, `[1, 2]` (one input of token ids), or a list of texts and lists of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs(pub Vec<Input>);

/// An element of the outermost list.
enum Item {
    Input(Input),
    Id(u32),
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a token id or a list of token ids")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Input(Input::Text(text.to_string())))
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
        Ok(Item::Input(Input::Ids(ids)))
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
                Item::Input(input) => inputs.push(input),
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

#[cfg(test)]
impl schemars::JsonSchema for Inputs {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Inputs".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let id = serde_json::json!({"type": "integer", "minimum": 0, "maximum": u32::MAX});
        schemars::json_schema!({
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
    /// The inputs: at least one, at most `limit`, none empty.
    ///
    /// # Errors
    /// [`ErrorKind::Empty`], [`ErrorKind::InvalidValue`].
    pub fn validate(self, field: &str, limit: usize) -> Result<Vec<Input>> {
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
        return Err(Error::invalid_value(field, format!("{field} has {count} items; the limit is {limit}")));
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
    fn inputs_of_every_shape_are_parsed() {
        let text = |t: &str| Input::Text(t.into());
        assert_eq!(inputs(r#"{"input":"a"}"#).unwrap(), [text("a")]);
        assert_eq!(inputs(r#"{"input":["a","b"]}"#).unwrap(), [text("a"), text("b")]);
        assert_eq!(inputs(r#"{"input":[1,2]}"#).unwrap(), [Input::Ids(vec![1, 2])]);
        assert_eq!(inputs(r#"{"input":[[1],[2,3]]}"#).unwrap(), [Input::Ids(vec![1]), Input::Ids(vec![2, 3])]);
        assert_eq!(inputs(r#"{"input":["a",[2]]}"#).unwrap(), [text("a"), Input::Ids(vec![2])]);
        assert_eq!(inputs(r#"{"input":[]}"#).unwrap(), []);
    }

    #[derive(Debug, Deserialize)]
    struct WithAlias {
        #[serde(alias = "text", rename = "query")]
        _query: String,
    }

    #[test]
    fn invalid_body_names_field_or_position() {
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
        assert_eq!(inputs(r#"{"input":[[1,"a"]]}"#).unwrap_err().param.as_deref(), Some("input[0][1]"));
        assert_eq!(inputs("{}").unwrap_err().param.as_deref(), Some("input"));
        let twice = parse_object::<WithAlias>(r#"{"query":"a","text":"b"}"#);
        assert_eq!(twice.unwrap_err().param.as_deref(), Some("query"));
    }
}
