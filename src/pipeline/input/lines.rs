//! Documents from lines: JSON Lines, and plain text with one document per line.

use super::numbered_document::{DocumentIter, NumberedDocument, not_utf8, read_error, too_large};
use super::text::BYTE_ORDER_MARK;
use crate::pipeline::document::{Document, MAX_DOCUMENT_BYTES};
use std::io::BufRead;
use tealight_core::{Error, ErrorKind, Result};

/// Reads one JSON document per line. Blank lines are skipped.
pub fn read_json_lines<'a>(reader: impl BufRead + 'a) -> DocumentIter<'a> {
    map_lines(reader, |line| (!line.is_blank()).then(|| line.parse(|bytes| Document::parse(&bytes))))
}

/// Reads one document per line: a line that is a JSON object is parsed as a document, any other line is a text. A line that starts
/// like a document but is not valid JSON is a text too, because source code may look like that; `on_invalid_json` is called for it,
/// to warn.
pub fn read_lines<'a>(
    reader: impl BufRead + 'a,
    on_invalid_json: impl Fn(&serde_json::Error) + 'a,
) -> DocumentIter<'a> {
    let parse = move |bytes: Vec<u8>| {
        let line = String::from_utf8(bytes).map_err(|e| not_utf8(e.utf8_error()))?;
        let start = line.trim_start();
        if start.starts_with('{') {
            match serde_json::from_str::<serde::de::IgnoredAny>(&line) {
                Ok(_) => return Document::parse(line.as_bytes()),
                Err(error) if start.starts_with("{\"") => on_invalid_json(&error),
                Err(_) => {}
            }
        }
        if line.is_empty() {
            return Err(Error::new(ErrorKind::Empty, "the text is empty").with_param("text"));
        }
        Ok(Document::from_text(line))
    };
    map_lines(reader, move |line| Some(line.parse(&parse)))
}

struct Line {
    number: usize,
    bytes: Result<Vec<u8>>,
}

impl Line {
    fn is_blank(&self) -> bool {
        self.bytes.as_ref().is_ok_and(|bytes| bytes.trim_ascii().is_empty())
    }

    fn parse(self, parse: impl FnOnce(Vec<u8>) -> Result<Document>) -> NumberedDocument {
        NumberedDocument { number: self.number, document: self.bytes.and_then(parse) }
    }
}

/// Calls `parse` for each line; lines for which it returns `None` are skipped.
fn map_lines<'a>(
    mut reader: impl BufRead + 'a,
    parse: impl Fn(Line) -> Option<NumberedDocument> + 'a,
) -> DocumentIter<'a> {
    let (mut number, mut is_finished) = (0, false);
    Box::new(std::iter::from_fn(move || {
        while !is_finished {
            number += 1;
            let bytes = match read_line(&mut reader) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return None,
                Err(error) => {
                    is_finished = true;
                    return Some(Err(read_error(error).with_context(format_args!("line {number}"))));
                }
            };
            let bytes = bytes.map(|bytes| match bytes.strip_prefix(BYTE_ORDER_MARK) {
                Some(rest) if number == 1 => rest.to_vec(),
                _ => bytes,
            });
            if let Some(document) = parse(Line { number, bytes }) {
                return Some(Ok(document));
            }
        }
        None
    }))
}

/// The next line without its line break, or `None` at the end. A line above [`MAX_DOCUMENT_BYTES`] is skipped without buffering it.
fn read_line(reader: &mut impl BufRead) -> std::io::Result<Option<Result<Vec<u8>>>> {
    let (mut bytes, mut is_too_large, mut has_line) = (vec![], false, false);
    loop {
        let buffer = match reader.fill_buf() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        if buffer.is_empty() {
            break;
        }
        has_line = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        if bytes.len() + part.len() > MAX_DOCUMENT_BYTES {
            (is_too_large, bytes) = (true, vec![]);
        }
        if !is_too_large {
            bytes.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            break;
        }
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    Ok(has_line.then(|| if is_too_large { Err(too_large()) } else { Ok(bytes) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::input::read_all;
    use std::io::Read;
    use tealight_core::ErrorKind;

    /// A line number with the id and text, or the error.
    type Found = (usize, Result<(String, String), ErrorKind>);

    fn entries(stream: DocumentIter) -> Vec<Found> {
        let entry = |entry: Result<NumberedDocument>| {
            let NumberedDocument { number, document } = entry.unwrap();
            (number, document.map(|d| (d.id_or_hash().unwrap(), d.text)).map_err(|e| e.kind))
        };
        stream.map(entry).collect()
    }

    #[test]
    fn invalid_line_does_not_end_iteration() {
        let text = "\u{feff}{\"id\": 1, \"text\": \"a\"}\r\n\n{\"id\": 1.50, \"text\": \"b\", \"metadata\": {\"x\": null}}\n\
            {\"text\": \"\"}\n{\"text\": 1}\nnot JSON\n{\"text\": \"c\", \"txt\": 1}\n{\"id\": [1], \"text\": \"c\"}\n\
            {\"text\": \"c\", \"metadata\": 3}\n{\"id\": \"z\", \"text\": \"last\"}";
        let ok = |id: &str, text: &str| Ok((id.to_string(), text.to_string()));
        let expected = [
            (1, ok("1", "a")),
            (3, ok("1.50", "b")),
            (4, Err(ErrorKind::Empty)),
            (5, Err(ErrorKind::InvalidType)),
            (6, Err(ErrorKind::InvalidType)),
            (7, Err(ErrorKind::InvalidType)),
            (8, Err(ErrorKind::InvalidValue)),
            (9, Err(ErrorKind::InvalidType)),
            (10, ok("z", "last")),
        ];
        assert_eq!(entries(read_json_lines(text.as_bytes())), expected);
    }

    #[test]
    fn oversized_line_is_rejected_and_next_line_is_read() {
        let mut text = "{\"text\": \"a\"}\n".to_string();
        text.push_str(&"x".repeat(MAX_DOCUMENT_BYTES + 1));
        text.push_str("\n{\"id\": \"b\", \"text\": \"b\"}\n");
        let found = entries(read_json_lines(text.as_bytes()));
        assert_eq!(found[1], (2, Err(ErrorKind::BodyTooLarge)));
        assert_eq!(found[2], (3, Ok(("b".into(), "b".into()))));
        assert_eq!(entries(read_all(text.as_bytes(), None)), [(1, Err(ErrorKind::BodyTooLarge))]);
    }

    #[test]
    fn read_error_ends_iteration() {
        struct Broken(usize);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let text = b"{\"text\": \"a\"}\n";
                match std::mem::replace(&mut self.0, 1) {
                    0 => {
                        buffer[..text.len()].copy_from_slice(text);
                        Ok(text.len())
                    }
                    _ => Err(std::io::Error::other(Error::new(ErrorKind::Upstream, "gone"))),
                }
            }
        }
        let found: Vec<_> = read_json_lines(std::io::BufReader::new(Broken(0))).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].as_ref().unwrap_err().kind, ErrorKind::Upstream);
    }
}
