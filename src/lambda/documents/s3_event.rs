//! Notifications that objects were created, from S3 itself or from EventBridge.

use super::item::{IngestItem, parse_part, unsupported};
use crate::pipeline::ingest::ObjectNotification;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;
use tealight_core::{Result, truncate_for_display};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct S3Record {
    aws_region: Option<String>,
    event_name: String,
    s3: S3Detail,
}

#[derive(Deserialize)]
struct S3Detail {
    bucket: S3Bucket,
    object: S3Object,
}

#[derive(Deserialize)]
struct S3Bucket {
    name: String,
}

#[derive(Deserialize)]
struct S3Object {
    key: String,
    size: Option<u64>,
    #[serde(alias = "eTag")]
    etag: Option<String>,
}

/// The objects that records of S3 report as created:
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>.
pub fn parse_s3_records(records: &[&RawValue]) -> Result<Vec<IngestItem>> {
    let mut items = vec![];
    for record in records {
        let S3Record { aws_region, event_name, s3 } = parse_part(record.get())?;
        if !event_name.trim_start_matches("s3:").starts_with("ObjectCreated:") {
            log_ignored(&event_name);
            continue;
        }
        let key = decode_key(&s3.object.key)?;
        items.extend(created_object(s3.bucket, S3Object { key, ..s3.object }, aws_region));
    }
    Ok(items)
}

/// Decodes a key of a notification of S3 or of an inventory: percent-encoded, with `+` for a space.
pub fn decode_key(key: &str) -> Result<String> {
    let key = key.replace('+', " ");
    let decoded = percent_decode_str(&key).decode_utf8();
    decoded.map(String::from).map_err(|_| unsupported(format!("the key {:?} is not UTF-8", truncate_for_display(&key))))
}

#[derive(Deserialize)]
struct EventBridgeHead {
    source: String,
    #[serde(rename = "detail-type")]
    detail_type: String,
}

#[derive(Deserialize)]
struct EventBridgeEvent {
    region: Option<String>,
    detail: S3Detail,
}

/// The object that an event of EventBridge reports as created. Its key is not percent-encoded.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>
pub fn parse_eventbridge(payload: &str) -> Result<Vec<IngestItem>> {
    let head: EventBridgeHead = parse_part(payload)?;
    if head.source != "aws.s3" {
        let source = truncate_for_display(&head.source);
        return Err(unsupported(format!("EventBridge source {source:?}; supported: aws.s3")));
    }
    if head.detail_type != "Object Created" {
        log_ignored(&head.detail_type);
        return Ok(vec![]);
    }
    let EventBridgeEvent { region, detail } = parse_part(payload)?;
    Ok(created_object(detail.bucket, detail.object, region).into_iter().collect())
}

/// None for folders, which the S3 console creates as empty objects.
fn created_object(bucket: S3Bucket, object: S3Object, region: Option<String>) -> Option<IngestItem> {
    let S3Object { key, size, etag } = object;
    let notification = ObjectNotification { bucket: bucket.name, key, etag, size, region };
    (!notification.is_folder()).then_some(IngestItem::Object(notification))
}

fn log_ignored(name: &str) {
    tracing::info!(event = truncate_for_display(name), "ignored: not an object-created event");
}
