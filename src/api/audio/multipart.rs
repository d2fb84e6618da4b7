//! Parser of `multipart/form-data` (RFC 7578), the format in which HTML forms send files.

use bytes::Bytes;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// More fields than any route has.
const MAX_FIELDS: usize = 64;

/// A field of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormField {
    /// The `name` of its `Content-Disposition`.
    pub name: String,
    /// A text, or the bytes of a file; a slice of the body.
    pub content: Bytes,
}

/// Parses a body whose content type is `content_type`.
///
/// # Errors
/// [`ErrorKind::UnsupportedMediaType`]: the content type has no boundary. [`ErrorKind::InvalidType`]: the body is malformed.
pub fn parse(content_type: &str, body: &Bytes) -> Result<Vec<FormField>> {
    let boundary = boundary(content_type).ok_or_else(|| {
        Error::new(
            ErrorKind::UnsupportedMediaType,
            format!("the content type {:?} has no boundary", truncate_for_display(content_type)),
        )
    })?;
    let delimiter = format!("--{boundary}");
    let missing = || malformed("does not start with its boundary");
    let mut offset = find(body, delimiter.as_bytes(), 0).ok_or_else(missing)? + delimiter.len();
    let next = format!("\r\n{delimiter}");
    let mut fields = vec![];
    while !body[offset..].starts_with(b"--") {
        if fields.len() == MAX_FIELDS {
            return Err(malformed(&format!("has more than {MAX_FIELDS} fields")));
        }
        let end = find(body, next.as_bytes(), offset).ok_or_else(|| malformed("ends before its last boundary"))?;
        fields.push(parse_field(body.slice(offset..end))?);
        offset = end + next.len();
    }
    Ok(fields)
}

/// Parses headers, an empty line and the content.
fn parse_field(bytes: Bytes) -> Result<FormField> {
    const HEADERS_END: &[u8] = b"\r\n\r\n";
    let end = find(&bytes, HEADERS_END, 0).ok_or_else(|| malformed("has a field without headers"))?;
    let headers = String::from_utf8_lossy(&bytes[..end]);
    let disposition = headers.lines().find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"));
    let name = disposition.and_then(|line| parameter(line, "name"));
    let name = name.ok_or_else(|| malformed("has a field without a name"))?;
    Ok(FormField { name, content: bytes.slice(end + HEADERS_END.len()..) })
}

fn boundary(content_type: &str) -> Option<String> {
    let is_form = content_type.trim_start().to_ascii_lowercase().starts_with("multipart/form-data");
    is_form.then(|| parameter(content_type, "boundary")).flatten().filter(|b| !b.is_empty() && b.len() <= 70)
}

/// The value of a parameter after a semicolon: `; name=value` or `; name="value"`.
fn parameter(line: &str, name: &str) -> Option<String> {
    let mut rest = line;
    while let Some((_, behind)) = rest.split_once(';') {
        rest = behind.trim_start();
        let Some((key, value)) = rest.split_once('=') else { continue };
        if !key.trim().eq_ignore_ascii_case(name) {
            // A quoted value may contain a semicolon.
            if let Some(quoted) = value.strip_prefix('"') {
                rest = quoted.split_once('"').map_or("", |(_, behind)| behind);
            }
            continue;
        }
        return match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').map(|(value, _)| value.to_string()),
            None => Some(value.split(';').next().unwrap_or_default().trim().to_string()),
        };
    }
    None
}

fn find(bytes: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let first = *needle.first()?;
    let mut offset = from;
    loop {
        // Searching for one byte is much faster than comparing at each offset.
        offset += bytes.get(offset..)?.iter().position(|b| *b == first)?;
        if bytes[offset..].starts_with(needle) {
            return Some(offset);
        }
        offset += 1;
    }
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidType, format!("the form {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=\"a;b\"";

    fn parsed(body: &str) -> Result<Vec<(String, String)>> {
        let fields = parse(TYPE, &Bytes::from(body.to_string()))?;
        Ok(fields.into_iter().map(|p| (p.name, String::from_utf8_lossy(&p.content).into_owned())).collect())
    }

    #[test]
    fn fields_and_files_are_parsed() {
        let body = "preamble\r\n--a;b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--a;b\r\n\
                    content-type: audio/wav\r\ncontent-disposition: form-data; filename=\"a; name=b\"; name=file\r\n\r\n\
                    RIFF\r\n--a\r\n\r\n--a;b--\r\n";
        let expected = [("model", "whisper-1"), ("file", "RIFF\r\n--a\r\n")];
        assert_eq!(parsed(body).unwrap(), expected.map(|(n, c)| (n.to_string(), c.to_string())));
        assert!(parsed("--a;b--").unwrap().is_empty());
    }

    #[test]
    fn malformed_form_is_rejected() {
        for (body, word) in [
            ("", "boundary"),
            ("--b\r\n", "boundary"),
            ("--a;b", "ends before"),
            ("--a;b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\nabc", "ends before"),
            ("--a;b\r\nno headers\r\n--a;b--", "without headers"),
            ("--a;b\r\nContent-Type: x\r\n\r\nabc\r\n--a;b--", "without a name"),
        ] {
            let error = parsed(body).unwrap_err();
            assert!(error.kind == ErrorKind::InvalidType && error.message.contains(word), "{body:?}: {error:?}");
        }
        let many = "--a;b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n\r\n".repeat(65) + "--a;b--";
        assert!(parsed(&many).unwrap_err().message.contains("64"));
        for content_type in ["multipart/form-data", "application/json; boundary=x", "multipart/form-data; boundary="] {
            assert_eq!(
                parse(content_type, &Bytes::new()).unwrap_err().kind,
                ErrorKind::UnsupportedMediaType,
                "{content_type}"
            );
        }
    }
}
