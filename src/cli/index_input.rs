//! What `tealight index` reads: documents of files, folders and stdin, and the rows of an index that they become.

use super::input::{file_documents, lines};
use crate::engine::Engine;
use crate::pipeline::chunk::Chunking;
use crate::pipeline::document;
use crate::pipeline::embed::EmbedDocuments;
use crate::pipeline::input::{self as documents, InputFormat};
use crate::pipeline::point::Point;
use serde::Deserialize;
use serde_json::value::to_raw_value;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use tealight_core::Deadline;
use tealight_core::{Error, ErrorKind, Result};
use tealight_index::Document;

/// Stands between a document's id and the number of its part, where it has several.
const PART: char = '#';
/// What the metadata of a part says of where it is from.
const DOCUMENT_ID: &str = "document_id";

/// A document, and its vector where the input has one.
pub(super) type Given = (Document, Option<Vec<f32>>);
/// A row of an index.
pub(super) type Row = (Document, Vec<f32>);
type Documents<'a> = Box<dyn Iterator<Item = Result<Given>> + 'a>;

/// Documents of files, of the texts and tables below folders, and of stdin, which `-` stands for. One without an id is named by its
/// line; where there are several files, or may be, behind the name of its own.
///
/// # Errors
/// A file or folder cannot be read, or a folder has nothing that can be.
pub(super) fn read<'a>(inputs: &[PathBuf], engine: &'a Engine) -> Result<Documents<'a>> {
    let mut files = vec![];
    for input in inputs {
        match input.is_dir() {
            true => add_folder(input, &mut files)?,
            false => files.push(Input { path: input.clone(), may_be_blank: false }),
        }
    }
    let is_one = matches!(inputs, [one] if !one.is_dir());
    let documents = move |input: Input| -> Documents<'a> {
        let may_be_blank = input.may_be_blank;
        match input.documents(is_one, engine) {
            Ok(documents) if may_be_blank => Box::new(documents.filter(|given| !is_blank(given))),
            Ok(documents) => documents,
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    };
    Ok(Box::new(files.into_iter().flat_map(documents)))
}

/// A file, or stdin.
struct Input {
    path: PathBuf,
    /// A note of a folder: one that is begun and has no word yet stops nothing.
    may_be_blank: bool,
}

fn is_blank(given: &Result<Given>) -> bool {
    given.as_ref().is_err_and(|error| error.kind == ErrorKind::Empty)
}

/// Adds the texts and tables below a folder, in the order of their names; nothing hidden, and no recordings, which take hours.
fn add_folder(folder: &Path, files: &mut Vec<Input>) -> Result<()> {
    let (mut folders, mut found) = (vec![folder.to_path_buf()], vec![]);
    while let Some(folder) = folders.pop() {
        let unread = |e| Error::io("read", &folder, e);
        for entry in folder.read_dir().map_err(unread)? {
            let path = entry.map_err(unread)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let format = InputFormat::from_file_name(&name).ok().filter(|format| *format != InputFormat::Audio);
            match path.is_dir() {
                _ if name.starts_with('.') => {}
                // A link to a folder may lead back to where it is.
                true if !path.is_symlink() => folders.push(path),
                true => {}
                false => found.extend(format.map(|format| Input { path, may_be_blank: format == InputFormat::Text })),
            }
        }
    }
    if found.is_empty() {
        let message = format!("{} has no files of documents: jsonl, csv, tsv, parquet, txt or md", folder.display());
        return Err(Error::new(ErrorKind::Empty, message));
    }
    found.sort_by(|a: &Input, b| a.path.cmp(&b.path));
    files.extend(found);
    Ok(())
}

impl Input {
    fn documents<'a>(self, is_one: bool, engine: &'a Engine) -> Result<Documents<'a>> {
        let is_stdin = self.path == Path::new("-");
        let place = Place { file: (!is_stdin).then(|| self.path.display().to_string()), is_one };
        match InputFormat::from_file_name(&self.path.to_string_lossy()) {
            // Lines may have vectors, which no other format has.
            Ok(format) if format != InputFormat::JsonLines => {
                let document = move |entry: Result<documents::SourceDocument>| place.plain(entry);
                Ok(Box::new(file_documents(&self.path, Some(format), engine)?.map(document)))
            }
            // What has no ending that is known is of lines, too.
            _ => {
                let lines = lines(Some(&self.path))?.enumerate();
                let is_some =
                    |(_, line): &(usize, Result<String>)| !line.as_ref().is_ok_and(|line| line.trim().is_empty());
                Ok(Box::new(lines.filter(is_some).map(move |(i, line)| place.line(i + 1, line))))
            }
        }
    }
}

/// Where documents are from.
struct Place {
    /// None of stdin.
    file: Option<String>,
    is_one: bool,
}

impl Place {
    /// The name of a document that has none of its own.
    fn name(&self, number: usize) -> String {
        match &self.file {
            Some(file) if !self.is_one => format!("{file}:{number}"),
            _ => number.to_string(),
        }
    }

    fn told(&self, error: Error) -> Error {
        match &self.file {
            Some(file) => error.with_context(file),
            None => error,
        }
    }

    fn line(&self, number: usize, line: Result<String>) -> Result<Given> {
        let document = line.and_then(|line| of_line(&line, || self.name(number)));
        document.map_err(|e| self.told(e.with_context(format_args!("line {number}"))))
    }

    fn plain(&self, entry: Result<documents::SourceDocument>) -> Result<Given> {
        let documents::SourceDocument { number, document } = entry.map_err(|e| self.told(e))?;
        let document = document.and_then(|document| plain(document, || self.name(number)));
        let document = document.map_err(|e| self.told(e.with_context(format_args!("document {number}"))))?;
        Ok((document, None))
    }
}

/// A line of JSON; also one that `tealight embed` has written of a part of a document.
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
    #[serde(rename = "model")]
    _model: Option<String>,
}

fn of_line(line: &str, name: impl FnOnce() -> String) -> Result<Given> {
    let line: Line =
        serde_json::from_str(line).map_err(|e| Error::new(ErrorKind::InvalidType, format!("not a document: {e}")))?;
    let id = match line.id {
        None => name(),
        Some(Value::String(id)) => id,
        Some(Value::Number(id)) => id.to_string(),
        Some(other) => return Err(Error::invalid_value("id", format!("id is {other}, it must be a text or a number"))),
    };
    if line.text.trim().is_empty() && line.embedding.is_none() {
        return Err(Error::new(ErrorKind::Empty, "the document has no text"));
    }
    let part = [(DOCUMENT_ID, line.document_id), ("chunk", line.chunk), ("start", line.start), ("end", line.end)];
    let part = part.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let metadata = with(line.metadata, part)?;
    Ok((Document { id, text: line.text, metadata }, line.embedding))
}

/// Metadata with what is known of a part besides.
fn with(
    mut metadata: Map<String, Value>,
    part: impl Iterator<Item = (&'static str, Value)>,
) -> Result<Map<String, Value>> {
    for (name, value) in part {
        if metadata.insert(name.into(), value).is_some() {
            let message = format!("metadata has {name:?}, which is what a part of a document says of itself");
            return Err(Error::new(ErrorKind::InvalidType, message).with_param("metadata"));
        }
    }
    Ok(metadata)
}

fn plain(document: document::Document, name: impl FnOnce() -> String) -> Result<Document> {
    let id = if document.id.is_some() { document.id_or_hash()? } else { name() };
    let wrong =
        |e| Error::new(ErrorKind::InvalidType, format!("metadata is not a JSON object: {e}")).with_param("metadata");
    let metadata: Option<Option<_>> =
        document.metadata.map(|json| serde_json::from_str(json.get())).transpose().map_err(wrong)?;
    Ok(Document { id, text: document.text, metadata: metadata.flatten().unwrap_or_default() })
}

/// The rows of documents, with vectors by the engine's model: of one that is longer than a chunk, a row for each of its parts.
///
/// # Errors
/// As of [`EmbedDocuments`]; they name the document.
pub(super) fn embedded(
    engine: &Engine,
    documents: Vec<Document>,
    chunking: Chunking,
    dimension: usize,
) -> Result<Vec<Vec<Row>>> {
    let bare = |document: &Document| {
        let id = to_raw_value(&document.id).map_err(|e| Error::internal(format!("an id is not JSON: {e}")))?;
        Ok(document::Document { id: Some(id), text: document.text.clone(), metadata: None })
    };
    let bare = documents.iter().map(bare).collect::<Result<_>>()?;
    let job = EmbedDocuments { model: None, documents: bare, chunking, dimensions: Some(dimension), prompt: None };
    let points = engine.run(job, Deadline::NONE)?.points;
    let rows = |(document, points): (Document, Result<Vec<Point>>)| {
        let id = document.id.clone();
        points.and_then(|points| rows(document, points)).map_err(|e| e.with_context(format_args!("document {id:?}")))
    };
    documents.into_iter().zip(points).map(rows).collect()
}

fn rows(document: Document, points: Vec<Point>) -> Result<Vec<Row>> {
    let part = |point: Point| {
        let about = [
            (DOCUMENT_ID, Value::from(document.id.clone())),
            ("chunk", point.chunk_index.into()),
            ("start", point.start.into()),
            ("end", point.end.into()),
        ];
        let metadata = with(document.metadata.clone(), about.into_iter())?;
        let id = format!("{}{PART}{}", document.id, point.chunk_index);
        Ok((Document { id, text: point.text, metadata }, point.vector))
    };
    match <[Point; 1]>::try_from(points) {
        Ok([whole]) => Ok(vec![(document, whole.vector)]),
        Err(parts) => parts.into_iter().map(part).collect(),
    }
}

/// The id of the document that a row is of: its own, or that of the document that it is a part of.
pub(super) fn document_of(row: &Document) -> &str {
    let of = row.metadata.get(DOCUMENT_ID).and_then(Value::as_str);
    let is_part = |of: &&str| {
        let number = row.id.strip_prefix(*of).and_then(|rest| rest.strip_prefix(PART));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    of.filter(is_part).unwrap_or(&row.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(id: &str, metadata: Value) -> Document {
        let Value::Object(metadata) = metadata else { panic!("{metadata}") };
        Document { id: id.into(), text: String::new(), metadata }
    }

    #[test]
    fn parts_are_of_their_documents_and_others_are_not() {
        for (id, metadata, of) in [
            ("a#0", json!({"document_id": "a"}), "a"),
            ("a#b#12", json!({"document_id": "a#b"}), "a#b"),
            ("a#0", json!({}), "a#0"),
            ("a#x", json!({"document_id": "a"}), "a#x"),
            ("b", json!({"document_id": "a"}), "b"),
            ("a#0", json!({"document_id": 1}), "a#0"),
        ] {
            assert_eq!(document_of(&row(id, metadata)), of);
        }
    }

    #[test]
    fn a_part_that_embed_has_written_is_a_document() {
        let line = json!({"id": "u", "document_id": "a", "chunk": 1, "text": "x", "start": 0, "end": 1, "model": "m",
                          "metadata": {"year": 1}, "embedding": [1.0]});
        let (document, vector) = of_line(&line.to_string(), || unreachable!()).unwrap();
        assert_eq!(vector, Some(vec![1.0]));
        assert_eq!(
            Value::Object(document.metadata),
            json!({"year": 1, "document_id": "a", "chunk": 1, "start": 0, "end": 1})
        );
        let twice = json!({"text": "x", "chunk": 1, "metadata": {"chunk": 2}}).to_string();
        assert!(of_line(&twice, || "1".into()).unwrap_err().message.contains("chunk"));
    }
}
