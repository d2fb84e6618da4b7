//! Atomic writes.

use crate::{Error, Result};
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes a file under a temporary name in the same folder, then renames it, keeping the mode of what was there. What is
/// there and no file, such as a pipe or a device, is written to as it is.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    // The target of a link, so that the link stays one.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let there = path.metadata().ok();
    let written = match there {
        Some(there) if !there.is_file() => std::fs::OpenOptions::new().write(true).open(path).and_then(|file| {
            let mut out = BufWriter::new(file);
            write(&mut out)?;
            out.flush()
        }),
        there => write_and_rename(path, there.map(|t| t.permissions()), write),
    };
    written.map_err(|e| Error::io("write", path, e))
}

fn write_and_rename(
    path: &Path,
    mode: Option<std::fs::Permissions>,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let temporary = path.with_added_extension(format!("part-{}", std::process::id()));
    let written = std::fs::File::create(&temporary).and_then(|file| {
        if let Some(mode) = mode {
            file.set_permissions(mode)?;
        }
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        out.into_inner()?.sync_all()?;
        std::fs::rename(&temporary, path)
    });
    written.inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}
