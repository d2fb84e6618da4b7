//! Output to stdout and to files.

use serde::Serialize;
use std::io::Write;
use std::path::Path;
use tealight_core::files::write_atomic;
use tealight_core::{Error, ErrorKind, Result};

/// Writes to stdout. A closed pipe, as with `| head`, is not an error.
pub(super) fn print(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(ErrorKind::Io, format!("cannot write to stdout: {e}")))
        }
        _ => Ok(()),
    }
}

/// One line of JSON, without a line break.
pub(super) fn json_line(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::internal(format!("result cannot be serialized: {e}")))
}

/// Calls `write` with a file or stdout. If it fails, no file is left.
pub(super) fn write_output(path: Option<&Path>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut outcome = Ok(());
    let written = match path {
        None => print(|out| {
            outcome = write(out);
            Ok(())
        }),
        Some(path) => write_atomic(path, |out| {
            outcome = write(out);
            // Reported as `outcome`, not as a failure to write the file.
            if outcome.is_ok() { Ok(()) } else { Err(std::io::Error::other("aborted")) }
        }),
    };
    outcome.and(written)
}
