//! Documents from Parquet files: <https://parquet.apache.org/docs/file-format/>.

use super::numbered_document::{DocumentIter, NumberedDocument, read_error};
use crate::pipeline::document::Document;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, FileReader};
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::record::reader::RowIter;
use serde_json::value::to_raw_value;
use serde_json::{Map, Value};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Reads one document per row. There must be a column `text` and may be `id`; all other columns become metadata.
/// Row groups are read one by one, so that a large file does not have to fit into memory.
pub fn read_parquet<'a, R: ChunkReader + 'static>(file: R) -> DocumentIter<'a> {
    let mut rows = match catch_panics(|| open(file)) {
        Ok(rows) => Some(rows),
        Err(error) => return Box::new(std::iter::once(Err(error))),
    };
    let mut number = 0;
    Box::new(std::iter::from_fn(move || {
        number += 1;
        let row =
            catch_panics(|| rows.as_mut()?.next().map(|row| row.map_err(read_parquet_error)).transpose().transpose());
        match row {
            None => None,
            Some(Ok(row)) => match row.to_json_value() {
                Value::Object(row) => Some(Ok(NumberedDocument { number, document: parse_row(row) })),
                _ => Some(Ok(NumberedDocument { number, document: Err(invalid_file("a row is not an object")) })),
            },
            Some(Err(error)) => {
                rows = None;
                Some(Err(error.with_context(format_args!("row {number}"))))
            }
        }
    }))
}

fn open<R: ChunkReader + 'static>(file: R) -> Result<RowIter<'static>> {
    let reader = SerializedFileReader::new(file).map_err(read_parquet_error)?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let names: Vec<_> = schema.root_schema().get_fields().iter().map(|field| field.name().to_string()).collect();
    if !names.iter().any(|name| name == "text") {
        return Err(invalid_file(&format!(
            "the file has no column \"text\"; its columns are {}",
            truncate_for_display(&names.join(", "))
        ))
        .with_param("text"));
    }
    Ok(RowIter::from_file_into(Box::new(reader)))
}

/// The library panics on some corrupt files; this makes the panic an error.
fn catch_panics<T: FromError>(work: impl FnOnce() -> T) -> T {
    let corrupt = || T::from_error(invalid_file("the file is corrupt"));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| corrupt())
}

trait FromError {
    fn from_error(error: Error) -> Self;
}

impl<T> FromError for Result<T> {
    fn from_error(error: Error) -> Self {
        Err(error)
    }
}

impl<T> FromError for Option<Result<T>> {
    fn from_error(error: Error) -> Self {
        Some(Err(error))
    }
}

fn parse_row(mut row: Map<String, Value>) -> Result<Document> {
    let text = match row.remove("text") {
        Some(Value::String(text)) => text,
        Some(Value::Null) | None => String::new(),
        Some(_) => return Err(invalid_file("the column \"text\" does not contain strings").with_param("text")),
    };
    row.retain(|_, value| !value.is_null());
    let raw = |value: &Value| to_raw_value(value).map_err(|e| invalid_file(&e.to_string()));
    let id = row.remove("id").as_ref().map(raw).transpose()?;
    let metadata = if row.is_empty() { None } else { Some(raw(&Value::Object(row))?) };
    Document { id, text, metadata }.validate()
}

fn invalid_file(what: &str) -> Error {
    Error::new(ErrorKind::InvalidType, format!("invalid Parquet file: {what}"))
}

/// The [`Error`] inside a Parquet error if one of this crate's readers produced it, otherwise an error about the file.
fn read_parquet_error(error: ParquetError) -> Error {
    match error {
        ParquetError::External(error) => match error.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(error) => match error.downcast::<std::io::Error>() {
                Ok(error) => read_error(*error),
                Err(error) => invalid_file(&error.to_string()),
            },
        },
        error => invalid_file(&error.to_string()),
    }
}
