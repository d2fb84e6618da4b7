//! Uploads to Amazon S3: the requests of one in parts, and what is said to them.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html>

use super::s3::xml_element;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt::Write as _;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Of all parts but the last, at least; an object may have [`MAX_PARTS`] of them.
pub const PART_BYTES: usize = 8 << 20;
/// Parts of an object, at most.
pub const MAX_PARTS: usize = 10_000;

/// What is asked of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Operation<'a> {
    /// To be the body.
    PutObject,
    /// To begin an upload in parts.
    CreateMultipartUpload,
    /// To take the body as a part of an upload, by its number from 1.
    UploadPart(&'a str, usize),
    /// To be the parts that the body lists.
    CompleteMultipartUpload(&'a str),
    /// To forget an upload.
    AbortMultipartUpload(&'a str),
    /// What is there.
    HeadObject,
}

impl S3Operation<'_> {
    /// The method of its request.
    pub fn method(&self) -> Method {
        match self {
            S3Operation::PutObject | S3Operation::UploadPart(..) => Method::PUT,
            S3Operation::CreateMultipartUpload | S3Operation::CompleteMultipartUpload(_) => Method::POST,
            S3Operation::AbortMultipartUpload(_) => Method::DELETE,
            S3Operation::HeadObject => Method::HEAD,
        }
    }

    /// What stands behind the object's address.
    pub fn query(&self) -> String {
        let encoded = |id| utf8_percent_encode(id, NON_ALPHANUMERIC);
        match self {
            S3Operation::PutObject | S3Operation::HeadObject => String::new(),
            S3Operation::CreateMultipartUpload => "?uploads=".into(),
            S3Operation::UploadPart(id, number) => format!("?partNumber={number}&uploadId={}", encoded(id)),
            S3Operation::CompleteMultipartUpload(id) | S3Operation::AbortMultipartUpload(id) => {
                format!("?uploadId={}", encoded(id))
            }
        }
    }
}

/// The id of an upload that has begun.
///
/// # Errors
/// [`ErrorKind::Upstream`]: the reply names none.
pub fn upload_id(reply: &str) -> Result<String> {
    let id = xml_element(reply, "UploadId").filter(|id| !id.is_empty());
    id.map(String::from).ok_or_else(|| {
        Error::new(
            ErrorKind::Upstream,
            format!("S3 begins an upload and does not name it: {}", truncate_for_display(reply)),
        )
    })
}

/// The body that lists parts by their ETags.
pub fn complete_upload_xml(etags: &[String]) -> Vec<u8> {
    let mut list = String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (i, etag) in etags.iter().enumerate() {
        let number = i + 1;
        let _ = write!(list, "<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>", escaped(etag));
    }
    list.push_str("</CompleteMultipartUpload>");
    list.into_bytes()
}

/// The code of an error, which a complete_upload_xml may answer behind the status 200, too.
pub fn error_code(reply: &str) -> Option<&str> {
    reply.contains("<Error>").then(|| xml_element(reply, "Code").unwrap_or(""))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_asked_for_by_number_and_upload() {
        assert_eq!(S3Operation::UploadPart("a/b+c", 12).query(), "?partNumber=12&uploadId=a%2Fb%2Bc");
        assert_eq!(
            (S3Operation::AbortMultipartUpload("x").method(), S3Operation::AbortMultipartUpload("x").query()),
            (Method::DELETE, "?uploadId=x".into())
        );
        let begun = "<?xml?><InitiateMultipartUploadResult><UploadId>VXBs</UploadId></InitiateMultipartUploadResult>";
        assert_eq!(upload_id(begun).unwrap(), "VXBs");
        assert!(upload_id("<a/>").is_err());
        let list = complete_upload_xml(&["\"e1\"".into(), "\"e2\"".into()]);
        let list = String::from_utf8(list).unwrap();
        assert!(
            list.contains("<Part><PartNumber>2</PartNumber><ETag>&quot;e2&quot;</ETag></Part></Complete"),
            "{list}"
        );
    }

    #[test]
    fn an_error_may_come_late() {
        assert_eq!(error_code("<Error><Code>InternalError</Code></Error>"), Some("InternalError"));
        assert_eq!(error_code("<CompleteMultipartUploadResult/>"), None);
    }
}
