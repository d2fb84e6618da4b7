//! Metadata filters, such as `{"year": {"$gte": 1960}, "tags": "speech"}`, in the language of MongoDB that Pinecone, Chroma and S3
//! Vectors also use.

use serde_json::{Map, Value};
use std::cmp::Ordering;
use tealight_core::{Error, Result, truncate_for_display};

/// Maximum nesting depth of filters.
const MAX_DEPTH: usize = 16;
const PARAM: &str = "filter";
const OPERATORS: &str = "$eq, $ne, $in, $nin, $gt, $gte, $lt, $lte, $exists, $and, $or, $not";

/// A condition on the metadata of a document.
#[derive(Debug, Clone)]
pub enum Filter {
    /// All conditions hold.
    And(Vec<Filter>),
    /// At least one condition holds.
    Or(Vec<Filter>),
    /// The condition does not hold.
    Not(Box<Filter>),
    /// A field, or an element of it if it is a list, equals one of the values.
    In(String, Vec<Value>),
    /// A field, or an element of it if it is a list, is ordered in this way relative to a number or a string.
    Compare(String, fn(Ordering) -> bool, Value),
    /// Whether a field is present and not null.
    Exists(String, bool),
}

impl Filter {
    /// Parses a filter.
    ///
    /// # Errors
    /// The filter is not an object, has an unknown operator, an operator has a value of the wrong type, or filters are nested too
    /// deeply.
    pub fn parse(value: &Value) -> Result<Self> {
        parse_object(value, MAX_DEPTH)
    }

    /// Whether the metadata of a document matches.
    pub fn matches(&self, metadata: &Map<String, Value>) -> bool {
        match self {
            Filter::And(filters) => filters.iter().all(|filter| filter.matches(metadata)),
            Filter::Or(filters) => filters.iter().any(|filter| filter.matches(metadata)),
            Filter::Not(filter) => !filter.matches(metadata),
            Filter::In(field, values) => {
                any_element(metadata, field, |found| values.iter().any(|value| are_equal(found, value)))
            }
            Filter::Compare(field, is_match, value) => {
                any_element(metadata, field, |found| compare(found, value).is_some_and(*is_match))
            }
            Filter::Exists(field, expected) => metadata.get(field).is_some_and(|v| !v.is_null()) == *expected,
        }
    }
}

/// Whether a field, or an element of it if it is a list, satisfies the predicate.
fn any_element(metadata: &Map<String, Value>, field: &str, predicate: impl Fn(&Value) -> bool) -> bool {
    match metadata.get(field) {
        None => false,
        Some(Value::Array(values)) => values.iter().any(predicate),
        Some(value) => predicate(value),
    }
}

fn are_equal(a: &Value, b: &Value) -> bool {
    // 1 and 1.0 are equal numbers, but different JSON values.
    a == b || compare(a, b) == Some(Ordering::Equal)
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn parse_object(value: &Value, depth: usize) -> Result<Filter> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Error::invalid_value(PARAM, format!("filter is nested deeper than {MAX_DEPTH} levels")));
    };
    let object = value.as_object().ok_or_else(|| wrong_type("filter", value, "an object"))?;
    let filters = object.iter().map(|(key, value)| match key.as_str() {
        "$and" => Ok(Filter::And(parse_list(key, value, depth)?)),
        "$or" => Ok(Filter::Or(parse_list(key, value, depth)?)),
        "$not" => Ok(Filter::Not(Box::new(parse_object(value, depth)?))),
        key if key.starts_with('$') => Err(unknown_operator(key)),
        field => parse_field(field, value),
    });
    Ok(all_of(filters.collect::<Result<_>>()?))
}

/// The conjunction of filters, or the only one.
fn all_of(mut filters: Vec<Filter>) -> Filter {
    if filters.len() == 1 { filters.remove(0) } else { Filter::And(filters) }
}

fn parse_list(key: &str, value: &Value, depth: usize) -> Result<Vec<Filter>> {
    let filters =
        value.as_array().filter(|f| !f.is_empty()).ok_or_else(|| wrong_type(key, value, "a list of filters"))?;
    filters.iter().map(|filter| parse_object(filter, depth)).collect()
}

fn parse_field(field: &str, value: &Value) -> Result<Filter> {
    let operators = match value {
        Value::Object(operators) => operators,
        Value::Array(_) => {
            return Err(wrong_type(field, value, "a value, or an object with operators such as {\"$in\": [...]}"));
        }
        value => return Ok(Filter::In(field.into(), vec![value.clone()])),
    };
    let filters = operators.iter().map(|(operator, value)| parse_operator(field, operator, value));
    let filters = filters.collect::<Result<Vec<_>>>()?;
    if filters.is_empty() {
        return Err(wrong_type(field, value, "a value, or an object with an operator"));
    }
    Ok(all_of(filters))
}

fn parse_operator(field: &str, operator: &str, value: &Value) -> Result<Filter> {
    let field = || field.to_string();
    let scalar = || match value {
        Value::Array(_) | Value::Object(_) => Err(wrong_type(operator, value, "a string, a number, a boolean or null")),
        value => Ok(vec![value.clone()]),
    };
    let list = || value.as_array().cloned().ok_or_else(|| wrong_type(operator, value, "a list of values"));
    let compare = |is_match: fn(Ordering) -> bool| match value {
        Value::Number(_) | Value::String(_) => Ok(Filter::Compare(field(), is_match, value.clone())),
        value => Err(wrong_type(operator, value, "a number or a string")),
    };
    match operator {
        "$eq" => Ok(Filter::In(field(), scalar()?)),
        "$ne" => Ok(Filter::Not(Box::new(Filter::In(field(), scalar()?)))),
        "$in" => Ok(Filter::In(field(), list()?)),
        "$nin" => Ok(Filter::Not(Box::new(Filter::In(field(), list()?)))),
        "$gt" => compare(Ordering::is_gt),
        "$gte" => compare(Ordering::is_ge),
        "$lt" => compare(Ordering::is_lt),
        "$lte" => compare(Ordering::is_le),
        "$exists" => {
            let expected = value.as_bool().ok_or_else(|| wrong_type(operator, value, "true or false"))?;
            Ok(Filter::Exists(field(), expected))
        }
        other => Err(unknown_operator(other)),
    }
}

fn unknown_operator(operator: &str) -> Error {
    let operator = truncate_for_display(operator);
    Error::invalid_value(PARAM, format!("filter has unknown operator {operator:?}; expected one of {OPERATORS}"))
}

fn wrong_type(name: &str, value: &Value, expected: &str) -> Error {
    let (name, value) = (truncate_for_display(name), truncate_for_display(&value.to_string()));
    Error::invalid_value(PARAM, format!("{name} is {value}; expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn filter_matches_metadata() {
        let metadata = json!({"year": 1961, "tags": ["speech", "moon"], "title": "Rice", "open": true, "none": null});
        let metadata = metadata.as_object().unwrap();
        for (filter, expected) in [
            (json!({}), true),
            (json!({"year": 1961}), true),
            (json!({"year": 1961.0, "open": true}), true),
            (json!({"year": "1961"}), false),
            (json!({"tags": "moon"}), true),
            (json!({"tags": {"$in": ["sea", "speech"]}}), true),
            (json!({"tags": {"$nin": ["sea", "speech"]}}), false),
            (json!({"year": {"$gte": 1961, "$lt": 1962}}), true),
            (json!({"year": {"$gt": 1961}}), false),
            (json!({"title": {"$lte": "Rice", "$gt": "A"}}), true),
            (json!({"title": {"$gt": 3}}), false),
            (json!({"missing": {"$ne": 3}}), true),
            (json!({"missing": {"$exists": false}, "none": {"$exists": false}}), true),
            (json!({"$or": [{"year": 1}, {"$and": [{"open": true}, {"$not": {"title": "x"}}]}]}), true),
            (json!({"$or": [{"year": 1}, {"open": false}]}), false),
        ] {
            assert_eq!(Filter::parse(&filter).unwrap().matches(metadata), expected, "{filter}");
        }
    }

    #[test]
    fn invalid_filter_is_an_error_that_names_the_problem() {
        let mut deep = json!({"a": 1});
        for _ in 0..20 {
            deep = json!({"$not": deep});
        }
        for (filter, word) in [
            (json!([]), "filter"),
            (json!({"$xor": []}), "$xor"),
            (json!({"year": {"$near": 3}}), "$near"),
            (json!({"year": {"$gt": [3]}}), "$gt"),
            (json!({"year": {"$in": 3}}), "$in"),
            (json!({"year": {"$exists": 1}}), "$exists"),
            (json!({"year": [3]}), "year"),
            (json!({"year": {}}), "year"),
            (json!({"$and": []}), "$and"),
            (deep, "deeper"),
        ] {
            let error = Filter::parse(&filter).unwrap_err();
            assert!(error.param.as_deref() == Some("filter") && error.message.contains(word), "{filter}: {error:?}");
        }
    }
}
