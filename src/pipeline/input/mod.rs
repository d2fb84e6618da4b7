//! Documents: what has an id, a text and metadata, read one after the other from files and streams.
//!
//! A stream goes on behind a document that is invalid_document; it ends where its source fails.

mod csv;
#[cfg(feature = "arrow")]
mod parquet;

pub use self::csv::read_csv;
#[cfg(feature = "arrow")]
pub use self::parquet::read_parquet;

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::io::{BufRead, Read};
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// The largest document, in bytes as it is read: it is held in memory.
pub const MAX_DOCUMENT_BYTES: usize = 16 << 20;
/// Some editors put it before a text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A document.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// As its source has it: numbers keep their digits.
    #[serde(default)]
    pub id: Option<Box<RawValue>>,
    /// What is embedded.
    pub text: String,
    /// An object: what else is known.
    #[serde(default)]
    pub metadata: Option<Box<RawValue>>,
}

impl Document {
    /// Of a text alone.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self { id: None, text: text.into(), metadata: None }
    }

    /// Of a line or message: a JSON object with these fields and no others.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidType`], which names the field; [`ErrorKind::Empty`].
    pub fn parse(json: &[u8]) -> Result<Self> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let document: Self = serde_path_to_error::deserialize(&mut deserializer)
            .map_err(|e| invalid_document(&e))
            .and_then(|document| deserializer.end().map_err(|e| invalid_document(&e)).map(|()| document))?;
        document.validate()
    }

    /// Refuses what cannot be a point.
    ///
    /// # Errors
    /// As of [`Document::parse`].
    pub fn validate(self) -> Result<Self> {
        if self.text.trim().is_empty() {
            return Err(Error::new(ErrorKind::Empty, "the text of the document is empty").with_param("text"));
        }
        self.id_or_hash()?;
        match &self.metadata {
            Some(metadata) if !metadata.get().starts_with('{') && metadata.get() != "null" => {
                let found = truncate_for_display(metadata.get());
                Err(Error::new(ErrorKind::InvalidType, format!("metadata is {found}, it must be an object"))
                    .with_param("metadata"))
            }
            _ => Ok(self),
        }
    }

    /// What names it wherever it is sent to: its id, or, where it has none, a hash of its text, so that the same document has the
    /// same name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`]: the id is neither a text nor a number.
    pub fn id_or_hash(&self) -> Result<String> {
        let Some(id) = self.id.as_deref().map(RawValue::get).filter(|id| *id != "null") else {
            return Ok(text_hash(&self.text));
        };
        let invalid_document = |what| Error::invalid_value("id", format!("id is {}, {what}", truncate_for_display(id)));
        match id.as_bytes().first() {
            Some(b'"') => match serde_json::from_str::<String>(id) {
                Ok(id) if !id.is_empty() => Ok(id),
                _ => Err(invalid_document("which names nothing")),
            },
            Some(b'-' | b'0'..=b'9') => Ok(id.to_string()),
            _ => Err(invalid_document("it must be a text or a number")),
        }
    }
}

fn invalid_document(error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidType, format!("not a document with a text: {error}")).truncate_message()
}

fn text_hash(text: &str) -> String {
    format!("sha256:{}", short_hash(text))
}

/// The first 16 bytes of the SHA-256 of a text, in hexadecimal: enough to name it by.
pub(crate) fn short_hash(text: &str) -> String {
    let mut hash = format!("{:x}", Sha256::digest(text));
    hash.truncate(32);
    hash
}

/// A document on its way, or what is invalid_document with it.
#[derive(Debug)]
pub struct SourceDocument {
    /// Where it stands in its source: the line or row, from 1.
    pub number: usize,
    /// The document.
    pub document: Result<Document>,
}

/// Documents of a source; an error is the source's own, and the last item.
pub type DocumentIter<'a> = Box<dyn Iterator<Item = Result<SourceDocument>> + 'a>;

/// What a file is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputFormat {
    /// `.jsonl`, `.ndjson`: a document a line.
    JsonLines,
    /// `.csv`, `.tsv`: a document a row, below a header that has `text`, and may have `id`; other columns are metadata.
    Csv(u8),
    /// `.parquet`: the same in columns.
    Parquet,
    /// `.txt`, `.md`: one document.
    Text,
    /// A recording: a document a segment.
    Audio,
}

/// Endings of recordings that are known.
const AUDIO: [&str; 17] = [
    "aac", "aif", "aiff", "caf", "flac", "m4a", "m4b", "mka", "mkv", "mov", "mp3", "mp4", "oga", "ogg", "opus", "wav",
    "webm",
];

impl InputFormat {
    /// The format of a file name or key.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`]: the ending is not known.
    pub fn from_file_name(name: &str) -> Result<Self> {
        let last = name.rsplit('/').next().unwrap_or(name);
        let ending = last.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
        match ending.as_str() {
            "jsonl" | "ndjson" => Ok(InputFormat::JsonLines),
            "csv" => Ok(InputFormat::Csv(b',')),
            "tsv" => Ok(InputFormat::Csv(b'\t')),
            "parquet" => Ok(InputFormat::Parquet),
            "txt" | "md" | "markdown" => Ok(InputFormat::Text),
            ending if AUDIO.contains(&ending) => Ok(InputFormat::Audio),
            _ => {
                let known = "jsonl, ndjson, csv, tsv, parquet, txt, md and recordings";
                Err(Error::invalid_value(
                    "name",
                    format!("{:?} has no ending that is known: {known}", truncate_for_display(last)),
                ))
            }
        }
    }
}

/// Documents of lines; empty lines are passed over.
pub fn read_json_lines<'a>(reader: impl BufRead + 'a) -> DocumentIter<'a> {
    let document = |line: Line| (!line.is_blank()).then(|| line.map(|bytes| Document::parse(&bytes)));
    map_lines(reader, document)
}

/// Lines of which each that is no JSON object is a text; `on_invalid_json` hears of one that begins like a document and is none, as code may.
pub fn read_lines<'a>(
    reader: impl BufRead + 'a,
    on_invalid_json: impl Fn(&serde_json::Error) + 'a,
) -> DocumentIter<'a> {
    let document = move |bytes: Vec<u8>| {
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
    map_lines(reader, move |line| Some(line.map(&document)))
}

/// Documents that are there.
pub fn from_iter<'a>(documents: impl Iterator<Item = Result<Document>> + 'a) -> DocumentIter<'a> {
    Box::new(documents.enumerate().map(|(i, document)| Ok(SourceDocument { number: i + 1, document })))
}

/// The whole of a stream as one document, with this id.
pub fn read_all<'a>(reader: impl Read + 'a, id: Option<String>) -> DocumentIter<'a> {
    let read = move || {
        let mut bytes = vec![];
        reader.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(read_error)?;
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Ok(SourceDocument { number: 1, document: Err(too_large()) });
        }
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
        let id = id.and_then(|id| serde_json::value::to_raw_value(&id).ok());
        let document = |text| Document { id, ..Document::from_text(text) }.validate();
        let document = std::str::from_utf8(bytes).map_err(not_utf8).and_then(document);
        Ok(SourceDocument { number: 1, document })
    };
    Box::new(std::iter::once_with(read))
}

struct Line {
    number: usize,
    bytes: Result<Vec<u8>>,
}

impl Line {
    fn is_blank(&self) -> bool {
        self.bytes.as_ref().is_ok_and(|bytes| bytes.trim_ascii().is_empty())
    }

    fn map(self, document: impl FnOnce(Vec<u8>) -> Result<Document>) -> SourceDocument {
        SourceDocument { number: self.number, document: self.bytes.and_then(document) }
    }
}

fn map_lines<'a>(
    mut reader: impl BufRead + 'a,
    entry: impl Fn(Line) -> Option<SourceDocument> + 'a,
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
            if let Some(entry) = entry(Line { number, bytes }) {
                return Some(Ok(entry));
            }
        }
        None
    }))
}

/// The next line without its end, if there is one; of one that is too large, no more than that is kept.
fn read_line(reader: &mut impl BufRead) -> std::io::Result<Option<Result<Vec<u8>>>> {
    let (mut bytes, mut is_too_large, mut is_there) = (vec![], false, false);
    loop {
        let buffer = match reader.fill_buf() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        if buffer.is_empty() {
            break;
        }
        is_there = true;
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
    Ok(is_there.then(|| if is_too_large { Err(too_large()) } else { Ok(bytes) }))
}

fn too_large() -> Error {
    Error::new(
        ErrorKind::BodyTooLarge,
        format!("the document has more than {MAX_DOCUMENT_BYTES} bytes, which is the limit"),
    )
}

fn not_utf8(error: std::str::Utf8Error) -> Error {
    Error::new(ErrorKind::InvalidType, format!("the text is not UTF-8 from its byte {} on", error.valid_up_to()))
}

/// An error of a source, or the one of ours that it carries.
pub(crate) fn read_error(error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) => Error::new(ErrorKind::Io, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line with what is read of it: name and text.
    type Found = (usize, Result<(String, String), ErrorKind>);

    fn entries(stream: DocumentIter) -> Vec<Found> {
        let entry = |entry: Result<SourceDocument>| {
            let SourceDocument { number, document } = entry.unwrap();
            (number, document.map(|d| (d.id_or_hash().unwrap(), d.text)).map_err(|e| e.kind))
        };
        stream.map(entry).collect()
    }

    #[test]
    fn a_document_that_is_wrong_does_not_end_the_lines() {
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
        assert!(Document::parse(b"{\"text\": \"c\", \"txt\": 1}").unwrap_err().message.contains("txt"));
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let mut text = "{\"text\": \"a\"}\n".to_string();
        text.push_str(&"x".repeat(MAX_DOCUMENT_BYTES + 1));
        text.push_str("\n{\"id\": \"b\", \"text\": \"b\"}\n");
        let found = entries(read_json_lines(text.as_bytes()));
        assert_eq!(found[1], (2, Err(ErrorKind::BodyTooLarge)));
        assert_eq!(found[2], (3, Ok(("b".into(), "b".into()))));
        assert_eq!(entries(read_all(text.as_bytes(), None)), [(1, Err(ErrorKind::BodyTooLarge))]);
    }

    #[test]
    fn the_same_text_without_an_id_has_the_same_name() {
        let name = Document::from_text("hello world").id_or_hash().unwrap();
        // As of `printf 'hello world' | sha256sum`.
        assert_eq!(name, "sha256:b94d27b9934d3e08a52e52d7da7dabfa");
        assert_ne!(name, Document::from_text("hello world!").id_or_hash().unwrap());
    }

    #[test]
    fn a_source_that_fails_ends_the_stream() {
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

    #[test]
    fn endings_tell_what_a_file_is() {
        for (name, format) in [
            ("a/b.JSONL", InputFormat::JsonLines),
            ("b.csv", InputFormat::Csv(b',')),
            ("b.tsv", InputFormat::Csv(b'\t')),
            ("x.parquet", InputFormat::Parquet),
            ("notes.v2.md", InputFormat::Text),
            ("talk.mp3", InputFormat::Audio),
        ] {
            assert_eq!(InputFormat::from_file_name(name).unwrap(), format, "{name}");
        }
        for name in ["x", "x.exe", "jsonl", "", "a.jsonl/", ".."] {
            assert!(InputFormat::from_file_name(name).unwrap_err().message.contains("jsonl"), "{name}");
        }
    }
}
