//! Input of commands: documents of files.

use crate::engine::{Engine, JobContext, LoadTimer};
use crate::pipeline::input::recording_documents;
use crate::pipeline::input::{self, DocumentIter, InputFormat};
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use tealight_core::mmap::map_file;
use tealight_core::{Deadline, Error, Result};

/// Documents of a file of this format; without a format, one document per line, which is a text or JSON.
pub(super) fn file_documents<'a>(
    path: &Path,
    format: Option<InputFormat>,
    engine: &Engine,
) -> Result<DocumentIter<'a>> {
    // With its folder, because files of the same name in two folders are two documents.
    let name = path.to_string_lossy().into_owned();
    if format == Some(InputFormat::Audio) {
        let job_context = JobContext { engine, deadline: Deadline::NONE, load_timer: &LoadTimer::default() };
        let audio = map_file(path)?;
        let segments =
            recording_documents(&job_context, &name, || Ok(audio)).map_err(|e| e.with_context(path.display()))?;
        return Ok(input::from_iter(segments.into_iter().map(Ok)));
    }
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    match format {
        Some(InputFormat::Csv(delimiter)) => Ok(input::read_csv(file, delimiter)),
        #[cfg(feature = "arrow")]
        Some(InputFormat::Parquet) => Ok(input::read_parquet(file)),
        #[cfg(not(feature = "arrow"))]
        Some(InputFormat::Parquet) => {
            Err(Error::feature_disabled(tealight_core::ErrorKind::InvalidValue, "Parquet", "arrow"))
        }
        Some(InputFormat::Text) => Ok(input::read_all(file, Some(name))),
        Some(InputFormat::JsonLines) => Ok(input::read_json_lines(BufReader::new(file))),
        _ => Ok(input::read_lines(BufReader::new(file), warn_not_a_document)),
    }
}

/// Warns that a line starts like a JSON document but is embedded as text.
pub(super) fn warn_not_a_document(error: &serde_json::Error) {
    let _ = writeln!(
        std::io::stderr(),
        "tealight: warning: a line looks like JSON but is invalid; it is read as text: {error}"
    );
}
