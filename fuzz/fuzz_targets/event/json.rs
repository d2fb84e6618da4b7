//! Events of AWS with some values replaced, and random JSON of the names that events have.

use arbitrary::{Result, Unstructured};
use serde_json::{Map, Value, json};

const MAX_DEPTH: usize = 5;
/// Names and values with a meaning in some event.
const NAMES: [&str; 47] = [
    "requestContext",
    "http",
    "elb",
    "stage",
    "domainName",
    "method",
    "rawPath",
    "path",
    "httpMethod",
    "headers",
    "multiValueHeaders",
    "queryStringParameters",
    "rawQueryString",
    "body",
    "isBase64Encoded",
    "input",
    "inputs",
    "ids",
    "messages",
    "prompt",
    "audio",
    "uri",
    "query",
    "vector",
    "Records",
    "eventSource",
    "messageId",
    "attributes",
    "s3",
    "bucket",
    "object",
    "key",
    "name",
    "source",
    "detail",
    "detail-type",
    "Event",
    "POST",
    "/v1/embeddings",
    "https://x.y/embed",
    "a.lambda-url.b",
    "aws:sqs",
    "aws:s3",
    "aws.s3",
    "s3:TestEvent",
    "Object Created",
    "e30=",
];

/// Unmodified events, and a direct invocation.
const EVENTS: [&str; 10] = [
    include_str!("../../../tests/fixtures/events/alb.json"),
    include_str!("../../../tests/fixtures/events/alb_multi_value.json"),
    include_str!("../../../tests/fixtures/events/function_url.json"),
    include_str!("../../../tests/fixtures/events/http_api_named_stage.json"),
    include_str!("../../../tests/fixtures/events/http_api_base64.json"),
    include_str!("../../../tests/fixtures/events/rest_api.json"),
    include_str!("../../../tests/fixtures/events/s3_eventbridge.json"),
    include_str!("../../../tests/fixtures/events/s3_put.json"),
    include_str!("../../../tests/fixtures/events/sqs.json"),
    r#"{"path": "/embed", "method": "POST", "inputs": ["a"]}"#,
];

/// A JSON object.
pub fn event(u: &mut Unstructured) -> Result<Value> {
    if u.ratio(1, 4)? {
        return object(u, MAX_DEPTH);
    }
    let mut event: Value = serde_json::from_str(u.choose(&EVENTS)?).unwrap();
    for _ in 0..u.int_in_range(1..=4)? {
        mutate(u, &mut event)?;
    }
    Ok(event)
}

/// Replaces or removes a value, or one inside it.
fn mutate(u: &mut Unstructured, root: &mut Value) -> Result<()> {
    let Some(fields) = root.as_object_mut().filter(|fields| !fields.is_empty()) else {
        *root = match root.as_array_mut().and_then(|values| values.first_mut()) {
            Some(first) => return mutate(u, first),
            None => value(u, 2)?,
        };
        return Ok(());
    };
    let key = u.choose_iter(fields.keys())?.clone();
    match u.int_in_range(0..=9)? {
        0 => drop(fields.remove(&key)),
        1 => drop(fields.insert(key, value(u, 2)?)),
        _ => mutate(u, &mut fields[&key])?,
    }
    Ok(())
}

fn object(u: &mut Unstructured, depth: usize) -> Result<Value> {
    let pair = |u: &mut Unstructured| Ok((text(u)?, value(u, depth - 1)?));
    let pairs = (0..u.int_in_range(0..=5)?).map(|_| pair(u)).collect::<Result<Map<_, _>>>()?;
    Ok(pairs.into())
}

fn text(u: &mut Unstructured) -> Result<String> {
    match u.ratio(7, 8)? {
        true => u.choose(&NAMES).map(|name| name.to_string()),
        false => u.arbitrary(),
    }
}

fn value(u: &mut Unstructured, depth: usize) -> Result<Value> {
    match u.int_in_range(0..=if depth == 0 { 4 } else { 9 })? {
        0 | 1 => text(u).map(Value::from),
        2 => u.arbitrary::<Option<i64>>().map(Value::from),
        3 => u.arbitrary::<f64>().map(|v| json!(v)),
        4 => u.arbitrary::<bool>().map(Value::from),
        5 => (0..u.int_in_range(0..=3)?).map(|_| value(u, depth - 1)).collect(),
        _ => object(u, depth),
    }
}
