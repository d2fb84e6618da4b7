//! Requests of multipart uploads to Amazon S3, and their XML responses.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html>

use super::s3::xml_element;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt::Write as _;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Minimum size of all parts except the last. An object has at most [`MAX_PARTS`].
pub const PART_BYTES: usize = 8 << 20;
/// Maximum number of parts of an object.
pub const MAX_PARTS: usize = 10_000;

/// An operation on an S3 object. `&str` is the id of the upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Operation<'a> {
    /// Creates the object from the body.
    PutObject,
    /// Starts a multipart upload.
    CreateMultipartUpload,
    /// Uploads the body as the part with this number, from 1.
    UploadPart(&'a str, usize),
    /// Creates the object from the parts that the body lists: see [`complete_upload_xml`].
    CompleteMultipartUpload(&'a str),
    /// Deletes the parts of an upload.
    AbortMultipartUpload(&'a str),
    /// Reads the object's metadata.
    HeadObject,
}

impl S3Operation<'_> {
    /// HTTP method of the request.
    pub fn method(&self) -> Method {
        match self {
            S3Operation::PutObject | S3Operation::UploadPart(..) => Method::PUT,
            S3Operation::CreateMultipartUpload | S3Operation::CompleteMultipartUpload(_) => Method::POST,
            S3Operation::AbortMultipartUpload(_) => Method::DELETE,
            S3Operation::HeadObject => Method::HEAD,
        }
    }

    /// Query string of the request, with the question mark.
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

/// The upload id in the response to [`S3Operation::CreateMultipartUpload`].
///
/// # Errors
/// [`ErrorKind::Upstream`]: the response has no id.
pub fn upload_id(response: &str) -> Result<String> {
    let id = xml_element(response, "UploadId").filter(|id| !id.is_empty());
    id.map(String::from).ok_or_else(|| {
        Error::new(
            ErrorKind::Upstream,
            format!("S3 started an upload without an id: {}", truncate_for_display(response)),
        )
    })
}

/// The body of [`S3Operation::CompleteMultipartUpload`]: the ETags of all parts, in order.
pub fn complete_upload_xml(etags: &[String]) -> Vec<u8> {
    let mut list = String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (i, etag) in etags.iter().enumerate() {
        let number = i + 1;
        let _ = write!(list, "<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>", escape_xml(etag));
    }
    list.push_str("</CompleteMultipartUpload>");
    list.into_bytes()
}

/// The error code in a response. `CompleteMultipartUpload` can fail with status 200.
pub fn error_code(response: &str) -> Option<&str> {
    response.contains("<Error>").then(|| xml_element(response, "Code").unwrap_or(""))
}

fn escape_xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upload_requests_name_part_and_upload_id() {
        assert_eq!(S3Operation::UploadPart("a/b+c", 12).query(), "?partNumber=12&uploadId=a%2Fb%2Bc");
        assert_eq!(
            (S3Operation::AbortMultipartUpload("x").method(), S3Operation::AbortMultipartUpload("x").query()),
            (Method::DELETE, "?uploadId=x".into())
        );
        let created = "<?xml?><InitiateMultipartUploadResult><UploadId>VXBs</UploadId></InitiateMultipartUploadResult>";
        assert_eq!(upload_id(created).unwrap(), "VXBs");
        assert!(upload_id("<a/>").is_err());
        let list = complete_upload_xml(&["\"e1\"".into(), "\"e2\"".into()]);
        let list = String::from_utf8(list).unwrap();
        assert!(
            list.contains("<Part><PartNumber>2</PartNumber><ETag>&quot;e2&quot;</ETag></Part></Complete"),
            "{list}"
        );
    }

    #[test]
    fn error_is_found_in_response_with_status_200() {
        assert_eq!(error_code("<Error><Code>InternalError</Code></Error>"), Some("InternalError"));
        assert_eq!(error_code("<CompleteMultipartUploadResult/>"), None);
    }
}
