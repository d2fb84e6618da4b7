//! Documents from CSV and TSV files: <https://www.rfc-editor.org/rfc/rfc4180>.

use super::numbered_document::{DocumentIter, NumberedDocument, read_error, too_large};
use crate::pipeline::document::{Document, MAX_DOCUMENT_BYTES};
use serde_json::value::to_raw_value;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Read;
use std::rc::Rc;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Reads one document per row. The header must have a column `text` and may have `id`; all other columns become metadata, as
/// strings. Empty cells are skipped.
pub fn read_csv<'a>(reader: impl Read + 'a, delimiter: u8) -> DocumentIter<'a> {
    let remaining = Rc::new(Cell::new(MAX_DOCUMENT_BYTES));
    let reader = LimitedReader { reader, remaining: remaining.clone() };
    let mut rows = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(reader);
    let mut columns = match read_header(&mut rows) {
        Ok(columns) => Some(columns),
        Err(error) => return Box::new(std::iter::once(Err(error))),
    };
    let mut number = 0;
    Box::new(std::iter::from_fn(move || {
        number += 1;
        remaining.set(MAX_DOCUMENT_BYTES);
        let mut record = csv::StringRecord::new();
        match rows.read_record(&mut record) {
            Ok(false) => None,
            Ok(true) => columns.as_ref().map(|c| Ok(NumberedDocument { number, document: parse_row(c, &record) })),
            Err(error) if error.is_io_error() => {
                columns.take()?;
                Some(Err(csv_read_error(error).with_context(format_args!("row {number}"))))
            }
            // The row has a different number of columns than the header, or is not UTF-8.
            Err(error) => columns.as_ref().map(|_| Ok(NumberedDocument { number, document: Err(invalid_row(&error)) })),
        }
    }))
}

/// Limits the size of a row, which is unbounded after an unclosed quote.
struct LimitedReader<R> {
    reader: R,
    remaining: Rc<Cell<usize>>,
}

impl<R: Read> Read for LimitedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.remaining.get() == 0 {
            return Err(std::io::Error::other(too_large()));
        }
        let n = self.reader.read(buffer)?;
        self.remaining.set(self.remaining.get().saturating_sub(n));
        Ok(n)
    }
}

fn read_header<R: Read>(rows: &mut csv::Reader<R>) -> Result<Vec<String>> {
    let header = rows
        .headers()
        .map_err(|error| if error.is_io_error() { csv_read_error(error) } else { invalid_row(&error) })?;
    let names: Vec<_> = header.iter().map(|name| name.trim_start_matches('\u{feff}').to_string()).collect();
    if names.iter().any(|name| name == "text") {
        return Ok(names);
    }
    let names = truncate_for_display(&names.join(", "));
    Err(Error::new(ErrorKind::InvalidType, format!("the table has no column \"text\"; its columns are {names}"))
        .with_param("text"))
}

fn parse_row(columns: &[String], record: &csv::StringRecord) -> Result<Document> {
    let mut document = Document::from_text("");
    let mut metadata = BTreeMap::new();
    for (column, cell) in columns.iter().zip(record) {
        match column.as_str() {
            _ if cell.is_empty() => {}
            "text" => document.text = cell.to_string(),
            "id" => document.id = Some(to_raw_value(cell).map_err(|e| invalid_row(&e))?),
            _ => drop(metadata.insert(column, cell)),
        }
    }
    if !metadata.is_empty() {
        document.metadata = Some(to_raw_value(&metadata).map_err(|e| invalid_row(&e))?);
    }
    document.validate()
}

fn invalid_row(error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidType, format!("invalid row: {error}"))
}

fn csv_read_error(error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => read_error(error),
        _ => Error::internal("expected an I/O error from the CSV reader"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_row_does_not_end_iteration() {
        let text =
            "\u{feff}id,text,year\n7,\"one, \"\"two\"\"\nlines\",1961\n8,short\n,\"no id\",\n9,,1962\nx,last,1963\n";
        let found: Vec<_> = read_csv(text.as_bytes(), b',').map(Result::unwrap).collect();
        let texts: Vec<_> =
            found.iter().map(|e| e.document.as_ref().map(|d| d.text.as_str()).map_err(|e| e.kind)).collect();
        let expected =
            [Ok("one, \"two\"\nlines"), Err(ErrorKind::InvalidType), Ok("no id"), Err(ErrorKind::Empty), Ok("last")];
        assert_eq!(texts, expected);
        let first = found[0].document.as_ref().unwrap();
        assert_eq!(first.id_or_hash().unwrap(), "7");
        assert_eq!(first.metadata.as_ref().unwrap().get(), "{\"year\":\"1961\"}");
        assert!(found[2].document.as_ref().unwrap().metadata.is_none());
        assert_eq!(found.iter().map(|e| e.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn missing_text_column_and_unclosed_quote_are_rejected() {
        let error_of = |text: &str| read_csv(text.as_bytes(), b',').next().unwrap().unwrap_err();
        assert!(error_of("id,txt\n1,2\n").message.contains("id, txt"));
        assert!(error_of("").message.contains("text"));
        let endless = format!("text\n\"{}", "x".repeat(MAX_DOCUMENT_BYTES + (1 << 20)));
        let error = read_csv(endless.as_bytes(), b',').find_map(Result::err).unwrap();
        assert_eq!(error.kind, ErrorKind::BodyTooLarge);
    }
}
