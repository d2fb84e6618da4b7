//! Memory-mapped files.
#![allow(unsafe_code)]

use crate::{Error, Result};
use bytes::Bytes;
use std::path::Path;

/// Maps a file for reading. Its pages are loaded when they are first read and shared with other processes that map the file.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io): the file cannot be opened, read or mapped.
/// [`ErrorKind::ModelLoad`](crate::ErrorKind::ModelLoad): the file is empty, which cannot be mapped. Most mapped files are models;
/// callers that map other files may replace this kind.
pub fn map_file(path: &Path) -> Result<Bytes> {
    let file = std::fs::File::open(path).map_err(|e| Error::io("open", path, e))?;
    let length = file.metadata().map_err(|e| Error::io("read", path, e))?.len();
    if length == 0 {
        return Err(Error::invalid_model(format!("{}: the file is empty", path.display())));
    }
    // SAFETY: the mapping is private and read-only, and lives as long as the `Bytes` that owns it. Reading it would fault if
    // another process truncated the file meanwhile. tealight never changes models and indexes in place: `write_atomic` writes a new
    // file and renames it.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io("map", path, e))?;
    Ok(Bytes::from_owner(map))
}
