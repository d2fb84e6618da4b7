//! Which documents a search looks at, by their metadata: `{"year": {"$gte": 1960}, "tags": "speech"}`, in the language that MongoDB
//! began and Pinecone, Chroma and S3 Vectors speak.

use serde_json::{Map, Value};
use std::cmp::Ordering;
use tealight_core::{Error, Result, truncate_for_display};

/// Filters inside filters beyond these are a mistake.
const DEEPEST: usize = 16;
const FIELD: &str = "filter";

/// A condition on metadata.
#[derive(Debug, Clone)]
pub enum Filter {
    /// All of them hold.
    All(Vec<Filter>),
    /// One of them holds.
    Any(Vec<Filter>),
    /// It does not hold.
    Not(Box<Filter>),
    /// A field, or one of its values if it is a list, is one of these.
    In(String, Vec<Value>),
    /// A field, or one of its values, compares so with a number or text.
    Order(String, fn(Ordering) -> bool, Value),
    /// Whether there is a field.
    Exists(String, bool),
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// It is no object, names an operator that is not known, or an operator has a value of the wrong kind: each is named.
    pub fn of(value: &Value) -> Result<Self> {
        read(value, DEEPEST)
    }

    /// Whether a document's metadata meet it.
    pub fn takes(&self, metadata: &Map<String, Value>) -> bool {
        match self {
            Filter::All(all) => all.iter().all(|filter| filter.takes(metadata)),
            Filter::Any(any) => any.iter().any(|filter| filter.takes(metadata)),
            Filter::Not(filter) => !filter.takes(metadata),
            Filter::In(field, values) => some(metadata, field, |found| values.iter().any(|v| equal(found, v))),
            Filter::Order(field, fits, value) => {
                some(metadata, field, |found| compare(found, value).is_some_and(*fits))
            }
            Filter::Exists(field, wanted) => metadata.get(field).is_some_and(|v| !v.is_null()) == *wanted,
        }
    }
}

/// Whether a field, or one of its values if it is a list, is as `fits` says.
fn some(metadata: &Map<String, Value>, field: &str, fits: impl Fn(&Value) -> bool) -> bool {
    match metadata.get(field) {
        None => false,
        Some(Value::Array(values)) => values.iter().any(fits),
        Some(value) => fits(value),
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    // 1 and 1.0 are one number.
    a == b || compare(a, b) == Some(Ordering::Equal)
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn read(value: &Value, depth: usize) -> Result<Filter> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Error::invalid_value(
            FIELD,
            format!("filter goes deeper than {DEEPEST} filters inside each other"),
        ));
    };
    let object = value.as_object().ok_or_else(|| wrong("filter", value, "an object"))?;
    let parts = object.iter().map(|(key, value)| match key.as_str() {
        "$and" => Ok(Filter::All(list(key, value, depth)?)),
        "$or" => Ok(Filter::Any(list(key, value, depth)?)),
        "$not" => Ok(Filter::Not(Box::new(read(value, depth)?))),
        key if key.starts_with('$') => Err(unknown(key)),
        field => of_field(field, value),
    });
    let mut parts = parts.collect::<Result<Vec<_>>>()?;
    Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::All(parts) })
}

fn list(key: &str, value: &Value, depth: usize) -> Result<Vec<Filter>> {
    let filters = value.as_array().filter(|f| !f.is_empty()).ok_or_else(|| wrong(key, value, "a list of filters"))?;
    filters.iter().map(|filter| read(filter, depth)).collect()
}

fn of_field(field: &str, value: &Value) -> Result<Filter> {
    let Some(operators) = value.as_object() else {
        return match value {
            Value::Array(_) => Err(wrong(field, value, "a value, or an object of operators such as {\"$in\": [...]}")),
            value => Ok(Filter::In(field.into(), vec![value.clone()])),
        };
    };
    let parts = operators.iter().map(|(operator, value)| of_operator(field, operator, value));
    let mut parts = parts.collect::<Result<Vec<_>>>()?;
    if parts.is_empty() {
        return Err(wrong(field, value, "a value, or an object with an operator"));
    }
    Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::All(parts) })
}

fn of_operator(field: &str, operator: &str, value: &Value) -> Result<Filter> {
    let named = || field.to_string();
    let one = |value: &Value| match value {
        Value::Array(_) | Value::Object(_) => Err(wrong(operator, value, "a text, a number, a truth value or null")),
        value => Ok(vec![value.clone()]),
    };
    let many = |value: &Value| value.as_array().cloned().ok_or_else(|| wrong(operator, value, "a list of values"));
    let order = |fits: fn(Ordering) -> bool| match value {
        Value::Number(_) | Value::String(_) => Ok(Filter::Order(named(), fits, value.clone())),
        value => Err(wrong(operator, value, "a number or a text")),
    };
    match operator {
        "$eq" => Ok(Filter::In(named(), one(value)?)),
        "$ne" => Ok(Filter::Not(Box::new(Filter::In(named(), one(value)?)))),
        "$in" => Ok(Filter::In(named(), many(value)?)),
        "$nin" => Ok(Filter::Not(Box::new(Filter::In(named(), many(value)?)))),
        "$gt" => order(Ordering::is_gt),
        "$gte" => order(Ordering::is_ge),
        "$lt" => order(Ordering::is_lt),
        "$lte" => order(Ordering::is_le),
        "$exists" => {
            let wanted = value.as_bool().ok_or_else(|| wrong(operator, value, "true or false"))?;
            Ok(Filter::Exists(named(), wanted))
        }
        other => Err(unknown(other)),
    }
}

fn unknown(operator: &str) -> Error {
    let known = "$eq, $ne, $in, $nin, $gt, $gte, $lt, $lte, $exists, $and, $or, $not";
    Error::invalid_value(FIELD, format!("filter has the operator {:?}; known: {known}", truncate_for_display(operator)))
}

fn wrong(what: &str, value: &Value, wanted: &str) -> Error {
    Error::invalid_value(
        FIELD,
        format!("{} is {}, it must be {wanted}", truncate_for_display(what), truncate_for_display(&value.to_string())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn filters_take_what_they_say() {
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
            assert_eq!(Filter::of(&filter).unwrap().takes(metadata), expected, "{filter}");
        }
    }

    #[test]
    fn mistakes_are_named() {
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
            let error = Filter::of(&filter).unwrap_err();
            assert!(error.param.as_deref() == Some("filter") && error.message.contains(word), "{filter}: {error:?}");
        }
    }
}
