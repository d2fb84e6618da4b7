//! The input of `tealight index`: documents from files, folders and stdin, and the rows that they become.

use super::super::input::file_documents;
use crate::engine::Engine;
use crate::pipeline::chunk::Chunking;
use crate::pipeline::document;
use crate::pipeline::embed::EmbedDocuments;
use crate::pipeline::input::{InputFormat, NumberedDocument};
use crate::pipeline::point::Point;
use serde::Deserialize;
use serde_json::value::to_raw_value;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result};
use tealight_index::IndexDocument;

/// Separates a document's id from the number of the chunk in the id of a row.
const CHUNK_SEPARATOR: char = '#';
/// The byte order mark, which some editors put at the start of a file.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// The metadata field of a chunk that holds the id of its document.
const DOCUMENT_ID: &str = "document_id";

/// A document, and its vector if the input has one.
#[derive(Debug, Clone)]
pub(super) struct InputDocument {
    pub document: IndexDocument,
    pub vector: Option<Vec<f32>>,
    /// The model that computed the vector, if the input names it.
    pub model: Option<String>,
}

/// A row of an index: a document or a chunk of one.
#[derive(Debug)]
pub(super) struct IndexRow {
    pub document: IndexDocument,
    pub vector: Vec<f32>,
}

type Documents<'a> = Box<dyn Iterator<Item = Result<InputDocument>> + 'a>;

/// The documents of files, of text and table files in folders, and of stdin (`-`). A document without an id gets its line number as
/// id, after the name of the file unless the only input is a file.
///
/// # Errors
/// A file or folder cannot be read, or a folder contains no documents.
pub(super) fn read_documents<'a>(inputs: &[PathBuf], engine: &'a Engine) -> Result<Documents<'a>> {
    let mut files = vec![];
    for input in inputs {
        if input.is_dir() {
            add_folder(input, &mut files)?;
        } else {
            files.push(InputFile { path: input.clone(), may_be_blank: false });
        }
    }
    let is_only_file = matches!(inputs, [input] if !input.is_dir());
    let documents = move |file: InputFile| -> Documents<'a> {
        let may_be_blank = file.may_be_blank;
        match file.documents(is_only_file, engine) {
            Ok(documents) if may_be_blank => Box::new(documents.filter(|document| !is_blank(document))),
            Ok(documents) => documents,
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    };
    Ok(Box::new(files.into_iter().flat_map(documents)))
}

/// A file, or `-` for stdin.
struct InputFile {
    path: PathBuf,
    /// Whether a file without text is skipped, as a blank note in a folder is.
    may_be_blank: bool,
}

fn is_blank(document: &Result<InputDocument>) -> bool {
    document.as_ref().is_err_and(|error| error.kind == ErrorKind::Empty)
}

/// Adds the text and table files in a folder and its subfolders, sorted by path. Skips hidden files, and audio files, which would
/// take hours.
fn add_folder(folder: &Path, files: &mut Vec<InputFile>) -> Result<()> {
    let (mut folders, mut found) = (vec![folder.to_path_buf()], vec![]);
    while let Some(folder) = folders.pop() {
        let read_error = |e| Error::io("read", &folder, e);
        for entry in folder.read_dir().map_err(read_error)? {
            let path = entry.map_err(read_error)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            if path.is_dir() {
                // A symbolic link to a folder could lead to a cycle.
                if !path.is_symlink() {
                    folders.push(path);
                }
                continue;
            }
            let format = InputFormat::from_file_name(&name).ok().filter(|format| *format != InputFormat::Audio);
            found.extend(format.map(|format| InputFile { path, may_be_blank: format == InputFormat::Text }));
        }
    }
    if found.is_empty() {
        let message = format!(
            "{} contains no documents; expected files ending in jsonl, csv, tsv, parquet, txt or md",
            folder.display()
        );
        return Err(Error::new(ErrorKind::Empty, message));
    }
    found.sort_by(|a: &InputFile, b| a.path.cmp(&b.path));
    files.extend(found);
    Ok(())
}

impl InputFile {
    fn documents<'a>(self, is_only_file: bool, engine: &'a Engine) -> Result<Documents<'a>> {
        let is_stdin = self.path == Path::new("-");
        let source = InputSource { file: (!is_stdin).then(|| self.path.display().to_string()), is_only_file };
        match InputFormat::from_file_name(&self.path.to_string_lossy()) {
            // Only lines of JSON may have embeddings.
            Ok(format) if format != InputFormat::JsonLines => {
                let documents = file_documents(&self.path, Some(format), engine)?;
                Ok(Box::new(documents.map(move |numbered| source.convert_document(numbered))))
            }
            // Files with an unknown extension are read as lines of JSON.
            _ => {
                let lines = lines(Some(&self.path))?.enumerate();
                let is_blank_line =
                    |(_, line): &(usize, Result<String>)| line.as_ref().is_ok_and(|line| line.trim().is_empty());
                let lines = lines.filter(move |line| !is_blank_line(line));
                Ok(Box::new(lines.map(move |(i, line)| source.parse_line(i + 1, line))))
            }
        }
    }
}

/// Where a document comes from, for its id and for errors.
struct InputSource {
    /// `None` for stdin.
    file: Option<String>,
    is_only_file: bool,
}

impl InputSource {
    /// The id of a document that has none.
    fn default_id(&self, number: usize) -> String {
        match &self.file {
            Some(file) if !self.is_only_file => format!("{file}:{number}"),
            _ => number.to_string(),
        }
    }

    fn with_file(&self, error: Error) -> Error {
        match &self.file {
            Some(file) => error.with_context(file),
            None => error,
        }
    }

    fn parse_line(&self, number: usize, line: Result<String>) -> Result<InputDocument> {
        let document = line.and_then(|line| parse_line(&line, || self.default_id(number)));
        document.map_err(|e| self.with_file(e.with_context(format_args!("line {number}"))))
    }

    fn convert_document(&self, numbered: Result<NumberedDocument>) -> Result<InputDocument> {
        let NumberedDocument { number, document } = numbered.map_err(|e| self.with_file(e))?;
        let document = document.and_then(|document| convert(document, || self.default_id(number)));
        let document = document.map_err(|e| self.with_file(e.with_context(format_args!("document {number}"))))?;
        Ok(InputDocument { document, vector: None, model: None })
    }
}

/// A line of JSON: a document, or a point that `tealight embed` wrote.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<Value>,
    #[serde(default)]
    text: String,
    #[serde(default)]
    metadata: Map<String, Value>,
    embedding: Option<Vec<f32>>,
    document_id: Option<Value>,
    chunk: Option<Value>,
    start: Option<Value>,
    end: Option<Value>,
    model: Option<String>,
}

fn parse_line(line: &str, default_id: impl FnOnce() -> String) -> Result<InputDocument> {
    let line: Line =
        serde_json::from_str(line).map_err(|e| Error::new(ErrorKind::InvalidType, format!("not a document: {e}")))?;
    let id = match line.id {
        None => default_id(),
        Some(Value::String(id)) => id,
        Some(Value::Number(id)) => id.to_string(),
        Some(other) => return Err(Error::invalid_value("id", format!("id is {other}; expected a string or a number"))),
    };
    if line.text.trim().is_empty() && line.embedding.is_none() {
        return Err(Error::new(ErrorKind::Empty, "document has no text"));
    }
    let fields = [(DOCUMENT_ID, line.document_id), ("chunk", line.chunk), ("start", line.start), ("end", line.end)];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let metadata = add_chunk_fields(line.metadata, fields)?;
    let document = IndexDocument { id, text: line.text, metadata };
    Ok(InputDocument { document, vector: line.embedding, model: line.model })
}

/// Adds the fields of a chunk to the metadata of its document.
fn add_chunk_fields(
    mut metadata: Map<String, Value>,
    fields: impl Iterator<Item = (&'static str, Value)>,
) -> Result<Map<String, Value>> {
    for (name, value) in fields {
        if metadata.insert(name.into(), value).is_some() {
            let message = format!("metadata field {name:?} is reserved for chunks of documents");
            return Err(Error::new(ErrorKind::InvalidType, message).with_param("metadata"));
        }
    }
    Ok(metadata)
}

fn convert(document: document::Document, default_id: impl FnOnce() -> String) -> Result<IndexDocument> {
    let id = if document.id.is_some() { document.id_or_hash()? } else { default_id() };
    let invalid =
        |e| Error::new(ErrorKind::InvalidType, format!("metadata is not a JSON object: {e}")).with_param("metadata");
    let metadata: Option<Option<_>> =
        document.metadata.map(|json| serde_json::from_str(json.get())).transpose().map_err(invalid)?;
    Ok(IndexDocument { id, text: document.text, metadata: metadata.flatten().unwrap_or_default() })
}

/// Embeds documents with the engine's model. A document that is longer than a chunk becomes one row per chunk.
///
/// # Errors
/// As [`EmbedDocuments`]; the error names the document.
pub(super) fn embed_documents(
    engine: &Engine,
    documents: Vec<IndexDocument>,
    chunking: Chunking,
    dimension: usize,
) -> Result<Vec<Vec<IndexRow>>> {
    let text_only = |document: &IndexDocument| {
        let id = to_raw_value(&document.id).map_err(|e| Error::internal(format!("cannot serialize an id: {e}")))?;
        Ok(document::Document { id: Some(id), text: document.text.clone(), metadata: None })
    };
    let texts = documents.iter().map(text_only).collect::<Result<_>>()?;
    let job = EmbedDocuments { model: None, documents: texts, chunking, dimensions: Some(dimension), prompt: None };
    let points = engine.run(job, Deadline::NONE)?.points;
    let document_rows = |(document, points): (IndexDocument, Result<Vec<Point>>)| {
        let id = document.id.clone();
        points.and_then(|points| rows(document, points)).map_err(|e| e.with_context(format_args!("document {id:?}")))
    };
    documents.into_iter().zip(points).map(document_rows).collect()
}

/// The rows of a document from the points of its chunks. A document in a single chunk keeps its id.
fn rows(document: IndexDocument, points: Vec<Point>) -> Result<Vec<IndexRow>> {
    let chunk = |point: Point| {
        let fields = [
            (DOCUMENT_ID, Value::from(document.id.clone())),
            ("chunk", point.chunk_index.into()),
            ("start", point.start.into()),
            ("end", point.end.into()),
        ];
        let metadata = add_chunk_fields(document.metadata.clone(), fields.into_iter())?;
        let id = format!("{}{CHUNK_SEPARATOR}{}", document.id, point.chunk_index);
        Ok(IndexRow { document: IndexDocument { id, text: point.text, metadata }, vector: point.vector })
    };
    match <[Point; 1]>::try_from(points) {
        Ok([point]) => Ok(vec![IndexRow { document, vector: point.vector }]),
        Err(points) => points.into_iter().map(chunk).collect(),
    }
}

/// The id of the document that a row belongs to: the row's own, or for a chunk that of its document.
pub(super) fn document_id(row: &IndexDocument) -> &str {
    let id = row.metadata.get(DOCUMENT_ID).and_then(Value::as_str);
    let is_chunk_of = |id: &&str| {
        let number = row.id.strip_prefix(*id).and_then(|rest| rest.strip_prefix(CHUNK_SEPARATOR));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    id.filter(is_chunk_of).unwrap_or(&row.id)
}

/// The lines of a file or of stdin, without a byte order mark.
fn lines(path: Option<&Path>) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    let reader: Box<dyn BufRead> = match path {
        Some(path) if path != Path::new("-") => {
            let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
            Box::new(BufReader::new(file))
        }
        _ => Box::new(std::io::stdin().lock()),
    };
    Ok(reader.lines().enumerate().map(|(i, line)| {
        let mut line = line.map_err(|e| Error::new(ErrorKind::Io, format!("line {}: {e}", i + 1)))?;
        if i == 0 && line.starts_with(BYTE_ORDER_MARK) {
            line.remove(0);
        }
        Ok(line)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(id: &str, metadata: Value) -> IndexDocument {
        let Value::Object(metadata) = metadata else { panic!("{metadata}") };
        IndexDocument { id: id.into(), text: String::new(), metadata }
    }

    #[test]
    fn document_id_of_chunk_is_the_id_of_its_document() {
        for (id, metadata, expected) in [
            ("a#0", json!({"document_id": "a"}), "a"),
            ("a#b#12", json!({"document_id": "a#b"}), "a#b"),
            ("a#0", json!({}), "a#0"),
            ("a#x", json!({"document_id": "a"}), "a#x"),
            ("b", json!({"document_id": "a"}), "b"),
            ("a#0", json!({"document_id": 1}), "a#0"),
        ] {
            assert_eq!(document_id(&row(id, metadata)), expected);
        }
    }

    #[test]
    fn point_written_by_embed_is_a_document() {
        let line = json!({"id": "u", "document_id": "a", "chunk": 1, "text": "x", "start": 0, "end": 1, "model": "m",
                          "metadata": {"year": 1}, "embedding": [1.0]});
        let InputDocument { document, vector, model } = parse_line(&line.to_string(), || unreachable!()).unwrap();
        assert_eq!((vector, model.as_deref()), (Some(vec![1.0]), Some("m")));
        assert_eq!(
            Value::Object(document.metadata),
            json!({"year": 1, "document_id": "a", "chunk": 1, "start": 0, "end": 1})
        );
        let reserved = json!({"text": "x", "chunk": 1, "metadata": {"chunk": 2}}).to_string();
        assert!(parse_line(&reserved, || "1".into()).unwrap_err().message.contains("chunk"));
    }
}
