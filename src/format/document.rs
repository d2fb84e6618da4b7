//! Documents with their vectors, as files and indexes take them.

use super::{Encoded, Encoding, npy};
use crate::error::{Error, Kind, Result};
use serde::Serialize;
use serde_json::value::RawValue;
use std::io::Write;

/// A document that has a vector.
#[derive(Debug, Serialize)]
pub struct Point {
    /// Any JSON, as the source has it: numbers keep their digits.
    pub id: Box<RawValue>,
    /// What the vector is of.
    pub text: String,
    /// What else is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
    /// The vector.
    pub embedding: Encoded,
    /// For int8 and uint8: value = scale × code, or scale × (code − 128).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
}

/// How points are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A list.
    Json,
    /// One a line.
    Jsonl,
    /// The vectors alone, as a NumPy matrix.
    Npy,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 3] = [Format::Json, Format::Jsonl, Format::Npy];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Jsonl => "jsonl",
            Format::Npy => "npy",
        }
    }

    /// The format of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Refuses an encoding that has no place in it.
    ///
    /// # Errors
    /// [`Kind::InvalidValue`].
    pub fn check(self, encoding: Encoding) -> Result<()> {
        match (self, encoding) {
            (Format::Npy, Encoding::Base64) => {
                Err(Error::value("encoding", "base64 has no place in a NumPy matrix; float is the same values"))
            }
            _ => Ok(()),
        }
    }
}

/// Writes points as they come, where the format can.
pub struct Writer<'a> {
    out: &'a mut dyn Write,
    format: Format,
    kept: Vec<Point>,
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer of {}", self.format.name())
    }
}

impl<'a> Writer<'a> {
    /// Writes to `out`.
    pub fn new(out: &'a mut dyn Write, format: Format) -> Self {
        Self { out, format, kept: vec![] }
    }

    /// Writes points; false where nobody reads on.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn push(&mut self, points: Vec<Point>) -> Result<bool> {
        if self.format != Format::Jsonl {
            self.kept.extend(points);
            return Ok(true);
        }
        for point in &points {
            if !line(self.out, &json(point)?)? {
                return Ok(false);
            }
        }
        flush(self.out)
    }

    /// Ends; `dimension` is that of the vectors, of which there may be none.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub fn finish(self, dimension: usize, encoding: Encoding) -> Result<()> {
        let Self { out, format, kept } = self;
        match format {
            Format::Jsonl => Ok(()),
            Format::Json => {
                let records = kept.iter().map(json).collect::<Result<Vec<_>>>()?;
                line(out, &format!("[{}]", records.join(",\n"))).map(drop)
            }
            Format::Npy => {
                let columns = match encoding {
                    Encoding::Binary | Encoding::Ubinary => dimension.div_ceil(8),
                    _ => dimension,
                };
                let rows: Vec<_> = kept.into_iter().map(|point| point.embedding).collect();
                npy::write(out, &rows, columns, encoding).map_err(unwritten)
            }
        }
    }
}

/// Writes a line; false where nobody reads on.
///
/// # Errors
/// [`Kind::Io`].
pub fn line(out: &mut dyn Write, text: &str) -> Result<bool> {
    written(writeln!(out, "{text}"))
}

/// Passes on what was written, for whoever waits for it; false where nobody reads on.
///
/// # Errors
/// [`Kind::Io`].
pub fn flush(out: &mut dyn Write) -> Result<bool> {
    written(out.flush())
}

fn written(outcome: std::io::Result<()>) -> Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(unwritten(e)),
    }
}

fn unwritten(error: std::io::Error) -> Error {
    Error::new(Kind::Io, format!("cannot write: {error}"))
}

fn json(point: &Point) -> Result<String> {
    serde_json::to_string(point).map_err(|e| Error::internal(format!("a result is not JSON: {e}")))
}
