//! Bodies of `multipart/form-data` (RFC 7578), as clients send files.

use bytes::Bytes;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Parts of a form beyond these are no form of ours.
const MOST_PARTS: usize = 64;

/// A part of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The name of the field.
    pub name: String,
    /// What is in it.
    pub content: Bytes,
}

/// The parts of a body whose content type is `content_type`.
///
/// # Errors
/// [`ErrorKind::UnsupportedMediaType`], where the type names no boundary; [`ErrorKind::InvalidType`], where the body does not keep to it.
pub fn parse(content_type: &str, body: &Bytes) -> Result<Vec<Part>> {
    let boundary = boundary(content_type).ok_or_else(|| {
        Error::new(
            ErrorKind::UnsupportedMediaType,
            format!("the content type {:?} names no boundary", truncate_for_display(content_type)),
        )
    })?;
    let delimiter = format!("--{boundary}");
    let missing = || broken("does not begin with its boundary");
    let mut at = find(body, delimiter.as_bytes(), 0).ok_or_else(missing)? + delimiter.len();
    let next = format!("\r\n{delimiter}");
    let mut parts = vec![];
    while !body[at..].starts_with(b"--") {
        if parts.len() == MOST_PARTS {
            return Err(broken(&format!("has more than {MOST_PARTS} parts")));
        }
        let end = find(body, next.as_bytes(), at).ok_or_else(|| broken("breaks off before its last boundary"))?;
        parts.push(part(body.slice(at..end))?);
        at = end + next.len();
    }
    Ok(parts)
}

/// Headers, an empty line and the content.
fn part(bytes: Bytes) -> Result<Part> {
    const GAP: &[u8] = b"\r\n\r\n";
    let gap = find(&bytes, GAP, 0).ok_or_else(|| broken("has a part without headers"))?;
    let headers = String::from_utf8_lossy(&bytes[..gap]);
    let disposition = headers.lines().find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"));
    let name = disposition.and_then(|line| parameter(line, "name"));
    let name = name.ok_or_else(|| broken("has a part without a name"))?;
    Ok(Part { name, content: bytes.slice(gap + GAP.len()..) })
}

fn boundary(content_type: &str) -> Option<String> {
    let is_form = content_type.trim_start().to_ascii_lowercase().starts_with("multipart/form-data");
    is_form.then(|| parameter(content_type, "boundary")).flatten().filter(|b| !b.is_empty() && b.len() <= 70)
}

/// The value of `name=value` or `name="value"` behind a semicolon.
fn parameter(line: &str, name: &str) -> Option<String> {
    let mut rest = line;
    while let Some((_, behind)) = rest.split_once(';') {
        rest = behind.trim_start();
        let Some((key, value)) = rest.split_once('=') else { continue };
        if !key.trim().eq_ignore_ascii_case(name) {
            // A value in quotes may hold a semicolon.
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

fn find(bytes: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    let first = *wanted.first()?;
    let mut at = from;
    loop {
        // The search for one byte is the fast one.
        at += bytes.get(at..)?.iter().position(|b| *b == first)?;
        if bytes[at..].starts_with(wanted) {
            return Some(at);
        }
        at += 1;
    }
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::InvalidType, format!("the form {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=\"a;b\"";

    fn parsed(body: &str) -> Result<Vec<(String, String)>> {
        let parts = parse(TYPE, &Bytes::from(body.to_string()))?;
        Ok(parts.into_iter().map(|p| (p.name, String::from_utf8_lossy(&p.content).into_owned())).collect())
    }

    #[test]
    fn fields_and_files_are_parts() {
        let body = "preamble\r\n--a;b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--a;b\r\n\
                    content-type: audio/wav\r\ncontent-disposition: form-data; filename=\"a; name=b\"; name=file\r\n\r\n\
                    RIFF\r\n--a\r\n\r\n--a;b--\r\n";
        let expected = [("model", "whisper-1"), ("file", "RIFF\r\n--a\r\n")];
        assert_eq!(parsed(body).unwrap(), expected.map(|(n, c)| (n.to_string(), c.to_string())));
        assert!(parsed("--a;b--").unwrap().is_empty());
    }

    #[test]
    fn broken_forms_are_refused() {
        for (body, word) in [
            ("", "boundary"),
            ("--b\r\n", "boundary"),
            ("--a;b", "breaks off"),
            ("--a;b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\nabc", "breaks off"),
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
