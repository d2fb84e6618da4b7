//! The JSON files of Hugging Face model folders.

use serde_json::Value;
use std::path::Path;
use tealight_core::{Error, Result};

/// The content of a JSON file, or `None` if there is no such file.
pub(crate) fn read_json(path: &Path) -> Result<Option<Value>> {
    match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path, e)),
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| Error::invalid_model(format!("{} is not JSON: {e}", path.display()))),
    }
}

/// The content of a JSON file that must exist.
pub(crate) fn require_json(path: &Path) -> Result<Value> {
    read_json(path)?.ok_or_else(|| Error::invalid_model(format!("{} is missing", path.display())))
}
