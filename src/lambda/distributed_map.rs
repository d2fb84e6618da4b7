//! A batch of a distributed map of Step Functions: documents, or objects of a bucket.
//! <https://docs.aws.amazon.com/step-functions/latest/dg/input-output-itembatcher.html>

use super::records::{Task, unescaped};
use crate::pipeline::ingest::Notice;
use crate::pipeline::input::Document;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::{RawValue, to_raw_value};
use tealight_core::{Error, ErrorKind, Result};

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow, rename = "Items")]
    items: Vec<&'a RawValue>,
    #[serde(rename = "BatchInput", default)]
    input: Option<Input>,
}

#[derive(Default, Deserialize)]
struct Input {
    bucket: Option<String>,
}

/// What each item of a batch asks for; nothing of a folder.
///
/// # Errors
/// [`ErrorKind::UnsupportedEvent`]: it is no batch.
pub fn parse(payload: &str) -> Result<Vec<Option<Task>>> {
    let mut deserializer = serde_json::Deserializer::from_str(payload);
    let batch: Batch = serde_path_to_error::deserialize(&mut deserializer).map_err(|e| {
        Error::new(ErrorKind::UnsupportedEvent, format!("the event is no batch of a distributed map: {e}"))
            .truncate_message()
    })?;
    let bucket = batch.input.unwrap_or_default().bucket;
    Ok(batch.items.iter().map(|item| task(item.get(), bucket.as_deref())).collect())
}

/// An object as lists and inventories have it; inventories have texts only.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    key: String,
    bucket: Option<String>,
    #[serde(alias = "ETag")]
    etag: Option<String>,
    size: Option<Size>,
    /// What a row of a table has that has a column `Key` too.
    #[serde(rename = "text")]
    text: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Number(u64),
    Text(String),
}

fn task(item: &str, bucket: Option<&str>) -> Option<Task> {
    let listed = match serde_json::from_str::<Listed>(item) {
        Ok(listed) if listed.text.is_none() => listed,
        _ => return Some(Task::Document(document(item))),
    };
    // Keys in inventories are written as in a URL: https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory.html
    let key = match listed.bucket.is_some().then(|| unescaped(&listed.key)) {
        Some(Err(error)) => return Some(Task::Document(Err(error))),
        Some(Ok(key)) => key,
        None => listed.key,
    };
    let Some(bucket) = listed.bucket.as_deref().or(bucket) else {
        let message = "the item is an object, and neither it nor BatchInput names its bucket";
        return Some(Task::Document(Err(Error::invalid_value("bucket", message))));
    };
    let size = match listed.size {
        Some(Size::Number(size)) => Some(size),
        Some(Size::Text(text)) => text.parse().ok(),
        None => None,
    };
    let etag = listed.etag.map(|etag| etag.trim_matches('"').to_string()).filter(|etag| !etag.is_empty());
    let notice = Notice { bucket: bucket.into(), key, etag, size, region: None };
    (!notice.is_folder()).then_some(Task::Object(notice))
}

/// A line as it is, or a row of a table: what is neither `id`, `text` nor an object `metadata` is metadata, and what is empty is
/// none.
fn document(item: &str) -> Result<Document> {
    let wrong = |e: serde_json::Error| {
        Error::new(ErrorKind::InvalidType, format!("the item is neither a document nor an object of a bucket: {e}"))
            .truncate_message()
    };
    let mut document = Document::of("");
    let (mut columns, mut metadata) = (vec![], None);
    for (name, value) in serde_json::from_str::<Row>(item).map_err(wrong)?.0 {
        match name.as_str() {
            _ if matches!(value.get(), "null" | "\"\"") => {}
            "text" => document.text = serde_json::from_str(value.get()).map_err(wrong)?,
            "id" => document.id = Some(value),
            "metadata" if value.get().starts_with('{') => metadata = Some(value),
            _ => columns.push((name, value)),
        }
    }
    document.metadata = match (metadata, columns.is_empty()) {
        (metadata, true) => metadata,
        (None, false) => Some(object(columns)?),
        (Some(given), false) => {
            let given = serde_json::from_str::<Row>(given.get()).map_err(wrong)?.0;
            Some(object(given.into_iter().chain(columns).collect())?)
        }
    };
    document.checked()
}

/// Fields as an object; names that stand twice do so in it too.
fn object(fields: Vec<(String, Box<RawValue>)>) -> Result<Box<RawValue>> {
    let wrong = |e: serde_json::Error| Error::internal(e.to_string());
    let field = |(name, value): &(String, Box<RawValue>)| Ok(format!("{}:{}", to_raw_value(name)?.get(), value.get()));
    let fields = fields.iter().map(field).collect::<serde_json::Result<Vec<_>>>().map_err(wrong)?;
    RawValue::from_string(format!("{{{}}}", fields.join(","))).map_err(wrong)
}

/// The fields of an object in their order.
struct Row(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Row;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        let mut fields = vec![];
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Row(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn one(item: Value) -> Option<Task> {
        parse(&json!({"Items": [item], "BatchInput": {"bucket": "docs"}}).to_string()).unwrap().remove(0)
    }

    fn row(item: &str) -> (String, String, Option<String>) {
        let document = document(item).unwrap();
        (document.name().unwrap(), document.text, document.metadata.map(|m| m.get().to_string()))
    }

    #[test]
    fn lines_and_rows_are_documents() {
        let found = |item| row(item);
        let of = |id: &str, text: &str, metadata: Option<&str>| (id.into(), text.into(), metadata.map(String::from));
        assert_eq!(found(r#"{"id": 1.50, "text": "a", "metadata": {"y": 1}}"#), of("1.50", "a", Some(r#"{"y": 1}"#)));
        // As a map reads CSV: texts, in the order of the columns.
        let csv = r#"{"year":"1961","id":"7","text":"a","empty":"","metadata":"m"}"#;
        assert_eq!(found(csv), of("7", "a", Some(r#"{"year":"1961","metadata":"m"}"#)));
        // And Parquet.
        assert_eq!(found(r#"{"text":"a","id":"x","n":1e400,"none":null}"#), of("x", "a", Some(r#"{"n":1e400}"#)));
        let both = r#"{"text":"a","id":"x","metadata":{"y":1},"z":[2]}"#;
        assert_eq!(found(both), of("x", "a", Some(r#"{"y":1,"z":[2]}"#)));
        assert!(row(r#"{"text":"a","id":""}"#).0.starts_with("sha256:"));
        for (item, kind) in
            [("5", ErrorKind::InvalidType), ("{}", ErrorKind::Empty), (r#"{"text":5}"#, ErrorKind::InvalidType)]
        {
            assert_eq!(document(item).unwrap_err().kind, kind, "{item}");
        }
    }

    #[test]
    fn objects_are_of_the_bucket_of_the_batch_or_of_their_own() {
        let notice = |item| match one(item) {
            Some(Task::Object(notice)) => notice,
            other => panic!("{other:?}"),
        };
        let listed = json!({"Etag": "\"9b74c9897bac770ffc029102a200c5de\"", "Key": "bulk/a b+ü.jsonl", "LastModified": 1699568000,
            "Size": 42, "StorageClass": "STANDARD"});
        let found = notice(listed);
        assert_eq!((found.bucket.as_str(), found.key.as_str(), found.size), ("docs", "bulk/a b+ü.jsonl", Some(42)));
        assert_eq!(found.etag.as_deref(), Some("9b74c9897bac770ffc029102a200c5de"));
        let inventory =
            notice(json!({"Bucket": "other", "Key": "a%20%2B.csv", "Size": "42", "LastModifiedDate": "2026-11-23"}));
        assert_eq!((inventory.bucket.as_str(), inventory.key.as_str(), inventory.size), ("other", "a +.csv", Some(42)));
        assert!(one(json!({"Key": "bulk/", "Size": 0})).is_none(), "a folder");
        assert!(matches!(one(json!({"Key": "a", "text": "b"})), Some(Task::Document(Ok(_)))));
        let nowhere = parse(r#"{"Items": [{"Key": "a.txt"}]}"#).unwrap().remove(0);
        assert!(matches!(nowhere, Some(Task::Document(Err(error))) if error.message.contains("BatchInput")));
    }

    #[test]
    fn a_batch_without_items_is_none() {
        for payload in ["{}", r#"{"Items": 5}"#, r#"{"Items": [], "BatchInput": 5}"#] {
            assert_eq!(parse(payload).unwrap_err().kind, ErrorKind::UnsupportedEvent, "{payload}");
        }
        assert!(parse(r#"{"Items": []}"#).unwrap().is_empty());
    }
}
