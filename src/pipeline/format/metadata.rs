//! Metadata as JSON, within the rules of each vector database.

use crate::pipeline::point::Point;
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt::Write as _;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Metadata values that a store accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueTypes {
    /// Any JSON.
    Any,
    /// Strings, numbers, booleans, objects, and lists of one of these types.
    Objects,
    /// Strings, numbers, booleans, and lists of one of these types.
    Flat,
    /// Strings, numbers, booleans, and lists of strings.
    FlatTexts,
}

/// Limits of a store for the metadata of a point.
#[derive(Debug, Clone, Copy)]
pub(super) struct MetadataRules {
    pub value_types: ValueTypes,
    /// Whether to write nulls; if not, fields that are null are omitted.
    pub keep_nulls: bool,
    /// Returns why a field name is rejected, or `None` if it is accepted.
    pub check_name: fn(&str) -> Option<&'static str>,
    /// Maximum number of fields, including those of the point itself.
    pub max_fields: usize,
    /// Maximum size of all fields as a JSON object, in bytes.
    pub max_bytes: usize,
    /// Whether `1e-7` must be written as `1.0e-7`, because the store parses a number without decimal point as an integer.
    pub needs_decimal_point: bool,
}

impl MetadataRules {
    /// No limits.
    pub(super) const ANY: MetadataRules = MetadataRules {
        value_types: ValueTypes::Any,
        keep_nulls: true,
        check_name: |_| None,
        max_fields: usize::MAX,
        max_bytes: usize::MAX,
        needs_decimal_point: false,
    };
}

/// The fields of a point except `id` and `vector`, as JSON without the braces. `has_text` is false if the store keeps the text
/// elsewhere.
pub(super) fn reserved_fields(point: &Point, has_text: bool) -> String {
    let (document, mut out) = (&point.document, String::new());
    let _ = write!(out, "\"document_id\":{},\"chunk\":{}", json_string(&document.document_id), point.chunk_index);
    if has_text {
        let _ = write!(out, ",\"text\":{}", json_string(&point.text));
    }
    let _ = write!(out, ",\"start\":{},\"end\":{},\"model\":{}", point.start, point.end, json_string(&document.model));
    out
}

/// The fields of [`reserved_fields`] and the metadata, as JSON without the braces.
///
/// # Errors
/// [`ErrorKind::InvalidValue`] for `metadata` that the store does not accept.
pub(super) fn payload_fields(point: &Point, rules: &MetadataRules, has_text: bool) -> Result<String> {
    let mut out = reserved_fields(point, has_text);
    let mut fields = 5 + usize::from(has_text);
    for (name, value) in &point.document.metadata {
        let is_null = value.get() == "null";
        check_field(name, value, rules).map_err(|reason| invalid_field(name, &reason))?;
        if is_null && !rules.keep_nulls {
            continue;
        }
        fields += 1;
        out.push(',');
        out.push_str(&json_string(name));
        out.push(':');
        if rules.needs_decimal_point {
            out.push_str(&with_decimal_points(value.get()));
        } else {
            out.push_str(value.get());
        }
    }
    for (unit, found, limit) in [("fields", fields, rules.max_fields), ("bytes", out.len() + 2, rules.max_bytes)] {
        if found > limit {
            let message =
                format!("metadata and text have {found} {unit} together; the limit of the vector database is {limit}");
            return Err(Error::invalid_value("metadata", message));
        }
    }
    Ok(out)
}

/// Only the metadata, as a JSON object.
pub(super) fn metadata_json(point: &Point) -> String {
    let fields: Vec<_> =
        point.document.metadata.iter().map(|(name, value)| format!("{}:{}", json_string(name), value.get())).collect();
    format!("{{{}}}", fields.join(","))
}

/// A quoted and escaped JSON string.
pub(super) fn json_string(text: &str) -> String {
    // Cannot fail for a string.
    serde_json::to_string(text).unwrap_or_default()
}

fn invalid_field(name: &str, reason: &str) -> Error {
    Error::new(ErrorKind::InvalidValue, format!("metadata field {:?} {reason}", truncate_for_display(name)))
        .with_param("metadata")
}

/// The error is the reason, to be appended to the name of the field.
fn check_field(name: &str, value: &RawValue, rules: &MetadataRules) -> Result<(), String> {
    if let Some(reason) = (rules.check_name)(name) {
        return Err(reason.into());
    }
    // Most values are neither lists nor objects, and need no parsing.
    if rules.value_types == ValueTypes::Any || !value.get().starts_with(['[', '{']) {
        return Ok(());
    }
    let value: Value = serde_json::from_str(value.get()).map_err(|e| e.to_string())?;
    match (&value, rules.value_types) {
        (Value::Object(_), ValueTypes::Flat | ValueTypes::FlatTexts) => {
            Err("is nested; this vector database accepts only flat values".into())
        }
        (value, ValueTypes::Objects) => check_nested(value, rules),
        (Value::Array(items), types) => check_list(items, types),
        _ => Ok(()),
    }
}

fn check_list(items: &[Value], types: ValueTypes) -> Result<(), String> {
    match items.first() {
        Some(Value::Array(_) | Value::Object(_) | Value::Null) => {
            Err("is a list with nested values or nulls; this vector database accepts only lists of strings, numbers or booleans"
                .into())
        }
        Some(first) if items.iter().any(|item| kind(item) != kind(first)) => {
            Err("is a list of mixed types; this vector database accepts only lists of one type".into())
        }
        Some(first) if types == ValueTypes::FlatTexts && !first.is_string() => {
            Err("is a list without strings; this vector database accepts only lists of strings".into())
        }
        _ => Ok(()),
    }
}

fn check_nested(value: &Value, rules: &MetadataRules) -> Result<(), String> {
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| match (rules.check_name)(name) {
            Some(reason) => Err(format!("has a field {:?} that {reason}", truncate_for_display(name))),
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

/// Replaces numbers like `1e-7` by `1.0e-7`.
fn with_decimal_points(json: &str) -> String {
    let (mut out, mut in_text, mut escaped) = (String::with_capacity(json.len()), false, false);
    // Whether the current number has a decimal point; `None` outside of numbers.
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
    fn decimal_point_is_added_to_numbers_only() {
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
    fn lists_of_mixed_types_are_rejected() {
        let rules = |value_types| MetadataRules { value_types, ..MetadataRules::ANY };
        let is_rejected = |json: &str, values| {
            let value = RawValue::from_string(json.into()).unwrap();
            check_field("name", &value, &rules(values)).is_err()
        };
        for json in [r#"["a", 1]"#, "[[1]]", "[null]", r#"[{"a": 1}]"#, r#"{"a": 1}"#] {
            assert!(
                is_rejected(json, ValueTypes::Flat)
                    && is_rejected(json, ValueTypes::FlatTexts)
                    && !is_rejected(json, ValueTypes::Any),
                "{json}"
            );
        }
        for json in ["[]", r#"["a"]"#, "1", "null", "\"[\""] {
            assert!(!is_rejected(json, ValueTypes::FlatTexts), "{json}");
        }
        assert!(is_rejected("[1, 2]", ValueTypes::FlatTexts) && !is_rejected("[1, 2.5]", ValueTypes::Flat));
        assert!(
            !is_rejected(r#"{"a": [{"b": [1]}]}"#, ValueTypes::Objects)
                && is_rejected(r#"{"a": [[1]]}"#, ValueTypes::Objects)
        );
    }
}
