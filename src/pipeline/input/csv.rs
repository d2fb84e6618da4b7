//! Documents of tables in text: <https://www.rfc-editor.org/rfc/rfc4180>.

use super::{Document, Entry, MOST_BYTES, Stream, too_large, unread};
use serde_json::value::to_raw_value;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Read;
use std::rc::Rc;
use tealight_core::{Error, ErrorKind, Result};

/// Documents of a table: a column `text`, perhaps one `id`, and others, which are metadata as texts; empty cells are none.
pub fn table<'a>(reader: impl Read + 'a, delimiter: u8) -> Stream<'a> {
    let left = Rc::new(Cell::new(MOST_BYTES));
    let reader = Bounded { reader, left: left.clone() };
    let mut rows = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(reader);
    let mut columns = match header(&mut rows) {
        Ok(columns) => Some(columns),
        Err(error) => return Box::new(std::iter::once(Err(error))),
    };
    let mut number = 0;
    Box::new(std::iter::from_fn(move || {
        number += 1;
        left.set(MOST_BYTES);
        let mut record = csv::StringRecord::new();
        match rows.read_record(&mut record) {
            Ok(false) => None,
            Ok(true) => columns.as_ref().map(|c| Ok(Entry { number, document: document(c, &record) })),
            Err(error) if error.is_io_error() => {
                columns.take()?;
                Some(Err(source_error(error).with_context(format_args!("row {number}"))))
            }
            // A row of another length, or text that is not UTF-8.
            Err(error) => columns.as_ref().map(|_| Ok(Entry { number, document: Err(shape(&error)) })),
        }
    }))
}

/// Stops a row that goes on for ever, as behind a quote that is not closed.
struct Bounded<R> {
    reader: R,
    left: Rc<Cell<usize>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left.get() == 0 {
            return Err(std::io::Error::other(too_large()));
        }
        let n = self.reader.read(buffer)?;
        self.left.set(self.left.get().saturating_sub(n));
        Ok(n)
    }
}

fn header<R: Read>(rows: &mut csv::Reader<R>) -> Result<Vec<String>> {
    let header =
        rows.headers().map_err(|error| if error.is_io_error() { source_error(error) } else { shape(&error) })?;
    let names: Vec<_> = header.iter().map(|name| name.trim_start_matches('\u{feff}').to_string()).collect();
    match names.iter().any(|name| name == "text") {
        true => Ok(names),
        false => {
            let names = super::truncate_for_display(&names.join(", "));
            Err(Error::new(ErrorKind::InvalidType, format!("the table has no column text, but {names}"))
                .with_param("text"))
        }
    }
}

fn document(columns: &[String], record: &csv::StringRecord) -> Result<Document> {
    let mut document = Document::of("");
    let mut metadata = BTreeMap::new();
    for (column, cell) in columns.iter().zip(record) {
        match column.as_str() {
            _ if cell.is_empty() => {}
            "text" => document.text = cell.to_string(),
            "id" => document.id = Some(to_raw_value(cell).map_err(|e| shape(&e))?),
            _ => drop(metadata.insert(column, cell)),
        }
    }
    if !metadata.is_empty() {
        document.metadata = Some(to_raw_value(&metadata).map_err(|e| shape(&e))?);
    }
    document.checked()
}

fn shape(error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidType, format!("not a row of the table: {error}"))
}

fn source_error(error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => unread(error),
        _ => Error::internal("an error of a table's source is none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_wrong_does_not_end_the_table() {
        let text =
            "\u{feff}id,text,year\n7,\"one, \"\"two\"\"\nlines\",1961\n8,short\n,\"no id\",\n9,,1962\nx,last,1963\n";
        let found: Vec<_> = table(text.as_bytes(), b',').map(|entry| entry.unwrap()).collect();
        let texts: Vec<_> =
            found.iter().map(|e| e.document.as_ref().map(|d| d.text.as_str()).map_err(|e| e.kind)).collect();
        let expected =
            [Ok("one, \"two\"\nlines"), Err(ErrorKind::InvalidType), Ok("no id"), Err(ErrorKind::Empty), Ok("last")];
        assert_eq!(texts, expected);
        let first = found[0].document.as_ref().unwrap();
        assert_eq!(first.name().unwrap(), "7");
        assert_eq!(first.metadata.as_ref().unwrap().get(), "{\"year\":\"1961\"}");
        assert!(found[2].document.as_ref().unwrap().metadata.is_none());
        assert_eq!(found.iter().map(|e| e.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_table_without_texts_and_a_quote_without_end_are_refused() {
        let refused = |text: &str| table(text.as_bytes(), b',').next().unwrap().unwrap_err();
        assert!(refused("id,txt\n1,2\n").message.contains("id, txt"));
        assert!(refused("").message.contains("text"));
        let endless = format!("text\n\"{}", "x".repeat(MOST_BYTES + (1 << 20)));
        let error = table(endless.as_bytes(), b',').find_map(Result::err).unwrap();
        assert_eq!(error.kind, ErrorKind::BodyTooLarge);
    }
}
