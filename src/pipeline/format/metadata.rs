//! What an index takes as metadata, and how it is written.

use crate::pipeline::point::Point;
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt::Write as _;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Values that an index has a place for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    /// Any JSON.
    Any,
    /// Objects too, but no lists of lists or of different kinds.
    Objects,
    /// Texts, numbers, booleans, and lists of one kind of those.
    Flat,
    /// The same, but lists of texts alone.
    FlatTexts,
}

/// What an index takes of a point besides its vector.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub values: Values,
    /// Whether null is written; else the name is left out.
    pub nulls: bool,
    /// Why a name is refused, if it is.
    pub name: fn(&str) -> Option<&'static str>,
    /// Names at most, the point's own among them.
    pub most_names: usize,
    /// Bytes of all at most, as JSON.
    pub most_bytes: usize,
    /// Whether a number in exponential form needs a point to be none of the integers.
    pub points_in_numbers: bool,
}

impl Rules {
    /// What takes anything.
    pub(super) const ANY: Rules = Rules {
        values: Values::Any,
        nulls: true,
        name: |_| None,
        most_names: usize::MAX,
        most_bytes: usize::MAX,
        points_in_numbers: false,
    };
}

/// What a point has of its own but `id` and `vector`, as the inside of a JSON object; without `text` where it goes elsewhere.
pub(super) fn own(point: &Point, has_text: bool) -> String {
    let (origin, mut out) = (&point.origin, String::new());
    let _ = write!(out, "\"document_id\":{},\"chunk\":{}", text(&origin.document_id), point.chunk);
    if has_text {
        let _ = write!(out, ",\"text\":{}", text(&point.text));
    }
    let _ = write!(out, ",\"start\":{},\"end\":{},\"model\":{}", point.start, point.end, text(&origin.model));
    out
}

/// The same with the metadata beside it.
///
/// # Errors
/// [`ErrorKind::InvalidValue`] of `metadata`: the index has no place for it.
pub(super) fn fields(point: &Point, rules: &Rules, has_text: bool) -> Result<String> {
    let mut out = own(point, has_text);
    let mut names = 5 + usize::from(has_text);
    for (name, value) in &point.origin.metadata {
        let is_null = value.get() == "null";
        check(name, value, rules).map_err(|what| refused(name, &what))?;
        if is_null && !rules.nulls {
            continue;
        }
        names += 1;
        out.push(',');
        out.push_str(&text(name));
        out.push(':');
        match rules.points_in_numbers {
            true => out.push_str(&with_points(value.get())),
            false => out.push_str(value.get()),
        }
    }
    for (what, found, most) in [("names", names, rules.most_names), ("bytes", out.len() + 2, rules.most_bytes)] {
        if found > most {
            let message = format!("metadata and text have {found} {what} together, the index takes {most}");
            return Err(Error::invalid_value("metadata", message));
        }
    }
    Ok(out)
}

/// The metadata alone, as a JSON object.
pub(super) fn metadata(point: &Point) -> String {
    let fields: Vec<_> =
        point.origin.metadata.iter().map(|(name, value)| format!("{}:{}", text(name), value.get())).collect();
    format!("{{{}}}", fields.join(","))
}

/// A text as JSON.
pub(super) fn text(text: &str) -> String {
    // A string always is JSON.
    serde_json::to_string(text).unwrap_or_default()
}

fn refused(name: &str, what: &str) -> Error {
    Error::new(ErrorKind::InvalidValue, format!("metadata has {:?}, {what}", truncate_for_display(name)))
        .with_param("metadata")
}

fn check(name: &str, value: &RawValue, rules: &Rules) -> Result<(), String> {
    if let Some(why) = (rules.name)(name) {
        return Err(why.into());
    }
    // Most values are neither lists nor objects, and need no parsing.
    if rules.values == Values::Any || !value.get().starts_with(['[', '{']) {
        return Ok(());
    }
    let value: Value = serde_json::from_str(value.get()).map_err(|e| e.to_string())?;
    match (&value, rules.values) {
        (Value::Object(_), Values::Flat | Values::FlatTexts) => Err("an object, which the index does not take".into()),
        (value, Values::Objects) => nested(value, rules),
        (Value::Array(items), kinds) => list(items, kinds),
        _ => Ok(()),
    }
}

fn list(items: &[Value], kinds: Values) -> Result<(), String> {
    match items.first() {
        Some(Value::Array(_) | Value::Object(_) | Value::Null) => {
            Err("a list of what is neither text, number nor boolean".into())
        }
        Some(first) if items.iter().any(|item| kind(item) != kind(first)) => Err("a list of different kinds".into()),
        Some(first) if kinds == Values::FlatTexts && !first.is_string() => {
            Err("a list of other things than texts, which the index does not take".into())
        }
        _ => Ok(()),
    }
}

fn nested(value: &Value, rules: &Rules) -> Result<(), String> {
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| match (rules.name)(name) {
            Some(why) => Err(format!("in which {:?} {why}", truncate_for_display(name))),
            None => nested(value, rules),
        }),
        Value::Array(items) if items.iter().all(Value::is_object) => {
            items.iter().try_for_each(|item| nested(item, rules))
        }
        Value::Array(items) => list(items, rules.values),
        _ => Ok(()),
    }
}

fn kind(value: &Value) -> std::mem::Discriminant<Value> {
    std::mem::discriminant(value)
}

/// JSON in which `1e-7` is `1.0e-7`.
fn with_points(json: &str) -> String {
    let (mut out, mut in_text, mut escaped) = (String::with_capacity(json.len()), false, false);
    // Whether the number that is being read has a point; none is read outside of one.
    let mut pointed = None;
    for c in json.chars() {
        match (in_text, c) {
            (true, _) => {
                in_text = escaped || c != '"';
                escaped = !escaped && c == '\\';
            }
            (_, '"') => (in_text, escaped) = (true, false),
            (_, '0'..='9' | '-') => pointed = pointed.or(Some(false)),
            (_, '.') => pointed = Some(true),
            (_, 'e' | 'E') if pointed == Some(false) => {
                out.push_str(".0");
                pointed = Some(true);
            }
            (_, 'e' | 'E' | '+') => {}
            _ => pointed = None,
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_get_points_and_texts_do_not() {
        for (json, expected) in [
            ("1e-7", "1.0e-7"),
            ("-12E+3", "-12.0E+3"),
            ("1.5e3", "1.5e3"),
            ("10", "10"),
            (r#"{"1e5": "2e5\"3e5", "a": [1e5, true, -2e-1]}"#, r#"{"1e5": "2e5\"3e5", "a": [1.0e5, true, -2.0e-1]}"#),
        ] {
            assert_eq!(with_points(json), expected);
        }
    }

    #[test]
    fn lists_are_of_one_kind() {
        let rules = |values| Rules { values, ..Rules::ANY };
        let refused = |json: &str, values| {
            let value = RawValue::from_string(json.into()).unwrap();
            check("name", &value, &rules(values)).is_err()
        };
        for json in [r#"["a", 1]"#, "[[1]]", "[null]", r#"[{"a": 1}]"#, r#"{"a": 1}"#] {
            assert!(
                refused(json, Values::Flat) && refused(json, Values::FlatTexts) && !refused(json, Values::Any),
                "{json}"
            );
        }
        for json in ["[]", r#"["a"]"#, "1", "null", "\"[\""] {
            assert!(!refused(json, Values::FlatTexts), "{json}");
        }
        assert!(refused("[1, 2]", Values::FlatTexts) && !refused("[1, 2.5]", Values::Flat));
        assert!(!refused(r#"{"a": [{"b": [1]}]}"#, Values::Objects) && refused(r#"{"a": [[1]]}"#, Values::Objects));
    }
}
