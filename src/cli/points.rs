//! `tealight embed --format`, where an index takes the output: documents of a file to points, and those to bodies of requests.

use super::embed::{EmbedArgs, output};
use crate::engine::{Engine, JobContext, LoadTimer};
use crate::pipeline::embed::EmbedDocuments;
#[cfg(feature = "arrow")]
use crate::pipeline::format::columnar::ColumnarWriter;
use crate::pipeline::format::records::write_bytes;
use crate::pipeline::format::{BodyBuilder, Format};
use crate::pipeline::input::{self as documents, Document, DocumentIter, InputFormat};
use crate::pipeline::point::Point;
use crate::pipeline::recording::recording_documents;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use tealight_core::Deadline;
use tealight_core::files::write_atomic;
use tealight_core::mmap::map_file;
use tealight_core::{Error, ErrorKind, Result, truncate_for_display};

/// Documents of one call of the engine.
const GROUP: usize = 256;
/// Bytes of their texts, beyond which no other is added.
const GROUP_BYTES: usize = 256 << 10;
/// Where the number of a body stands in a file name.
const NUMBER: &str = "{}";

/// Takes the points of documents.
trait Taker {
    /// Takes the points of a document, all or none; false where nobody reads on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`]: the index does not take them. Others end the work.
    fn take(&mut self, points: Vec<Point>) -> Result<bool>;
    /// Ends.
    fn finish(&mut self) -> Result<()>;
}

pub(super) fn run(args: &EmbedArgs, engine: &Engine, format: Format) -> Result<()> {
    let builder = || BodyBuilder::new(format, args.encoding.0, args.collection.as_deref());
    match &args.output {
        Some(path) if path.to_string_lossy().contains(NUMBER) && !format.is_file() => {
            convert(args, engine, &mut Bodies { builder: builder()?, write: to_files(path) })
        }
        path => output(path.as_deref(), |out| match format {
            #[cfg(feature = "arrow")]
            Format::Arrow | Format::Parquet => convert(args, engine, &mut Rows::new(args, engine, format, out)?),
            #[cfg(not(feature = "arrow"))]
            Format::Arrow | Format::Parquet => {
                Err(Error::invalid_value("format", "this binary was built without the feature arrow"))
            }
            _ => {
                convert(args, engine, &mut Bodies { builder: builder()?, write: |body: &[u8]| write_bytes(out, body) })
            }
        }),
    }
}

/// Bodies, and where each goes; false where nobody reads on.
struct Bodies<W> {
    builder: BodyBuilder,
    write: W,
}

impl<W: FnMut(&[u8]) -> Result<bool>> Taker for Bodies<W> {
    fn take(&mut self, points: Vec<Point>) -> Result<bool> {
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

/// Writes each body to a file of its own.
fn to_files(path: &Path) -> impl FnMut(&[u8]) -> Result<bool> {
    let mut number = 0;
    move |body| {
        number += 1;
        let name = path.to_string_lossy().replace(NUMBER, &number.to_string());
        write_atomic(Path::new(&name), |out| out.write_all(body)).map(|()| true)
    }
}

/// A table as a whole.
#[cfg(feature = "arrow")]
struct Rows<'a> {
    table: Option<ColumnarWriter<'a>>,
    dimension: usize,
}

#[cfg(feature = "arrow")]
impl<'a> Rows<'a> {
    fn new(args: &EmbedArgs, engine: &Engine, format: Format, out: &'a mut dyn Write) -> Result<Self> {
        let dimension = match args.dimensions {
            Some(dimension) => dimension,
            None => engine.preload()?.model.dimension(),
        };
        Ok(Self { table: Some(ColumnarWriter::new(format, args.encoding.0, out)?), dimension })
    }
}

#[cfg(feature = "arrow")]
impl Taker for Rows<'_> {
    fn take(&mut self, points: Vec<Point>) -> Result<bool> {
        self.table.as_mut().map_or(Ok(()), |table| table.push(points)).map(|()| true)
    }

    fn finish(&mut self) -> Result<()> {
        self.table.take().map_or(Ok(()), |table| table.finish(self.dimension))
    }
}

fn convert(args: &EmbedArgs, engine: &Engine, taker: &mut dyn Taker) -> Result<()> {
    let mut failed = Failed { goes_on: args.keep_going, count: 0 };
    let mut documents = documents(args, engine)?;
    loop {
        let (mut numbers, mut group, mut bytes) = (vec![], vec![], 0);
        while group.len() < GROUP && bytes < GROUP_BYTES {
            let Some(entry) = documents.next() else { break };
            let entry = entry?;
            match entry.document {
                Ok(document) => {
                    bytes += document.text.len();
                    numbers.push(entry.number);
                    group.push(document);
                }
                Err(error) => failed.add(entry.number, None, error)?,
            }
        }
        if group.is_empty() {
            break;
        }
        let names: Vec<_> = group.iter().map(|document| document.id_or_hash().unwrap_or_default()).collect();
        let embedded = engine.run(args.job(group), Deadline::NONE)?;
        for ((number, name), points) in numbers.into_iter().zip(names).zip(embedded.points) {
            match points.and_then(|points| taker.take(points)) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => failed.add(number, Some(name), error)?,
            }
        }
    }
    taker.finish()?;
    failed.end()
}

impl EmbedArgs {
    fn job(&self, documents: Vec<Document>) -> EmbedDocuments {
        EmbedDocuments {
            model: None,
            documents,
            chunking: self.chunking(),
            dimensions: self.dimensions,
            prompt: self.prompt.clone(),
        }
    }
}

/// Documents that have no points.
struct Failed {
    goes_on: bool,
    count: usize,
}

impl Failed {
    /// Tells of one, or ends with it.
    fn add(&mut self, number: usize, name: Option<String>, error: Error) -> Result<()> {
        let is_own = !matches!(
            error.kind,
            ErrorKind::Io | ErrorKind::Internal | ErrorKind::Upstream | ErrorKind::Timeout | ErrorKind::ModelLoad
        );
        if !is_own {
            return Err(error);
        }
        let error = match name {
            Some(name) => error.with_context(format_args!("document {number}, {:?}", truncate_for_display(&name))),
            None => error.with_context(format_args!("line {number}")),
        };
        if !self.goes_on {
            return Err(error);
        }
        self.count += 1;
        let _ = writeln!(std::io::stderr(), "tealight: {error}");
        Ok(())
    }

    fn end(&self) -> Result<()> {
        match self.count {
            0 => Ok(()),
            n => Err(Error::new(ErrorKind::InvalidValue, format!("{n} documents were left out"))),
        }
    }
}

/// Documents of the texts that were given, or of the input by its name.
pub(super) fn documents<'a>(args: &'a EmbedArgs, engine: &'a Engine) -> Result<DocumentIter<'a>> {
    if !args.texts.is_empty() {
        return Ok(documents::from_iter(args.texts.iter().map(|text| Document::from_text(text).validate())));
    }
    let Some(path) = args.input.as_deref().filter(|path| *path != Path::new("-")) else {
        return Ok(documents::read_lines(std::io::stdin().lock(), super::embed::told));
    };
    let format = InputFormat::from_file_name(&path.to_string_lossy()).ok();
    // For vectors alone, lines are texts, whatever the file is called.
    of_file(
        path,
        format.filter(|format| args.are_points() || !matches!(format, InputFormat::JsonLines | InputFormat::Text)),
        engine,
    )
}

/// Documents of a file of this format; without one, of lines that are texts or documents.
pub(super) fn of_file<'a>(path: &Path, format: Option<InputFormat>, engine: &Engine) -> Result<DocumentIter<'a>> {
    // With its folders: notes of one name in two of them are two documents.
    let name = path.to_string_lossy().into_owned();
    if format == Some(InputFormat::Audio) {
        let jobs = JobContext { engine, deadline: Deadline::NONE, load_timer: &LoadTimer::default() };
        let segments =
            recording_documents(&jobs, &name, map_file(path)?).map_err(|e| e.with_context(path.display()))?;
        return Ok(documents::from_iter(segments.into_iter().map(Ok)));
    }
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    match format {
        Some(InputFormat::Csv(delimiter)) => Ok(documents::read_csv(file, delimiter)),
        #[cfg(feature = "arrow")]
        Some(InputFormat::Parquet) => Ok(documents::read_parquet(file)),
        #[cfg(not(feature = "arrow"))]
        Some(InputFormat::Parquet) => {
            Err(Error::invalid_value("input", "this binary was built without the feature arrow, which reads Parquet"))
        }
        Some(InputFormat::Text) => Ok(documents::read_all(file, Some(name))),
        Some(InputFormat::JsonLines) => Ok(documents::read_json_lines(BufReader::new(file))),
        _ => Ok(documents::read_lines(BufReader::new(file), super::embed::told)),
    }
}
