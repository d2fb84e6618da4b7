//! Atomic writes.

use crate::{Error, Result};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes a file under a temporary name in the same folder, then renames it, so that readers see either the old file or the whole
/// new one. An existing file keeps its permissions. A path that exists and is not a regular file, such as a pipe or a
/// device, is written to directly.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io), with the path; the temporary file is then removed.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    // Write to the target of a symbolic link, so that the link is not replaced by a file.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let result = match path.metadata() {
        Ok(existing) if !existing.is_file() => OpenOptions::new().write(true).open(path).and_then(|file| {
            let mut out = BufWriter::new(file);
            write(&mut out)?;
            out.flush()
        }),
        existing => write_and_rename(path, existing.ok().map(|m| m.permissions()), write),
    };
    result.map_err(|e| Error::io("write", path, e))
}

fn write_and_rename(
    path: &Path,
    permissions: Option<Permissions>,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let temporary = path.with_added_extension(format!("part-{}", std::process::id()));
    let result = File::create(&temporary).and_then(|file| {
        if let Some(permissions) = permissions {
            file.set_permissions(permissions)?;
        }
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        out.into_inner()?.sync_all()?;
        std::fs::rename(&temporary, path)
    });
    result.inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}
