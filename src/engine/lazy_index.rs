//! The configured built-in index, opened when it is first used.

use super::job::Engine;
use crate::aws::s3::S3Location;
use crate::config::Config;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tealight_core::{Deadline, Error, ErrorKind, Result, truncate_for_display};
use tealight_index::Index;

/// Timeout of the download of an index from S3, if the deadline is later.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(300);
/// Where Lambda extracts layers.
const LAYER: &str = "/opt";

/// The index that `TEALIGHT_INDEX` names, once it is open. The lock is held while the index is being opened, so that concurrent
/// requests wait for it.
#[derive(Debug, Default)]
pub struct LazyIndex(Mutex<Option<Arc<Index>>>);

impl LazyIndex {
    /// The index, if it is open; never waits.
    pub fn peek(&self) -> Option<Arc<Index>> {
        self.0.try_lock().ok()?.clone()
    }

    /// The index. The first call opens it, after downloading it if it is in S3.
    pub fn get_or_open(&self, config: &Config, deadline: Deadline) -> Result<Arc<Index>> {
        let mut opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = &*opened {
            return Ok(index.clone());
        }
        let name = config.index.as_deref().ok_or_else(|| {
            let message = "no search index; set TEALIGHT_INDEX to a file or s3://BUCKET/KEY";
            Error::new(ErrorKind::IndexNotFound, message)
        })?;
        let path = if name.starts_with("s3://") {
            download(name, deadline)?
        } else {
            find_file(name, config.task_root.as_deref())?
        };
        Ok(opened.insert(Arc::new(Index::open(&path)?)).clone())
    }
}

impl Engine {
    /// The configured index, if it is open; never waits.
    pub fn index_if_open(&self) -> Option<Arc<Index>> {
        self.index.peek()
    }

    /// The configured index. The first call opens it, after downloading it if it is in S3.
    ///
    /// # Errors
    /// [`IndexNotFound`](tealight_core::ErrorKind::IndexNotFound), [`IndexLoad`](tealight_core::ErrorKind::IndexLoad), or the
    /// errors of [`S3Location::get`](crate::aws::s3::S3Location::get).
    pub fn index(&self, deadline: Deadline) -> Result<Arc<Index>> {
        self.index.get_or_open(&self.config, deadline)
    }
}

/// Looks for a file relative to the working directory, in the function's package and in its layers.
fn find_file(name: &str, package: Option<&Path>) -> Result<PathBuf> {
    let folders = std::iter::once(Path::new("")).chain(package).chain([Path::new(LAYER)]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        let name = truncate_for_display(name);
        let message = format!(
            "TEALIGHT_INDEX: {name:?} was found neither in the working directory, nor in the function's package, nor in {LAYER}"
        );
        Error::new(ErrorKind::IndexNotFound, message)
    })
}

/// Downloads an index from S3 to the temporary folder.
fn download(uri: &str, deadline: Deadline) -> Result<PathBuf> {
    let location = S3Location::parse(uri, &[uri.to_string()], "TEALIGHT_INDEX")?;
    let bytes = location.get(deadline.remaining(DOWNLOAD_TIMEOUT), "TEALIGHT_INDEX")?;
    let path = std::env::temp_dir().join(format!("tealight-{}.tlx", std::process::id()));
    std::fs::write(&path, &bytes).map_err(|e| Error::io("write", &path, e))?;
    Ok(path)
}
