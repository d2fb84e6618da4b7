//! `tealight embed` for a vector database: documents to points, and points to request bodies or tables.

use super::super::output::write_output;
use super::args::EmbedArgs;
use super::documents::documents;
use crate::engine::Engine;
use crate::pipeline::document::Document;
use crate::pipeline::embed::EmbedDocuments;
#[cfg(feature = "arrow")]
use crate::pipeline::format::columnar::ColumnarWriter;
use crate::pipeline::format::output::write_bytes;
use crate::pipeline::format::{BodyBuilder, Format};
use crate::pipeline::point::Point;
use std::io::Write;
use std::path::Path;
use tealight_core::Deadline;
use tealight_core::files::write_atomic;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Maximum documents per embedding job.
const JOB_DOCUMENTS: usize = 256;
/// Bytes of text after which a job is full. It bounds the memory of a job; unlike a batch for a sink, it need not be small, because
/// embedding does not overlap with writing here.
const JOB_BYTES: usize = 256 << 10;
/// Placeholder in a file name for the number of the request body.
const PLACEHOLDER: &str = "{}";

/// Writes the points of documents.
trait PointWriter {
    /// Writes all points of a document, or none. False if the reader of stdout is gone.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`]: the vector database does not accept the points. Other errors are fatal.
    fn write(&mut self, points: Vec<Point>) -> Result<bool>;
    /// Writes what is buffered.
    fn finish(&mut self) -> Result<()>;
}

pub(super) fn run(args: &EmbedArgs, engine: &Engine, format: Format) -> Result<()> {
    let builder = || BodyBuilder::new(format, args.encoding.0, args.collection.as_deref());
    match &args.output {
        Some(path) if path.to_string_lossy().contains(PLACEHOLDER) && !format.is_file() => {
            convert(args, engine, &mut BodyWriter { builder: builder()?, write: numbered_files(path) })
        }
        path => write_output(path.as_deref(), |out| match format {
            #[cfg(feature = "arrow")]
            Format::Arrow | Format::Parquet => convert(args, engine, &mut TableWriter::new(args, engine, format, out)?),
            #[cfg(not(feature = "arrow"))]
            Format::Arrow | Format::Parquet => {
                Err(Error::feature_disabled(ErrorKind::InvalidValue, "Arrow and Parquet", "arrow"))
            }
            _ => convert(
                args,
                engine,
                &mut BodyWriter { builder: builder()?, write: |body: &[u8]| write_bytes(out, body) },
            ),
        }),
    }
}

/// Packs points into request bodies and passes them to `write`, which returns false if the reader is gone.
struct BodyWriter<W> {
    builder: BodyBuilder,
    write: W,
}

impl<W: FnMut(&[u8]) -> Result<bool>> PointWriter for BodyWriter<W> {
    fn write(&mut self, points: Vec<Point>) -> Result<bool> {
        let items = points.iter().map(|point| self.builder.encode(point)).collect::<Result<Vec<_>>>()?;
        for item in items {
            if let Some(body) = self.builder.push(item)
                && !(self.write)(&body)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn finish(&mut self) -> Result<()> {
        self.builder.finish().map_or(Ok(()), |body| (self.write)(&body).map(drop))
    }
}

/// Writes each request body to a numbered file.
fn numbered_files(path: &Path) -> impl FnMut(&[u8]) -> Result<bool> {
    let mut number = 0;
    move |body| {
        number += 1;
        let name = path.to_string_lossy().replace(PLACEHOLDER, &number.to_string());
        write_atomic(Path::new(&name), |out| out.write_all(body)).map(|()| true)
    }
}

/// Writes one Arrow or Parquet table.
#[cfg(feature = "arrow")]
struct TableWriter<'a> {
    table: Option<ColumnarWriter<'a>>,
    dimension: usize,
}

#[cfg(feature = "arrow")]
impl<'a> TableWriter<'a> {
    fn new(args: &EmbedArgs, engine: &Engine, format: Format, out: &'a mut dyn Write) -> Result<Self> {
        let dimension = match args.dimensions {
            Some(dimension) => dimension,
            None => engine.preload()?.model.dimension(),
        };
        Ok(Self { table: Some(ColumnarWriter::new(format, args.encoding.0, out)?), dimension })
    }
}

#[cfg(feature = "arrow")]
impl PointWriter for TableWriter<'_> {
    fn write(&mut self, points: Vec<Point>) -> Result<bool> {
        self.table.as_mut().map_or(Ok(()), |table| table.push(points)).map(|()| true)
    }

    fn finish(&mut self) -> Result<()> {
        self.table.take().map_or(Ok(()), |table| table.finish(self.dimension))
    }
}

fn convert(args: &EmbedArgs, engine: &Engine, writer: &mut dyn PointWriter) -> Result<()> {
    let mut failures = Failures { keep_going: args.keep_going, count: 0 };
    let mut documents = documents(args, engine)?;
    loop {
        let (mut numbers, mut batch, mut bytes) = (vec![], vec![], 0);
        while batch.len() < JOB_DOCUMENTS && bytes < JOB_BYTES {
            let Some(entry) = documents.next() else { break };
            let entry = entry?;
            match entry.document {
                Ok(document) => {
                    bytes += document.text.len();
                    numbers.push(entry.number);
                    batch.push(document);
                }
                Err(error) => failures.add(entry.number, None, error)?,
            }
        }
        if batch.is_empty() {
            break;
        }
        let names: Vec<_> = batch.iter().map(|document| document.id_or_hash().unwrap_or_default()).collect();
        let embedded = engine.run(args.job(batch), Deadline::NONE)?;
        for ((number, name), points) in numbers.into_iter().zip(names).zip(embedded.points) {
            match points.and_then(|points| writer.write(points)) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => failures.add(number, Some(name), error)?,
            }
        }
    }
    writer.finish()?;
    failures.finish()
}

impl EmbedArgs {
    fn job(&self, documents: Vec<Document>) -> EmbedDocuments {
        EmbedDocuments {
            model: None,
            documents,
            chunking: self.chunking(),
            dimensions: self.dimensions,
            prompt: self.prompt_name.clone(),
        }
    }
}

/// Counts documents that failed; the first one ends the command unless --keep-going is set.
struct Failures {
    keep_going: bool,
    count: usize,
}

impl Failures {
    /// Reports a failed document with `--keep-going`; otherwise, or if all documents would fail, returns the error.
    fn add(&mut self, number: usize, name: Option<String>, error: Error) -> Result<()> {
        let is_fatal = matches!(
            error.kind,
            ErrorKind::Io | ErrorKind::Internal | ErrorKind::Upstream | ErrorKind::Timeout | ErrorKind::ModelLoad
        );
        if is_fatal {
            return Err(error);
        }
        let error = match name {
            Some(name) => error.with_context(format_args!("document {number}, {:?}", truncate_for_display(&name))),
            None => error.with_context(format_args!("line {number}")),
        };
        if !self.keep_going {
            return Err(error);
        }
        self.count += 1;
        let _ = writeln!(std::io::stderr(), "tealight: {error}");
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        match self.count {
            0 => Ok(()),
            n => Err(Error::new(ErrorKind::InvalidValue, format!("failed documents: {n}; they were skipped"))),
        }
    }
}
