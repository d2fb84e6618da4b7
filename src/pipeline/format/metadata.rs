//! What an index takes as metadata, and how it is written.

use crate::pipeline::point::Point;
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt::Write as _;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Values that an index has a place for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueTypes {
    /// Any JSON.
    Any,
    /// Objects too, but no lists of lists or of different types.
    Objects,
    /// Texts, numbers, booleans, and lists of one kind of those.
    Flat,
    /// The same, but lists of texts alone.
    FlatTexts,
}

/// What an index takes of a point besides its vector.
#[derive(Debug, Clone, Copy)]
pub(super) struct MetadataRules {
    pub value_types: ValueTypes,
    /// Whether null is written; else the name is left out.
    pub keep_nulls: bool,
    /// Why a name is refused, if it is.
    pub check_name: fn(&str) -> Option<&'static str>,
    /// Names at most, the point's own among them.
    pub max_fields: usize,
    /// Bytes of all at most, as JSON.
    pub max_bytes: usize,
    /// Whether a number in exponential form needs a point to be none of the integers.
    pub needs_decimal_point: bool,
}

impl MetadataRules {
    /// What takes anything.
    pub(super) const ANY: MetadataRules = MetadataRules {
        value_types: ValueTypes::Any,
        keep_nulls: true,
        check_name: |_| None,
        max_fields: usize::MAX,
        max_bytes: usize::MAX,
        needs_decimal_point: false,
    };
}

/// What a point has of its own but `id` and `vector`, as the inside of a JSON object; without `text` where it goes elsewhere.
pub(super) fn reserved_fields(point: &Point, has_text: bool) -> String {
    let (source, mut out) = (&point.source, String::new());
    let _ = write!(out, "\"document_id\":{},\"chunk\":{}", json_string(&source.document_id), point.chunk_index);
    if has_text {
        let _ = write!(out, ",\"text\":{}", json_string(&point.text));
    }
    let _ = write!(out, ",\"start\":{},\"end\":{},\"model\":{}", point.start, point.end, json_string(&source.model));
    out
}

/// The same with the metadata beside it.
///
/// # Errors
/// [`ErrorKind::InvalidValue`] of `metadata`: the index has no place for it.
pub(super) fn payload_fields(point: &Point, rules: &MetadataRules, has_text: bool) -> Result<String> {
    let mut out = reserved_fields(point, has_text);
    let mut names = 5 + usize::from(has_text);
    for (name, value) in &point.source.metadata {
        let is_null = value.get() == "null";
        check_field(name, value, rules).map_err(|what| invalid_field(name, &what))?;
        if is_null && !rules.keep_nulls {
            continue;
        }
        names += 1;
        out.push(',');
        out.push_str(&json_string(name));
        out.push(':');
        match rules.needs_decimal_point {
            true => out.push_str(&with_decimal_points(value.get())),
            false => out.push_str(value.get()),
        }
    }
    for (what, found, most) in [("names", names, rules.max_fields), ("bytes", out.len() + 2, rules.max_bytes)] {
        if found > most {
            let message = format!("metadata and text have {found} {what} together, the index takes {most}");
            return Err(Error::invalid_value("metadata", message));
        }
    }
    Ok(out)
}

/// The metadata alone, as a JSON object.
pub(super) fn metadata_json(point: &Point) -> String {
    let fields: Vec<_> =
        point.source.metadata.iter().map(|(name, value)| format!("{}:{}", json_string(name), value.get())).collect();
    format!("{{{}}}", fields.join(","))
}

/// A text as JSON.
pub(super) fn json_string(text: &str) -> String {
    // A string always is JSON.
    serde_json::to_string(text).unwrap_or_default()
}

fn invalid_field(name: &str, what: &str) -> Error {
    Error::new(ErrorKind::InvalidValue, format!("metadata has {:?}, {what}", truncate_for_display(name)))
        .with_param("metadata")
}

fn check_field(name: &str, value: &RawValue, rules: &MetadataRules) -> Result<(), String> {
    if let Some(why) = (rules.check_name)(name) {
        return Err(why.into());
    }
    // Most values are neither lists nor objects, and need no parsing.
    if rules.value_types == ValueTypes::Any || !value.get().starts_with(['[', '{']) {
        return Ok(());
    }
    let value: Value = serde_json::from_str(value.get()).map_err(|e| e.to_string())?;
    match (&value, rules.value_types) {
        (Value::Object(_), ValueTypes::Flat | ValueTypes::FlatTexts) => {
            Err("an object, which the index does not take".into())
        }
        (value, ValueTypes::Objects) => check_nested(value, rules),
        (Value::Array(items), types) => check_list(items, types),
        _ => Ok(()),
    }
}

fn check_list(items: &[Value], types: ValueTypes) -> Result<(), String> {
    match items.first() {
        Some(Value::Array(_) | Value::Object(_) | Value::Null) => {
            Err("a list of what is neither text, number nor boolean".into())
        }
        Some(first) if items.iter().any(|item| kind(item) != kind(first)) => Err("a list of different types".into()),
        Some(first) if types == ValueTypes::FlatTexts && !first.is_string() => {
            Err("a list of other things than texts, which the index does not take".into())
        }
        _ => Ok(()),
    }
}

fn check_nested(value: &Value, rules: &MetadataRules) -> Result<(), String> {
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| match (rules.check_name)(name) {
            Some(why) => Err(format!("in which {:?} {why}", truncate_for_display(name))),
            None => check_nested(value, rules),
        }),
        Value::Array(items) if items.iter().all(Value::is_object) => {
            items.iter().try_for_each(|item| check_nested(item, rules))
        }
        Value::Array(items) => check_list(items, rules.value_types),
        _ => Ok(()),
    }
}

fn kind(value: &Value) -> std::mem::Discriminant<Value> {
    std::mem::discriminant(value)
}

/// JSON in which `1e-7` is `1.0e-7`.
fn with_decimal_points(json: &str) -> String {
    let (mut out, mut in_text, mut escaped) = (String::with_capacity(json.len()), false, false);
    // Whether the number that is being read has a point; none is read outside of one.
    let mut has_point = None;
    for c in json.chars() {
        match (in_text, c) {
            (true, _) => {
                in_text = escaped || c != '"';
                escaped = !escaped && c == '\\';
            }
            (_, '"') => (in_text, escaped) = (true, false),
            (_, '0'..='9' | '-') => has_point = has_point.or(Some(false)),
            (_, '.') => has_point = Some(true),
            (_, 'e' | 'E') if has_point == Some(false) => {
                out.push_str(".0");
                has_point = Some(true);
            }
            (_, 'e' | 'E' | '+') => {}
            _ => has_point = None,
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
            assert_eq!(with_decimal_points(json), expected);
        }
    }

    #[test]
    fn lists_are_of_one_kind() {
        let rules = |value_types| MetadataRules { value_types, ..MetadataRules::ANY };
        let refused = |json: &str, values| {
            let value = RawValue::from_string(json.into()).unwrap();
            check_field("name", &value, &rules(values)).is_err()
        };
        for json in [r#"["a", 1]"#, "[[1]]", "[null]", r#"[{"a": 1}]"#, r#"{"a": 1}"#] {
            assert!(
                refused(json, ValueTypes::Flat)
                    && refused(json, ValueTypes::FlatTexts)
                    && !refused(json, ValueTypes::Any),
                "{json}"
            );
        }
        for json in ["[]", r#"["a"]"#, "1", "null", "\"[\""] {
            assert!(!refused(json, ValueTypes::FlatTexts), "{json}");
        }
        assert!(refused("[1, 2]", ValueTypes::FlatTexts) && !refused("[1, 2.5]", ValueTypes::Flat));
        assert!(
            !refused(r#"{"a": [{"b": [1]}]}"#, ValueTypes::Objects) && refused(r#"{"a": [[1]]}"#, ValueTypes::Objects)
        );
    }
}
