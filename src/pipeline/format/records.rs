//! Records: whole documents, each with one vector, as JSON or a NumPy matrix.

use super::encoding::{Encoded, VectorEncoding};
use super::formats::Format;
use super::npy;
use super::output::{flush, write_error, write_line};
use serde::Serialize;
use serde_json::value::RawValue;
use std::io::Write;
use tealight_core::{Error, Result};

/// A document with its vector.
#[derive(Debug, Serialize)]
pub struct Record {
    /// Any JSON; raw, so that numbers keep all their digits.
    pub id: Box<RawValue>,
    /// The text that was embedded, without the prompt.
    pub text: String,
    /// A JSON object; omitted if the document has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
    /// In the encoding that was requested.
    pub embedding: Encoded,
    /// For `int8` and `uint8` embeddings: value = scale × code, or scale × (code − 128).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
}

/// Writes records: JSON Lines one by one, other formats at the end.
pub struct RecordWriter<'a> {
    out: &'a mut dyn Write,
    format: Format,
    pending: Vec<Record>,
}

impl std::fmt::Debug for RecordWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecordWriter of {}", self.format.as_str())
    }
}

impl<'a> RecordWriter<'a> {
    /// `format` must be one for which [`Format::is_record`] is true.
    pub fn new(out: &'a mut dyn Write, format: Format) -> Self {
        Self { out, format, pending: vec![] }
    }

    /// Writes or buffers records. Returns false if the reader has closed the pipe.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::Io`].
    pub fn push(&mut self, records: Vec<Record>) -> Result<bool> {
        if self.format != Format::Jsonl {
            self.pending.extend(records);
            return Ok(true);
        }
        for record in &records {
            if !write_line(self.out, &to_json(record)?)? {
                return Ok(false);
            }
        }
        flush(self.out)
    }

    /// Writes what is buffered. `dimension` is needed for the shape of a matrix without rows.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::Io`].
    pub fn finish(self, dimension: usize, encoding: VectorEncoding) -> Result<()> {
        let Self { out, format, pending } = self;
        match format {
            Format::Jsonl => Ok(()),
            Format::Json => {
                let records = pending.iter().map(to_json).collect::<Result<Vec<_>>>()?;
                write_line(out, &format!("[{}]", records.join(",\n"))).map(drop)
            }
            Format::Npy => {
                let columns = match encoding {
                    VectorEncoding::Binary | VectorEncoding::Ubinary => dimension.div_ceil(8),
                    _ => dimension,
                };
                let rows: Vec<_> = pending.into_iter().map(|record| record.embedding).collect();
                npy::write(out, &rows, columns, encoding).map_err(write_error)
            }
            other => Err(Error::internal(format!("{} is not a format of records", other.as_str()))),
        }
    }
}

fn to_json(record: &Record) -> Result<String> {
    serde_json::to_string(record).map_err(|e| Error::internal(format!("cannot serialize a record: {e}")))
}
