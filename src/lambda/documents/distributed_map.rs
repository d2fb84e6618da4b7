//! A batch of a distributed map of Step Functions: documents, or objects of a bucket.
//! <https://docs.aws.amazon.com/step-functions/latest/dg/input-output-itembatcher.html>

use super::item::IngestItem;
use super::s3_event::decode_key;
use crate::pipeline::document::Document;
use crate::pipeline::ingest::ObjectNotification;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::{RawValue, to_raw_value};
use tealight_core::{Error, ErrorKind, Result};

#[derive(Deserialize)]
struct MapBatch<'a> {
    #[serde(borrow, rename = "Items")]
    items: Vec<&'a RawValue>,
    #[serde(rename = "BatchInput", default)]
    input: Option<BatchInput>,
}

#[derive(Default, Deserialize)]
struct BatchInput {
    bucket: Option<String>,
}

/// Parses the items of a batch. Folder placeholders are skipped (`None`).
///
/// # Errors
/// [`ErrorKind::UnsupportedEvent`]: it is not a batch.
pub fn parse(payload: &str) -> Result<Vec<Option<IngestItem>>> {
    let mut deserializer = serde_json::Deserializer::from_str(payload);
    let batch: MapBatch = serde_path_to_error::deserialize(&mut deserializer).map_err(|e| {
        Error::new(ErrorKind::UnsupportedEvent, format!("invalid batch of a distributed map: {e}")).truncate_message()
    })?;
    let bucket = batch.input.unwrap_or_default().bucket;
    Ok(batch.items.iter().map(|item| parse_item(item.get(), bucket.as_deref())).collect())
}

/// An object of a listing or an inventory. The values of inventories are texts.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedObject {
    key: String,
    bucket: Option<String>,
    #[serde(alias = "ETag")]
    etag: Option<String>,
    size: Option<Size>,
    /// Present if the item is not an object but a document: a row of a table that happens to have a column `Key`.
    #[serde(rename = "text")]
    text: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Number(u64),
    Text(String),
}

impl Size {
    fn bytes(self) -> Option<u64> {
        match self {
            Size::Number(bytes) => Some(bytes),
            Size::Text(text) => text.parse().ok(),
        }
    }
}

fn parse_item(item: &str, bucket: Option<&str>) -> Option<IngestItem> {
    let listed = match serde_json::from_str::<ListedObject>(item) {
        Ok(listed) if listed.text.is_none() => listed,
        _ => return Some(IngestItem::Document(parse_document(item))),
    };
    // Only inventories name the bucket. Their keys are percent-encoded:
    // https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory.html
    let key = match listed.bucket.is_some().then(|| decode_key(&listed.key)) {
        Some(Err(error)) => return Some(IngestItem::Document(Err(error))),
        Some(Ok(key)) => key,
        None => listed.key,
    };
    let Some(bucket) = listed.bucket.as_deref().or(bucket) else {
        let message = "the item is an object without a bucket; set bucket in BatchInput";
        return Some(IngestItem::Document(Err(Error::invalid_value("bucket", message))));
    };
    let etag = listed.etag.map(|etag| etag.trim_matches('"').to_string()).filter(|etag| !etag.is_empty());
    let size = listed.size.and_then(Size::bytes);
    let notification = ObjectNotification { bucket: bucket.into(), key, etag, size, region: None };
    (!notification.is_folder()).then_some(IngestItem::Object(notification))
}

/// A line of JSON, or a row of a table: fields other than `id`, `text` and an object `metadata` are added to the metadata; empty
/// values are left out.
fn parse_document(item: &str) -> Result<Document> {
    let invalid = |e: serde_json::Error| {
        let message = format!("the item is neither a document nor an object of a bucket: {e}");
        Error::new(ErrorKind::InvalidType, message).truncate_message()
    };
    let mut document = Document::from_text("");
    let (mut columns, mut metadata) = (vec![], None);
    for (name, value) in serde_json::from_str::<OrderedFields>(item).map_err(invalid)?.0 {
        match name.as_str() {
            _ if matches!(value.get(), "null" | "\"\"") => {}
            "text" => document.text = serde_json::from_str(value.get()).map_err(invalid)?,
            "id" => document.id = Some(value),
            "metadata" if value.get().starts_with('{') => metadata = Some(value),
            _ => columns.push((name, value)),
        }
    }
    document.metadata = match (metadata, columns.is_empty()) {
        (metadata, true) => metadata,
        (None, false) => Some(to_object(columns)?),
        (Some(metadata), false) => {
            let fields = serde_json::from_str::<OrderedFields>(metadata.get()).map_err(invalid)?.0;
            Some(to_object(fields.into_iter().chain(columns).collect())?)
        }
    };
    document.validate()
}

/// Joins fields to an object, including duplicate names.
fn to_object(fields: Vec<(String, Box<RawValue>)>) -> Result<Box<RawValue>> {
    let failed = |e: serde_json::Error| Error::internal(e.to_string());
    let field = |(name, value): &(String, Box<RawValue>)| Ok(format!("{}:{}", to_raw_value(name)?.get(), value.get()));
    let fields = fields.iter().map(field).collect::<serde_json::Result<Vec<_>>>().map_err(failed)?;
    RawValue::from_string(format!("{{{}}}", fields.join(","))).map_err(failed)
}

/// The fields of an object, in order.
struct OrderedFields(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for OrderedFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = OrderedFields;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OrderedFields, A::Error> {
        let mut fields = vec![];
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(OrderedFields(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn one(item: Value) -> Option<IngestItem> {
        parse(&json!({"Items": [item], "BatchInput": {"bucket": "docs"}}).to_string()).unwrap().remove(0)
    }

    fn row(item: &str) -> (String, String, Option<String>) {
        let document = parse_document(item).unwrap();
        (document.id_or_hash().unwrap(), document.text, document.metadata.map(|m| m.get().to_string()))
    }

    #[test]
    fn lines_and_rows_are_parsed_as_documents() {
        let values =
            |id: &str, text: &str, metadata: Option<&str>| (id.into(), text.into(), metadata.map(String::from));
        assert_eq!(row(r#"{"id": 1.50, "text": "a", "metadata": {"y": 1}}"#), values("1.50", "a", Some(r#"{"y": 1}"#)));
        // As Step Functions passes rows of CSV: texts, in the order of the columns.
        let csv = r#"{"year":"1961","id":"7","text":"a","empty":"","metadata":"m"}"#;
        assert_eq!(row(csv), values("7", "a", Some(r#"{"year":"1961","metadata":"m"}"#)));
        // Rows of Parquet.
        assert_eq!(row(r#"{"text":"a","id":"x","n":1e400,"none":null}"#), values("x", "a", Some(r#"{"n":1e400}"#)));
        let both = r#"{"text":"a","id":"x","metadata":{"y":1},"z":[2]}"#;
        assert_eq!(row(both), values("x", "a", Some(r#"{"y":1,"z":[2]}"#)));
        assert!(row(r#"{"text":"a","id":""}"#).0.starts_with("sha256:"));
        for (item, kind) in
            [("5", ErrorKind::InvalidType), ("{}", ErrorKind::Empty), (r#"{"text":5}"#, ErrorKind::InvalidType)]
        {
            assert_eq!(parse_document(item).unwrap_err().kind, kind, "{item}");
        }
    }

    #[test]
    fn bucket_comes_from_item_or_batch_input() {
        let notification = |item| match one(item) {
            Some(IngestItem::Object(notification)) => notification,
            other => panic!("{other:?}"),
        };
        let listing = json!({"Etag": "\"9b74c9897bac770ffc029102a200c5de\"", "Key": "bulk/a b+ü.jsonl", "LastModified": 1699568000,
            "Size": 42, "StorageClass": "STANDARD"});
        let found = notification(listing);
        assert_eq!((found.bucket.as_str(), found.key.as_str(), found.size), ("docs", "bulk/a b+ü.jsonl", Some(42)));
        assert_eq!(found.etag.as_deref(), Some("9b74c9897bac770ffc029102a200c5de"));
        let inventory = notification(
            json!({"Bucket": "other", "Key": "a%20%2B.csv", "Size": "42", "LastModifiedDate": "2026-11-23"}),
        );
        assert_eq!((inventory.bucket.as_str(), inventory.key.as_str(), inventory.size), ("other", "a +.csv", Some(42)));
        assert!(one(json!({"Key": "bulk/", "Size": 0})).is_none(), "a folder");
        assert!(matches!(one(json!({"Key": "a", "text": "b"})), Some(IngestItem::Document(Ok(_)))));
        let without_bucket = parse(r#"{"Items": [{"Key": "a.txt"}]}"#).unwrap().remove(0);
        assert!(
            matches!(without_bucket, Some(IngestItem::Document(Err(error))) if error.message.contains("BatchInput"))
        );
    }

    #[test]
    fn event_without_items_is_unsupported() {
        for payload in ["{}", r#"{"Items": 5}"#, r#"{"Items": [], "BatchInput": 5}"#] {
            assert_eq!(parse(payload).unwrap_err().kind, ErrorKind::UnsupportedEvent, "{payload}");
        }
        assert!(parse(r#"{"Items": []}"#).unwrap().is_empty());
    }
}
