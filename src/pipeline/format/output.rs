//! Writing to stdout and files, where a closed pipe is not an error.

use std::io::Write;
use tealight_core::{Error, ErrorKind, Result};

/// Writes a line. Returns false if the reader has closed the pipe.
///
/// # Errors
/// [`ErrorKind::Io`].
pub fn write_line(out: &mut dyn Write, text: &str) -> Result<bool> {
    ignore_broken_pipe(writeln!(out, "{text}"))
}

/// Writes bytes and flushes them. Returns false if the reader has closed the pipe.
///
/// # Errors
/// [`ErrorKind::Io`].
pub fn write_bytes(out: &mut dyn Write, bytes: &[u8]) -> Result<bool> {
    Ok(ignore_broken_pipe(out.write_all(bytes))? && flush(out)?)
}

/// Flushes buffered output. Returns false if the reader has closed the pipe.
///
/// # Errors
/// [`ErrorKind::Io`].
pub fn flush(out: &mut dyn Write) -> Result<bool> {
    ignore_broken_pipe(out.flush())
}

fn ignore_broken_pipe(result: std::io::Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(write_error(e)),
    }
}

/// Output could not be written.
pub(crate) fn write_error(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, format!("cannot write: {error}"))
}
