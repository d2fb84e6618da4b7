//! Points in columns: an Arrow IPC stream or a Parquet file.

use super::encoding::VectorEncoding;
use super::formats::Format;
use super::metadata;
use super::output::write_error;
use super::stores::pack_bits;
use crate::pipeline::point::Point;
use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array, Int32Array, RecordBatch, StringArray, UInt8Array};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use tealight_core::Result;

/// Rows per record batch.
const BATCH_ROWS: usize = 1024;

/// Writes points with the columns `id`, `document_id`, `chunk`, `text`, `start`, `end`, `model`, `metadata` (JSON) and `vector`, a
/// list of D floats, or of D / 8 bytes if the encoding is binary.
pub struct ColumnarWriter<'a> {
    format: Format,
    encoding: VectorEncoding,
    out: &'a mut dyn Write,
    buffer: SharedBuffer,
    writer: Option<Writer>,
    rows: Vec<Point>,
}

enum Writer {
    Arrow(Box<StreamWriter<SharedBuffer>>),
    Parquet(Box<ArrowWriter<SharedBuffer>>),
}

/// Encoded bytes that are not written yet. The Parquet writer requires an output that is `Send`.
#[derive(Clone, Default)]
struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

impl SharedBuffer {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for SharedBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for ColumnarWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ColumnarWriter of {}", self.format.as_str())
    }
}

impl<'a> ColumnarWriter<'a> {
    /// A writer without rows; writes nothing yet.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::InvalidValue`]: the format does not support the encoding.
    pub fn new(format: Format, encoding: VectorEncoding, out: &'a mut dyn Write) -> Result<Self> {
        format.check_encoding(encoding)?;
        Ok(Self { format, encoding, out, buffer: SharedBuffer::default(), writer: None, rows: vec![] })
    }

    /// Adds points and writes complete record batches.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::InvalidValue`]: a value is not finite; [`tealight_core::ErrorKind::Io`].
    pub fn push(&mut self, points: Vec<Point>) -> Result<()> {
        points.iter().try_for_each(|point| self.format.check_vector(&point.vector, self.encoding))?;
        self.rows.extend(points);
        if self.rows.len() >= BATCH_ROWS { self.flush() } else { Ok(()) }
    }

    /// Writes the remaining rows and the end of the file. `dimension` is needed for the schema of a table without rows.
    ///
    /// # Errors
    /// [`tealight_core::ErrorKind::Io`].
    pub fn finish(mut self, dimension: usize) -> Result<()> {
        self.flush()?;
        self.start(dimension)?;
        match self.writer.take() {
            Some(Writer::Arrow(mut writer)) => writer.finish().map_err(write_error)?,
            Some(Writer::Parquet(writer)) => writer.close().map(drop).map_err(write_error)?,
            None => {}
        }
        self.drain()
    }

    fn flush(&mut self) -> Result<()> {
        let Some(dimension) = self.rows.first().map(|point| point.vector.len()) else { return Ok(()) };
        self.start(dimension)?;
        let batch = record_batch(&std::mem::take(&mut self.rows), self.encoding, dimension)?;
        match &mut self.writer {
            Some(Writer::Arrow(writer)) => writer.write(&batch).map_err(write_error)?,
            Some(Writer::Parquet(writer)) => writer.write(&batch).map_err(write_error)?,
            None => {}
        }
        self.drain()
    }

    fn drain(&mut self) -> Result<()> {
        self.out.write_all(&self.buffer.take()).map_err(write_error)
    }

    /// Writes the schema, which depends on the dimension.
    fn start(&mut self, dimension: usize) -> Result<()> {
        if self.writer.is_some() {
            return Ok(());
        }
        let out = self.buffer.clone();
        let schema = schema(self.encoding, dimension);
        self.writer = Some(match self.format {
            Format::Parquet => Writer::Parquet(Box::new(ArrowWriter::try_new(out, schema, None).map_err(write_error)?)),
            _ => Writer::Arrow(Box::new(StreamWriter::try_new(out, &schema).map_err(write_error)?)),
        });
        Ok(())
    }
}

fn schema(encoding: VectorEncoding, dimension: usize) -> Arc<Schema> {
    let (item, length) = vector_type(encoding, dimension);
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let number = |name: &str| Field::new(name, DataType::Int32, false);
    Arc::new(Schema::new(vec![
        text("id"),
        text("document_id"),
        number("chunk"),
        text("text"),
        number("start"),
        number("end"),
        text("model"),
        text("metadata"),
        Field::new("vector", DataType::FixedSizeList(item, length), false),
    ]))
}

fn vector_type(encoding: VectorEncoding, dimension: usize) -> (Arc<Field>, i32) {
    let item = |kind| Arc::new(Field::new("item", kind, true));
    match encoding {
        VectorEncoding::Binary => (item(DataType::UInt8), dimension.div_ceil(8) as i32),
        _ => (item(DataType::Float32), dimension as i32),
    }
}

fn record_batch(rows: &[Point], encoding: VectorEncoding, dimension: usize) -> Result<RecordBatch> {
    let text =
        |of: &dyn Fn(&Point) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(of))) };
    let number = |of: fn(&Point) -> usize| -> ArrayRef {
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|point| of(point) as i32)))
    };
    let values: ArrayRef = match encoding {
        VectorEncoding::Binary => {
            Arc::new(UInt8Array::from_iter_values(rows.iter().flat_map(|point| pack_bits(&point.vector))))
        }
        _ => Arc::new(Float32Array::from_iter_values(rows.iter().flat_map(|point| point.vector.iter().copied()))),
    };
    let (item, length) = vector_type(encoding, dimension);
    let vectors = FixedSizeListArray::try_new(item, length, values, None).map_err(write_error)?;
    let columns = vec![
        text(&|point| point.id.to_string()),
        text(&|point| point.document.document_id.clone()),
        number(|point| point.chunk_index),
        text(&|point| point.text.clone()),
        number(|point| point.start),
        number(|point| point.end),
        text(&|point| point.document.model.clone()),
        text(&metadata::metadata_json),
        Arc::new(vectors),
    ];
    RecordBatch::try_new(schema(encoding, dimension), columns).map_err(write_error)
}
